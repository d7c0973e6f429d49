"""Pooled features and support vector regression, as C3D+SVR (Parmar and Morris, CVPR workshops 2017)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn

from pamfn.models.layers import average, real_segments
from pamfn.models.network import ScoreOutput, SolvedNetwork
from pamfn.models.ranges import Candidates, NotNegative, Positive, Several


class PooledSVR(SolvedNetwork):
    """Linear support vector regression on each video's pooled features; it is solved, not trained by epochs.

    features: {modality: (b, t, c_m)}
    lengths: (b,) number of real segments of each video; None where all t are real
    returns: score (b,), not bounded

    Source: the papers' descriptions; the authors released no code for it. With features other than C3D's it is named
    after those (VST+SVR).

    Args:
        widths: {modality: feature width}; the pooled features of several modalities are joined.
        pool: how features are pooled over time.
        normalise: `l2` scales each pooled vector to length 1, `standardise` each feature over the training videos.
        costs: candidates for C, of which the one with the best mean Spearman correlation over `folds` parts of the
            training videos is taken.
        epsilon: width of the tube without loss, like C in units of 1 / score_scale (points).
    """

    def __init__(
        self,
        *,
        widths: Mapping[str, int],
        pool: Literal["mean", "max"] = "mean",
        normalise: Literal["none", "l2", "standardise"] = "none",
        costs: Candidates = (0.01, 0.1, 1.0, 10.0, 100.0),
        folds: Several = 5,
        epsilon: NotNegative = 0.1,
        score_scale: Positive = 1.0,
    ) -> None:
        super().__init__()
        if not costs or min(costs) <= 0 or folds < 2 or epsilon < 0 or score_scale <= 0:
            raise ValueError("costs and score_scale are above 0, folds at least 2, epsilon not below 0")
        self.pool, self.normalise, self.epsilon, self.score_scale = pool, normalise, epsilon, score_scale
        self.costs, self.folds = list(costs), folds
        width = sum(widths.values())
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.weight = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.register_buffer("cost", torch.zeros(()))

    def pooled(self, features: Mapping[str, Tensor], lengths: Tensor | None = None) -> Tensor:
        """Pool features to one vector (b, sum of c_m) a video."""
        pooled = []
        for x in features.values():
            valid = real_segments(x, lengths)
            if self.pool == "mean":
                pooled.append(average(x, valid).squeeze(1))
            else:
                pooled.append((x if valid is None else x.masked_fill(~valid[..., None], -torch.inf)).amax(dim=1))
        vector = torch.cat(pooled, dim=1)
        return F.normalize(vector, dim=1) if self.normalise == "l2" else vector

    def solve(self, pooled: Tensor, target: Tensor, seed: int) -> None:
        """Choose C by cross-validation on these pooled features (n, c), then fit all of them.

        Raises:
            ValueError: when there are fewer videos than folds.
        """
        if len(pooled) < self.folds:
            raise ValueError(f"{self.folds} folds need as many videos, not {len(pooled)}")
        state = self.state_dict()
        x, y = pooled.to("cpu", torch.float64).numpy(), target.to("cpu", torch.float64).numpy() * self.score_scale
        if self.normalise == "standardise":
            state["mean"], state["scale"] = torch.from_numpy(x.mean(axis=0)), torch.from_numpy(x.std(axis=0) + 1e-8)
            x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-8)
        order = np.random.default_rng([seed, 3]).permutation(len(x))
        parts = np.array_split(order, self.folds)
        cost = max(self.costs, key=lambda candidate: self.validated(candidate, x, y, parts))
        weight, bias = self.solution(cost, x, y)
        state |= {"weight": torch.from_numpy(weight), "bias": torch.tensor(bias), "cost": torch.tensor(cost)}
        self.load_state_dict(state)

    def chosen(self) -> dict[str, float]:
        """Return the C that cross-validation chose."""
        return {"C": round(float(self.get_buffer("cost")), 9)}

    def validated(self, cost: float, x: np.ndarray, y: np.ndarray, parts: Sequence[np.ndarray]) -> float:
        """Return the mean Spearman correlation over the parts, each predicted from the others.

        A constant prediction counts as 0.
        """
        correlations = []
        for part in parts:
            rest = np.setdiff1d(np.arange(len(x)), part)
            weight, bias = self.solution(cost, x[rest], y[rest])
            correlation: Any = spearmanr(x[part] @ weight + bias, y[part])
            correlations.append(np.nan_to_num(correlation.statistic))
        return float(np.mean(correlations))

    def solution(self, cost: float, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
        """Return weights (c,) and bias of the support vector regression."""
        from sklearn.svm import SVR

        model = SVR(kernel="linear", C=cost, epsilon=self.epsilon).fit(x, y)
        return model.coef_[0].copy(), float(model.intercept_[0])

    def forward(self, features: Mapping[str, Tensor], lengths: Tensor | None = None) -> ScoreOutput:
        pooled = self.pooled(features, lengths)
        with torch.autocast(pooled.device.type, enabled=False):  # rounded to bfloat16, different scores would tie
            x = (pooled - self.get_buffer("mean")) / self.get_buffer("scale")
            return ScoreOutput((x @ self.weight + self.bias) / self.score_scale)
