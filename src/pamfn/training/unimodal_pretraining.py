"""Stage 1: every modality's branch learns the task alone."""

from pamfn.training.module import TrainingModule


class UnimodalPretraining(TrainingModule):
    """Pretrains one modality's branch; what it learns is where `MixedModalityFusion` begins.

    Source: section III-B of the paper.
    """
