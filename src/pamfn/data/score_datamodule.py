"""The data module for videos with a score: Rhythmic Gymnastics, Fis-V, UI-PRMD and whatever has that layout."""

import logging
from collections.abc import Mapping, Sequence

import torch

from pamfn.data.base_datamodule import VideoDataModule, pack
from pamfn.data.batches import Crops
from pamfn.data.checksums import FOLDS, folds_checksum, score_checksum
from pamfn.data.features import feature_file, read_features
from pamfn.data.folds import Folds, folds_of, groups_of, leaking
from pamfn.data.score_labels import valid_scores
from pamfn.data.video_names import some
from pamfn.errors import InputError

log = logging.getLogger(__name__)

LARGEST_SCORE = 1e9
"""In points: squares of larger ones would overflow before anybody noticed."""


class ScoreDataModule(VideoDataModule):
    """Data module of videos with a score each; trains on random crops.

    Args:
        name, dataset, features, batch_size, holdout, min_segments: see `VideoDataModule`.
        train, test: label files under `data_dir`; with folds their videos are pooled, and one file is enough.
        columns: the columns of the label files, the video's name first.
        score: the column to predict, in points.
        select: only videos whose name starts with it are kept.
        max_score: the points of a score of 1.
        crop: number of segments of a training crop.
        groups: who or what several videos are of: a column of the label files, or a pattern with one pair of
            parentheses that finds it in a video's name. Held-out videos and folds are then of whole groups.
        folds, fold: how all videos are divided (`pamfn.data.folds`), and the fold that is tested; the others are train.

    Raises:
        InputError: with every problem of the label and feature files, on `setup`.
    """

    def __init__(
        self,
        *,
        name: str,
        dataset: str,
        train: str,
        test: str | None = None,
        columns: Sequence[str],
        score: str,
        max_score: float,
        crop: int,
        features: Mapping[str, Mapping[str, str | int]],
        data_dir: str,
        select: str = "",
        groups: str | None = None,
        folds: Folds | None = None,
        fold: int | None = None,
        batch_size: int = 32,
        holdout: float = 0.0,
        min_segments: int = 4,
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
        if crop < 1 or max_score <= 0:
            raise InputError("data: crop and max_score are above 0.")
        if max_score > LARGEST_SCORE:
            raise InputError(f"data.max_score: expected the points of a score of 1, not {max_score:g}.")
        if test is None and folds is None:
            raise InputError("data.test: there are no test videos. Name their label file, or choose protocol=folds.")
        self.score, self.select, self.group_by = score, select, groups
        self.files = {"train": train} | ({} if test is None else {"test": test})
        self.columns, self.folds, self.fold = list(columns), folds, fold
        self.max_score, self.crop = max_score, crop

    def setup(self, stage: str | None = None) -> None:
        """Read and check everything, once."""
        if self.splits:
            return
        problems: list[str] = []
        scores = {split: self.scores(split, problems) for split in self.files}
        both = set(scores["train"]) & set(scores.get("test", {}))
        if both:
            problems.append(f"{self.dataset}: {len(both)} videos are in train and in test: {some(sorted(both))}.")
        videos = [v for names in scores.values() for v in names]
        streams = self.read_streams(lambda *name: read_features(feature_file(self.data_dir, *name)), videos, problems)
        if streams:
            read = [v for v in videos if all(v in s.arrays and s.arrays[v].ndim == 2 for s in streams.values())]
            lengths = {v: [len(s.arrays[v]) for s in streams.values()] for v in read}
            cut = self.check_lengths(lengths, ", ".join(streams), problems)
            self.left_out = {"truncated": cut} if cut["videos"] else {}
        if problems:
            raise InputError(problems)
        packed = {}
        for split, points in self.divided(scores).items():
            cuts = {v: min(len(s.arrays[v]) for s in streams.values()) for v in points}
            packed[split] = pack(cuts, streams, list(points.values()), max_score=self.max_score)
        self.divide(packed)

    def scores(self, split: str, problems: list[str]) -> dict[str, float]:
        """Read the points of a split's videos; problems are added."""
        path = self.data_dir / self.files[split]
        try:
            scores = valid_scores(path, columns=self.columns, score=self.score, select=self.select, problems=problems)
        except InputError as error:
            problems.extend(error.problems)
            return {}
        beyond = [v for v, points in scores.items() if not 0 <= points <= self.max_score]
        if beyond:
            problems.append(
                f"{path}: {len(beyond)} scores are outside 0..{self.max_score:g} (data.max_score): {some(beyond)}."
            )
        self.checksums[self.files[split]] = score_checksum(scores)
        return scores

    def divided(self, scores: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        """Return {split: {video: points}}: as the label files say, or with folds by the fold that is tested."""
        if self.group_by is not None:
            for split, of in scores.items():
                path = self.data_dir / self.files[split]
                self.groups |= groups_of(path, columns=self.columns, groups=self.group_by, videos=list(of))
        if self.folds is None:
            say_leaking(self.dataset, {v: i for i, of in enumerate(scores.values()) for v in of}, self.groups)
            return scores
        points = {video: points for of in scores.values() for video, points in of.items()}
        fold = folds_of(points, self.groups, self.folds, self.data_dir)
        say_leaking(self.dataset, fold, self.groups)
        self.checksums[FOLDS] = folds_checksum(fold)
        if self.fold not in fold.values():
            raise InputError(f"protocol.fold: {self.fold} is none of the folds, 0 to {max(fold.values())}.")
        split = {video: "test" if number == self.fold else "train" for video, number in fold.items()}
        return {name: {v: p for v, p in points.items() if split[v] == name} for name in ("train", "test")}

    @property
    def score_range(self) -> float:
        """The highest minus the lowest points of all labelled videos: the scale of the relative L2 distance."""
        points = torch.cat([videos.points for videos in self.splits.values()])
        return float(points.max() - points.min())

    def train_dataloader(self) -> Crops:
        return Crops(self.on_device("train"), segments=self.crop, batch_size=self.batch_size, seed=self.seed)


def say_leaking(dataset: str, part: Mapping[str, int], groups: Mapping[str, str]) -> None:
    """Warn of groups whose videos are both trained on and tested, which flatters every number."""
    if shared := leaking(part, groups):
        log.warning(
            "%s: %d groups have videos in train and in test, which makes the test easier: %s",
            dataset,
            len(shared),
            some(shared),
        )
