"""What a fused network decided and attended to, video by video: the numbers behind the paper's Figures 5, 7 and 8."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pamfn.data.batches import Batch, WholeVideos
from pamfn.data.score_datamodule import ScoreDataModule
from pamfn.errors import InputError
from pamfn.models.fusion_stage import StageOutput
from pamfn.models.pamfn import PAMFN
from pamfn.pipeline.build import data_module
from pamfn.pipeline.reload import configuration, load_network, refuse_no_split
from pamfn.runs.folder import Run


@dataclass(frozen=True)
class Stage:
    """What one stage did with one video, over its t' time steps; None for what the network leaves out.

    A time step of stage i spans 2 ** i segments, that of the last stage the whole video. decision (t',): enabled
    FusionNets. modality_weights (t', m): of MSFD, fusion_weights (t', k): of CMFD, both means over the heads.
    """

    decision: np.ndarray | None
    modality_weights: np.ndarray | None
    fusion_weights: np.ndarray | None


@dataclass(frozen=True)
class Video:
    """One video: its length in segments, the judges' and the predicted points, its stages."""

    name: str
    segments: int
    points: float
    predicted: float
    stages: list[Stage]


@dataclass(frozen=True)
class Explanation:
    """A run's network on every video of a split. run: its folder. networks: K, the number of FusionNets."""

    run: Path
    task: str
    seed: int
    split: str
    modalities: list[str]
    networks: int
    videos: list[Video]

    def video(self, name: str | None = None) -> Video:
        """A video by its name; without one, the video with the highest judges' score.

        Raises:
            InputError: when the split has no such video.
        """
        if name is None:
            return max(self.videos, key=lambda video: video.points)
        matches = [video for video in self.videos if video.name == name]
        if not matches:
            some = ", ".join(video.name for video in self.videos[:5])
            raise InputError(
                f"no video {name!r} among the {len(self.videos)} of {self.task}'s {self.split}: {some}, ..."
            )
        return matches[0]

    def attention(self, video: Video, stage: int = 2) -> dict[str, list[float]]:
        """{modality: MSFD's weight of it (t',)} in a stage, counted from 1.

        Raises:
            InputError: when that stage has no MSFD.
        """
        weights = self.stage(video, stage).modality_weights
        if weights is None:
            raise InputError(f"{self.run.name}: its stage {stage} has no modality-specific feature decoder (MSFD).")
        return {modality: weights[:, i].tolist() for i, modality in enumerate(self.modalities)}

    def decisions(self, video: Video, stage: int = 2) -> list[int]:
        """The number of enabled FusionNets (t',) in a stage, counted from 1.

        Raises:
            InputError: when that stage has no PolicyNet.
        """
        decision = self.stage(video, stage).decision
        if decision is None:
            raise InputError(f"{self.run.name}: its stage {stage} has no PolicyNet, and decides nothing.")
        return decision.tolist()

    def decision_counts(self) -> list[list[int]]:
        """[[n_0, ..., n_K] of every stage]: how many time steps enabled how many FusionNets.

        Raises:
            InputError: when the network has no PolicyNet.
        """
        counts = [[0] * (self.networks + 1) for _ in self.videos[0].stages]
        for video in self.videos:
            for decided, stage in zip(counts, video.stages, strict=True):
                for networks in [] if stage.decision is None else stage.decision.tolist():
                    decided[networks] += 1
        if not any(map(any, counts)):
            raise InputError(f"{self.run.name}: it has no PolicyNet, and decides nothing.")
        return counts

    def stage(self, video: Video, number: int) -> Stage:
        """A stage of a video, counted from 1."""
        if not 1 <= number <= len(video.stages):
            raise InputError(f"{self.run.name}: no stage {number}; it has {len(video.stages)}.")
        return video.stages[number - 1]


def explain(folder: Path, split: str = "test", data_dir: str | None = None, trust: Sequence[str] = ()) -> Explanation:
    """Runs a finished fused network, with its selected weights, over a split's whole videos.

    Decisions are the most likely ones (argmax of the logits), and `predicted` is the score that follows from them,
    however the run decodes. Everything is computed in float32. `data_dir`: where the data is now (default: where the
    run read it). trust: packages besides this one that the run's classes may come from.

    Raises:
        InputError: when the run is not finished, has no weights or no stages, or its protocol has no such split.
    """
    result = fused(folder)
    if not has_weights(folder):
        raise InputError(f"{folder} has no weights (archived runs keep none). Train it again to explain it.")
    settings = configuration(result, data_dir, None, None, trust)
    data = data_module(settings)
    if not isinstance(data, ScoreDataModule):
        raise InputError(f"{folder} finds highlights: `python -m pamfn.predict` draws their scores over time.")
    refuse_no_split(data, split)
    network = load_network(settings, folder).eval()
    if not isinstance(network, PAMFN):
        raise InputError(f"{folder}: {type(network).__name__} has no stages whose decisions could be shown.")
    videos = data.splits[split]
    explained: dict[int, Video] = {}
    for batch in WholeVideos(videos, batch_size=data.test_batch_size):
        for i, stages, score in on_batch(network, batch):
            length, points = int(videos.length[i]), float(videos.points[i])
            explained[i] = Video(videos.names[i], length, points, float(score) * data.max_score, stages)
    return Explanation(
        run=folder,
        task=data.task,
        seed=settings.seed,
        split=split,
        modalities=list(videos.packed),
        networks=network.num_fusion_nets,
        videos=[explained[i] for i in sorted(explained)],
    )


def fused(folder: Path) -> dict[str, Any]:
    """The result of a finished fused run.

    Raises:
        InputError: when it is something else.
    """
    result = Run(folder).finished()
    if result["kind"] == "branch":
        raise InputError(f"{folder} is a single branch, which decides nothing. Give a folder under runs/fusion/.")
    if result["kind"] == "baseline":
        raise InputError(f"{folder} is a compared method, which decides nothing. Give a folder under runs/fusion/.")
    if result["kind"] != "fusion":
        raise InputError(f"{folder} is {result['network']} scored with modalities missing. Give that run.")
    return result


def has_weights(folder: Path) -> bool:
    """Whether a run's weights are there; archived runs keep none."""
    return Run(folder).file("selected.safetensors").exists()


@torch.inference_mode()
def on_batch(network: PAMFN, batch: Batch) -> list[tuple[int, list[Stage], Tensor]]:
    """Position in the split, stages and score of every video of a batch, padding left out.

    A score is a single number, or (t,) logits of a network that scores segments.
    """
    output = network(batch.features, batch.lengths)
    segments = next(iter(batch.features.values())).shape[1]
    lengths = [segments] * len(batch.videos) if batch.lengths is None else batch.lengths.tolist()
    rows = []
    for row, (video, length) in enumerate(zip(batch.videos.tolist(), lengths, strict=True)):
        steps = network.stage_lengths(length)
        stages = [stage_of(out, row, t) for out, t in zip(output.stages, steps, strict=True)]
        rows.append((video, stages, output.score[row, :length] if network.per_segment else output.score[row]))
    return rows


def stage_of(output: StageOutput, row: int, steps: int) -> Stage:
    """One video's part of a batch's stage: its first `steps` time steps."""

    def part(x: Tensor | None) -> np.ndarray | None:
        return None if x is None else x[row, :steps].cpu().numpy()

    modality, fusion = part(output.modality_weights), part(output.fusion_weights)  # (t', heads, n)
    return Stage(
        decision=part(output.decision),
        modality_weights=None if modality is None else modality.mean(axis=1),
        fusion_weights=None if fusion is None else fusion.mean(axis=1),
    )
