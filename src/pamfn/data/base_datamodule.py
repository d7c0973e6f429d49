"""What every data module here offers the pipeline: named splits of packed videos, and batches of whole ones."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import lightning as L
import torch
from torch import Tensor

from pamfn.data.batches import Batch, Videos, WholeVideos, stratified_holdout
from pamfn.errors import InputError

log = logging.getLogger(__name__)

TOLERANCE = 2
"""Segments by which what belongs to a video may differ; all of it is then cut to the shortest."""


class VideoDataModule(L.LightningDataModule, ABC):
    """Splits `train` (what is trained on), `holdout` (a stratified part of train, or none) and `test`.

    Args:
        name: what is predicted, as it appears in results. dataset: folder and feature-file prefix.
        features: {modality: {"extractor": ..., "width": ...}} in order.
        batch_size: of training. holdout: fraction of train held out.
        min_segments: shortest video the network can take.
    """

    predicts: ClassVar[Literal["score", "highlights"]] = "score"
    """What the labels are: the points of a video, or which of its clips are highlights."""

    test_batch_size: int = 16
    """So many whole videos are scored at once."""

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
        self.candidates: dict[str, float] = {}  # points of what the held-out videos are drawn from, if not of train
        self.evaluated: list[str] = []  # splits scored after every epoch
        self.checksums: dict[str, str] = {}
        self.left_out: dict[str, Any] = {}  # what of the data set is not used, ready for JSON

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Reads and checks everything, once."""

    @property
    def source(self) -> Literal["real", "synthetic"]:
        """Where the features come from: as the name of the data says."""
        return "synthetic" if "synthetic" in self.task else "real"

    @property
    def score_range(self) -> float | None:
        """Highest minus lowest points of all videos; None where they have no points."""
        return None

    def described(self) -> dict[str, Any] | None:
        """Label statistics by split, ready for JSON; None where videos have one score."""
        return None

    def divide(self, whole: Mapping[str, Videos]) -> None:
        """Fills `splits` and `evaluated` from all videos of `train` and `test`."""
        names = whole["train"].names
        points = self.candidates or dict(zip(names, whole["train"].points.tolist(), strict=True))
        drawn = stratified_holdout(list(points.values()), self.holdout, self.seed) if self.holdout else []
        chosen = {list(points)[i] for i in drawn}
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

    def check_lengths(self, lengths: Mapping[str, Sequence[int]], names: str, problems: list[str]) -> dict[str, int]:
        """How many videos are to be cut, of those whose streams have these numbers of segments, and by how many rows.

        Problems are added. `names` says what the numbers of a video are of.
        """
        apart = [v for v, t in lengths.items() if max(t) - min(t) > TOLERANCE]
        short = [v for v, t in lengths.items() if min(t) < self.min_segments]
        if apart:
            told = "; ".join(f"{v}: {list(lengths[v])}" for v in apart[:5])
            problems.append(
                f"{self.dataset}: {len(apart)} videos have different numbers of segments in {names} ({told}). "
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
        """The same data with the videos of every split changed; nothing is read again."""
        self.setup("fit")
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other.trainer = None
        other.splits = {split: how(videos) for split, videos in self.splits.items()}
        return other

    @property
    def limited(self) -> bool:
        """Whether some of the modalities alone would have more, or longer, videos."""
        return bool(self.left_out.get("no_features") or self.left_out.get("truncated", {}).get("rows"))

    def only(self, modalities: Sequence[str]) -> Self:
        """The same data with some of the modalities, and everything that these have.

        Read again when that may be more: a branch is trained on the same videos whatever it is for.
        """
        self.setup("fit")
        if not self.limited or set(modalities) == set(self.features):
            return self.changed(lambda videos: videos.modalities(modalities))
        other = self.changed(lambda videos: videos)
        other.features = {m: self.features[m] for m in modalities}
        other.forget()
        other.setup("fit")
        return other

    def forget(self) -> None:
        """Leaves nothing of what was read."""
        self.splits, self.checksums, self.left_out = {}, {}, {}

    def without(self, modalities: Sequence[str]) -> Self:
        """The same data with some of the modalities zeroed, as if they had not been recorded."""
        return self.changed(lambda videos: videos.zeroed(modalities))

    def placed(self, videos: Videos) -> Videos:
        """The videos where the trainer computes, if they take less than half of that device's free memory."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if sum(nbytes(x) for x in videos.packed.values()) > free / 2:
                return videos
        return videos.to(device)

    def on_device(self, split: str) -> Videos:
        """A split, placed."""
        self.splits[split] = self.placed(self.splits[split])
        return self.splits[split]

    def val_dataloader(self) -> Sequence[Iterable[Batch]]:
        """The splits scored after every epoch, in the order of `evaluated`."""
        return [WholeVideos(self.on_device(split), batch_size=self.test_batch_size) for split in self.evaluated]

    def test_dataloader(self) -> Sequence[Iterable[Batch]]:
        return self.val_dataloader()

    def predict_dataloader(self) -> Sequence[Iterable[Batch]]:
        return self.val_dataloader()


def nbytes(x: Tensor) -> int:
    return x.numel() * x.element_size()


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and that there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
