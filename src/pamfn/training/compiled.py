"""`compile=true`: the training step through torch.compile, where it can be compiled."""

import logging
from typing import Any

import torch
from torch import nn

log = logging.getLogger(__name__)


class Compiled:
    """A network's forward pass, compiled for every shape of its inputs; on a GPU as CUDA graphs.

    The random numbers are those of the network itself. Where it cannot be compiled (no C++ compiler, an operation that
    is not supported) the network itself goes on, with a message.
    """

    def __init__(self, network: nn.Module) -> None:
        import torch._inductor.config as inductor

        inductor.fallback_random = True
        on_gpu = any(p.is_cuda for p in network.parameters())
        self.network = network
        self.call: Any = torch.compile(network, dynamic=False, mode="reduce-overhead" if on_gpu else None)

    def __call__(self, *inputs: Any) -> Any:
        if self.call is self.network:
            return self.network(*inputs)
        try:
            torch.compiler.cudagraph_mark_step_begin()
            return self.call(*inputs)
        except Exception as error:
            self.call = self.network
            output = self.network(*inputs)  # what is wrong with the inputs is not the compiler's fault
            log.warning("compile: %s: %s. Going on without.", type(error).__name__, str(error).partition("\n")[0])
            return output
