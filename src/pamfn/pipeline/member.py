"""A finished run as one of the networks that score a new video."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from pamfn.config.schema import Config
from pamfn.data.base_datamodule import VideoDataModule
from pamfn.errors import InputError
from pamfn.evaluation.averaging import ENOUGH, Scale
from pamfn.evaluation.metrics import main_metric
from pamfn.models.network import Network
from pamfn.pipeline.build import data_module
from pamfn.pipeline.inputs import Stream
from pamfn.pipeline.reference import Reference, read_reference, reference_of
from pamfn.pipeline.reload import configuration, load_network, with_weights
from pamfn.pipeline.scoring import Scorer
from pamfn.runs.folder import Run
from pamfn.runs.held_out import HeldOut, held_out_of
from pamfn.runs.lookup import ARCHIVE

Weights = Literal["selected", "last"]


@dataclass(frozen=True)
class Member:
    """A run that scores: its network and what it knows of its own training.

    streams: {stream: what it reads}
    scale: points of a score of 1; 1 where clips are scored
    held_out: {weights: its held-out videos, or those of the fold that it tests}; empty where there are none
    reference: None where it has none and its data are not here
    """

    folder: Path
    result: dict[str, Any]
    config: Config
    weights: Weights
    scorer: Scorer
    data: VideoDataModule
    streams: dict[str, Stream]
    scale: float
    held_out: dict[str, HeldOut]
    reference: Reference | None

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def network(self) -> Network:
        """The network, on its device and in evaluation mode."""
        return self.scorer.network

    def own_scale(self, weights: str) -> Scale:
        """Return the scale of this run's predictions: of those held out if they are enough, else of those of training.

        Raises:
            InputError: when there are neither, or they are all equal.
        """
        if weights in self.held_out and len(self.held_out[weights].predicted) >= ENOUGH:
            predicted = self.held_out[weights].predicted
        elif self.reference is not None and weights in self.reference.predicted:
            predicted = self.reference.predicted[weights]
        else:
            raise InputError(
                f"{self.folder}: has neither {ENOUGH} held-out predictions nor those of its training videos, by which "
                "several networks are brought to one scale. Train it again, or with protocol=holdout."
            )
        if not predicted.std() > 0:
            raise InputError(f"{self.folder}: predicts the same for every video. Leave it out.")
        return Scale.of(predicted)


def open_member(folder: Path, weights: Weights, data_dir: str | None, trust: Sequence[str] = ()) -> Member:
    """Open a finished run for scoring.

    Raises:
        InputError: when it is not finished, has no weights, or names code that is not trusted.
    """
    result = with_weights(folder)
    config = configuration(result, data_dir, None, None, trust)
    torch.set_num_threads(config.threads)
    data = data_module(config)
    scorer = Scorer(load_network(config, folder, weights), config)
    scores = data.predicts == "score"
    scale = float(vars(data)["max_score"]) if scores else 1.0
    # what a fold tests was seen by nobody; elsewhere the test videos are not touched
    out_of_fold = config.protocol.fold is not None and config.protocol.select != "test"
    held_out = held_out_of(folder, "test" if out_of_fold else "holdout") if scores else {}
    unknown_scale = scores and len(next(iter(held_out.values())).true if held_out else ()) < ENOUGH
    reference = read_reference(folder) or reference_from_data(data, scorer, scale, weights if unknown_scale else None)
    extraction = {} if reference is None else reference.extraction
    streams = {
        m: Stream(str(config.features[m].extractor), config.features[m].width, extraction.get(m))
        for m in result["modalities"]
    }
    return Member(folder, result, config, weights, scorer, data, streams, scale, held_out, reference)


def reference_from_data(
    data: VideoDataModule, scorer: Scorer, scale: float, predicted_by: Weights | None
) -> Reference | None:
    """Make the reference that a run of an earlier version has not kept; None when its data are not here.

    predicted_by: the weights that the scorer has, if its predictions of the training videos are asked for
    """
    try:
        data.setup()
    except InputError:
        return None
    if predicted_by is None:
        return reference_of(data)
    return reference_of(data, {predicted_by: scorer.videos(data.splits["train"], data.test_batch_size).numpy() * scale})


def cost_of_missing(member: Member, available: Sequence[str]) -> str:
    """Say what leaving streams out cost this run on its test videos, if that was measured; else how to measure it."""
    given = [m for m in member.streams if m in available]
    places = [member.folder.resolve().parent.parent / "missing", ARCHIVE / "missing"]
    for file in (file for place in places for file in sorted(place.glob("*/result.json"))):
        try:
            result = Run(file.parent).result()
        except InputError:
            continue
        if result and result["network"] == member.name and sorted(result["available"]) == sorted(given):
            with_all, without = (each["metrics"][result["reported"]] for each in (member.result, result))
            metric = main_metric(with_all)
            return f"on its test videos that takes {metric} from {with_all[metric]:.3f} to {without[metric]:.3f}"
    return f"what that costs was not measured (train the same with available={json.dumps(given).replace(' ', '')})"
