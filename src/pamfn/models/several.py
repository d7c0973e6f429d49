"""Several networks of one architecture as one computation: each with its own weights, inputs and random numbers."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

from pamfn.models.draws import drawing_from
from pamfn.models.layers import SequenceNorm

Inputs = tuple[Any, ...]
"""Arguments of one network: tensors, dicts and lists of tensors, None."""


class Called(nn.Module):
    """A network whose `forward` calls any method of it, by name, since `functional_call` calls no other.

    Of the network's own `forward` it gives the scores.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, method: str, *inputs: Any) -> Any:
        output = getattr(self.network, method)(*inputs)
        return output.score if method == "forward" else output


class SeveralNetworks(nn.Module):
    """s networks whose parameters and buffers are stacked, (s, ...), so that one optimiser step moves all of them.

    They are computed by `vmap`; the numbers are those of the networks alone but for rounding.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        first = networks[0]
        self.count = len(networks)
        self.parameter_names = [name for name, _ in first.named_parameters()]
        self.buffer_names = [name for name, _ in first.named_buffers()]
        self.kept = list(first.state_dict())
        every = [dict(network.named_parameters()) for network in networks]
        self.stacked = nn.ParameterList(
            nn.Parameter(torch.stack([named[name].detach() for named in every]), requires_grad=p.requires_grad)
            for name, p in first.named_parameters()
        )
        for i, name in enumerate(self.buffer_names):
            self.register_buffer(f"buffer{i}", torch.stack([network.get_buffer(name) for network in networks]))
        of_head = {id(p) for p in getattr(first, "head_parameters", list)()}
        self.heads = [i for i, p in enumerate(first.parameters()) if id(p) in of_head]
        # in a tuple, so that it is no submodule: it has no numbers to move or to save
        self.skeleton = (Called(copy.deepcopy(first).to("meta")),)
        for module in self.skeleton[0].modules():
            if isinstance(module, SequenceNorm):
                module.widened = True

    def head_parameters(self) -> list[nn.Parameter]:
        """Parameters that learn at the head's own rate."""
        return [self.stacked[i] for i in self.heads]

    def named_tensors(self) -> dict[str, Tensor]:
        """Every parameter and buffer, stacked."""
        buffers = (self.get_buffer(f"buffer{i}") for i in range(len(self.buffer_names)))
        return dict(zip([*self.parameter_names, *self.buffer_names], [*self.stacked, *buffers], strict=True))

    def state_of(self, index: int) -> dict[str, Tensor]:
        """The state dict of one network."""
        tensors = self.named_tensors()
        return {name: tensors[name][index].detach() for name in self.kept}

    def forward(
        self, method: str, inputs: Sequence[Inputs], generators: Sequence[torch.Generator] | None = None
    ) -> list[Any]:
        """What `method` of network i gives for `inputs[i]`, for every i; of `forward`, the scores.

        The inputs have equal shapes. generators: of the networks' random numbers in training.
        """
        (called,) = self.skeleton
        if called.training != self.training:
            called.train(self.training)
        tensors = {f"network.{name}": x for name, x in self.named_tensors().items()}
        together = tree_map(lambda *x: None if x[0] is None else torch.stack(x), *inputs)
        of_each = tree_map(lambda x: None if x is None else 0, together)
        with drawing_from(generators or []):
            call = vmap(lambda own, given: functional_call(called, own, (method, *given)), in_dims=(0, of_each))
            output = call(tensors, together)
        return [tree_map(lambda x, i=i: x[i], output) for i in range(self.count)]
