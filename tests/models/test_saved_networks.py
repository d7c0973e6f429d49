"""Saved networks are read without running them: good ones whole, malicious ones refused by name."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from faults.files import environment, shared
from pamfn.models.saved_networks import load_module_state
from refusals import FORMS, GADGETS, Runs, malicious, sentence


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Conv1d(4, 3, 1), nn.BatchNorm1d(3), nn.GELU(), nn.Dropout(0.3))
        self.head = nn.Linear(3, 1, bias=False)
        self.missing: nn.Module | None
        self.register_module("missing", None)
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("passing", torch.arange(2), persistent=False)


def saved(content: object, path: Path, module: str = "", **keywords: Any) -> Path:
    """torch.save, with this file's module name replaced by that of the project the network came from."""
    torch.save(content, path, **keywords)
    if module:
        with zipfile.ZipFile(path) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, record in records.items():
                archive.writestr(name, record.replace(f"c{__name__}\nBranch".encode(), f"c{module}\nBranch".encode()))
    return path


def same_state(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return sorted(found) == sorted(wanted) and all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("module", ["models.branch", "model", "network.fusion", "networks", "__main__"])
def test_a_whole_network_is_read_without_its_class(tmp_path: Path, module: str):
    branch = Branch()
    found = load_module_state(saved(branch, tmp_path / "a.pth", module))
    assert same_state(found, branch.state_dict())
    assert not any(tensor.requires_grad for tensor in found.values())


def test_a_state_dict_is_read_from_pth_and_safetensors(tmp_path: Path):
    from safetensors.torch import save_file

    state = Branch().state_dict()
    assert same_state(load_module_state(saved(state, tmp_path / "a.pth")), state)
    save_file(state, tmp_path / "a.safetensors")
    assert same_state(load_module_state(tmp_path / "a.safetensors"), state)


def test_network_files_of_other_kinds_are_refused_with_what_to_do(tmp_path: Path):
    branch = Branch()
    legacy = saved(branch.state_dict(), tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    assert "save its state again" in sentence(load_module_state, legacy)
    training = saved({"epoch": 3, "state_dict": branch.state_dict()}, tmp_path / "training.pth")
    assert "epoch (int), state_dict (OrderedDict)" in sentence(load_module_state, training)
    assert "holds no tensors but a list" in sentence(load_module_state, saved([1], tmp_path / "list.pth"))
    assert "could not be read" in sentence(
        load_module_state, saved(branch.state_dict(), tmp_path / "a", pickle_protocol=4)
    )
    whole = saved(branch.state_dict(), tmp_path / "whole.pth").read_bytes()
    for kept in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pth").write_bytes(whole[:kept])
        assert "cut.pth" in sentence(load_module_state, tmp_path / "cut.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"1234")
    assert "not a whole safetensors file" in sentence(load_module_state, tmp_path / "cut.safetensors")
    for missing in ("none.pth", "none.safetensors"):
        assert "looked for" in sentence(load_module_state, tmp_path / missing)


def torch_file(path: Path, pickled: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
    return path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", GADGETS)
def test_a_malicious_network_file_is_refused_and_runs_nothing(tmp_path: Path, name: str, form: str):
    mark = tmp_path / "ran"
    runs = Runs(name, *(argument.format(str(mark)) for argument in GADGETS[name]))
    told = sentence(load_module_state, torch_file(tmp_path / "a.pth", b"\x80\x02" + malicious(runs, form)))
    if form not in ("stack_global", "inst", "obj"):
        assert f"it tries to load {name.replace('__builtin__', 'builtins')}," in told
    assert not mark.exists()


@pytest.mark.parametrize("name", ["torch.nn.modules.conv.Conv1d", "models.os.system", "__main__.run"])
def test_a_class_that_is_stood_in_for_cannot_be_called(tmp_path: Path, name: str):
    pickled = b"\x80\x02" + malicious(Runs(name, "touch ran"), "reduce")
    assert "could not be read" in sentence(load_module_state, torch_file(tmp_path / "a.pth", pickled))


@pytest.mark.parametrize(
    ("pickled", "told"),
    [
        (b"}N" + b"\x85" * 400_000 + b"Ns.", "a tuple of more than"),
        (b"}" + shared(b"\x86", 60) + b"Ns.", "a tuple of more than"),
        (b"}(" + b"(" + b"N" * 20_000 + b"tNu.", "a tuple of more than"),
        (b"N" * 600_000 + b".", "instructions"),
    ],
)
def test_a_network_file_without_end_is_refused(tmp_path: Path, pickled: bytes, told: str):
    """In a process of its own, which might not survive it."""
    path = torch_file(tmp_path / "a.pth", b"\x80\x02" + pickled)
    words = [sys.executable, "-m", "faults.reading", "network", str(path)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=30)
    assert re.search(f"refused: .* could not be read as a network .*{told}", done.stdout)


def test_a_compressed_network_file_is_refused(tmp_path: Path):
    path = saved(Branch().state_dict(), tmp_path / "a.pth")
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, record in records.items():
            archive.writestr(name, record)
    assert "it is compressed" in sentence(load_module_state, path)


def test_a_network_that_contains_itself_is_refused(tmp_path: Path):
    branch = Branch()
    branch._modules["again"] = branch
    assert "could not be read" in sentence(load_module_state, saved(branch, tmp_path / "a.pth", "models"))
