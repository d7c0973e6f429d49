"""Published files of pretrained weights: read without running anything of theirs, renamed, and checked."""

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pamfn.errors import InputError
from pamfn.files import regular

State = dict[str, Tensor]

NESTED = ("state_dict", "model", "module", "model_state_dict")
"""Keys below which a checkpoint holds its weights."""

HASSONY = {"branch_0": "b0", "branch_1.0": "b1a", "branch_1.1": "b1b", "branch_2.0": "b2a", "branch_2.1": "b2b"}
HASSONY |= {"branch_3.1": "b3b"}
"""Branches of a mixed unit in kinetics_i3d_pytorch: their names in pytorch-i3d."""

TRANSFORMERS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "attention.output.dense": "attn.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm.": "norm.",
}
"""Parts of names of the Audio Spectrogram Transformer in Hugging Face's files: those of its authors."""


def read_weights(path: Path) -> State:
    """Return the tensors of a file: safetensors, or what torch.save wrote, of any version.

    Raises:
        InputError: when it is no such file, says what it seems to be, and when it would run code.
    """
    start = first_bytes(path)
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is a pointer of Git LFS, not the weights themselves: fetch them with `git lfs pull`.")
    if start.lstrip()[:1] == b"<":
        raise InputError(f"{path} is a web page, not weights: download the file itself.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise InputError(f"{path} is damaged or no safetensors file ({error}).") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    except Exception as error:  # a damaged file makes torch raise anything
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise InputError(f"{path} cannot be read as weights, or would run code if it were ({reason}).") from None
    return tensors_of(content, path)


def first_bytes(path: Path) -> bytes:
    try:
        with regular(path).open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None


def tensors_of(content: Any, path: Path) -> State:
    """Return the tensors in a checkpoint, below whichever key it holds them."""
    while isinstance(content, Mapping):
        state = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
        inner = next((content[key] for key in NESTED if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            if state:
                return state
            break
        content = inner
    raise InputError(f"{path} holds no weights: expected tensors by name, or these below {', '.join(NESTED)}.")


def without_prefix(state: State, *prefixes: str) -> State:
    """Return the tensors below the first prefix that there is, without it; all of them where there is none."""
    for prefix in prefixes:
        below = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if below:
            return below
    return state


def video_swin_names(state: State) -> State:
    return without_prefix(state, "backbone.", "module.backbone.")


def i3d_names(state: State) -> State:
    """Return names as in pytorch-i3d; kinetics_i3d_pytorch has others for the same tensors."""
    renamed: State = {}
    for name, tensor in without_prefix(state, "module.").items():
        name = name.replace(".batch3d.", ".bn.")
        name = re.sub(r"branch_\d(\.\d(?=\.))?", lambda match: HASSONY.get(match[0], match[0]), name)
        renamed[name[:1].upper() + name[1:]] = tensor
    return renamed


def ast_names(state: State) -> State:
    """Return names as the authors of AST use them; Hugging Face's have three tensors for queries, keys and values."""
    hugging_face = without_prefix(state, "audio_spectrogram_transformer.")
    if hugging_face is state and not any(name.startswith("encoder.layer.") for name in state):
        return without_prefix(state, "module.v.", "v.")
    renamed: State = {}
    for name, tensor in hugging_face.items():
        name = re.sub(r"^encoder\.layer\.", "blocks.", name)
        for theirs, ours in TRANSFORMERS.items():
            name = name.replace(theirs, ours)
        renamed[name] = tensor
    for name in [name for name in renamed if ".attention.attention.query." in name]:
        parts = [renamed.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        renamed[name.replace("attention.attention.query", "attn.qkv")] = torch.cat(parts)
    return renamed


def unmt_names(state: State) -> State:
    """Return one bias for queries, keys and values: that of the keys is zero."""
    renamed = without_prefix(state, "module.")
    for name in [name for name in renamed if name.endswith(".attn.q_bias")]:
        query, value = renamed.pop(name), renamed.pop(name.replace("q_bias", "v_bias"), None)
        if value is None:
            continue
        renamed[name.replace("q_bias", "qkv.bias")] = torch.cat([query, torch.zeros_like(query), value])
    return renamed


UNUSED = re.compile(
    r"relative_position_index$|num_batches_tracked$|^(module\.)?(cls_head|mlp_head|head|head_dist|logits|Logits|classifier)"
    r"\.|^Conv3d_0c_1x1\."
)
"""Tensors that features do not need: heads, tables of indices, counters."""


def load_published(network: nn.Module, path: Path, names: Callable[[State], State], called: str) -> None:
    """Give a network the weights of a published file.

    names: gives the tensors of the file the network's names
    called: what the network is called in an error

    Raises:
        InputError: when the file is not this network's, and says what it is.
    """
    state = read_weights(path)
    try:
        renamed = {name: tensor for name, tensor in names(state).items() if not UNUSED.search(name)}
    except KeyError as error:
        raise InputError(f"{path} is not the weights of {called}: it lacks {error}.") from None
    own = {name: tensor for name, tensor in network.state_dict().items() if not UNUSED.search(name)}
    wrong = [name for name, tensor in own.items() if name not in renamed or renamed[name].shape != tensor.shape]
    surplus = sorted(renamed.keys() - own.keys())
    if wrong or surplus:
        first = wrong[0] if wrong else surplus[0]
        found = list(renamed[first].shape) if first in renamed else "not there"
        expected = list(own[first].shape) if first in own else "no such tensor"
        raise InputError(
            f"{path} is not the weights of {called}, but {described(state)}: {len(wrong)} of {len(own)} tensors do not "
            f"fit, {len(surplus)} are unknown; e.g. {first}: {found}, expected {expected}."
        )
    if not all(tensor.isfinite().all() for tensor in renamed.values()):
        raise InputError(f"{path} is damaged: it holds numbers that are not finite.")
    network.load_state_dict(renamed, strict=False)


def described(state: State) -> str:
    """Say what network a file's weights seem to be of."""
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}

    def shape_of(*endings: str) -> list[int]:
        return next((shape for name, shape in shapes.items() if name.lower().endswith(endings)), [])

    patch, stem = (
        shape_of("patch_embed.proj.weight", "patch_embeddings.projection.weight"),
        shape_of("conv3d_1a_7x7.conv3d.weight"),
    )
    if any(name.endswith("relative_position_bias_table") for name in shapes):
        kind = "a Video Swin Transformer" if len(patch) == 5 else "a Swin Transformer for images"
        return f"{kind} of width {patch[0] if patch else '?'}"
    if len(stem) == 5:
        return f"an I3D for {'flow' if stem[1] == 2 else 'RGB frames' if stem[1] == 3 else f'{stem[1]} channels'}"
    if any(name.endswith(("dist_token", "distillation_token")) for name in shapes):
        return "an audio spectrogram (or distilled image) transformer"
    if len(patch) == 5:
        positions = shape_of("pos_embed")
        frames = f", {positions[1] // 196} frames" if len(positions) == 3 else ", 8 frames" if patch[2] == 1 else ""
        return f"a vision transformer for video of width {patch[0]}{frames}"
    return f"{len(shapes)} tensors such as {next(iter(shapes))}"
