"""The networks: exact sizes, any number of everything, and what each part may and may not see, by gradient."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pamfn.models import PAMFN, ModalityBranch

RELEASED: dict[str, Any] = {
    "frozen": "train",
    "double_negation": True,
    "policy_layers": 1,
    "shared_attention": True,
    "temperature": "unconstrained",
}
WIDTHS = {"rgb": 6, "flow": 5, "audio": 4}


def network(widths: dict[str, int] = WIDTHS, num_stages: int = 3, d_model: int = 8, **chosen: Any) -> PAMFN:
    """A small network with BatchNorm statistics that are not their defaults; the same weights every time."""
    torch.manual_seed(0)
    branches = {m: ModalityBranch(width=w, d_model=d_model, hidden=7, num_stages=num_stages) for m, w in widths.items()}
    model = PAMFN(branches=branches, **{"num_fusion_nets": 3, **chosen})
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


def videos(count: int = 3, segments: int = 9, widths: dict[str, int] = WIDTHS, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {m: torch.randn(count, segments, w, generator=generator) for m, w in widths.items()}


def only(features: dict[str, Tensor], row: int, length: int) -> dict[str, Tensor]:
    return {m: x[row : row + 1, :length] for m, x in features.items()}


def deciding(model: PAMFN, segments: int, decisions: Sequence[int]) -> list[Tensor]:
    """Noise under which video i decides `decisions[i]` in every time step."""
    chosen = nn.functional.one_hot(torch.tensor(decisions) - 1, model.num_fusion_nets) * 1e4
    return [chosen[:, None].expand(-1, t, -1) for t in model.stage_lengths(segments)]


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("k", "r", "total"), [(10, 2, 22_715_261), (6, 2, 17_959_757), (6, 1, 18_058_573)])
def test_the_network_is_as_large_as_the_authors(k, r, total):
    """Theirs counts six LayerNorms of 512 that are never applied, and a zero state of 768."""
    with torch.device("meta"):
        branches = {m: ModalityBranch(width=w) for m, w in {"rgb": 1024, "flow": 1024, "audio": 768}.items()}
        model = PAMFN(branches=branches, num_fusion_nets=k, head_reduction=r, **RELEASED)
    assert parameters(model) + 6 * 512 + 768 == total


@pytest.mark.parametrize(("width", "total"), [(1024, 1_842_177), (768, 1_711_105)])
def test_a_branch_is_as_large_as_the_authors(width, total):
    assert parameters(ModalityBranch(width=width)) == total


@settings(deadline=None, max_examples=15)
@given(
    modalities=st.integers(1, 4),
    stages=st.integers(1, 4),
    k=st.integers(1, 4),
    heads=st.sampled_from([(1, 1), (2, 4), (8, 2)]),
    count=st.integers(1, 3),
    extra=st.integers(0, 5),
    released=st.booleans(),
)
@torch.no_grad()
def test_any_number_of_modalities_stages_fusionnets_and_heads(
    modalities: int, stages: int, k: int, heads: tuple[int, int], count: int, extra: int, released: bool
):
    widths = {f"stream{i}": 3 + i for i in range(modalities)}
    chosen = {"num_fusion_nets": k, "msfd_heads": heads[0], "cmfd_heads": heads[1], "finetune": ()}
    model = network(widths, stages, **(RELEASED if released else {}), **chosen).eval()
    segments = 2 ** (stages - 1) + extra
    output = model(videos(count, segments, widths))
    assert output.score.shape == (count,)
    assert ((output.score > 0) & (output.score < 1)).all()
    assert len(output.stages) == stages
    for stage, t in zip(output.stages, model.stage_lengths(segments), strict=True):
        assert stage.decoded.shape == stage.cross_modal.shape == (count, t, 8)
        assert stage.mixed.shape == (count, t, 24)
        assert stage.modality_weights.shape == (count, t, heads[0], modalities)
        assert stage.fusion_weights.shape == (count, t, heads[1], k)
        assert stage.logits.shape == (count, t, k)
        assert stage.decision.shape == (count, t)
        assert ((stage.decision >= 1) & (stage.decision <= k)).all()
        torch.testing.assert_close(stage.modality_weights.sum(-1), torch.ones(count, t, heads[0]))
        torch.testing.assert_close(stage.fusion_weights.sum(-1), torch.ones(count, t, heads[1]))


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_a_branch_halves_time_after_each_stage_and_averages_the_last(stages):
    branch = ModalityBranch(width=6, d_model=8, hidden=7, num_stages=stages).eval()
    x = torch.randn(2, 19, 6)
    score, maps = branch(x)
    assert score.shape == (2,)
    assert [level.shape[1] for level in maps] == [*(19 // 2**i for i in range(stages)), 1]
    assert torch.equal(branch({"rgb": x}).score, score)


@settings(deadline=None, max_examples=15)
@given(lengths=st.lists(st.integers(4, 14), min_size=1, max_size=4), padding=st.integers(0, 4))
@torch.no_grad()
def test_a_video_scores_the_same_alone_and_in_a_batch(lengths: list[int], padding: int):
    features = videos(len(lengths), max(lengths) + padding)
    for x in features.values():
        for row, length in enumerate(lengths):
            x[row, length:] = 1e3
    model = network().eval()
    together = model(features, torch.tensor(lengths)).score
    branch = model.branches["rgb"]
    unimodal = branch(features["rgb"], torch.tensor(lengths)).score
    for row, length in enumerate(lengths):
        alone = only(features, row, length)
        torch.testing.assert_close(together[row : row + 1], model(alone).score, atol=1e-6, rtol=0)
        torch.testing.assert_close(unimodal[row : row + 1], branch(alone["rgb"]).score, atol=1e-6, rtol=0)


def test_what_padding_holds_plays_no_part_in_training():
    """Scores, BatchNorm statistics and gradients are the same bits, whatever is behind the end of a video."""
    found = []
    for filling in (0.0, 7.0):
        features, lengths = videos(3, 11), torch.tensor([11, 7, 4])
        for x in features.values():
            for row, length in enumerate(lengths):
                x[row, length:] = filling
        model = network(frozen="train").train()
        torch.manual_seed(2)
        score = model(features, lengths).score
        score.square().sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        found.append([score.detach(), *model.buffers(), *gradients])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_batchnorm_counts_the_real_segments_alone():
    branch = ModalityBranch(width=6, d_model=8, hidden=7).train()
    x, lengths = videos(3, 11)["rgb"], [11, 7, 4]
    branch(x, torch.tensor(lengths))
    real = torch.cat([video[:length] for video, length in zip(x, lengths, strict=True)])
    real = branch.embedding.linear1(real[None])[0]
    norm = branch.embedding.norm1
    torch.testing.assert_close(norm.running_mean, 0.1 * real.mean(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * real.var(0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("finetune", [("audio",), ("rgb", "flow"), ()])
@pytest.mark.parametrize("frozen", ["eval", "train"])
def test_only_the_branches_that_are_finetuned_get_a_gradient(finetune, frozen):
    model = network(finetune=finetune, frozen=frozen).train()
    features = {m: x.requires_grad_() for m, x in videos().items()}
    model(features).score.sum().backward()
    for name, branch in model.branches.items():
        given_to = {n for n, p in branch.named_parameters() if p.grad is not None}
        everything = {n for n, _ in branch.named_parameters() if not n.startswith("head.")}
        assert given_to == (everything if name in finetune else set())
        assert {n for n, p in branch.named_parameters() if p.requires_grad} == given_to
        assert (features[name].grad is not None) == (name in finetune)
    rest = [p for n, p in model.named_parameters() if not n.startswith("branches.")]
    assert all(p.grad is not None for p in rest)


def test_fusionnets_past_the_decision_are_not_attended_to():
    model = network(num_fusion_nets=4, cmfd_heads=2).eval()
    output = model(videos(4), noise=deciding(model, 9, [1, 2, 3, 4]))
    for stage in output.stages:
        for row in range(4):
            assert (stage.decision[row] == row + 1).all()
            assert (stage.fusion_weights[row, ..., row + 1 :] == 0).all()
            assert (stage.fusion_weights[row, ..., : row + 1] > 0).all()


@pytest.mark.parametrize("decision", [1, 2, 3])
def test_fusionnets_past_a_videos_decision_get_no_gradient_from_it(decision):
    """In evaluation mode, where BatchNorm does not mix the videos; the other video uses every FusionNet."""
    model = network(num_fusion_nets=3).eval()
    model(videos(2), noise=deciding(model, 9, [decision, 3])).score[0].backward()
    for stage in model.stages:
        for name in ("conv1", "conv2"):
            gradient = stage.get_parameter(f"fusion.fusion_nets.{name}.weight").grad
            assert gradient is not None
            by_net = gradient.unflatten(0, (3, -1)).abs().amax(dim=(1, 2, 3))
            assert (by_net[decision:] == 0).all()
            assert (by_net[:decision] > 0).all()


def test_the_policy_learns_though_its_decision_is_hard():
    model = network().eval()
    for stage in model.stages:
        stage.get_parameter("fusion.policy.2.bias").data.copy_(torch.tensor([0.0, 0.0, 5.0]))
    output = model(videos())
    assert all((stage.decision == 3).all() for stage in output.stages)
    output.score.sum().backward()
    for stage in model.stages:
        gradient = stage.get_parameter("fusion.policy.2.weight").grad
        assert gradient is not None
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("decoding", ["sample", "mean"])
@torch.no_grad()
def test_a_videos_noise_depends_on_its_key_alone(decoding):
    model = network(decoding=decoding, samples=4).eval()
    features, lengths, keys = videos(3, 13), [13, 8, 5], [11, 5, 40]
    together, spread = model.predict_scores(features, torch.tensor(lengths), model.draws(keys, 13))
    for row, (length, key) in enumerate(zip(lengths, keys, strict=True)):
        alone, alone_spread = model.predict_scores(only(features, row, length), None, model.draws([key], length))
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-6, rtol=0)
        torch.testing.assert_close(spread[row : row + 1], alone_spread, atol=1e-6, rtol=0)
    assert (spread > 0).any() == (decoding == "mean")
    assert torch.equal(together, model.predict_scores(features, torch.tensor(lengths), model.draws(keys, 13))[0])


@torch.no_grad()
def test_samples_differ_between_keys_and_their_mean_has_a_spread():
    features = {m: x.expand(20, -1, -1) for m, x in videos(1, 13).items()}
    sampling, averaging = network(decoding="sample").eval(), network(decoding="mean", samples=8).eval()
    sampled, _ = sampling.predict_scores(features, None, sampling.draws(range(20), 13))
    assert len(sampled.unique()) > 1
    averaged, spread = averaging.predict_scores(features, None, averaging.draws(range(20), 13))
    assert (spread > 0).any()
    assert averaged.std() < sampled.std()


@pytest.mark.parametrize("policy", ["ranked", "unranked"])
@torch.no_grad()
def test_sampled_decisions_share_what_does_not_depend_on_them_and_change_no_score(policy):
    model = network(decoding="mean", samples=3, policy=policy).eval()
    features, lengths = videos(2, 13), torch.tensor([13, 9])
    noise = model.draws([4, 7], 13)
    assert noise is not None
    calls = []
    for module in (model.branches, *(stage.get_submodule("fusion.fusion_nets") for stage in model.stages)):
        module.register_forward_hook(lambda module, *_: calls.append(module))
    score, spread = model.predict_scores(features, lengths, noise)
    assert len(calls) == 1 + len(model.stages)
    each = torch.stack([model(features, lengths, [stage[:, i] for stage in noise]).score for i in range(3)])
    assert torch.equal(score, each.mean(0))
    assert torch.equal(spread, each.std(0, correction=0))
    assert (spread > 0).all()


@torch.no_grad()
def test_the_largest_logit_decides_by_default():
    model = network().eval()
    output = model(videos())
    assert model.draws([1, 2, 3], 13) is None
    score, spread = model.predict_scores(videos(), None, None)
    assert (spread == 0).all()
    assert torch.equal(score, output.score)
    assert all(torch.equal(stage.decision, stage.logits.argmax(-1) + 1) for stage in output.stages)


@pytest.mark.parametrize("setting", [{"msfd_heads": 2}, {"cmfd_heads": 2}, {"double_negation": True}])
@torch.no_grad()
def test_a_setting_without_weights_changes_the_score(setting):
    one, other = network().eval(), network(**setting).eval()
    assert parameters(one) == parameters(other)
    noise = deciding(one, 9, [3, 3, 3])
    assert not torch.allclose(one(videos(), noise=noise).score, other(videos(), noise=noise).score, atol=1e-6)


@pytest.mark.parametrize("setting", ["feature_dropout", "attention_dropout", "head_dropout"])
def test_each_dropout_changes_training_and_not_evaluation(setting):
    chosen: list[dict[str, Any]] = [{setting: p} for p in (0.0, 0.6)]
    models = [network(**numbers) for numbers in chosen]
    with torch.no_grad():
        evaluated = [model.eval()(videos()).score for model in models]
        trained = []
        for model in models:
            torch.manual_seed(3)
            trained.append(model.train()(videos()).score)
    assert torch.equal(*evaluated)
    assert not torch.equal(*trained)


@pytest.mark.parametrize(
    ("setting", "more"),
    [
        # in each of 3 stages: 3 D -> K instead of 3 D -> D -> K, with D = 8 and K = 3
        ({"policy_layers": 1}, -3 * (24 * 8 + 8 + 8 * 3 + 3 - (24 * 3 + 3))),
        # in each of 3 stages, for each of 3 modalities: one first layer (with BatchNorm) instead of K = 3
        ({"shared_attention": True}, -3 * 3 * 2 * (8 * 8 + 8 + 2 * 8)),
        ({"head_reduction": 1}, 4 * (24 + 1 + 2 + 1)),
    ],
)
def test_a_setting_with_weights_changes_their_number(setting, more):
    assert parameters(network(**setting)) - parameters(network()) == more


def test_the_temperature_stays_positive_unless_unconstrained():
    """Both start at 10; at a parameter of -1 the unconstrained one turns the policy's gradient around."""
    gradients = []
    for reading in ("positive", "unconstrained"):
        model = network(temperature=reading, initial_temperature=10.0).eval()
        found = model.temperature.exp() if reading == "positive" else model.temperature
        assert found.item() == pytest.approx(10)
        model.temperature.data.fill_(-1.0)
        # FusionNet 3 is chosen by a hair, so that the softmax is not flat at any temperature
        noise = [torch.tensor([0.0, 0.0, 0.1]).expand(3, t, 3) for t in model.stage_lengths(9)]
        for stage in model.stages:
            for parameter in stage.get_submodule("fusion.policy").parameters():
                parameter.data.zero_()
        output = model(videos(), noise=noise)
        logits = output.stages[2].logits
        logits.retain_grad()
        output.score.sum().backward()
        gradients.append(logits.grad)
    assert gradients[0].abs().max() > 0
    assert (gradients[0] * gradients[1]).sum() < 0


@pytest.mark.parametrize("frozen", ["eval", "train"])
def test_fixed_branches_keep_their_statistics_only_in_eval_mode(frozen):
    model = network(frozen=frozen).train()
    assert [model.branches[m].training for m in WIDTHS] == [frozen == "train", frozen == "train", True]
    before = {k: v.clone() for k, v in model.branches.state_dict().items()}
    model(videos())
    moved = {k for k, v in model.branches.state_dict().items() if not torch.equal(v, before[k])}
    assert {k.split(".")[0] for k in moved} == ({"audio"} if frozen == "eval" else set(WIDTHS))
    assert not any(module.training for module in model.eval().modules())


def test_impossible_numbers_are_refused():
    for heads in (3, 0, -1):
        for decoder in ("msfd_heads", "cmfd_heads"):
            chosen: dict[str, Any] = {decoder: heads}
            with pytest.raises(ValueError, match=f"d_model 8 is not divisible by {heads} heads"):
                network(**chosen)
    for reduction in (9, 0, -1):
        with pytest.raises(ValueError, match=f"head_reduction {reduction} leaves nothing of d_model 8"):
            network(head_reduction=reduction)
    with pytest.raises(ValueError, match="policy_layers"):
        network(policy_layers=3)


def test_the_heads_rate_concerns_the_head_alone():
    model = network()
    assert {id(p) for p in model.head_parameters()} == {id(p) for p in model.head.parameters()}
