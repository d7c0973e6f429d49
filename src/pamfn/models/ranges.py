"""The ranges of the networks' arguments: a constructor names one for each, and the configuration is checked by it.

Upper ends are far beyond what is sensible: they are there so that a slip of the hand is a sentence, and not a network
that takes minutes or all memory to build.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

Width = Annotated[int, Field(gt=0, le=16_384)]
"""Channels of a layer, or what they are divided by."""

Layers = Annotated[int, Field(gt=0, le=64)]
"""Layers or stages one behind the other, of which there is at least one."""

LayersOrNone = Annotated[int, Field(ge=0, le=64)]
"""Layers one behind the other, which may be left out."""

Heads = Annotated[int, Field(gt=0, le=1024)]
"""Of an attention; they divide its width."""

Count = Annotated[int, Field(gt=0, le=1024)]
"""Things side by side, such as FusionNets, tokens and samples."""

Several = Annotated[int, Field(ge=2, le=1024)]
"""Things side by side that are compared with each other."""

Rows = Annotated[int, Field(gt=0, le=65_536)]
"""Rows of a table that has one for every segment."""

Probability = Annotated[float, Field(ge=0, lt=1)]
"""Of something that does not always happen."""

Positive = Annotated[float, Field(ge=1e-6, le=1e6)]
"""A scale, which is divided by: so small or large that float32 loses nothing."""

NotNegative = Annotated[float, Field(ge=0, le=1e6)]
"""A weight of a loss, or a margin; 0 for none."""

Candidates = Annotated[Sequence[Positive], Field(min_length=1, max_length=100)]
"""Values of a scale that are tried one after the other."""
