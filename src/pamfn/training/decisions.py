"""How often PolicyNet decided what, for the paper's Figure 5."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pamfn.data.videos import Batch


@torch.no_grad()
def decision_counts(network: nn.Module, batches: Iterable[Batch]) -> list[list[int]] | None:
    """How many segments of whole videos were given each decision 0..K, stage by stage: [[n_0, ..., n_K], ...].

    Decisions are the most likely ones (argmax of the logits), however the network decides for its scores. None for a
    network without a policy. Stages that decide nothing count zeros.
    """
    choices = getattr(network, "num_fusion_nets", None)
    if choices is None or not getattr(network, "samples_decisions", False):
        return None
    network.eval()
    counts: list[Tensor] = []
    for batch in batches:
        network.to(batch.target.device)  # Lightning leaves it on the CPU
        stages = network(batch.features, batch.lengths).stages
        counts = counts or [torch.zeros(choices + 1, dtype=torch.long) for _ in stages]
        for i, stage in enumerate(stages):
            if stage.decision is not None:
                last = i == len(stages) - 1
                kept = stage.decision if last or batch.lengths is None else real(stage.decision, batch.lengths, i)
                counts[i] += torch.bincount(kept.flatten().cpu(), minlength=choices + 1)
    return [stage.tolist() for stage in counts]


def real(decision: Tensor, lengths: Tensor, stage: int) -> Tensor:
    """The decisions (b, t') of segments that are not padding."""
    there = torch.arange(decision.shape[1], device=decision.device) < (lengths // 2 ** (stage + 1))[:, None]
    return decision[there]
