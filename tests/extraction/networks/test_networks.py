"""The pretrained networks against tensors recorded from the public reference code."""

import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from pamfn.extraction.networks.i3d import InflatedInception
from pamfn.extraction.networks.video_swin import VideoSwinTransformer
from pamfn.extraction.networks.vit import AudioSpectrogramTransformer, UnmaskedTeacher
from pamfn.extraction.pretrained import MEAN, STD
from pamfn.extraction.weights import UNUSED, State, ast_names, i3d_names, unmt_names, video_swin_names

SHARED = os.environ.get("PAMFN_SHARED_DIR")
pytestmark = pytest.mark.skipif(not SHARED, reason="PAMFN_SHARED_DIR, the folder of the recorded tensors, is unset")
GOLDEN = Path(str(SHARED)) / "golden/extraction"
TOLERANCE = 2e-5

SMALL_SWIN: dict[str, Any] = {"width": 8, "depths": (2, 2, 2, 2), "heads": (1, 2, 4, 8)}


def pattern(channels: int, frames: int, height: int, width: int) -> np.ndarray:
    """The integer pattern that the recorded networks have seen: (c, t, h, w) uint8."""
    c, t, y, x = np.ogrid[:channels, :frames, :height, :width]
    values = 37 * c + 11 * t + 5 * y + 3 * x + (x * y + t * y) // 7 + (x * x + 13 * t * x) // 11
    return (values % 256).astype(np.uint8)


def pixels(frames: np.ndarray | Tensor) -> Tensor:
    """What networks for RGB see of uint8 frames: (1, 3, t, h, w)."""
    mean, std = (torch.tensor(x)[:, None, None, None] for x in (MEAN, STD))
    return ((torch.as_tensor(frames).float() - mean) / std)[None]


def flow(frames: int) -> Tensor:
    return torch.from_numpy(pattern(2, frames, 224, 224)).float()[None] / 255 * 2 - 1


def given(network: nn.Module, weights: State, names: Callable[[State], State]) -> nn.Module:
    """The network with recorded weights, all of which it must have."""
    kept = {name: tensor for name, tensor in names(weights).items() if not UNUSED.search(name)}
    missing, surplus = network.load_state_dict(kept, strict=False)
    assert not surplus
    assert not [name for name in missing if not UNUSED.search(name)]
    return network.eval().requires_grad_(False)


def recorded(name: str, prefix: str = "weights.") -> tuple[dict[str, Tensor], State]:
    """The recorded tensors, and the weights among them in float32."""
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return tensors, {name: v.float() if v.is_floating_point() else v for name, v in weights.items()}


def close(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_the_pattern_is_the_recorded_one():
    assert pattern(3, 5, 50, 70).sum() == 6_710_737
    assert pattern(2, 32, 224, 224).astype(np.int64).sum() == 409_449_088


@pytest.mark.parametrize("case", ["full", "odd", "noise"])
def test_video_swin_is_the_reference(case: str):
    tensors, weights = recorded("vst")
    network = given(VideoSwinTransformer(**SMALL_SWIN), weights, video_swin_names)
    sizes = {"full": (3, 32, 224, 224), "odd": (3, 5, 50, 70)}
    frames = pattern(*sizes[case]) if case in sizes else tensors["noise.input_u8"]
    close(network(pixels(frames)).mean((2, 3, 4)), tensors[f"{case}.feature"])


def test_a_clip_of_a_batch_is_as_alone():
    tensors, weights = recorded("vst")
    network = given(VideoSwinTransformer(**SMALL_SWIN), weights, video_swin_names)
    clip = pixels(pattern(3, 32, 224, 224))
    close(network(torch.cat([clip, clip.flip(2)])).mean((2, 3, 4)), tensors["batch2.feature"])


@pytest.mark.parametrize("frames", [32, 16, 20])
@pytest.mark.parametrize(("eps", "key"), [(1e-3, "avg_pool"), (1e-5, "pamfn_eps1e-5.avg_pool")])
def test_i3d_is_the_reference(frames: int, eps: float, key: str):
    tensors, weights = recorded("i3d_flow")
    network = given(InflatedInception(scale=8, eps=eps), weights, i3d_names)
    close(network(flow(frames))[0, :, :, 0, 0], tensors[f"t{frames}.{key}"])


def test_both_public_files_of_i3d_have_the_same_tensors():
    _, weights = recorded("i3d_flow")
    other = json.loads((GOLDEN / "i3d_flow.json").read_text())["key_map_to_hassony2"]
    renamed = i3d_names({other[name]: tensor for name, tensor in weights.items() if name in other})
    used = [name for name in weights if not UNUSED.search(name)]
    assert all(torch.equal(renamed[name], weights[name]) for name in used)


@pytest.mark.parametrize("frames", [1024, 126, 128, 100, 41])
def test_ast_is_the_reference_at_any_length(frames: int):
    tensors, weights = recorded("ast")
    network = given(AudioSpectrogramTransformer(width=48, depth=3, heads=4), weights, ast_names)
    spectrogram = F.pad(tensors["input_126"].float(), (0, 0, 0, max(frames - 126, 0)))[:, :frames]
    key = "t1024_zero_padded" if frames == 1024 else f"t{frames}"
    close(network(spectrogram), tensors[f"{key}.feature"])


def test_hugging_faces_names_of_ast_are_known():
    _, weights = recorded("ast")
    ours = {name: x for name, x in ast_names(weights).items() if not UNUSED.search(name)}
    theirs = hugging_face(ours)
    on_disk = json.loads((GOLDEN / "ast.json").read_text())["keys_on_disk_transformers"]
    assert {name for name in on_disk if not name.startswith("classifier")} == set(theirs)
    again = ast_names(theirs)
    assert again.keys() == ours.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in ours.items())


def hugging_face(state: Mapping[str, Tensor]) -> State:
    """The tensors of an AST under the names of transformers' files."""
    parts = {
        "cls_token": "embeddings.cls_token",
        "dist_token": "embeddings.distillation_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "attn.proj": "attention.output.dense",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    renamed: State = {}
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            for part, x in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                renamed[name.replace("attn.qkv", f"attention.attention.{part}")] = x
            continue
        for ours, theirs in parts.items():
            name = name.replace(ours, theirs)
        renamed["layernorm" + name.removeprefix("norm") if name.startswith("norm.") else name] = tensor
    top = "audio_spectrogram_transformer."
    return {top + name.replace("blocks.", "encoder.layer."): tensor for name, tensor in renamed.items()}


@pytest.mark.parametrize("frames", [8, 16])
def test_unmasked_teacher_is_the_reference(frames: int):
    tensors, weights = recorded("unmt", f"weights_f{frames}.")
    network = given(UnmaskedTeacher(frames=frames, width=32, depth=3, heads=4), weights, unmt_names)
    close(network(pixels(pattern(3, frames, 224, 224))), tensors[f"f{frames}.feature"])
    if frames == 8:
        close(network.get_buffer("pos_embed").flatten()[::7], tensors["f8.sinusoid.every7"])


# ---- at full size, with weights from an integer recipe


def recipe(name: str, tensor: Tensor) -> Tensor:
    """Weights that follow from a tensor's public name and shape."""
    if not tensor.is_floating_point():
        return tensor
    x = (np.arange(tensor.numel(), dtype=np.uint64) + zlib.crc32(name.encode())) % 2**32
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = ((x ^ (x >> np.uint64(shift))) * np.uint64(factor)) % 2**32
    u = (x ^ (x >> np.uint64(16))) / 2**32 - 0.5
    fan = tensor[0].numel() if tensor.dim() > 1 else 1
    if name.endswith("running_var"):
        u = 1 + u
    elif tensor.dim() == 1:
        u = 1 + 0.2 * u if name.endswith("weight") else 0.05 * u
    elif not any(part in name for part in ("bias_table", "token", "pos_embed")):
        u = u * np.sqrt((24 if tensor.dim() == 5 else 12) / fan)
    return torch.from_numpy(u).float().view(tensor.shape)


def filled(network: nn.Module, prefix: str, names: Callable[[State], State] | None = None) -> nn.Module:
    """The network with the recipe's weights under its public names."""
    own = network.state_dict()
    if names is unmt_names:  # two biases in the file, one here
        for name in [name for name in own if name.endswith("attn.qkv.bias")]:
            query, _, value = own[name].chunk(3)
            own[name.replace("qkv.bias", "q_bias")], own[name.replace("qkv.bias", "v_bias")] = query, value
            del own[name]
    weights = {prefix + name: recipe(prefix + name, tensor) for name, tensor in own.items()}
    return given(network, weights, names or (lambda state: {k.removeprefix(prefix): v for k, v in state.items()}))


def test_the_recipe_is_the_recorded_one():
    expected = json.loads((GOLDEN / "fullsize.json").read_text())["recipe_check"]
    ((name, values),) = expected.items()
    u = np.array(values) / np.sqrt(12 / 3)  # of a matrix (2, 3)
    np.testing.assert_allclose(recipe(name, torch.zeros(2, 3)).numpy(), u * 2, atol=1e-6)


@pytest.mark.slow
def test_video_swin_at_full_size_is_the_reference():
    network = filled(VideoSwinTransformer(), "backbone.", video_swin_names)
    assert sum(p.numel() for p in network.parameters()) == 87_638_984
    expected = load_file(GOLDEN / "fullsize.safetensors")
    output = network(pixels(pattern(3, 32, 224, 224)))
    close(output.mean((2, 3, 4)), expected["vst_b.feature"], 1e-4)
    close(output.flatten()[::787], expected["vst_b.norm.every787"], 1e-4)


@pytest.mark.slow
def test_i3d_at_full_size_is_the_reference():
    network = filled(InflatedInception(), "", i3d_names)
    assert sum(p.numel() for p in network.parameters()) == 12_265_312
    pooled = network(flow(32))[0, :, :, 0, 0]
    expected = load_file(GOLDEN / "fullsize.safetensors")
    close(pooled, expected["i3d_flow.avg_pool"], 1e-4)
    close(pooled.mean(1)[None], expected["i3d_flow.feature_window_mean"], 1e-4)


@pytest.mark.slow
def test_unmasked_teacher_at_full_size_is_the_reference():
    network = filled(UnmaskedTeacher(frames=8), "", unmt_names)
    expected = load_file(GOLDEN / "fullsize.safetensors")["unmt_l_f8.feature"]
    close(network(pixels(pattern(3, 8, 224, 224))), expected, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("frames", "key"), [(1024, "padded1024"), (126, "126")])
def test_ast_at_full_size_is_the_reference(frames: int, key: str):
    network = filled(AudioSpectrogramTransformer(), "module.v.", ast_names)
    assert sum(p.numel() for p in network.parameters()) == 86_187_264
    fbank = load_file(GOLDEN / "preprocessing.safetensors")["nasa_13013.seg5.fbank"]
    spectrogram = F.pad((fbank + 4.2677393) / 9.1379948, (0, 0, 0, frames - 126))[None]
    expected = load_file(GOLDEN / "fullsize.safetensors")[f"ast_nasa_seg5_{key}.feature"]
    close(network(spectrogram), expected, 1e-4)
