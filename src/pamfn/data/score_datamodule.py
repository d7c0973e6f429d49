"""The data module for videos with a score: Rhythmic Gymnastics, Fis-V, UI-PRMD and whatever has that layout."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from pamfn.data.base_datamodule import VideoDataModule, some
from pamfn.data.batches import Crops, Videos
from pamfn.data.checksums import feature_name, score_checksum
from pamfn.data.features import FeatureSet, feature_file, problems_of, read_features
from pamfn.data.score_labels import valid_scores
from pamfn.errors import InputError

LARGEST_SCORE = 1e9
"""Points; squares of larger ones would overflow before anybody noticed."""


class ScoreDataModule(VideoDataModule):
    """Splits `train` (what is trained on), `holdout` (a score-stratified part of train, or none) and `test`.

    Args:
        name: what is predicted, as it appears in results. dataset: folder and feature-file prefix.
        train, test: label files under `data_dir`. columns: their columns, the video's name first.
        score: the column to predict, in points. select: keep only videos whose name starts with it.
        max_score: points that make a score of 1. crop: segments of a training crop.
        features: {modality: {"extractor": ..., "width": ...}} in order.
        batch_size: of training. holdout: fraction of train held out.
        min_segments: shortest video the network can take.

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
        """Reads and checks everything, once."""
        if self.splits:
            return
        problems: list[str] = []
        scores = {split: self.scores(split, problems) for split in self.files}
        both = set(scores["train"]) & set(scores["test"])
        if both:
            problems.append(f"{self.dataset}: {len(both)} videos are in train and in test: {some(sorted(both))}.")
        streams = self.streams([v for names in scores.values() for v in names], problems)
        if problems:
            raise InputError(problems)
        self.divide({split: self.pack(names, streams) for split, names in scores.items()})

    def scores(self, split: str, problems: list[str]) -> dict[str, float]:
        """Points of a split's videos; problems are added."""
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

    def streams(self, videos: Sequence[str], problems: list[str]) -> dict[str, FeatureSet]:
        """Feature files of every modality, checked for these videos."""
        streams: dict[str, FeatureSet] = {}
        for modality, spec in self.features.items():
            try:
                path = feature_file(self.data_dir, self.dataset, modality, str(spec["extractor"]))
                streams[modality] = read_features(path)
            except InputError as error:
                problems.extend(error.problems)
                continue
            found = problems_of(streams[modality], modality=modality, width=int(spec["width"]), videos=videos)
            problems.extend(found)
            self.checksums[feature_name(path)] = streams[modality].checksum
        if streams:
            read = [v for v in videos if all(v in s.arrays and s.arrays[v].ndim == 2 for s in streams.values())]
            lengths = {v: [len(s.arrays[v]) for s in streams.values()] for v in read}
            cut = self.check_lengths(lengths, ", ".join(streams), problems)
            self.left_out = {"truncated": cut} if cut["videos"] else {}
        return streams

    def pack(self, scores: Mapping[str, float], streams: Mapping[str, FeatureSet]) -> Videos:
        """One packed tensor a modality."""
        length = [min(len(s.arrays[v]) for s in streams.values()) for v in scores]
        packed = {
            m: torch.from_numpy(np.concatenate([s.arrays[v][:t] for v, t in zip(scores, length, strict=True)]))
            for m, s in streams.items()
        }
        segments = torch.tensor(length)
        points = torch.tensor(list(scores.values()), dtype=torch.float64)
        target = (points / self.max_score).float()
        start = segments.cumsum(0) - segments
        return Videos(list(scores), packed, start, segments, points, target, torch.arange(len(scores)))

    @property
    def score_range(self) -> float:
        """Highest minus lowest points of all labelled videos, the scale of the relative L2 distance."""
        points = torch.cat([videos.points for videos in self.splits.values()])
        return float(points.max() - points.min())

    def train_dataloader(self) -> Crops:
        return Crops(self.on_device("train"), segments=self.crop, batch_size=self.batch_size, seed=self.seed)
