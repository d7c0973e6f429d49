"""The data module for highlight detection on YouTube Highlights: videos whose clips are labelled."""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, Self

import numpy as np

from pamfn.data import planted_clips
from pamfn.data.bags import Bags
from pamfn.data.base_datamodule import VideoDataModule, pack
from pamfn.data.batches import ShuffledVideos, Videos
from pamfn.data.clip_features import read_clip_features
from pamfn.data.features import FeatureSet, file_checksum, files_of
from pamfn.data.highlight_labels import Clips, read_clips, read_split
from pamfn.data.video_names import some
from pamfn.errors import InputError

log = logging.getLogger(__name__)

Ids = dict[str, list[str]]
"""{part: ids of its videos}, the parts being "train", "test", and with bags "others"."""


class YouTubeHighlightsDataModule(VideoDataModule):
    """Data module of the videos of one topic; a segment is an annotated clip, its label 1 if it is a highlight.

    Videos that are not annotated, or have no features in one of the modalities, are left out and listed in `left_out`;
    features and labels of a video are cut to the shortest.

    grid: {video: (n, 2)} start and end of its clips
    grid_unit: {video: "seconds" or "frames"}

    Args:
        name, dataset, features, batch_size, holdout, min_segments: see `VideoDataModule`.
        topic: dog, gymnastics, parkour, skating, skiing or surfing.
        annotations, split: files under `data_dir` (`read_clips`, `read_split`). UMT's "val" videos are the test set.
        bags: number of clips in a bag, to train on bags of this topic's and the other topics' videos (`Bags`).

    Raises:
        InputError: with every problem of the annotations and feature files, on `setup`.
    """

    predicts = "highlights"

    def __init__(
        self,
        *,
        name: str,
        dataset: str,
        topic: str,
        annotations: str,
        split: str,
        features: Mapping[str, Mapping[str, str | int]],
        data_dir: str,
        bags: int | None = None,
        batch_size: int = 1,
        holdout: float = 0.0,
        min_segments: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(
            name=name,
            dataset=dataset,
            features=features,
            data_dir=data_dir,
            batch_size=batch_size,
            holdout=holdout,
            min_segments=min_segments,
            seed=seed,
        )
        counts = {"batch_size": batch_size, "bags": 1 if bags is None else bags}
        wrong = [k for k, count in counts.items() if type(count) is not int or count < 1]
        if wrong:
            raise InputError(f"data.{k}: a whole number above 0, not {counts[k]!r}." for k in wrong)
        planted = [m for m, spec in self.features.items() if spec["extractor"] == planted_clips.EXTRACTOR]
        if 0 < len(planted) < len(self.features):
            real = [m for m in self.features if m not in planted]
            raise InputError(
                f"features: {', '.join(planted)} planted and {', '.join(real)} real cannot be mixed in one run: choose "
                "features=planted_clips or real ones for all."
            )
        self.topic, self.annotations, self.split, self.bags = topic, annotations, split, bags
        self.planted = bool(planted)
        self.others: Videos | None = None  # training videos of the other topics, for bags
        self.grid: dict[str, np.ndarray] = {}
        self.grid_unit: dict[str, str] = {}

    @property
    def source(self) -> Literal["real", "synthetic"]:
        """Whether the features are real or planted; the labels are real either way."""
        return "synthetic" if self.planted else "real"

    def setup(self, stage: str | None = None) -> None:
        """Read and check everything, once."""
        if self.splits:
            return
        problems: list[str] = []
        clips, ids = self.read_annotations()
        file = self.data_dir / self.annotations
        ids, lost = self.kept(ids, {"annotations": (f"not in {file}", clips)}, problems)
        # before videos without features go: the same videos are held out whatever the modalities are
        self.candidates = {v: float(clips[v].labels.mean(dtype=np.float64)) for v in ids["train"]}
        videos = list(dict.fromkeys(v for names in ids.values() for v in names))

        def read(dataset: str, modality: str, extractor: str) -> FeatureSet:
            width = int(self.features[modality]["width"])
            return read_clip_features(self.data_dir, dataset, modality, extractor, width, clips=clips, videos=videos)

        streams = self.read_streams(read, videos, problems, missing_allowed=True)
        ids, listed = self.kept(ids, {m: (absent_from(m, s), s.arrays) for m, s in streams.items()}, problems)
        malformed = {v for s in streams.values() for v, array in s.arrays.items() if array.ndim != 2 or not len(array)}
        read_ids = [v for names in ids.values() for v in names if v not in malformed]
        lengths = {v: [*(len(s.arrays[v]) for s in streams.values()), len(clips[v].labels)] for v in read_ids}
        cut = self.check_lengths(lengths, ", ".join([*streams, "labels"]), problems)
        if problems:
            raise InputError(problems)
        self.left_out = {"not_annotated": lost.get("annotations", {}), "no_features": listed, "truncated": cut}
        packed = {}
        for part, names in ids.items():
            cuts = {v: min(lengths[v]) for v in names}
            labels = [clips[v].labels[:t] for v, t in cuts.items()]
            shares = [float(y.mean(dtype=np.float64)) for y in labels]
            packed[part] = pack(cuts, streams, shares, labels=np.concatenate(labels))
            self.grid |= {v: clips[v].grid[:t] for v, t in cuts.items()}
            self.grid_unit |= {v: clips[v].unit for v in names}
        self.others = packed.pop("others", None)
        self.divide(packed)

    def read_annotations(self) -> tuple[dict[str, Clips], Ids]:
        """Read all annotated videos, and the ids that the split asks for."""
        problems: list[str] = []
        read: list[Any] = []
        for file, reader in ((self.annotations, read_clips), (self.split, read_split)):
            try:
                read.append(reader(self.data_dir / file))
                self.checksums[file] = file_checksum(self.data_dir / file)
            except InputError as error:
                problems += error.problems
        if problems:
            raise InputError(problems)
        clips, topics = read
        if self.topic not in topics:
            raise InputError(f"data.topic: no {self.topic!r} in {self.data_dir / self.split}: {', '.join(topics)}.")
        ids = {split: list(names) for split, names in topics[self.topic].items()}
        strangers = [v for names in ids.values() for v in names if v in clips and clips[v].topic != self.topic]
        if strangers:
            raise InputError(
                f"{self.data_dir / self.annotations}: {len(strangers)} videos that {self.data_dir / self.split} lists "
                f"under {self.topic} are of another domain: {some(strangers)}."
            )
        if self.bags:
            ids["others"] = [v for topic, lists in topics.items() if topic != self.topic for v in lists["train"]]
            if not ids["others"]:
                raise InputError(f"data.bags: no other topic in {self.data_dir / self.split} to take bags from.")
        return clips, ids

    def kept(
        self, ids: Ids, there: Mapping[str, tuple[str, Collection[str]]], problems: list[str]
    ) -> tuple[Ids, dict[str, Any]]:
        """Return the videos that are in all places, and {place: {part: the videos that are not there}}.

        `there`: {place: (what to say of the videos that are not there, those that are)}. It is a problem when less
        than half of a part is left.
        """
        kept = {p: [v for v in names if all(v in have for _, have in there.values())] for p, names in ids.items()}
        listed: dict[str, Any] = {}
        for part, names in ids.items():
            reasons = []
            for name, (why, have) in there.items():
                absent = [v for v in names if v not in have]
                if absent:
                    listed.setdefault(name, {})[part] = {"count": len(absent), "videos": absent}
                    reasons.append(f"{len(absent)} of {len(names)} videos of {part} are {why}: {some(absent)}")
            if 2 * len(kept[part]) < len(names):
                problems.append(f"{self.task}: {'; '.join(reasons)}. No more than half of them may be left out.")
            elif reasons:
                log.info("%s: %s; left out", self.task, "; ".join(reasons))
        return kept, listed

    def changed(self, how: Callable[[Videos], Videos]) -> Self:
        other = super().changed(how)
        other.others = how(self.others) if self.others else None
        return other

    def forget(self) -> None:
        super().forget()
        self.others, self.grid, self.grid_unit = None, {}, {}

    def train_dataloader(self) -> ShuffledVideos | Bags:
        train = self.on_device("train")
        if self.others is None or self.bags is None:
            return ShuffledVideos(train, batch_size=self.batch_size, seed=self.seed)
        self.others = self.placed(self.others)
        return Bags(train, self.others, rows=self.bags, batch_size=self.batch_size, seed=self.seed)

    def described(self) -> dict[str, dict[str, Any]]:
        """Return label statistics by split, ready for JSON: videos, clips, share of positive ones, clips of a video."""
        described = {}
        for split, videos in self.splits.items():
            clips = videos.length.tolist()
            described[split] = {
                "videos": len(videos),
                "clips": sum(clips),
                "positive": float((videos.points * videos.length).sum()) / sum(clips),
                "clips_per_video": {"min": min(clips), "median": float(np.median(clips)), "max": max(clips)},
            }
        return described


def absent_from(modality: str, stream: FeatureSet) -> str:
    """Return what to say of videos without these features: where they were looked for, how many others are there."""
    files = files_of(stream.path) if "*" in stream.path.name else stream.arrays
    return f"without {modality} features in {stream.path} (which has those of {len(files)})"
