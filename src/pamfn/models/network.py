"""The contract of networks: base classes that say what every network offers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Output(Protocol):
    """What a forward pass returns: the score, and whatever else the network's own loss or its readers need.

    score: (b,) of every video, in units of the largest score; `per_segment`: (b, t) logits of every segment
    """

    @property
    def score(self) -> Tensor: ...


class ScoreOutput(NamedTuple):
    """Output of a network that returns scores and nothing else.

    score: see `Output`
    """

    score: Tensor


class Network(nn.Module, ABC):
    """Base class of all networks: a network scores videos, or every segment of them.

    Only `forward` has to be written; everything else has a default. Shapes:

    features: {modality: (b, t, c)}, a width c for each modality, the same t for all
    lengths: (b,) number of real segments of each video, the rest is padding; None where all t are real
    score: (b,), or (b, t) logits where `per_segment`
    spread: as score
    draws: as the network's own `draws` says; the first axis of each is b
    """

    min_segments: int = 1
    """Number of segments of the shortest video that it can take; a network on branches needs what they need."""

    per_segment: bool = False
    """Whether it returns a logit for every segment (highlights) instead of one score a video."""

    @abstractmethod
    def forward(self, features: Mapping[str, Tensor], lengths: Tensor | None = None) -> Output:
        """Score a batch. In evaluation mode a video's score depends neither on the batch nor on its padding."""

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn at the head's own rate; none: all learn at one rate."""
        return []

    def added_loss(self, output: Any) -> Tensor | None:
        """Return a scalar that is added to the loss of the task, computed outside autocast; None: nothing is added.

        output: what `forward` returned for the batch
        """
        return None

    def draws(self, keys: Sequence[int], segments: int) -> list[Tensor] | None:
        """Draw the random numbers that `predict_scores` takes for videos padded to `segments`; None: none are needed.

        keys: one integer a video; what is drawn for a video depends on its key alone, not on the batch it is in
        """
        return None

    def predict_scores(
        self, features: Mapping[str, Tensor], lengths: Tensor | None = None, draws: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return test scores and their spread: the standard deviation over draws, 0 where one score is computed."""
        score = self(features, lengths).score
        return score, torch.zeros_like(score)

    def chosen(self) -> dict[str, float]:
        """Return the settings that the network chose by itself on the training videos, for the run's result."""
        return {}


class SolvedNetwork(Network):
    """Base class of networks that are solved at once from one vector a video, without a recipe or epochs."""

    @abstractmethod
    def pooled(self, features: Mapping[str, Tensor], lengths: Tensor | None = None) -> Tensor:
        """Return the vectors (b, d) that the network is solved from."""

    @abstractmethod
    def solve(self, pooled: Tensor, target: Tensor, seed: int) -> None:
        """Set the weights from the vectors (n, d) and scores (n,) of all training videos.

        Raises:
            ValueError: when these videos do not suffice.
        """


class BagNetwork(Network):
    """Base class of networks that learn from bags of labelled videos, with a loss of their own."""

    @abstractmethod
    def bag_loss(self, output: Any, target: Tensor) -> Tensor:
        """Return the loss of a batch of bags, target (2 b,): b videos of the topic first, then b of others."""
