"""What training a network costs before anything like it was trained: a linear model of measured epochs.

`experiments/cost.json` holds the model, in CPU seconds of the machine that `python -m benchmarks.cost` ran on, and that
machine's rate of matrix products; another machine's seconds follow from its own rate. Nothing here imports torch.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pamfn.config import EXPERIMENTS
from pamfn.data.annotations import read_scores
from pamfn.errors import InputError
from pamfn.finished import Kind
from pamfn.schema import Config

FILE = EXPERIMENTS / "cost.json"

VIDEOS = {"RG": (200, 50), "FISV": (400, 100)}
"""Videos to train on and to test of the paper's data sets, for when their label files are not there."""

BRANCH = {"d_model": 256, "hidden": 512, "num_stages": 3}
"""The branches that were measured. Others have another cost."""


@dataclass(frozen=True)
class Epoch:
    """What the time of an epoch depends on.

    train, test: numbers of videos. segments: of a crop; test videos are taken to be as long. frozen, trained: feature
    widths of the branches that only run, and of those that learn. fusion_nets: K (less, where fewer than three stages
    have them), 0 without FusionNets. mixed: whether there is a mixed branch. own_attention: whether every FusionNet has
    its own attention layer. draws: decisions sampled for a test video.
    """

    train: int
    test: int
    segments: int
    frozen: tuple[int, ...]
    trained: tuple[int, ...]
    fusion_nets: float = 0.0
    mixed: bool = False
    own_attention: bool = False
    draws: int = 1
    batch_size: int = 32

    def training(self) -> dict[str, float]:
        """What the seconds of the training part are a sum of, times coefficients."""
        steps, seen = self.train / self.batch_size, self.train * self.segments
        parts = {"frozen branches": len(self.frozen), "trained branches": len(self.trained)}
        parts |= {"width of frozen branches": sum(self.frozen), "width of trained branches": sum(self.trained)}
        in_segments = {name: seen * number for name, number in (parts | self.fusion()).items()}
        return {"steps": steps, "steps x FusionNets": steps * self.fusion_nets} | in_segments

    def testing(self) -> dict[str, float]:
        """The same of the test pass."""
        widths = self.frozen + self.trained
        parts = {"branches": len(widths), "width of branches": sum(widths)} | self.fusion()
        seen = self.test * self.segments
        in_segments = {name: seen * number for name, number in parts.items()}
        return {"videos": self.test, "further decisions": (self.draws - 1) * seen} | in_segments

    def fusion(self) -> dict[str, float]:
        """What a segment costs beyond its branches."""
        modalities = len(self.frozen + self.trained)
        attention = self.fusion_nets * modalities if self.own_attention else 0.0
        return {
            **{"mixed branch": float(self.mixed), "mixed branch x modalities": float(self.mixed * modalities)},
            **{"FusionNets": self.fusion_nets, "attention layers": attention},
        }


def seconds(config: Config, kind: Kind, modalities: list[str]) -> float | None:
    """CPU seconds of one thread that an epoch of a network takes on this machine; None for one that is not covered."""
    model = fitted()
    of_precision = model.get("precisions", {}).get(config.trainer.get("precision"))
    if of_precision is None:
        return None
    if kind == "baseline":
        found = seconds_of_method(config, of_precision["methods"])
    else:
        epoch = epoch_of(config, kind, modalities)
        found = None if epoch is None else predicted(epoch, of_precision)
    return None if found is None else found * model["products_a_second"] / products_a_second()


def predicted(epoch: Epoch, coefficients: Mapping[str, Mapping[str, float]]) -> float:
    """Seconds of an epoch by the model."""
    parts = (("training", epoch.training()), ("testing", epoch.testing()))
    return sum(coefficients[part][name] * amount for part, amounts in parts for name, amount in amounts.items())


def seconds_of_method(config: Config, methods: Mapping[str, Mapping[str, float]]) -> float | None:
    """Of a compared method: by the number of segments alone."""
    method, videos = methods.get(str(config.model["_target_"])), videos_of(config)
    if method is None or videos is None:
        return None
    crop = config.recipe.baseline.crop if config.recipe.baseline else None
    segments = config.data["crop"]
    return videos[0] * (crop or segments) * method["training"] + videos[1] * segments * method["testing"]


def epoch_of(config: Config, kind: Kind, modalities: list[str]) -> Epoch | None:
    """What decides the time of an epoch of a branch or a fused network; None for what was not measured."""
    model, videos = config.model, videos_of(config)
    branch = model["branch"]
    if videos is None or branch.get("per_segment") or any(branch.get(key) != size for key, size in BRANCH.items()):
        return None
    widths = {m: config.features[m].width for m in modalities}
    if kind == "branch":
        batch_size = config.recipe.branch.batch_size
        return Epoch(*videos, config.data["crop"], (), tuple(widths.values()), batch_size=batch_size)
    learns = modalities if model.get("finetune") is None else model["finetune"]
    mixed = "num_fusion_nets" in model
    stages = model.get("fusion_stages") or BRANCH["num_stages"]
    share = sum(0.5**i for i in range(stages)) / sum(0.5**i for i in range(BRANCH["num_stages"]))
    return Epoch(
        *videos,
        config.data["crop"],
        tuple(width for m, width in widths.items() if m not in learns),
        tuple(width for m, width in widths.items() if m in learns),
        fusion_nets=model["num_fusion_nets"] * share if mixed and model.get("cmfd") != "none" else 0.0,
        mixed=mixed,
        own_attention=not model.get("shared_attention", True),
        draws=model.get("samples", 1) if model.get("decoding") == "mean" else 1,
        batch_size=config.recipe.fusion.batch_size,
    )


def videos_of(config: Config) -> tuple[int, int] | None:
    """Videos that an epoch trains on and scores: by the label files, else the known numbers; None when neither is."""
    data, folder = config.data, Path(config.paths.data_dir)
    if "crop" not in data:
        return None
    words = {key: data[key] for key in ("columns", "score", "select", "skip_first_line") if key in data}
    try:
        train, test = (len(read_scores(folder / data[split], **words)) for split in ("train", "test"))
    except (InputError, KeyError, TypeError):
        if data.get("dataset") not in VIDEOS:
            return None
        train, test = VIDEOS[data["dataset"]]
    held = 0 if config.protocol.refit else round(train * config.protocol.holdout)
    return train - held, test + held


@cache
def fitted() -> dict[str, Any]:
    """The model; empty when there is none."""
    return json.loads(FILE.read_text()) if FILE.exists() else {}


@cache
def products_a_second(tries: int = 6, n: int = 1024) -> float:
    """Operations per CPU second of an n x n float32 matrix product, the best of a few: a quarter of a second."""
    a = np.random.default_rng(0).standard_normal((n, n), dtype=np.float32)
    taken = []
    for _ in range(tries):
        began = time.process_time()
        np.matmul(a, a)
        taken.append(time.process_time() - began)
    return 2 * n**3 / min(taken)
