"""A small synthetic data set with a known rule, in the layout of the released ones, for the demo and the tests.

The rule. Every segment t of a video has two latent qualities, a_t and b_t (think of difficulty and execution): a level
drawn once per video from a standard normal distribution, plus a slow random walk around it. Then

    quality_t = 0.8 (a_t + b_t) + 0.3 a_t b_t        score = 25 sigmoid(mean of quality_t over all segments)

`rgb` sees a_t and `flow` sees b_t, each with an error of 0.4 that lasts the whole video; `audio` sees 0.5 quality_t
with an error of 1. What a stream sees is one of six signals, five of which do not matter, mixed by a fixed random
matrix, under noise. So no stream alone can rank the videos well, their fusion can, and audio is the weakest.

Most videos have 25 to 48 segments, every fifth has 10 to 19: fewer than the training crop of 24. `rgb` holds two clips
per segment; `train.txt` has a header line as RG's, `test.txt` has none as Fis-V's.
"""

import json
from pathlib import Path
from typing import Literal

import numpy as np

from pamfn.data.score_datamodule import ScoreDataModule
from pamfn.files import whole

VERSION = 1
DATASET = "SYNTHETIC"
EXTRACTOR = "planted"
COLUMNS = ("name", "difficulty", "execution", "total", "deduction", "seconds")
WIDTHS = {"rgb": 48, "flow": 40, "audio": 24}
MAX_POINTS = 25.0
SECONDS_PER_SEGMENT = 1.28


def write_synthetic(data_dir: Path, *, seed: int = 0, train: int = 240, test: int = 80) -> None:
    """Write `SYNTHETIC/{train,test}.txt` and `features/SYNTHETIC_{rgb,flow,audio}_planted.npy` below `data_dir`.

    Nothing is written when they are there and `SYNTHETIC/rule.json` says that the same rule made them.
    """
    rule = json.dumps({"version": VERSION, "seed": seed, "train": train, "test": test})
    labels = {split: data_dir / DATASET / f"{split}.txt" for split in ("train", "test")}
    files = {name: data_dir / "features" / f"{DATASET}_{name}_{EXTRACTOR}.npy" for name in WIDTHS}
    marker = data_dir / DATASET / "rule.json"
    if all(file.exists() for file in (marker, *labels.values(), *files.values())) and marker.read_text() == rule:
        return

    marker.unlink(missing_ok=True)
    names = [f"Routine_{number:03d}" for number in range(1, train + test + 1)]
    streams, points = _videos(np.random.default_rng(seed), len(names))
    for name, file in files.items():
        with whole(file) as temporary, temporary.open("wb") as opened:
            np.save(opened, np.array(dict(zip(names, streams[name], strict=True)), dtype=object))
    lines = _label_lines(np.random.default_rng([seed, 1]), names, points, [len(array) for array in streams["flow"]])
    texts = {"train": ["\t".join(COLUMNS), *lines[:train]], "test": lines[train:]}
    for split, file in labels.items():
        with whole(file) as temporary:
            temporary.write_text("\n".join(texts[split]) + "\n", encoding="utf-8")
    with whole(marker) as temporary:
        temporary.write_text(rule)


def _videos(random: np.random.Generator, count: int) -> tuple[dict[str, list[np.ndarray]], list[float]]:
    views = {name: random.normal(size=(6, width)) / np.sqrt(6) for name, width in WIDTHS.items()}
    streams: dict[str, list[np.ndarray]] = {name: [] for name in WIDTHS}
    points = []
    for video in range(count):
        segments = int(random.integers(10, 20) if video % 5 == 4 else random.integers(25, 49))
        a, b = (_around_a_level(random, segments) for _ in range(2))
        quality = 0.8 * (a + b) + 0.3 * a * b
        points.append(MAX_POINTS / (1 + np.exp(-quality.mean())))
        shown = {"rgb": (a, 0.4, 2), "flow": (b, 0.4, 1), "audio": (0.5 * quality, 1.0, 1)}
        for name, (latent, error, clips) in shown.items():
            mistaken = latent + error * _around_a_level(random, segments)
            streams[name].append(_seen(random, mistaken, views[name], clips))
    return streams, points


def _around_a_level(random: np.random.Generator, segments: int) -> np.ndarray:
    walk = random.normal(scale=0.2, size=segments).cumsum()
    return random.normal() + walk - walk.mean()


def _seen(random: np.random.Generator, latent: np.ndarray, view: np.ndarray, clips: int) -> np.ndarray:
    others = [_around_a_level(random, len(latent)) for _ in range(len(view) - 1)]
    mixed = np.stack([latent, *others], axis=1) @ view
    seen = mixed[:, None] + 0.5 * random.normal(size=(len(mixed), clips, view.shape[1]))
    return (seen if clips > 1 else seen[:, 0]).astype(np.float16)


def _label_lines(random: np.random.Generator, names: list[str], points: list[float], segments: list[int]) -> list[str]:
    lines = []
    for name, total, length in zip(names, points, segments, strict=True):
        deduction = random.choice([0.0, 0.0, 0.3, 0.6])
        difficulty = round(total * random.uniform(0.45, 0.6), 2)
        execution = total + deduction - difficulty
        seconds = round(length * SECONDS_PER_SEGMENT)
        lines.append(f"{name}\t{difficulty:.2f}\t{execution:.2f}\t{total:.2f}\t{deduction:.2f}\t{seconds}")
    return lines


class SyntheticDataModule(ScoreDataModule):
    """Data module of the synthetic data set, which a training writes to `data_dir` when it is not there."""

    @property
    def source(self) -> Literal["real", "synthetic"]:
        """Always synthetic, whatever the name of the data."""
        return "synthetic"

    def prepare_data(self) -> None:
        """Write what is missing before a training; scoring again writes nothing."""
        if not self.splits:
            write_synthetic(self.data_dir)
