"""The rows of the ablation tables: what each leaves out, what stands in its place, and that nothing else changes."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pamfn.data.batches import Batch
from pamfn.models import PAMFN, LateFusion, ModalityBranch
from pamfn.models.adaptive_fusion import AdaptiveFusion, unranked_mask
from pamfn.models.branches import Branches
from pamfn.models.decoders import WeightedFusion
from pamfn.training.mixed_modality_fusion import decision_counts

WIDTHS = {"rgb": 6, "flow": 5, "audio": 4}
D, K = 8, 3
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "no_cmfd": {"cmfd": "none"},
    "no_msfd": {"msfd": "none"},
    "neither": {"cmfd": "none", "msfd": "none"},
    "weighted_cmfd": {"cmfd": "weighted"},
    "weighted_msfd": {"msfd": "weighted"},
    "weighted_decoders": {"cmfd": "weighted", "msfd": "weighted"},
    "free": {"policy": "free"},
    "unranked": {"policy": "unranked"},
    "first_stage": {"fusion_stages": 1},
    "first_two_stages": {"fusion_stages": 2},
}
LATE = ("average", "concat", "weighted", "attention")


def branches(widths: Mapping[str, int] = WIDTHS) -> dict[str, ModalityBranch]:
    return {m: ModalityBranch(width=width, d_model=D, hidden=7) for m, width in widths.items()}


def pamfn(**settings: Any) -> PAMFN:
    torch.manual_seed(0)
    return PAMFN(branches=branches(), num_fusion_nets=K, head_reduction=2, **settings)


def late(fusion: Any, **settings: Any) -> LateFusion:
    torch.manual_seed(0)
    return LateFusion(branches=branches(), fusion=fusion, **settings)


def videos(count: int = 3, segments: int = 9) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {m: torch.randn(count, segments, width, generator=generator) for m, width in WIDTHS.items()}


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def every_network() -> list[tuple[str, nn.Module]]:
    return [*((name, pamfn(**v)) for name, v in VARIANTS.items()), *((fusion, late(fusion)) for fusion in LATE)]


@pytest.mark.parametrize(("name", "model"), every_network(), ids=lambda x: x if isinstance(x, str) else "")
@torch.no_grad()
def test_a_video_scores_the_same_alone_and_in_a_batch(name: str, model: nn.Module):
    model.eval()
    lengths = torch.tensor([5, 9, 4])
    together = videos()
    for x in together.values():
        for row, length in enumerate(lengths.tolist()):
            x[row, length:] = 99.0  # padding that leaks would be seen
    score = model(together, lengths).score
    for row, length in enumerate(lengths.tolist()):
        alone = {m: x[row : row + 1, :length] for m, x in together.items()}
        torch.testing.assert_close(model(alone).score, score[row : row + 1], atol=1e-6, rtol=0)


UNUSED = {
    "neither": ("branches.", "temperature"),
    "no_cmfd": ("temperature",),
    "no_msfd": tuple(f"branches.{m}.blocks.2" for m in WIDTHS),  # the AFM reads the stage before
    "free": ("temperature",),
    "first_stage": tuple(f"branches.{m}.blocks.{i}" for m in WIDTHS for i in (1, 2)),
    "first_two_stages": tuple(f"branches.{m}.blocks.2" for m in WIDTHS),
}
"""What a variant has no use for, besides the branches' own heads."""


@pytest.mark.parametrize("name", [*VARIANTS, *LATE])
def test_trained_in_one_stage_everything_that_is_used_learns(name: str):
    model = late(name, finetune=None) if name in LATE else pamfn(finetune=None, **VARIANTS[name])
    model.train()(videos(8)).score.sum().backward()
    idle = {n for n, p in model.named_parameters() if p.grad is None}
    heads = tuple(f"branches.{m}.head" for m in WIDTHS)
    assert {n for n in idle if not n.startswith(heads)} == {
        n for n, _ in model.named_parameters() if n.startswith(UNUSED.get(name, ())) and not n.startswith(heads)
    }


def test_leaving_a_decoder_out_narrows_the_state_and_takes_its_networks_with_it():
    full, no_msfd, no_cmfd = pamfn(), pamfn(msfd="none"), pamfn(cmfd="none")
    assert [m.stages[0].out_width for m in (full, no_msfd, no_cmfd)] == [3 * D, 2 * D, 2 * D]
    assert not any("msfd" in name for name, _ in no_msfd.named_parameters())
    assert not any("cmfd" in name or "fusion" in name for name, _ in no_cmfd.named_parameters())
    stage = no_cmfd.eval()(videos()).stages[0]
    assert stage.decision is stage.cross_modal is stage.logits is None


@pytest.mark.parametrize("stages", [1, 2])
@torch.no_grad()
def test_stages_after_the_last_fusion_have_their_own_block_alone(stages: int):
    model = pamfn(fusion_stages=stages).eval()
    output = model(videos())
    assert [stage.decoded is not None for stage in output.stages] == [i < stages for i in range(3)]
    assert [stage.mixed.shape[-1] for stage in output.stages] == [3 * D if i < stages else D for i in range(3)]
    assert {n.split(".")[0] for n, _ in model.stages[2].named_parameters()} == {"block"}


@pytest.mark.parametrize("stages", [0, 4])
def test_more_fusion_stages_than_there_are_stages_are_refused(stages: int):
    with pytest.raises(ValueError, match=f"fusion_stages is 1 to 3, the number of stages, not {stages}"):
        pamfn(fusion_stages=stages)


@torch.no_grad()
def test_weighted_fusion_is_one_softmax_for_all_segments_without_the_masked_tokens():
    fusion = WeightedFusion(3)
    fusion.weight.copy_(torch.tensor([0.0, 1.0, 2.0]))
    tokens = torch.randn(2, 4, 3, D)
    expected = torch.einsum("btkd,k->btd", tokens, torch.tensor([0.0, 1.0, 2.0]).softmax(0))
    output, weights = fusion(tokens)
    torch.testing.assert_close(output, expected)
    assert weights.shape == (2, 4, 1, 3)
    mask = torch.zeros(2, 4, 3)
    mask[..., 2] = -1e9
    output, _ = fusion(tokens, mask)
    kept = torch.tensor([0.0, 1.0]).softmax(0)
    torch.testing.assert_close(output, torch.einsum("btkd,k->btd", tokens[:, :, :2], kept))


def test_unranked_decisions_enable_each_fusionnet_on_its_own():
    logits = torch.tensor([[[1.0, 0.0, 0.0, 1.0, 2.0, 0.0], [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]]], requires_grad=True)
    mask, enabled = unranked_mask(logits, torch.tensor(1.0))
    assert (mask > -1).tolist() == [[[True, False, True], [False, False, False]]]
    assert enabled.tolist() == [[2, 0]]
    weight = torch.tensor([[[1.0, -1.0, 0.5], [0.3, 0.2, 0.1]]])
    (mask * weight).sum().backward()
    soft = logits.detach().unflatten(-1, (3, 2)).requires_grad_()
    (soft.softmax(-1)[..., 0] * weight).sum().backward()
    assert soft.grad is not None
    torch.testing.assert_close(logits.grad, soft.grad.flatten(-2))


@torch.no_grad()
def test_where_unranked_decisions_disable_everything_nothing_is_fused():
    model = pamfn(policy="unranked").eval()
    for stage in model.stages:
        *_, last = stage.get_submodule("fusion.policy").children()
        assert isinstance(last, nn.Linear)
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.0, 1.0] * K))
    output = model(videos())
    assert all((stage.decision == 0).all() and (stage.cross_modal == 0).all() for stage in output.stages)


def test_free_fusionnets_have_no_policy_and_are_all_enabled():
    free = AdaptiveFusion(D, 3, K, policy="free", policy_layers=1, shared_attention=True)
    assert not any("policy" in name for name, _ in free.named_parameters())
    undecided = free.undecided(torch.randn(2, 8, 3, D), "halve")
    assert free(undecided, torch.tensor(1.0), None)[1:] == (None, None, None)


@torch.no_grad()
def test_late_fusions_are_what_the_paper_says():
    features = videos()
    for fusion in LATE:
        model = late(fusion).eval()
        x = model.branches(features)[-1].squeeze(1)  # (b, m, d)
        if fusion == "average":
            fused = x.mean(1)
        elif fusion == "concat":
            fused = model.reduce(x.flatten(1))
        elif fusion == "weighted":
            model.weighted.weight.copy_(torch.tensor([0.5, -1.0, 2.0]))
            fused = torch.einsum("bmd,m->bd", x, model.weighted.weight.softmax(0))
        else:
            fused = torch.einsum("bmd,bm->bd", x, model.attention(x.flatten(1)).softmax(-1))
        output = model(features)
        torch.testing.assert_close(output.score, model.head(fused).flatten())
        if output.weights is not None:
            assert output.weights.expand(3, 3).shape == (3, 3)
            torch.testing.assert_close(output.weights.sum(-1), torch.ones(len(output.weights)))


def test_modality_dropout_zeroes_whole_modalities_of_a_video_and_always_keeps_one():
    torch.manual_seed(0)
    module = Branches(branches(), finetune=None, frozen="eval", modality_dropout=0.6)
    features = {m: torch.ones(500, 4, width) for m, width in WIDTHS.items()}
    dropped = module.some_missing(features)
    there = torch.stack([x.flatten(1).amax(1) for x in dropped.values()])  # (m, b)
    assert torch.equal(there, torch.stack([x.flatten(1).amin(1) for x in dropped.values()]))
    assert (there.sum(0) >= 1).all()
    assert there.sum(0).unique().tolist() == [1, 2, 3]
    assert 0.45 < 1 - there.mean().item() < 0.6


def test_modality_dropout_acts_in_training_only():
    model = pamfn(modality_dropout=0.9).eval()
    assert torch.equal(model(videos()).score, pamfn().eval()(videos()).score)
    with pytest.raises(ValueError, match="modality_dropout is a probability below 1"):
        pamfn(modality_dropout=1.0)


@pytest.mark.parametrize("fusion", LATE)
def test_a_late_fusion_has_the_regressor_of_pamfn_and_little_else(fusion: str):
    more = {"average": 0, "concat": 3 * D * D + D, "weighted": 3, "attention": 3 * D * 3 + 3}[fusion]
    head = D * D // 2 + D // 2 + D + D // 2 + 1
    assert parameters(late(fusion)) == sum(map(parameters, branches().values())) + head + more


@torch.no_grad()
def test_decisions_are_counted_over_the_segments_that_exist():
    model = pamfn()
    lengths = torch.tensor([5, 9, 4])
    batches = [Batch(videos(), lengths, torch.zeros(3), torch.arange(3))]
    counts = decision_counts(model, batches)
    assert counts is not None
    assert [sum(stage) for stage in counts] == [2 + 4 + 2, 1 + 2 + 1, 3]
    alone = model(videos(1), None).stages[0].decision  # after counting, in evaluation mode
    assert decision_counts(model, [Batch(videos(1), None, torch.zeros(1), torch.arange(1))])[0] == [  # type: ignore[index]
        int((alone == u).sum()) for u in range(K + 1)
    ]
    assert decision_counts(pamfn(policy="free"), batches) is None
    assert decision_counts(late("average"), batches) is None
