"""The contract of networks: what each of them offers, whoever wrote it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Output(Protocol):
    """What a forward pass returns: the score, and whatever else a network's own loss or its readers need.

    score: (b,) of every video, in units of the largest score; `per_segment`: (b, t) logits of every segment.
    """

    @property
    def score(self) -> Tensor: ...


class Network(nn.Module, ABC):
    """A network that scores videos, or every segment of them; all that is trained here derives from it.

    Only `forward` has to be written; everything else has a default. Shapes:

    features: {modality: (b, t, c)}, a width c for each modality, the same t for all
    lengths: (b,) number of real segments of each video, the rest is padding; None where all are real
    score: (b,), or (b, t) logits where `per_segment`
    spread: as score
    draws: as the network's own `draws` says; the first axis of each is b
    """

    min_segments: int = 1
    """The shortest video that it can take; a network on branches needs what they need."""

    per_segment: bool = False
    """Whether it gives a logit for every segment (highlights) instead of one score a video."""

    @abstractmethod
    def forward(self, features: Mapping[str, Tensor], lengths: Tensor | None = None) -> Output:
        """Scores a batch. A video's score in evaluation mode depends neither on the batch nor on its padding."""

    def head_parameters(self) -> list[nn.Parameter]:
        """Parameters that learn at the head's own rate; none: all learn at one rate."""
        return []

    def added_loss(self, output: Any) -> Tensor | None:
        """A scalar, added to the loss of the task and computed outside autocast; None: nothing is added.

        `output`: what `forward` returned for the batch.
        """
        return None

    def draws(self, keys: Sequence[int], segments: int) -> list[Tensor] | None:
        """The random numbers that `predict_scores` takes for videos padded to `segments`; None: nothing is drawn.

        `keys`: one integer a video. What is drawn for a video depends on its key alone, not on the batch it is in.
        """
        return None

    def predict_scores(
        self, features: Mapping[str, Tensor], lengths: Tensor | None = None, draws: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Test scores, and their spread: the standard deviation over what was drawn, 0 where one score is computed."""
        score = self(features, lengths).score
        return score, torch.zeros_like(score)

    def chosen(self) -> dict[str, float]:
        """Settings that it chose by itself on the training videos, for the run's result."""
        return {}


class SolvedNetwork(Network):
    """A network that is solved at once from one vector a video; it takes no recipe and is not trained by epochs."""

    @abstractmethod
    def pooled(self, features: Mapping[str, Tensor], lengths: Tensor | None = None) -> Tensor:
        """The vectors (b, d) that it is solved from."""

    @abstractmethod
    def solve(self, pooled: Tensor, target: Tensor, seed: int) -> None:
        """Sets its weights from the vectors (n, d) and scores (n,) of all training videos.

        Raises:
            ValueError: when these videos do not suffice.
        """


class BagNetwork(Network):
    """A network that learns from labels of whole videos, given in bags of both kinds, and so has a loss of its own."""

    @abstractmethod
    def bag_loss(self, output: Any, target: Tensor) -> Tensor:
        """The loss of a bag, target (2 b,): b videos of the topic first, then b of others."""
