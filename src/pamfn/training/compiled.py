"""`compile=true`: the training step through torch.compile, where it can be compiled."""

import logging
from typing import Any

import torch
from torch import nn

log = logging.getLogger(__name__)


class Compiled:
    """A network's forward and backward pass, compiled anew for each shape of its inputs; on a GPU as CUDA graphs.

    torch stops compiling after a few shapes (8), with a message of its own, and what comes then is not compiled. Crops
    have few: those of a full batch and of an epoch's last.

    The random numbers are those of the network itself. Where it cannot be compiled (no C++ compiler, an operation that
    is not supported) the network itself goes on, with a message.
    """

    def __init__(self, network: nn.Module) -> None:
        import torch._functorch.config as functorch
        import torch._inductor.config as inductor

        inductor.fallback_random = True
        functorch.force_non_lazy_backward_lowering = True  # with the forward pass, where its failure can be caught
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
            reason = getattr(error, "inner_exception", error)  # what the compiler stumbled over
            log.warning("compile: %s: %s. Going on without.", type(reason).__name__, str(reason).partition("\n")[0])
            return output
