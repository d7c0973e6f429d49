"""The Adaptive Fusion Module: K FusionNets and the PolicyNet that decides which of them act in a time step."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pamfn.models.layers import Pooling, SequenceConv, SequenceNorm, pool


class FusionNets(nn.Module):
    """All K FusionNets as one computation; network k weighs the modalities in its own way and refines the sum.

    features: (b, t, m, d)
    returns: (b, t', k, d) cross-modal features, t' being what `pooling` leaves of t

    shared_attention: the K networks share the first layer of the attention network, as in the released code, instead
        of having one each as the text says (docs/paper-vs-code.md, row 10).
    Source: section III-D, equations 5-6.
    """

    def __init__(self, d_model: int, modalities: int, networks: int, shared_attention: bool) -> None:
        super().__init__()
        self.networks = networks
        self.copies = 1 if shared_attention else networks
        groups = modalities * self.copies
        self.attention1 = SequenceConv(modalities * d_model, groups * d_model, kernel=1, groups=modalities)
        self.attention_norm = SequenceNorm(groups * d_model)
        self.attention2 = SequenceConv(groups * d_model, modalities * networks, kernel=1, groups=groups)
        self.conv1 = SequenceConv(networks * d_model, networks * d_model, groups=networks)
        self.norm1 = SequenceNorm(networks * d_model)
        self.conv2 = SequenceConv(networks * d_model, networks * d_model, groups=networks)
        self.norm2 = SequenceNorm(networks * d_model)

    def forward(self, features: Tensor, pooling: Pooling, valid: Tensor | None = None) -> Tensor:
        b, t, m, d = features.shape
        hidden = F.relu(self.attention_norm(self.attention1(features.flatten(2)), valid))
        weights = self.attention2(hidden).reshape(b, t, m, self.networks).softmax(dim=2)
        fused = torch.matmul(weights.transpose(2, 3), features).flatten(2)  # (b, t, k * d)
        refined = F.relu(self.norm1(self.conv1(fused, valid), valid))
        refined = F.relu(self.norm2(self.conv2(refined, valid), valid))
        return pool(fused + refined, pooling, valid).unflatten(2, (self.networks, d))


class PolicyNet(nn.Sequential):
    """The logits of the decision, before pooling: (b, t, m * d) -> (b, t, choices).

    Source: equation 7. Two fully-connected layers in the text, one in the released code (docs/paper-vs-code.md, row 2).
    """

    def __init__(self, d_model: int, modalities: int, choices: int, layers: int) -> None:
        if layers not in (1, 2):
            raise ValueError(f"policy_layers is 1 (released code) or 2 (paper), not {layers}")
        width = modalities * d_model
        hidden = [nn.Linear(width, d_model), nn.ReLU()] if layers == 2 else []
        super().__init__(*hidden, nn.Linear(d_model if hidden else width, choices))


class Undecided(NamedTuple):
    """What the adaptive fusion computes before it decides.

    features: (b, t', k, d) cross-modal features
    logits: (b, t', choices); None without a PolicyNet
    """

    features: Tensor
    logits: Tensor | None


class FusionOutput(NamedTuple):
    """Cross-modal features and PolicyNet's decision, whose fields are None without a PolicyNet.

    features: (b, t', k, d)
    mask: (b, t', k) 0 for an enabled FusionNet, else -1e9
    logits: (b, t', choices)
    decision: (b, t') number of enabled FusionNets
    """

    features: Tensor
    mask: Tensor | None
    logits: Tensor | None
    decision: Tensor | None


def ranked_mask(logits: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mask of the ranked rule, which enables FusionNets 1..u, and u, the argmax of (noisy) logits (b, t, k).

    Source: equations 9, 10 and 12. The forward pass is a hard decision, the gradient that of
    softmax(logits / temperature).
    """
    soft = (logits / temperature).softmax(dim=-1)
    decision = logits.argmax(dim=-1)
    disabled = torch.arange(logits.shape[-1], device=logits.device) > decision[..., None]
    return disabled * -1e9 + (soft - soft.detach()), decision + 1


def unranked_mask(logits: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mask of K independent decisions and the number enabled, from (noisy) logits (b, t, 2 k).

    Source: Table VII. Every FusionNet has a one-hot decision of its own between enabled and disabled; hard forward,
    soft backward as in `ranked_mask`. Where all are disabled the mask is -1e9 throughout, and `FusionStage` zeroes the
    result.
    """
    choices = logits.unflatten(-1, (-1, 2))
    soft = (choices / temperature).softmax(dim=-1)[..., 0]
    enabled = choices.argmax(dim=-1) == 0
    return ~enabled * -1e9 + (soft - soft.detach()), enabled.sum(dim=-1)


Policy = Literal["ranked", "unranked", "free"]
MASKS = {"ranked": ranked_mask, "unranked": unranked_mask}


class AdaptiveFusion(nn.Module):
    """AFM: K FusionNets and their PolicyNet over the previous stage's features.

    features: (b, t, m, d)
    noise: (b, t', choices) added to the logits before the decision; None: the decision is their argmax
    returns: `FusionOutput` at t', what `pooling` leaves of t

    policy: `ranked`, or of Table VII `unranked` (a decision per FusionNet) or `free` (no PolicyNet, all enabled).
    Source: section III-D. Nearly all of the time goes to what no decision changes (`undecided`); several decisions can
    share it.
    """

    def __init__(
        self,
        d_model: int,
        modalities: int,
        networks: int,
        *,
        policy: Policy = "ranked",
        policy_layers: int,
        shared_attention: bool,
    ) -> None:
        super().__init__()
        self.fusion_nets = FusionNets(d_model, modalities, networks, shared_attention)
        self.mask_of = MASKS.get(policy)
        self.may_disable_all = policy == "unranked"
        if self.mask_of is not None:
            choices = networks if policy == "ranked" else 2 * networks
            self.policy = PolicyNet(d_model, modalities, choices, policy_layers)

    def undecided(self, features: Tensor, pooling: Pooling, valid: Tensor | None = None) -> Undecided:
        """Compute what the decision is about, which does not depend on it."""
        cross_modal = self.fusion_nets(features, pooling, valid)
        if self.mask_of is None:
            return Undecided(cross_modal, None)
        return Undecided(cross_modal, pool(self.policy(features.flatten(2)), pooling, valid))

    def forward(self, undecided: Undecided, temperature: Tensor, noise: Tensor | None) -> FusionOutput:
        features, logits = undecided
        if self.mask_of is None or logits is None:  # there is neither without a PolicyNet
            return FusionOutput(features, None, None, None)
        mask, decision = self.mask_of(logits if noise is None else logits + noise, temperature)
        return FusionOutput(features, mask, logits, decision)
