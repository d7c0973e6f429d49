"""The data module for videos with a score: Rhythmic Gymnastics, Fis-V, UI-PRMD and whatever has that layout."""

from collections.abc import Mapping, Sequence

import torch

from pamfn.data.base_datamodule import VideoDataModule, pack
from pamfn.data.batches import Crops
from pamfn.data.checksums import score_checksum
from pamfn.data.features import feature_file, read_features
from pamfn.data.score_labels import valid_scores
from pamfn.data.video_names import some
from pamfn.errors import InputError

LARGEST_SCORE = 1e9
"""In points: squares of larger ones would overflow before anybody noticed."""


class ScoreDataModule(VideoDataModule):
    """Data module of videos with a score each; trains on random crops.

    Args:
        name, dataset, features, batch_size, holdout, min_segments: see `VideoDataModule`.
        train, test: label files under `data_dir`.
        columns: the columns of the label files, the video's name first.
        score: the column to predict, in points.
        select: only videos whose name starts with it are kept.
        max_score: the points of a score of 1.
        crop: number of segments of a training crop.

    Raises:
        InputError: with every problem of the label and feature files, on `setup`.
    """

    def __init__(
        self,
        *,
        name: str,
        dataset: str,
        train: str,
        test: str,
        columns: Sequence[str],
        score: str,
        max_score: float,
        crop: int,
        features: Mapping[str, Mapping[str, str | int]],
        data_dir: str,
        select: str = "",
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
        self.score, self.select = score, select
        self.files, self.columns = {"train": train, "test": test}, list(columns)
        self.max_score, self.crop = max_score, crop

    def setup(self, stage: str | None = None) -> None:
        """Read and check everything, once."""
        if self.splits:
            return
        problems: list[str] = []
        scores = {split: self.scores(split, problems) for split in self.files}
        both = set(scores["train"]) & set(scores["test"])
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
        for split, points in scores.items():
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

    @property
    def score_range(self) -> float:
        """The highest minus the lowest points of all labelled videos: the scale of the relative L2 distance."""
        points = torch.cat([videos.points for videos in self.splits.values()])
        return float(points.max() - points.min())

    def train_dataloader(self) -> Crops:
        return Crops(self.on_device("train"), segments=self.crop, batch_size=self.batch_size, seed=self.seed)
