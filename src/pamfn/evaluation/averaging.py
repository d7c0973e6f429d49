"""The mean of several networks' scores, each network first brought to one scale."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from pamfn.evaluation.metrics import Array

ENOUGH = 10
"""Held-out videos whose predictions tell a network's scale."""


class Scale(NamedTuple):
    """Mean and standard deviation of a network's own predictions, in points."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, predicted: Array) -> Self:
        """Return the scale of predictions (n,)."""
        return cls(float(predicted.mean()), float(predicted.std()))

    def onto(self, common: "Scale") -> tuple[float, float]:
        """Return (factor, shift) that bring points of this scale to another."""
        factor = common.deviation / self.deviation
        return factor, common.mean - factor * self.mean


def common_scale(scales: Sequence[Scale]) -> Scale:
    """Return the mean of the networks' scales, to which each of them is brought."""
    return Scale(*(float(np.mean(values)) for values in zip(*scales, strict=True)))
