"""Members of a model without a training: networks whose score is a known function of the features."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pamfn.pipeline.inputs import Stream
from pamfn.pipeline.member import Member
from pamfn.pipeline.reference import Reference
from pamfn.runs.held_out import HeldOut

WIDTHS = {"rgb": 6, "flow": 5, "audio": 4}
MAX_POINTS = 25.0


class FakeScorer:
    """Scores a video by a function of its features {stream: (t, c)}, in units of the largest score."""

    def __init__(self, score: Callable[[Mapping[str, Tensor]], float]) -> None:
        self.score = score
        self.network = SimpleNamespace(min_segments=4)
        self.device = torch.device("cpu")

    def __call__(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        score = torch.tensor([self.score({m: x[0] for m, x in features.items()})], dtype=torch.float64)
        return score, torch.zeros(1, dtype=torch.float64)


def mean_of_all(features: Mapping[str, Tensor]) -> float:
    return float(np.mean([float(x.float().mean()) for x in features.values()]))


def member(
    name: str = "run",
    *,
    streams: Sequence[str] = ("rgb",),
    score: Callable[[Mapping[str, Tensor]], float] = mean_of_all,
    true: Sequence[float] = (),
    predicted: Sequence[float] = (),
    reference: Reference | None = None,
    kind: str = "fusion",
    extractor: str = "VST",
    task: str = "fisv_tes",
) -> Member:
    """A run that held out videos with these points; none without any."""
    held_out = {w: HeldOut(np.array(true), np.array(predicted)) for w in ("selected", "last")} if len(true) else {}
    result = {"name": task, "kind": kind, "reported": "holdout", "data_source": "real", "commit": None, "metrics": {}}
    return Member(
        folder=Path("nowhere/fusion") / name,
        result=result,
        config=cast("Any", None),
        weights="selected",
        scorer=cast("Any", FakeScorer(score)),
        data=cast("Any", SimpleNamespace(predicts="score", task=task)),
        streams={m: Stream(extractor, WIDTHS[m], None) for m in streams},
        scale=MAX_POINTS,
        held_out=held_out,
        reference=reference,
    )


def video(value: float, streams: Sequence[str] = ("rgb",), segments: int = 9) -> dict[str, np.ndarray]:
    """Features that are all the same."""
    return {m: np.full((segments, WIDTHS[m]), value, np.float32) for m in streams}
