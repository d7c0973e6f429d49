"""The compared methods: exact sizes, one score however a video is batched, what each refuses, what each learns."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.ms_lstm import PlainSkipLSTMs, plain
from composed import composed
from pamfn.config.schema import Config
from pamfn.config.validation import checked
from pamfn.data.batches import Batch
from pamfn.errors import InputError
from pamfn.models.attention import MultiheadAttention
from pamfn.models.baselines import GDLT, MSAF, MSLSTM, UMT, ActionNet, JointVA, MiniNet, PooledSVR, umt
from pamfn.models.baselines.action_net import ContextAwareAttention, adjacency
from pamfn.models.baselines.gdlt import DecoderLayer, EncoderLayer, GDLTOutput, hardest_triplet
from pamfn.models.baselines.joint_va import DisentangledAttention
from pamfn.models.baselines.ms_lstm import MSLSTMOutput
from pamfn.models.baselines.msaf import SplitAttention
from pamfn.models.baselines.skip_lstm import SkipLSTMs
from pamfn.models.baselines.umt import Sizes
from pamfn.models.network import Network, SolvedNetwork
from pamfn.pipeline import record, two_stage
from pamfn.pipeline.build import build_network
from pamfn.pipeline.two_stage import run_job
from pamfn.runs.fingerprint import baseline_identity, fingerprint, fusion_identity
from pamfn.runs.folder import Run
from pamfn.training import BaselineTraining, ScoreTask, tasks

ONE, TWO, THREE = {"rgb": 6}, {"rgb": 6, "audio": 4}, {"rgb": 6, "flow": 5, "audio": 4}
VA = {"rgb": 1024, "audio": 768}
UMT_SIZES: dict[str, Any] = {"d_model": 8, "heads": 2, "feed_forward": 12, "positions": 32}
OFFICIAL_UMT: dict[str, Any] = {"decoder_layers": 1, "projected": True, "head_hidden": None}
PAPER_UMT: dict[str, Any] = {"decoder_layers": 0, "projected": False, "head_hidden": 5}
SMALL: dict[str, tuple[type[Network], dict[str, Any]]] = {
    "gdlt": (GDLT, {"widths": ONE, "d_model": 8, "hidden": 10, "feed_forward": 12}),
    "action_net": (ActionNet, {"widths": {"rgb": 6, "static": 4}, "d_model": 8, "hidden": 6, "head_hidden": 5}),
    "ms_lstm": (MSLSTM, {"widths": ONE, "embedding": 7, "hidden": 8, "attention_hidden": 5, "rows": 4, "reduced": 6}),
    "joint_va": (JointVA, {"widths": TWO, "d_model": 8, "hidden": 10, "attention": 4, "head_hidden": 5}),
    "msaf": (MSAF, {"widths": THREE, "d_model": 8, "hidden": 10, "block": 4}),
    "msaf_two": (
        MSAF,
        {"widths": THREE, "d_model": 8, "hidden": 10, "block": 8, "fusion_stages": [1, 2], "join": "sum"},
    ),
    "umt_official": (UMT, {"widths": TWO, **UMT_SIZES, **OFFICIAL_UMT}),
    "umt_paper": (UMT, {"widths": TWO, **UMT_SIZES, **PAPER_UMT}),
    "svr": (PooledSVR, {"widths": TWO}),
}
TRAINED = [name for name, (build, _) in SMALL.items() if not issubclass(build, SolvedNetwork)]
SETTINGS = {
    "gdlt": "model.d_model=16 model.hidden=16 model.feed_forward=16 model.dropout=0.0",
    "action_net": "model.d_model=16 model.hidden=16 model.head_dropout=0.0",
    "ms_lstm": "model.embedding=16 model.hidden=16 model.rows=4",
    "joint_va": "model.d_model=16 model.hidden=16 model.dropout=0.0 model.head_dropout=0.0",
    "msaf": "model.d_model=16 model.hidden=16 model.dropout=0.0 model.head_reduction=1",
    "msaf_two": "model.d_model=16 model.hidden=16 model.dropout=0.0 model.head_reduction=1",
    "umt_official": "model.d_model=16 model.feed_forward=16 model.dropout=0.0 model.input_dropout=0.0",
    "umt_paper": "model.d_model=16 model.feed_forward=16 model.dropout=0.0 model.input_dropout=0.0",
}
"""A small network of every trained method, without dropout but for MSAF's head."""
READS = {
    **{name: ["rgb", "audio"] for name in ("joint_va", "umt_official", "umt_paper")},
    **{name: ["rgb", "flow", "audio"] for name in ("msaf", "msaf_two")},
}
"""Modalities of the methods that read several."""


def network(name: str, **chosen: Any) -> Network:
    """A small network with BatchNorm statistics that are not their defaults; the same weights every time."""
    torch.manual_seed(0)
    build, arguments = SMALL[name]
    model = build(**arguments, **chosen)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    for parameter in model.parameters():
        if not parameter.requires_grad:
            nn.init.normal_(parameter)
    return model


def videos(name: str, count: int, segments: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    widths = SMALL[name][1]["widths"]
    return {m: torch.randn(count, segments, w, generator=generator) for m, w in widths.items()}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("build", "widths", "total"),
    [
        (GDLT, {"rgb": 1024}, 3_163_396),
        (ActionNet, {"rgb": 1024, "static": 2048}, 3_542_787),
        (MSLSTM, {"rgb": 1024}, 2_661_508),
        (MSLSTM, {"rgb": 4096}, 3_054_724),
        (PooledSVR, {"rgb": 1024}, 1025),
        (UMT, {"rgb": 2048, "audio": 2048}, 12_191_233),
        (UMT, VA, 11_601_409),
    ],
)
def test_a_method_is_as_large_as_its_authors(build: type[Network], widths: dict[str, int], total: int):
    assert parameters(build(widths=widths)) == total


@pytest.mark.parametrize(
    ("name", "total"),
    [
        *(("joint_va", 1_975_305), ("msaf", 5_560_001), ("msaf_two", 5_560_961)),
        *(("umt_paper", 7_625_473 - 3 * 4488 * 256), ("umt_official", 11_601_409 - 5 * 4488 * 256)),
    ],
)
def test_a_multimodal_method_is_as_large_as_the_paper_says_it_is(name: str, total: int):
    """UMT with tables of 512 positions instead of 5000: three in the paper's variant, five as released."""
    settings = checked(composed(f"model={name}"))
    model = build_network(settings, "baseline", list(settings.streams))
    assert parameters(model) == total


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_a_video_scores_the_same_alone_and_in_a_batch(name: str):
    lengths = [14, 9, 8, 11]
    features = videos(name, len(lengths), 16)
    for x in features.values():
        for row, length in enumerate(lengths):
            x[row, length:] = 1e3
    model = network(name).eval()
    together = model(features, torch.tensor(lengths)).score
    assert together.shape == (4,)
    for row, length in enumerate(lengths):
        alone = model({m: x[row : row + 1, :length] for m, x in features.items()}).score
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", TRAINED)
def test_what_padding_holds_plays_no_part_in_training(name: str):
    found = []
    for filling in (0.0, 7.0):
        features, lengths = videos(name, 3, 12), [12, 9, 8]
        for x in features.values():
            for row, length in enumerate(lengths):
                x[row, length:] = filling
        model = network(name).train()
        torch.manual_seed(2)
        output = model(features, torch.tensor(lengths))
        loss = output.score.square().sum()
        added = model.added_loss(output)
        if added is not None:
            loss = loss + added
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        found.append([output.score.detach(), *model.buffers(), *gradients])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_every_part_of_a_method_learns(name: str):
    model = network(name).train()
    output = model(videos(name, 4, 12))
    loss = (output.score - 0.5).square().sum()
    added = model.added_loss(output)
    if added is not None:
        loss = loss + added
    loss.backward()
    still = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert still == []


@pytest.mark.parametrize(
    ("build", "chosen", "told"),
    [
        (GDLT, {"widths": {"rgb": 6, "audio": 4}}, "GDLT reads one modality, not rgb, audio"),
        (MSLSTM, {"widths": {"rgb": 6, "audio": 4}}, "MS-LSTM reads one modality, not rgb, audio"),
        (GDLT, {"widths": ONE, "heads": 3}, "not divisible by 3 heads"),
        (GDLT, {"widths": ONE, "grades": 1}, "grades is at least 2"),
        (MSLSTM, {"widths": ONE, "score_scale": 0.0}, "score_scale is above 0"),
        (ActionNet, {"widths": {"rgb": 1}}, "must be at least 2"),
        (JointVA, {"widths": ONE}, r"Joint-VA reads two modalities, not rgb: choose e.g. modalities=\[rgb,audio\]"),
        (UMT, {"widths": THREE}, "UMT reads two modalities, not rgb, flow, audio"),
        (MSAF, {"widths": ONE}, "MSAF reads two or more modalities, not rgb"),
        (MSAF, {"widths": TWO, "fusion_stages": [4]}, r"fusion_stages are among 1 to 3, not \[4\]"),
        (MSAF, {"widths": TWO, "block": 96}, "each must divide the one before"),
        (MSAF, {"widths": TWO, "reduction": 0}, "each must divide the one before"),
        (GDLT, {"widths": ONE, "heads": 0}, "not divisible by 0 heads"),
        (MiniNet, {"widths": TWO, "d_model": 1, "modules": 1, "narrow": 1}, "MINI-Net halves d_model"),
        (MSAF, {"widths": TWO, "floor": 1.0}, "floor is at least 0 and below 1"),
        (PooledSVR, {"widths": ONE, "costs": []}, "costs"),
        (PooledSVR, {"widths": ONE, "folds": 1}, "folds"),
    ],
)
def test_impossible_numbers_are_refused(build: type[Network], chosen: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=told):
        build(**chosen)


@torch.no_grad()
def test_transformer_layers_are_torchs():
    """Ours against torch's post-norm layers with the same weights; dropout is off in evaluation mode."""
    torch.manual_seed(0)
    d, heads, hidden = 8, 2, 12
    x, memory = torch.randn(3, 5, d), torch.randn(3, 9, d)
    valid = torch.arange(9) < torch.tensor([9, 4, 6])[:, None]
    encoder, theirs = (
        EncoderLayer(d, heads, hidden, 0.5),
        nn.TransformerEncoderLayer(d, heads, hidden, batch_first=True),
    )
    copy_attention(encoder.attention, theirs.self_attn)
    copy_rest(encoder, theirs)
    expected = theirs.eval()(memory, src_key_padding_mask=~valid)
    found = encoder.eval()(memory, valid)
    torch.testing.assert_close(found[valid], expected[valid], atol=1e-6, rtol=1e-5)
    decoder, theirs = (
        DecoderLayer(d, heads, hidden, 0.5),
        nn.TransformerDecoderLayer(d, heads, hidden, batch_first=True),
    )
    copy_attention(decoder.self_attention, theirs.self_attn)
    copy_attention(decoder.cross_attention, theirs.multihead_attn)
    copy_rest(decoder, theirs)
    expected = theirs.eval()(x, memory, memory_key_padding_mask=~valid)
    torch.testing.assert_close(decoder.eval()(x, memory, valid), expected, atol=1e-6, rtol=1e-5)


def copy_attention(ours: MultiheadAttention, theirs: nn.MultiheadAttention) -> None:
    inputs = (ours.query, ours.key, ours.value)
    theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in inputs]))
    theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in inputs]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())


def copy_rest(ours: nn.Module, theirs: nn.Module) -> None:
    """Feed-forward layers and norms, which get weights that are not their defaults."""
    theirs.get_submodule("linear1").load_state_dict(ours.get_submodule("feed_forward.0").state_dict())
    theirs.get_submodule("linear2").load_state_dict(ours.get_submodule("feed_forward.3").state_dict())
    for name, module in ours.named_children():
        if isinstance(module, nn.LayerNorm):
            module.weight.normal_()
            theirs.get_submodule(name).load_state_dict(module.state_dict())


def test_the_hardest_triplet_is_that_of_its_definition():
    queries = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    flat, grade = queries.flatten(0, 1), [k for _ in range(3) for k in range(4)]
    hinges = []
    for i in range(12):
        distance = [1 - float(torch.cosine_similarity(flat[i], flat[j], dim=0)) for j in range(12)]
        positive = max(d for j, d in enumerate(distance) if grade[j] == grade[i])
        negative = min(d for j, d in enumerate(distance) if grade[j] != grade[i])
        hinges.append(max(0.0, positive - negative + 0.7))
    assert float(hardest_triplet(queries, 0.7)) == pytest.approx(sum(hinges) / 12, abs=1e-5)


def test_under_autocast_the_triplets_and_their_gradients_are_those_of_float32(monkeypatch: pytest.MonkeyPatch):
    """Queries start almost alike: rounded to bfloat16, their distances would choose other triplets."""
    start = 1 + 0.1 * torch.randn(4, 4, 8, generator=torch.Generator().manual_seed(0))
    batch = Batch(videos("gdlt", 4, 12), None, torch.full((4,), 0.5), torch.arange(4))
    gradients = []
    for autocast in (False, True):
        queries = start.clone().requires_grad_()
        gdlt = network("gdlt")
        said = GDLTOutput(torch.full((4,), 0.5), torch.full((4, 4), 0.25), queries)
        monkeypatch.setattr(gdlt, "forward", lambda *_, said=said: said)
        module = BaselineTraining(gdlt, ScoreTask(max_score=45.0, score_range=45.0), epochs=1)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = module.training_step(batch, 0)
        loss.backward()
        gradients.append(queries.grad)
    assert float(gradients[0].norm()) > 0
    torch.testing.assert_close(gradients[0], gradients[1], atol=0, rtol=0)


def test_a_grade_that_alone_responds_is_the_score():
    model = network("gdlt").eval()
    assert isinstance(model, GDLT)
    nn.init.zeros_(model.head.weight)
    model.head.bias.data = torch.tensor([-30.0, -30.0, 30.0, -30.0])
    torch.testing.assert_close(model(videos("gdlt", 2, 9)).score, torch.full((2,), 2 / 3))


def test_the_graph_is_that_of_the_videos_own_length():
    valid = torch.arange(6) < torch.tensor([6, 4])[:, None]
    near = adjacency(valid)
    for row, length in ((0, 6), (1, 4)):
        position = torch.arange(float(length))
        a = torch.exp(-(position[:, None] - position).abs())
        scale = torch.diag(a.sum(1).pow(-0.5))
        torch.testing.assert_close(near[row, :length, :length], scale @ a @ scale)
        assert near[row, length:].abs().sum() == 0


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("random_start", [False, True])
def test_the_skip_lstms_and_their_gradients_are_those_of_plain_loops(masked: bool, random_start: bool):
    """In double precision; the update gate skips steps of some videos and not of others."""
    torch.manual_seed(0)
    ours = SkipLSTMs(3, 5, 6, random_start).double()
    ours.update_bias.data.zero_()
    ours.update.data.mul_(5)
    for bias in (ours.input_bias, ours.recurrent_bias):
        nn.init.normal_(bias)
    x = [torch.randn(4, t, 5, dtype=torch.float64) for t in (11, 6, 2)]
    steps = [torch.tensor([11, 8, 3, 9]), torch.tensor([6, 4, 1, 5]), torch.tensor([2, 1, 1, 2])]
    found = []
    for kind in (SkipLSTMs, PlainSkipLSTMs):
        model = SkipLSTMs(3, 5, 6, random_start).double()
        model.load_state_dict(ours.state_dict())
        model.__class__ = kind
        inputs = [y.clone().requires_grad_() for y in x]
        torch.manual_seed(1)
        states = model(inputs, steps if masked else None)
        torch.stack([(i + 1) * state.sin().sum() for i, state in enumerate(states)]).sum().backward()
        gradients = [p.grad for p in model.parameters() if p.requires_grad]
        found.append([*states, *(y.grad for y in inputs), *gradients])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


def test_under_autocast_the_skip_lstms_stay_as_close_to_float32_as_plain_loops():
    torch.manual_seed(0)
    ours = SkipLSTMs(3, 32, 32)
    x = [torch.randn(8, t, 32) for t in (40, 20, 10)]
    found = []
    for kind, autocast in ((SkipLSTMs, False), (SkipLSTMs, True), (PlainSkipLSTMs, True)):
        model = SkipLSTMs(3, 32, 32)
        model.load_state_dict(ours.state_dict())
        model.__class__ = kind
        inputs = [y.clone().requires_grad_() for y in x]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            states = model(inputs)
        torch.stack([state.sin().sum() for state in states]).sum().backward()
        tensors = [*states, *(p.grad for p in model.parameters() if p.requires_grad), *(y.grad for y in inputs)]
        assert {y.dtype for y in tensors} == {torch.float32}
        found.append(tensors)
    for exact, one, other in zip(*found, strict=True):
        distance, plain_distance = ((y - exact).norm() / exact.norm() for y in (one, other))
        assert 0 < distance < 0.02
        assert distance < 1.5 * plain_distance


@torch.no_grad()
def test_under_autocast_a_cell_adds_up_changes_that_bfloat16_would_lose():
    model = SkipLSTMs(1, 1, 1)
    for weight in (model.input, model.recurrent):
        nn.init.zeros_(weight)
    model.input_bias.copy_(torch.tensor([20.0, 20.0, 20.0, 1e-3]))
    with torch.autocast("cpu", torch.bfloat16):
        (state,) = model([torch.zeros(1, 600, 1)])
    assert float(state) == pytest.approx(np.tanh(0.6), rel=0.01)


@torch.no_grad()
def test_a_skipped_step_leaves_the_state_as_it_was():
    """With an update probability of .4 every second step is taken: the skipped ones may hold anything."""
    torch.manual_seed(0)
    model = SkipLSTMs(1, 3, 4)
    model.update.zero_()
    model.update_bias.fill_(torch.tensor(0.4).logit())
    x = torch.randn(2, 7, 3)
    other = x.clone()
    other[:, 1::2] = 9.0
    assert torch.equal(model([x])[0], model([other])[0])
    other[:, 2] = 9.0
    assert not torch.equal(model([x])[0], model([other])[0])


@torch.no_grad()
def test_ms_lstm_scores_as_with_plain_loops():
    model = network("ms_lstm").eval()
    assert isinstance(model, MSLSTM)
    features, lengths = videos("ms_lstm", 3, 20), torch.tensor([20, 8, 13])
    torch.testing.assert_close(model(features, lengths).score, plain(model)(features, lengths).score)


@torch.no_grad()
def test_only_random_states_make_a_score_random():
    features = videos("ms_lstm", 2, 12)
    for random_start in (False, True):
        model = network("ms_lstm", random_start=random_start).eval()
        assert torch.equal(model(features).score, model(features).score) != random_start


def test_the_penalty_of_ms_lstm_is_that_of_its_definition():
    attention = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    squares = [
        sum((float(video[:, i] @ video[:, j]) - (i == j)) ** 2 for i in range(3) for j in range(3))
        for video in attention
    ]
    penalty = network("ms_lstm", penalty=0.5).added_loss(MSLSTMOutput(torch.zeros(2), attention))
    assert penalty is not None
    assert float(penalty) == pytest.approx(0.5 * sum(squares) / 2)


def test_a_score_scale_divides_the_penalty_as_it_does_the_squared_error():
    model, scaled = network("ms_lstm"), network("ms_lstm", score_scale=45.0)
    features = videos("ms_lstm", 3, 12)
    (one, other) = (m.eval()(features) for m in (model, scaled))
    torch.testing.assert_close(one.score, 45 * other.score)
    penalty, scaled_penalty = model.added_loss(one), scaled.added_loss(other)
    assert penalty is not None
    assert scaled_penalty is not None
    torch.testing.assert_close(penalty, 45**2 * scaled_penalty)


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("normalise", ["none", "l2", "standardise"])
def test_a_solved_svr_knows_a_linear_score_and_keeps_it(pool: Any, normalise: Any):
    generator = torch.Generator().manual_seed(0)
    features = {"rgb": torch.randn(60, 9, 6, generator=generator) + torch.randn(60, 1, 6, generator=generator)}
    model = PooledSVR(widths=ONE, pool=pool, normalise=normalise, epsilon=0.01)
    pooled = model.pooled(features)
    target = pooled @ torch.linspace(-1, 1, 6) / 10 + 0.5
    model.solve(pooled, target, seed=0)
    again = PooledSVR(widths=ONE, pool=pool, normalise=normalise)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(features).score, target, atol=0.03, rtol=0)
    assert any(float(again.get_buffer("cost")) == pytest.approx(cost) for cost in model.costs)


@torch.no_grad()
def test_the_weights_of_msaf_are_those_of_its_definition():
    torch.manual_seed(0)
    model = SplitAttention(["rgb", "flow"], d_model=6, block=2, reduction=2, floor=0.25).eval()
    x = {"rgb": torch.randn(1, 5, 6), "flow": torch.randn(1, 5, 6)}
    weights = model(x, None)
    blocks = [y[0, :, i : i + 2].mean(dim=0) for y in x.values() for i in (0, 2, 4)]
    common = model.squeeze(torch.stack(blocks).sum(dim=0)[None])
    logits = torch.stack([layer(common)[0, i : i + 2] for layer in model.excite.values() for i in (0, 2, 4)])
    expected = 0.25 + 0.75 * logits.softmax(dim=0)
    torch.testing.assert_close(weights.reshape(6, 2), expected)


@torch.no_grad()
@pytest.mark.parametrize("sentinel", [False, True])
def test_disentangled_attention_is_that_of_its_definition(sentinel: bool):
    torch.manual_seed(0)
    model = DisentangledAttention(6, 4, sentinel)
    x, source = torch.randn(5, 6), torch.randn(5, 6)
    query, key = (layer(y[None])[0] for layer, y in ((model.query, x), (model.key, source)))
    keys, memory = key - key.mean(dim=0), source
    if model.sentinel is not None:
        keys, memory = torch.cat([keys, model.key(model.sentinel[None])[0]]), torch.cat([source, model.sentinel])
    expected = []
    for i in range(5):
        pairwise = (model.scale * keys @ (query[i] - query.mean(dim=0))).softmax(dim=0)
        weights = pairwise + model.unary(memory[None])[0, :, 0].softmax(dim=0)
        expected.append(x[i] + model.out((weights @ model.value(memory[None])[0])[None, None])[0, 0])
    torch.testing.assert_close(model(x[None], source[None], None)[0], torch.stack(expected))


@torch.no_grad()
def test_a_stream_of_action_net_is_that_of_its_definition():
    torch.manual_seed(0)
    stream = ContextAwareAttention(6, 4, 3).eval()
    x = torch.randn(1, 5, 6)
    embedded = stream.embedding(x)
    degree = [sum(math.exp(-abs(i - j)) for j in range(5)) for i in range(5)]
    near = torch.tensor(
        [[math.exp(-abs(i - j)) / math.sqrt(degree[i] * degree[j]) for j in range(5)] for i in range(5)]
    )
    context = stream.graph1(near @ embedded).relu()
    context = stream.graph2(near @ context).relu()
    both = torch.cat([embedded, context], dim=2)
    weights = stream.attention(both).flatten().softmax(dim=0)
    found, said = stream(x, torch.ones(1, 5, dtype=torch.bool))
    torch.testing.assert_close(said[0], weights)
    torch.testing.assert_close(found[0], sum(w * y for w, y in zip(weights, both[0], strict=True)))


@torch.no_grad()
def test_umts_layers_are_those_of_their_definition():
    """Norms come first, positions are in queries and keys alone; by torch's attention with the same weights."""
    torch.manual_seed(0)
    sizes = Sizes(d_model=8, heads=2, feed_forward=12, dropout=0.5, positions=16, projected=True)

    def attended(ours: Any, *given: Tensor) -> Tensor:
        theirs = nn.MultiheadAttention(8, 2, batch_first=True)
        copy_attention(ours, theirs)
        return theirs(*given, need_weights=False)[0]

    def fed(layer: Any, norm: Any, x: Tensor) -> Tensor:
        return x + layer(norm(x))

    x, other = torch.randn(2, 3, 5, 8)
    encoder = umt.EncoderLayer(sizes).eval()
    y, place = encoder.norms[0](x), encoder.positions.table[:5]
    expected = x + attended(encoder.attention, y + place, y + place, y)
    torch.testing.assert_close(encoder(x, None), fed(encoder.feed_forward, encoder.norms[1], expected))

    bottleneck = umt.BottleneckLayer(sizes, 2).eval()
    place = bottleneck.positions.table[:5]
    y, z = bottleneck.before[0](x), bottleneck.before[1](other)
    tokens = bottleneck.tokens.expand(3, 2, 8)
    asking = bottleneck.of_tokens[0](tokens)
    tokens = tokens + attended(bottleneck.compress[0], asking, y + place, y)
    tokens = bottleneck.of_tokens[1](tokens + attended(bottleneck.compress[1], asking, z + place, z))
    ends = bottleneck([x, other], None)
    for i, (stream, normed) in enumerate(((x, y), (other, z))):
        expected = stream + attended(bottleneck.expand[i], normed + place, tokens, tokens)
        torch.testing.assert_close(ends[i], fed(bottleneck.feed_forward[i], bottleneck.after[i], expected))

    decoder = umt.DecoderLayer(sizes).eval()
    of_queries, of_memory = decoder.of_queries.table[:5], decoder.of_memory.table[:5]
    y = decoder.norms[0](x)
    expected = x + attended(decoder.self_attention, y + of_queries, y + of_queries, y)
    y = decoder.norms[1](expected)
    expected = expected + attended(decoder.cross_attention, y + of_queries, other + of_memory, other)
    torch.testing.assert_close(decoder(x, other, None), fed(decoder.feed_forward, decoder.norms[2], expected))


@torch.no_grad()
def test_umts_tokens_are_all_that_passes_between_its_streams():
    """With the same tokens whatever is compressed, a stream's end does not depend on the other."""
    model = network("umt_paper").eval()
    assert isinstance(model, UMT)
    one, other = torch.randn(2, 1, 9, 8, generator=torch.Generator().manual_seed(0))
    ends = [model.bottleneck([one, second], None)[0] for second in (other, other + torch.randn(8))]
    assert not torch.equal(*ends)
    for attend in model.bottleneck.compress:
        assert isinstance(attend, MultiheadAttention)
        nn.init.zeros_(attend.value.weight)
    ends = [model.bottleneck([one, second], None)[0] for second in (other, other + torch.randn(8))]
    torch.testing.assert_close(*ends)


def test_a_video_longer_than_the_table_of_positions_is_refused():
    with pytest.raises(InputError, match=r"model.positions: a video has 33 segments, more than 32 positions"):
        network("umt_official")(videos("umt_official", 1, 33))


def test_under_autocast_the_scores_of_an_svr_are_those_of_float32():
    model = PooledSVR(widths=ONE)
    model.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    features = {"rgb": torch.randn(50, 9, 6, generator=torch.Generator().manual_seed(1))}
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(features).score
    assert torch.equal(rounded, model(features).score)


def test_too_few_videos_for_the_folds_are_refused():
    with pytest.raises(ValueError, match="5 folds need as many videos, not 3"):
        PooledSVR(widths=ONE).solve(torch.zeros(3, 6), torch.zeros(3), seed=0)


SCHEDULES = {
    "gdlt": {"rg_ball": 250, "rg_clubs": 400, "rg_hoop": 500, "rg_ribbon": 150, "fisv_tes": 320, "fisv_pcs": 400},
    "action_net": {"rg_ball": 400, "rg_clubs": 300, "rg_hoop": 500, "rg_ribbon": 300, "fisv_tes": 300, "fisv_pcs": 300},
    "ms_lstm": dict.fromkeys(("rg_ball", "rg_clubs", "rg_hoop", "rg_ribbon", "fisv_tes", "fisv_pcs"), 300),
}


@pytest.mark.parametrize("name", READS)
def test_a_multimodal_method_reads_its_modalities_of_any_data_set(name: str):
    streams = ["vicon_positions", "kinect_angles", "kinect_positions"]
    of = dict(zip(["rgb", "flow", "audio"], streams, strict=True))
    for experiment, names in (("fisv_tes", READS[name]), ("uiprmd", [of[m] for m in READS[name]])):
        assert list(checked(composed(f"+experiment={experiment}", f"model={name}")).streams) == names


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_experiment_leaves_a_method_its_own_schedule(name: str):
    for experiment, epochs in SCHEDULES[name].items():
        settings = checked(composed(f"+experiment={experiment}", f"model={name}"))
        assert settings.recipe.baseline is not None
        assert settings.recipe.baseline.epochs == epochs
        assert settings.recipe.baseline.crop == (68 if experiment.startswith("rg") else 124)
        assert list(settings.streams) == ["rgb"]


PUBLISHED: dict[str, dict[str, Any]] = {
    "gdlt": {
        "optimizer": "sgd",
        "lr": 0.01,
        "lr_min": 1e-4,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "cosine",
    },
    "action_net": {"optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "schedule": "steps"}
    | {"drops": [100, 50], "drop_factor": 0.1, "head_lr_scale": 5.0},
    "ms_lstm": {"optimizer": "adamw", "lr": 5e-4, "weight_decay": 0.0, "schedule": "none"},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_method_is_trained_by_the_published_numbers(name: str):
    recipe = checked(composed("+experiment=rg_ball", f"model={name}")).recipe.baseline
    assert recipe is not None
    assert PUBLISHED[name].items() <= recipe.model_dump().items()
    assert (recipe.batch_size, recipe.clip) == (32, None)


@pytest.mark.parametrize("name", [*SETTINGS, "svr"])
def test_a_method_goes_with_a_data_set_of_other_streams(name: str):
    settings = checked(composed("+experiment=uiprmd", f"model={name}"))
    assert next(iter(settings.streams)) == "vicon_positions"


def test_gdlt_on_fisv_has_the_numbers_that_are_known():
    fisv, rg = (checked(composed(f"+experiment={e}", "model=gdlt")).model for e in ("fisv_pcs", "rg_hoop"))
    assert (fisv["dropout"], fisv["triplet"]) == (0.7, 0.5)
    assert (rg["dropout"], rg["triplet"]) == (0.3, 1.0)


def test_a_methods_name_holds_all_that_decides_its_numbers_and_nothing_of_pamfns():
    base = ["+experiment=fisv_tes", "model=gdlt"]
    more = ["recipe.baseline.lr=0.02", "recipe.baseline.crop=100", "model.margin=0.5", "seed=1", "modalities=[audio]"]
    names = {fingerprint(baseline_identity(checked(composed(*base, word)))) for word in more}
    plain_name = fingerprint(baseline_identity(checked(composed(*base))))
    assert len({*names, plain_name}) == len(more) + 1
    for word in ("recipe.fusion.lr=0.1", "recipe=paper", "logger=csv"):
        assert fingerprint(baseline_identity(checked(composed(*base, word)))) == plain_name


def test_what_methods_are_trained_by_names_no_other_network():
    plain_name, other = (
        fingerprint(fusion_identity(checked(composed(*words)))) for words in ([], ["+recipe/baseline=gdlt"])
    )
    assert plain_name == other


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["model=gdlt", "~recipe.baseline"], "recipe.baseline: missing; choose one, e.g. recipe/baseline=gdlt."),
        (["model=gdlt", "available=[rgb]"], "available: takes a network of branches, e.g. model=pamfn."),
        (["model=gdlt", "model._target_=pamfn.models.PAMFN"], "model.branch: needs a _target_"),
        (["model._target_=pamfn.models.baselines.ActionNet"], "model.branch: no such setting; this model has no"),
    ],
)
def test_what_does_not_go_with_a_method_is_refused(arguments: list[str], sentence: str):
    with pytest.raises(InputError) as error:
        checked(composed(*arguments))
    assert any(problem.startswith(sentence) for problem in error.value.problems), error.value.problems


Job = Callable[..., Config]


@pytest.fixture
def job(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """`job("gdlt", "seed=1")`: a small configuration on eight training and six test videos of eight segments each."""
    data = shutil.copytree(tiny_data, tmp_path / "data")
    labels = data / "FISV" / "train.txt"
    labels.write_text("\n".join(labels.read_text().splitlines()[:8]) + "\n")
    for file in (data / "features").glob("FISV_*.npy"):
        arrays = {v: x[:8] for v, x in np.load(file, allow_pickle=True).item().items()}
        np.save(file, np.array(arrays, dtype=object), allow_pickle=True)
    monkeypatch.setattr(record, "plot_curves", lambda path, *a, **k: path.touch())
    monkeypatch.setattr(tasks, "plot_predictions", lambda path, *a, **k: path.touch())
    always = (
        *(f"paths.data_dir={data}", f"paths.output_dir={tmp_path / 'runs'}", "features.rgb.width=6", "logger=csv"),
        *("features.flow.width=5", "features.audio.width=4", "protocol=paper", "trainer.accelerator=cpu"),
    )

    def made(name: str, *more: str) -> Config:
        small = SETTINGS[name].split() if name in SETTINGS else []
        trained = ["recipe.baseline.crop=8", "recipe.baseline.epochs=2", "++recipe.baseline.drops=[]"] if small else []
        return checked(composed("data=fisv_tes", f"model={name}", *always, *small, *trained, *more))

    return made


def result(run: Run) -> dict[str, Any]:
    found = run.result()
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_eight_videos_are_learned_by_heart(name: str, job: Job):
    from pamfn.pipeline.reload import configuration
    from pamfn.pipeline.rescore import rescored

    quicker = ["recipe.baseline.epochs=120", "recipe.baseline.optimizer=adamw", "recipe.baseline.lr=0.01"]
    learned = run_job(job(name, *quicker, "recipe.baseline.schedule=cosine", "recipe.baseline.head_lr_scale=1.0"))
    scored, _ = rescored(configuration(result(learned), None, None, None), learned.path, "train", "last")
    assert scored["pearson"] > 0.99


@pytest.mark.parametrize("name", [*SETTINGS, "svr"])
def test_a_method_leaves_the_same_folder_as_every_network_and_is_found_again(
    name: str, job: Job, monkeypatch: pytest.MonkeyPatch
):
    from pamfn.pipeline.rescore import evaluate

    run = run_job(job(name))
    assert run.path.parent.name == "baseline"
    assert {p.name for p in run.path.iterdir()} == {
        *("result.json", "predictions.csv", "curves.csv", "curves.png", "predictions.png"),
        *("selected.safetensors", "last.safetensors", "reference.safetensors", ".lock"),
    }
    found = result(run)
    assert (found["kind"], found["modalities"], found["branches"]) == ("baseline", READS.get(name, ["rgb"]), {})
    assert found["inference_ms"] > 0
    assert list(found["chosen"]) == (["C"] if name == "svr" else [])
    assert len(run.file("predictions.csv").read_text().splitlines()) == 1 + 2 * 6
    for weights in ("selected", "last"):
        assert evaluate(run.path, "test", weights, None, None, None) == []
    for how in ("fit", "solve"):
        monkeypatch.setattr(two_stage, how, lambda *a, **k: pytest.fail("trained again"))
    assert run_job(job(name)).path == run.path


def test_a_method_is_refitted_for_the_epochs_that_the_hold_out_protocol_chose(job: Job):
    again = ("protocol=holdout", "protocol.holdout=0.25", "protocol.refit=true")
    refit = result(run_job(job("gdlt", *again, "recipe.baseline.epochs=3")))
    chosen = result(run_job(job("gdlt", *again[:2], "recipe.baseline.epochs=3")))
    assert refit["times"]["epochs"] == chosen["metrics"]["holdout"]["epoch"] + 1


@pytest.mark.parametrize(
    ("name", "word", "crop"),
    [
        ("ms_lstm", "model.random_start=true", 8),
    ],
)
def test_a_fault_of_the_originals_can_be_switched_on_and_changes_the_numbers(name: str, word: str, crop: int, job: Job):
    """Videos of eight segments; the scores can be told apart and computed again."""
    from pamfn.pipeline.rescore import evaluate

    shorter = f"recipe.baseline.crop={crop}"
    usual, faulty = (run_job(job(name, shorter, *more)) for more in ([], [word]))
    assert usual.path != faulty.path
    scores = [result(run)["metrics"]["last"]["mse"] for run in (usual, faulty)]
    assert scores[0] != pytest.approx(scores[1], rel=1e-4)
    assert evaluate(faulty.path, "test", "selected", None, None, None) == []
    assert run_job(job(name, shorter, word)).path == faulty.path


def test_a_crop_shorter_than_the_network_needs_is_refused_before_data_is_read(job: Job):
    with pytest.raises(InputError, match=r"recipe.baseline.crop: the network needs 8 segments or more, not 7"):
        run_job(job("ms_lstm", "recipe.baseline.crop=7", "paths.data_dir=nowhere"))


def test_so_is_a_crop_of_the_data(job: Job):
    with pytest.raises(InputError, match=r"data.crop: the network needs 4 segments or more, not 2"):
        run_job(job("pamfn", "data.crop=2", "paths.data_dir=nowhere"))


def test_a_rate_for_the_head_of_a_network_that_has_no_such_head_is_refused(job: Job):
    with pytest.raises(InputError, match=r"recipe.baseline.head_lr_scale: all of this network learns at one rate"):
        run_job(job("gdlt", "recipe.baseline.head_lr_scale=0.1", "paths.data_dir=nowhere"))


def test_a_second_modality_is_refused_with_what_to_choose(job: Job):
    with pytest.raises(InputError, match=r"GDLT reads one modality, not rgb, audio: choose e.g. modalities=\[rgb\]"):
        run_job(job("gdlt", "modalities=[rgb,audio]"))


def test_the_rate_falls_to_a_tenth_at_every_drop(job: Job):
    run = run_job(job("action_net", "recipe.baseline.epochs=5", "++recipe.baseline.drops=[3,1]"))
    rates = [float(line.split(",")[1]) for line in run.file("curves.csv").read_text().splitlines()[1:]]
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4])
