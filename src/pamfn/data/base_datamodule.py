"""The base class of the data modules: named splits of packed videos, and batches of whole ones."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import lightning as L
import numpy as np
import torch

from pamfn.data.batches import Batch, Videos, WholeVideos, stratified_holdout
from pamfn.data.features import FeatureSet, feature_name, problems_of
from pamfn.data.folds import held_out_groups
from pamfn.data.video_names import some
from pamfn.errors import InputError

log = logging.getLogger(__name__)

TOLERANCE = 2
"""Segments by which the streams of a video may differ; all of them are then cut to the shortest."""


class VideoDataModule(L.LightningDataModule, ABC):
    """Data module of videos in splits: `train`, `test`, and `holdout` where a part of train is held out.

    Args:
        name: what is predicted, as it appears in results.
        dataset: name of the data set's folder, and prefix of its feature files.
        features: {modality: {"extractor": ..., "width": ...}} in order.
        batch_size: number of videos in a training batch.
        holdout: fraction of train that is held out, stratified by score, or in whole groups.
        min_segments: number of segments of the shortest video that the network can take.
    """

    predicts: ClassVar[Literal["score", "highlights"]] = "score"
    """What the labels are: the points of a video, or which of its clips are highlights."""

    test_batch_size: int = 16
    """Number of whole videos that are scored at once."""

    def __init__(
        self,
        *,
        name: str,
        dataset: str,
        features: Mapping[str, Mapping[str, str | int]],
        data_dir: str,
        batch_size: int,
        holdout: float,
        min_segments: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.task, self.dataset = name, dataset
        self.features, self.data_dir = {m: dict(f) for m, f in features.items()}, Path(data_dir)
        self.batch_size, self.holdout, self.seed = batch_size, holdout, seed
        self.min_segments = min_segments
        self.splits: dict[str, Videos] = {}
        self.candidates: dict[str, float] = {}  # points of the videos to draw held-out ones from, if not all of train
        self.groups: dict[str, str] = {}  # {video: who or what several videos are of}, where that is known
        self.evaluated: list[str] = []  # splits that are scored after every epoch
        self.checksums: dict[str, str] = {}
        self.extraction: dict[str, dict[str, Any] | None] = {}  # how each modality's features were made, if known
        self.left_out: dict[str, Any] = {}  # what of the data set is not used, ready for JSON

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Read and check everything, once."""

    @property
    def source(self) -> Literal["real", "synthetic"]:
        """Whether the features are real, by the name of the data."""
        return "synthetic" if "synthetic" in self.task else "real"

    @property
    def score_range(self) -> float | None:
        """The highest minus the lowest points of all videos; None where they have no points."""
        return None

    def described(self) -> dict[str, Any] | None:
        """Return label statistics by split, ready for JSON; None where videos have one score."""
        return None

    def divide(self, whole: Mapping[str, Videos]) -> None:
        """Fill `splits` and `evaluated` from all videos of `train` and `test`."""
        names = whole["train"].names
        points = self.candidates or dict(zip(names, whole["train"].points.tolist(), strict=True))
        drawn = self.drawn(points) if self.holdout else []
        chosen = set(drawn)
        held, kept = ([i for i, name in enumerate(names) if (name in chosen) == out] for out in (True, False))
        if len(kept) < 2:
            raise InputError(f"{self.task}: {len(kept)} videos to train on; at least 2 are needed.")
        if drawn and not held:
            raise InputError(
                f"{self.task}: none of the {len(drawn)} videos that are held out is there ({some(sorted(chosen))}): "
                "get their features, or hold out more (protocol.holdout)."
            )
        self.splits = {"train": whole["train"].subset(kept), "test": whole["test"]}
        if held:
            self.splits["holdout"] = whole["train"].subset(held)
        self.evaluated = [split for split in ("holdout", "test") if split in self.splits]

    def drawn(self, points: Mapping[str, float]) -> list[str]:
        """Draw the videos that are held out of these, {video: points}: whole groups, where there are groups."""
        if self.groups:
            return held_out_groups({video: self.groups[video] for video in points}, self.holdout, self.seed)
        return [list(points)[i] for i in stratified_holdout(list(points.values()), self.holdout, self.seed)]

    def read_streams(
        self,
        read: Callable[[str, str, str], FeatureSet],
        videos: Sequence[str],
        problems: list[str],
        *,
        missing_allowed: bool = False,
    ) -> dict[str, FeatureSet]:
        """Read the features of every modality and check those of these videos; problems are added.

        Args:
            read: returns the features of (dataset, modality, extractor).
            missing_allowed: whether videos may have no features.
        """
        streams: dict[str, FeatureSet] = {}
        for modality, spec in self.features.items():
            name = (self.dataset, modality, str(spec["extractor"]))
            try:
                stream = read(*name)
            except InputError as error:
                problems += error.problems
                continue
            checked = [v for v in videos if v in stream.arrays] if missing_allowed else videos
            problems += problems_of(stream, modality=modality, width=int(spec["width"]), videos=checked)
            streams[modality] = stream
            self.checksums[feature_name(*name)] = stream.checksum
            self.extraction[modality] = stream.extraction
        return streams

    def check_lengths(self, lengths: Mapping[str, Sequence[int]], names: str, problems: list[str]) -> dict[str, int]:
        """Count the videos that are cut to their shortest stream, and the rows they lose; problems are added.

        Args:
            lengths: {video: number of segments in each of its streams}.
            names: what the streams are called.
        """
        apart = [v for v, t in lengths.items() if max(t) - min(t) > TOLERANCE]
        short = [v for v, t in lengths.items() if min(t) < self.min_segments]
        if apart:
            examples = "; ".join(f"{v}: {list(lengths[v])}" for v in apart[:5])
            problems.append(
                f"{self.dataset}: {len(apart)} videos have different numbers of segments in {names} ({examples}). "
                f"Up to {TOLERANCE} are cut to the shortest; extract them again with one segment length."
            )
        if short:
            problems.append(
                f"{self.dataset}: {len(short)} videos are shorter than the {self.min_segments} segments that the "
                f"network needs: {some(short)}."
            )
        cut = [v for v, t in lengths.items() if 0 < max(t) - min(t) <= TOLERANCE]
        if cut:
            log.info("%s: %d videos cut to their shortest stream (by at most %d)", self.dataset, len(cut), TOLERANCE)
        return {"videos": len(cut), "rows": sum(max(lengths[v]) - min(lengths[v]) for v in cut)}

    def changed(self, how: Callable[[Videos], Videos]) -> Self:
        """Return the same data with the videos of every split changed; nothing is read again."""
        self.setup("fit")
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other.trainer = None
        other.splits = {split: how(videos) for split, videos in self.splits.items()}
        return other

    def only(self, modalities: Sequence[str]) -> Self:
        """Return the data of some of the modalities, with every video that these have.

        It is read again where that may be more, so that a branch is trained on the same videos whatever it is for.
        """
        self.setup("fit")
        limited = self.left_out.get("no_features") or self.left_out.get("truncated", {}).get("rows")
        if not limited or set(modalities) == set(self.features):
            return self.changed(lambda videos: videos.modalities(modalities))
        other = self.changed(lambda videos: videos)
        other.features = {m: self.features[m] for m in modalities}
        other.forget()
        other.setup("fit")
        return other

    def forget(self) -> None:
        """Forget what was read."""
        self.splits, self.checksums, self.left_out, self.groups = {}, {}, {}, {}

    def without(self, modalities: Sequence[str]) -> Self:
        """Return the same data with some of the modalities zeroed, as if they had not been recorded."""
        return self.changed(lambda videos: videos.zeroed(modalities))

    def placed(self, videos: Videos) -> Videos:
        """Move videos to the trainer's device, if they take less than half of its free memory."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if sum(x.nbytes for x in videos.packed.values()) > free / 2:
                return videos
        return videos.to(device)

    def on_device(self, split: str) -> Videos:
        """Return a split after moving it to the trainer's device, once."""
        self.splits[split] = self.placed(self.splits[split])
        return self.splits[split]

    def val_dataloader(self) -> Sequence[Iterable[Batch]]:
        """Return batches of the splits that are scored after every epoch, in the order of `evaluated`."""
        return [WholeVideos(self.on_device(split), batch_size=self.test_batch_size) for split in self.evaluated]

    def test_dataloader(self) -> Sequence[Iterable[Batch]]:
        return self.val_dataloader()

    def predict_dataloader(self) -> Sequence[Iterable[Batch]]:
        return self.val_dataloader()


def pack(
    lengths: Mapping[str, int],
    streams: Mapping[str, FeatureSet],
    points: Sequence[float],
    *,
    max_score: float = 1.0,
    labels: np.ndarray | None = None,
) -> Videos:
    """Pack the first `lengths[video]` segments of every video, one tensor a modality; `labels` (n,) are of those."""
    packed = {
        m: torch.from_numpy(np.concatenate([s.arrays[v][:t] for v, t in lengths.items()])) for m, s in streams.items()
    }
    length, judged = torch.tensor(list(lengths.values())), torch.tensor(points, dtype=torch.float64)
    start, target, key = length.cumsum(0) - length, (judged / max_score).float(), torch.arange(len(length))
    packed_labels = None if labels is None else torch.from_numpy(labels)
    return Videos(list(lengths), packed, start, length, judged, target, key, packed_labels)
