"""Stage 2: the mixed branch learns to fuse pretrained branches; how often its PolicyNets decided what."""

from collections.abc import Iterable

import torch
from torch import Tensor

from pamfn.data.batches import Batch
from pamfn.models.network import Network
from pamfn.models.pamfn import PAMFN
from pamfn.training.module import TrainingModule


class MixedModalityFusion(TrainingModule):
    """Trains a fused network on its branches, of which only those in its `finetune` go on learning.

    The head may have a rate of its own (`head_lr_scale`). PolicyNet decides by a sample in training, and for test
    scores by the network's `decoding`; `decision_counts` says how often it decided what.
    Source: section III of the paper.
    """


@torch.no_grad()
def decision_counts(network: Network, batches: Iterable[Batch]) -> list[list[int]] | None:
    """How many segments of whole videos were given each decision 0..K, stage by stage: [[n_0, ..., n_K], ...].

    For the paper's Figure 5. Decisions are the most likely ones (argmax of the logits), however the network decides for
    its scores. None for a network without a policy. Stages that decide nothing count zeros.
    """
    if not isinstance(network, PAMFN) or not network.samples_decisions:
        return None
    choices = network.num_fusion_nets
    network.eval()
    counts: list[Tensor] = []
    for batch in batches:
        device = next(iter(batch.features.values())).device
        batch = batch.to(device)
        network.to(device)  # Lightning leaves it on the CPU
        stages = network(batch.features, batch.lengths).stages
        valid = network.valid_levels(next(iter(batch.features.values())).shape[1], batch.lengths)
        counts = counts or [torch.zeros(choices + 1, dtype=torch.long) for _ in stages]
        for i, stage in enumerate(stages):
            if stage.decision is not None:
                kept = stage.decision if valid[i + 1] is None else stage.decision[valid[i + 1]]
                counts[i] += torch.bincount(kept.flatten().cpu(), minlength=choices + 1)
    return [stage.tolist() for stage in counts]
