"""Folding of BatchNorm into the layer before it, which at test time computes the same."""

import copy
from collections.abc import Iterator, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from pamfn.models.adaptive_fusion import FusionNets
from pamfn.models.baselines.gdlt import GDLT
from pamfn.models.branch import Embedding, ResidualBlock
from pamfn.models.fusion_stage import MixedBlock
from pamfn.models.head import ClassificationHead

BEHIND: Mapping[type[nn.Module], Mapping[str, str]] = {
    Embedding: {"norm1": "linear1", "norm2": "linear2"},
    ResidualBlock: {"norm1": "conv1", "norm2": "conv2"},
    MixedBlock: {"norm1": "conv1", "norm2": "conv2", "shortcut_norm": "shortcut"},
    FusionNets: {"attention_norm": "attention1", "norm1": "conv1", "norm2": "conv2"},
    ClassificationHead: {"norm": "linear1"},
    GDLT: {"norm1": "linear1", "norm2": "linear2"},
}
"""{class: {norm: the layer directly before it}}; in an `nn.Sequential` that layer is the child before the norm."""


class Folded(nn.Identity):
    """Stand-in for a norm that was folded."""

    def forward(self, input: Tensor, valid: Tensor | None = None) -> Tensor:
        return input


def foldable(network: nn.Module) -> Iterator[tuple[nn.Linear | nn.Conv1d, nn.BatchNorm1d, nn.Module, str]]:
    """Find every norm that can be folded: the layer before it, the norm, the module that holds it, its name there."""
    for parent in network.modules():
        children = dict(parent.named_children())
        behind = dict(BEHIND.get(type(parent), {}))
        if isinstance(parent, nn.Sequential):
            names = list(children)
            behind |= {name: before for before, name in pairwise(names)}
        for name, before in behind.items():
            layer, norm = children[before], children[name]
            if isinstance(layer, nn.Linear | nn.Conv1d) and isinstance(norm, nn.BatchNorm1d):
                yield layer, norm, parent, name


@torch.no_grad()
def folded(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode that computes the same without the norms that stand behind a layer.

    With fixed statistics a norm is y = a x + c for every channel, so it goes into the layer's weight and bias. That
    also holds where the layer's input is all zeros and it is skipped (`of_zeros`), since its bias is then its output.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for layer, norm, parent, name in list(foldable(network)):
        assert layer.bias is not None
        mean, var = (norm.get_buffer(f"running_{of}").double() for of in ("mean", "var"))
        scale = norm.weight.double() / (var + norm.eps).sqrt()
        bias = (layer.bias.double() - mean) * scale + norm.bias.double()
        layer.weight.copy_(layer.weight.double() * scale.reshape(-1, *[1] * (layer.weight.ndim - 1)))
        layer.bias.copy_(bias)
        setattr(parent, name, Folded())
    return network
