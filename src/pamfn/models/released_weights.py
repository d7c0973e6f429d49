"""Translate the authors' released weights into weights of the networks here.

The released state dicts have one entry for every FusionNet and every modality where ours hold them stacked; they have
pointwise convolutions (o, i, 1) where ours have linear layers (o, i), and some tensors that the network never uses.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from pamfn.errors import InputError
from pamfn.files import whole
from pamfn.models.branch import ModalityBranch
from pamfn.models.pamfn import PAMFN

BRANCHES = {"rgb": "model_r", "flow": "model_f", "audio": "model_a"}
UNUSED = re.compile(r"c|stage\d+\.(s_fusion\.fusion_s|f_fusion\.fusion_f)\.norm\.(weight|bias)")
RELEASED: dict[str, Any] = {
    "frozen": "train",
    "double_negation": True,
    "policy_layers": 1,
    "shared_attention": True,
    "temperature": "unconstrained",
}
"""The settings of PAMFN that make it compute what the released code computes (docs/paper-vs-code.md)."""
MOST_LISTED = 8

Layers = dict[str, list[str]]
"""{our layer: the authors' layers that are stacked in it, in order}."""


@dataclass(frozen=True)
class Imported:
    """Imported weights of a branch or of a whole network.

    state: {our name: weight}
    settings: the arguments of `ModalityBranch` or PAMFN that the weights' shapes give; PAMFN's has the arguments of
        each modality's branch under `branches`. Numbers of heads cannot be seen in weights.
    """

    state: dict[str, Tensor]
    settings: dict[str, Any]

    @property
    def is_branch(self) -> bool:
        return "branches" not in self.settings

    def network(self, **chosen: Any) -> ModalityBranch | PAMFN:
        """Build the network with these weights; `chosen`: more arguments, e.g. msfd_heads=4, default: as released."""
        network = _build(self.settings, **chosen)
        network.load_state_dict(self.state)
        return network

    def write(self, path: Path) -> None:
        """Write weights and settings as one `.safetensors` file; InputError when that is not possible."""
        with whole(path) as temporary:
            temporary.write_bytes(save(self.state, {"settings": json.dumps(self.settings)}))

    @staticmethod
    def read(path: Path) -> "Imported":
        """Read what `write` wrote."""
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return Imported(state, json.loads(file.metadata()["settings"]))


def from_authors(state: Mapping[str, Tensor]) -> Imported:
    """Translate the authors' weights of a whole network or of a single branch, given by their state-dict names.

    Raises:
        InputError: when weights are missing, of a shape that does not fit the others, or unknown; all are named.
    """
    if any(name.startswith("embedding.") for name in state):
        settings = _branch_settings(state, "")
        layers = _branch_layers(settings["num_stages"])
    else:
        settings = _network_settings(state)
        layers = _network_layers(settings)
    with torch.device("meta"):
        wanted = _build(settings).state_dict()
    sources = {name: _sources(name, layers) for name in wanted}
    _check(state, wanted, sources)
    return Imported(
        {name: _stacked([state[s] for s in sources[name]], wanted[name].shape) for name in wanted}, settings
    )


def _build(settings: Mapping[str, Any], **chosen: Any) -> ModalityBranch | PAMFN:
    if "branches" not in settings:
        return ModalityBranch(**{**settings, **chosen})
    branches = {modality: ModalityBranch(**numbers) for modality, numbers in settings["branches"].items()}
    return PAMFN(**{**RELEASED, **settings, "branches": branches, **chosen})


def _branch_settings(state: Mapping[str, Tensor], prefix: str) -> dict[str, int]:
    hidden, width = _sizes(state, f"{prefix}embedding.0.weight")[:2]
    stages = {match[1] for name in state if (match := re.match(rf"{re.escape(prefix)}stage(\d+)\.conv1\.", name))}
    d_model = _sizes(state, f"{prefix}embedding.3.weight")[0]
    return {"width": width, "d_model": d_model, "hidden": hidden, "num_stages": max(1, len(stages))}


def _network_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    there = {m: p for m, p in BRANCHES.items() if any(name.startswith(f"{p}.") for name in state)}
    if not there:
        names = _listed(state) or "nothing"
        raise InputError(
            f"expected the authors' network (model_r..., stage1...) or branch (embedding...), found {names}."
        )
    branches = {modality: _branch_settings(state, f"{prefix}.") for modality, prefix in there.items()}
    alike = {(numbers["d_model"], numbers["num_stages"]) for numbers in branches.values()}
    if len(alike) > 1:
        raise InputError(f"the branches differ in width or number of stages: {branches}.")
    ((d_model, _),) = alike
    return {
        "branches": branches,
        "num_fusion_nets": _sizes(state, "stage1.f_fusion.policy.0.weight")[0],
        "head_reduction": max(1, d_model // _sizes(state, "fc.1.weight")[0]),
    }


def _sizes(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """Return the shape (o, i, k) of a convolution's weight."""
    if name not in state:
        raise InputError(f"weights are missing: {name}.")
    shape = tuple(state[name].shape)
    if len(shape) != 3 or 0 in shape:
        raise InputError(f"{name} has shape {shape}: expected (outputs, inputs, kernel).")
    return shape


def _branch_layers(stages: int) -> Layers:
    layers = {"linear1": ["0"], "norm1": ["1"], "linear2": ["3"], "norm2": ["4"]}
    layers = {f"embedding.{ours}": [f"embedding.{theirs[0]}"] for ours, theirs in layers.items()}
    for i in range(stages):
        for j in (1, 2):
            layers[f"blocks.{i}.conv{j}"] = [f"stage{i + 1}.conv{j}.0"]
            layers[f"blocks.{i}.norm{j}"] = [f"stage{i + 1}.conv{j}.1"]
    return layers | {"head": ["fc.1"]}


def _network_layers(settings: Mapping[str, Any]) -> Layers:
    layers = {f"head.{i}": [f"fc.{i}"] for i in (1, 2, 5)}
    stages = 0
    for modality, numbers in settings["branches"].items():
        stages = numbers["num_stages"]
        for ours, theirs in _branch_layers(stages).items():
            layers[f"branches.{modality}.{ours}"] = [f"{BRANCHES[modality]}.{name}" for name in theirs]
    of_a_stage = _stage_layers(len(settings["branches"]), settings["num_fusion_nets"])
    for i in range(stages):
        layers |= {f"stages.{i}.{ours}": [f"stage{i + 1}.{n}" for n in theirs] for ours, theirs in of_a_stage.items()}
    return layers


def _stage_layers(modalities: int, networks: int) -> Layers:
    layers = {
        "block.shortcut": ["short_cut.0"],
        "block.shortcut_norm": ["short_cut.1"],
        "msfd.projection": ["s_fusion.proj.0"],
        "cmfd.projection": ["f_fusion.proj2.0"],
        "fusion.policy.0": ["f_fusion.policy.0"],
    }
    for i, name in enumerate(("query", "key", "value")):
        layers[f"msfd.attention.{name}"] = [f"s_fusion.fusion_s.linear_layers.{i}"]
        layers[f"cmfd.attention.{name}"] = [f"f_fusion.fusion_f.linear_layers.{i}"]
    for i, name in {0: "conv1", 1: "norm1", 3: "conv2", 4: "norm2"}.items():
        layers[f"block.{name}"] = [f"conv.{i}"]
        layers[f"fusion.fusion_nets.{name}"] = [f"f_fusion.ffn.{k}.{i}" for k in range(networks)]
    for i, name in {0: "attention1", 1: "attention_norm", 3: "attention2"}.items():
        layers[f"fusion.fusion_nets.{name}"] = [f"f_fusion.proj1.{m}.{i}" for m in range(modalities)]
    return layers


def _sources(name: str, layers: Layers) -> list[str]:
    if name == "temperature":
        return ["tau"]
    layer, _, leaf = name.rpartition(".")
    return [f"{theirs}.{leaf}" for theirs in layers[layer]]


def _check(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], sources: Mapping[str, list[str]]) -> None:
    """Refuse weights that are missing, unknown, or of another shape than in the network of these settings."""
    expected = {}
    for name, parts in sources.items():
        shape = tuple(wanted[name].shape)
        expected |= dict.fromkeys(parts, (shape[0] // len(parts), *shape[1:]) if shape else ())
    problems = [
        f"{name} has shape {tuple(state[name].shape)}: expected {shape} beside the other weights."
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) not in (shape, (*shape, 1))
    ]
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected and not UNUSED.fullmatch(name)]
    problems += [f"weights are missing: {_listed(missing)}."] if missing else []
    problems += [f"weights are unknown: {_listed(unknown)}."] if unknown else []
    if problems:
        raise InputError(problems)


def _stacked(parts: list[Tensor], shape: torch.Size) -> Tensor:
    """Stack weights on the first axis; of counters, which are alike, return the first."""
    return (torch.cat(parts) if shape else parts[0].clone()).reshape(shape).detach()


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - MOST_LISTED} more" if len(listed) > MOST_LISTED else ""
    return ", ".join(listed[:MOST_LISTED]) + more
