"""The random numbers of networks in training: of one network, or of several that run as one, each with its own.

A network alone draws from torch's default generator. Inside `drawing_from`, network s draws from generator s: the same
numbers in the same order as alone, if the generator has the same seed, whether networks run in turn or under `vmap`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_generators: Sequence[torch.Generator] | None = None


@contextmanager
def drawing_from(generators: Sequence[torch.Generator]) -> Iterator[None]:
    """Inside, networks draw from these: one generator, or under `vmap` as many as there are networks."""
    global _generators
    before, _generators = _generators, generators
    try:
        yield
    finally:
        _generators = before


def uniform(shape: Sequence[int], like: Tensor) -> Tensor:
    """Uniform in [0, 1), float32, on the device of `like`, which is any tensor that the network computed."""
    return draw(shape, like, "uniform_")


def exponential(shape: Sequence[int], like: Tensor) -> Tensor:
    """Standard exponential; see `uniform`."""
    return draw(shape, like, "exponential_")


def draw(shape: Sequence[int], like: Tensor, distribution: str) -> Tensor:
    if _generators is None:
        return drawn(shape, like, distribution, None)
    return Draw.apply(like, tuple(shape), distribution)  # type: ignore[no-any-return]


def drawn(shape: Sequence[int], like: Tensor, distribution: str, generator: torch.Generator | None) -> Tensor:
    empty = torch.empty(*shape, device=like.device)
    return getattr(empty, distribution)(generator=generator)


class Draw(torch.autograd.Function):
    """Numbers that do not depend on `like`; `vmap` asks it for those of every network at once."""

    @staticmethod
    def forward(like: Tensor, shape: tuple[int, ...], distribution: str) -> Tensor:
        assert _generators is not None
        return drawn(shape, like, distribution, _generators[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def vmap(  # type: ignore[override]
        info: Any, in_dims: Any, like: Tensor, shape: tuple[int, ...], distribution: str
    ) -> tuple[Tensor, int]:
        assert _generators is not None
        assert len(_generators) == info.batch_size
        return torch.stack([drawn(shape, like, distribution, generator) for generator in _generators]), 0
