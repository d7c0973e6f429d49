"""What fixed branches make of a crop does not change while the fused network learns: computed once and kept."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pamfn.data.videos import Batch, Crop
from pamfn.models.branches import Branches

Levels = dict[str, list[Tensor]]
"""{modality: [(1, t_i, d)]}: the maps of one crop's fixed branches."""


class FixedMaps:
    """The maps of fixed branches in evaluation mode (`frozen=eval`), crop by crop.

    A crop has few distinct starts (about ten on Fis-V), so that most of an epoch's have been seen. Every crop goes
    through the branches alone: its maps do not depend on which others were missing, nor a resumed training on when it
    was interrupted. gib: most memory for them; what does not fit is computed again.
    """

    def __init__(self, branches: Branches, gib: float) -> None:
        self.branches, self.room = branches, gib * 2**30
        self.kept: dict[Crop, Levels] = {}

    def features(self, batch: Batch) -> dict[str, Tensor | list[Tensor]]:
        """The batch's features, those of fixed branches replaced by their maps [(b, t_i, d)]."""
        assert batch.crops is not None
        rows = [self.of(crop, batch.features, i) for i, crop in enumerate(batch.crops)]
        return {m: joined([row[m] for row in rows]) if m in self.fixed else x for m, x in batch.features.items()}

    @property
    def fixed(self) -> list[str]:
        return [m for m in self.branches if m not in self.branches.finetune]

    def of(self, crop: Crop, features: Mapping[str, Tensor], row: int) -> Levels:
        """The maps of the crop in this row of a batch."""
        if crop in self.kept:
            return self.kept[crop]
        found: Levels = {}
        # not inference tensors, even if first seen in a test: the training would refuse them
        with torch.inference_mode(False), torch.no_grad():
            for m in self.fixed:
                found[m] = self.branches[m].maps(features[m][row : row + 1, : crop.segments].clone())  # type: ignore[operator]
        size = sum(x.numel() * x.element_size() for levels in found.values() for x in levels)
        if size <= self.room:
            self.room -= size
            self.kept[crop] = found
        return found


def joined(rows: list[list[Tensor]]) -> list[Tensor]:
    """[(b, t_i, d)] of rows [(1, t_i, d)]; the shorter ones end in zeros."""
    longest = [max(x.shape[1] for x in level) for level in zip(*rows, strict=True)]
    return [
        torch.cat([x if x.shape[1] == t else F.pad(x, (0, 0, 0, t - x.shape[1])) for x in level])
        for t, level in zip(longest, zip(*rows, strict=True), strict=True)
    ]


def fixed_maps(network: nn.Module, gib: float) -> FixedMaps | None:
    """For a network with fixed branches whose maps can be kept, else None."""
    branches = getattr(network, "branches", None)
    if gib <= 0 or not isinstance(branches, Branches) or branches.frozen != "eval" or branches.modality_dropout:
        return None
    maps = FixedMaps(branches, gib)
    per_segment = any(getattr(branch, "per_segment", False) for branch in branches.values())
    return maps if maps.fixed and not per_segment else None
