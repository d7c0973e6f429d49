"""LightningModules of every kind of training, and the tasks that they are given; callbacks and loggers."""

from pamfn.training.baseline_training import BaselineTraining
from pamfn.training.mixed_modality_fusion import MixedModalityFusion
from pamfn.training.tasks import HighlightTask, ScoreTask
from pamfn.training.unimodal_pretraining import UnimodalPretraining

__all__ = ["BaselineTraining", "HighlightTask", "MixedModalityFusion", "ScoreTask", "UnimodalPretraining"]
