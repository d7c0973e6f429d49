"""Published files of weights: every name and container, and what is none of them."""

import argparse
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pamfn.errors import InputError
from pamfn.extraction.networks.i3d import InflatedInception
from pamfn.extraction.networks.video_swin import VideoSwinTransformer
from pamfn.extraction.networks.vit import AudioSpectrogramTransformer, UnmaskedTeacher
from pamfn.extraction.weights import ast_names, i3d_names, load_published, read_weights, unmt_names, video_swin_names


def swin(width: int = 8) -> VideoSwinTransformer:
    return VideoSwinTransformer(width=width, depths=(1, 1), heads=(1, 2), window=(2, 3, 3))


def published(network: nn.Module, prefix: str = "backbone.") -> dict[str, torch.Tensor]:
    head = {
        "cls_head.fc_cls.weight": torch.zeros(7, 4),
        f"{prefix}layers.0.blocks.0.attn.relative_position_index": torch.zeros(4),
    }
    return {**{prefix + name: tensor.clone() for name, tensor in network.state_dict().items()}, **head}


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize("nested", [None, "state_dict", "model", "module"])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("prefix", ["backbone.", "module.backbone.", ""])
def test_weights_are_read_below_any_key_and_prefix_from_either_container(
    tmp_path: Path, nested: str | None, legacy: bool, prefix: str
):
    network, other = swin(), swin()
    state: Any = published(network, prefix)
    content = {nested: state, "meta": {"epoch": 3}, "args": argparse.Namespace(lr=1)} if nested else state
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    load_published(other, tmp_path / "a.pth", video_swin_names, "VST")
    assert same(network, other)


def test_safetensors_are_read(tmp_path: Path):
    network, other = swin(), swin()
    save_file(published(network), tmp_path / "a.safetensors")
    load_published(other, tmp_path / "a.safetensors", video_swin_names, "VST")
    assert same(network, other)


def test_a_file_without_counters_of_batches_is_enough(tmp_path: Path):
    network, other = (InflatedInception(scale=8) for _ in range(2))
    state = {name: x for name, x in network.state_dict().items() if "num_batches" not in name}
    torch.save({**state, "logits.conv3d.weight": torch.zeros(5, 128, 1, 1, 1)}, tmp_path / "a.pt")
    load_published(other, tmp_path / "a.pt", i3d_names, "I3D")
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in state.items())


FILES: dict[str, Any] = {
    "a Video Swin Transformer of width 16": lambda: published(swin(16)),
    "an I3D for RGB frames": lambda: InflatedInception(channels=3, scale=8).state_dict(),
    "an I3D for flow": lambda: InflatedInception(scale=8).state_dict(),
    "an audio spectrogram (or distilled image) transformer": lambda: AudioSpectrogramTransformer(
        width=8, depth=1, heads=2
    ).state_dict(),
    "a vision transformer for video of width 8, 16 frames": lambda: UnmaskedTeacher(
        frames=16, width=8, depth=1, heads=2
    ).state_dict(),
    "1 tensors such as w": lambda: {"w": torch.zeros(2)},
}


@pytest.mark.parametrize("what", FILES)
def test_another_networks_file_is_named_as_what_it_is(tmp_path: Path, what: str):
    torch.save(FILES[what](), tmp_path / "a.pth")
    wanted = {"VST": (swin(), video_swin_names), "AST": (AudioSpectrogramTransformer(width=16, depth=1), ast_names)}
    wanted["I3D"] = (InflatedInception(channels=4, scale=8), i3d_names)
    wanted["UNMT-8"] = (UnmaskedTeacher(frames=8, width=8, depth=2, heads=2), unmt_names)
    for called, (network, names) in wanted.items():
        with pytest.raises(InputError) as raised:
            load_published(network, tmp_path / "a.pth", names, called)
        assert f"not the weights of {called}, but {what}:" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html>", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "is a pointer of Git LFS"),
        (b"", "cannot be read as weights"),
        (b"PK\x03\x04 cut off", "cannot be read as weights"),
        (pickle.dumps(print), "cannot be read as weights, or would run code"),
        (pickle.dumps({"a": 1}), "cannot be read as weights"),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_what_is_no_file_of_weights_is_refused_and_nothing_of_it_runs(tmp_path: Path, content: bytes, said: str):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_weights(tmp_path / "a.pth")


def test_a_checkpoint_without_tensors_or_with_wrong_numbers_is_refused(tmp_path: Path):
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="holds no weights: expected tensors by name"):
        read_weights(tmp_path / "a.pth")
    state = published(swin())
    state["backbone.norm.weight"][0] = float("nan")
    torch.save(state, tmp_path / "b.pth")
    with pytest.raises(InputError, match="numbers that are not finite"):
        load_published(swin(), tmp_path / "b.pth", video_swin_names, "VST")
    with pytest.raises(InputError, match="cannot read"):
        read_weights(tmp_path / "none.pth")
