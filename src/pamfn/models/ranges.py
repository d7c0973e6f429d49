"""The ranges of the networks' arguments, which their constructors name and the configuration is checked by.

Upper ends are far beyond what is sensible: they turn a slip of the hand into a sentence, where it would otherwise be a
network that takes minutes or all memory to build.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

Width = Annotated[int, Field(gt=0, le=16_384)]
"""Number of channels of a layer, or a divisor of it."""

Layers = Annotated[int, Field(gt=0, le=64)]
"""Number of layers or stages one behind the other, at least one."""

LayersOrNone = Annotated[int, Field(ge=0, le=64)]
"""Number of layers one behind the other; 0 for none."""

Heads = Annotated[int, Field(gt=0, le=1024)]
"""Number of heads of an attention; it divides the width."""

Count = Annotated[int, Field(gt=0, le=1024)]
"""Number of things side by side, such as FusionNets, tokens and samples."""

Several = Annotated[int, Field(ge=2, le=1024)]
"""Number of things that are compared with each other, at least two."""

Rows = Annotated[int, Field(gt=0, le=65_536)]
"""Number of rows of a table that has one for every segment."""

Probability = Annotated[float, Field(ge=0, lt=1)]
"""Probability of something that does not always happen."""

Positive = Annotated[float, Field(ge=1e-6, le=1e6)]
"""A scale, which something is divided by; neither so small nor so large that float32 loses anything."""

NotNegative = Annotated[float, Field(ge=0, le=1e6)]
"""The weight of a loss, or a margin; 0 for none."""

Candidates = Annotated[Sequence[Positive], Field(min_length=1, max_length=100)]
"""The values of a scale that are tried one after the other."""
