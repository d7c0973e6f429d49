"""`pamfn NAME`: the commands by name, and the public names of the package."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pamfn
from composed import SMALL, small
from pamfn import __main__ as start
from pamfn.errors import InputError
from pamfn.models.pamfn import PAMFN
from pamfn.runs.lookup import locate


@pytest.fixture
def as_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command does to its process is not done to that of the tests."""
    monkeypatch.setattr(start, "start", lambda: None)


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["pamfn", *words])
    start.main()


def test_every_module_with_a_main_is_a_command():
    files = [file for file in Path(pamfn.__path__[0]).glob("*.py") if file.stem != "__main__"]
    bodies = {file.stem: ast.parse(file.read_text()).body for file in files}
    with_main = [name for name, body in bodies.items() if "main" in {getattr(part, "name", "") for part in body}]
    assert list(start.commands()) == sorted(with_main)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_without_a_command_all_are_listed(words, as_script, monkeypatch, capsys):
    called(monkeypatch, *words)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(start.commands())
    assert all(len(line.split()) > 3 for line in lines[2:])


def test_a_command_that_there_is_not(as_script, monkeypatch):
    with pytest.raises(SystemExit, match=r"^error: no command 'tabels'\. Did you mean tables\? There are: archive, "):
        called(monkeypatch, "tabels", "fusionnets")


@pytest.mark.parametrize(("words", "status"), [(["evaluate", "nothing"], 1), (["tables"], 2), (["tables", "-h"], 0)])
def test_a_command_ends_with_its_own_status(words, status, as_script, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        called(monkeypatch, *words)
    assert ended.value.code == status


def test_the_package_is_imported_at_once():
    code = "import pamfn, sys; print({'torch', 'hydra', 'pydantic', 'numpy'} & {*sys.modules}, pamfn.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"set() {pamfn.__version__}\n"


def test_public_names_are_there():
    assert pamfn.PAMFN is PAMFN
    assert all(hasattr(pamfn, name) for name in pamfn.__all__)
    with pytest.raises(AttributeError, match=r"^module 'pamfn' has no attribute 'nothing'$"):
        _ = pamfn.nothing  # type: ignore[attr-defined]


def test_a_network_is_trained_once_and_loaded(tmp_path):
    words = [*SMALL, f"paths.data_dir={tmp_path / 'data'}", f"paths.output_dir={tmp_path / 'runs'}", "modalities=[rgb]"]
    folder = pamfn.fit(*words)
    assert folder == locate(small(tmp_path, "modalities=[rgb]"), "branch", ["rgb"]).path
    written = (folder / "result.json").stat().st_mtime_ns
    assert pamfn.fit(*words) == folder
    assert (folder / "result.json").stat().st_mtime_ns == written
    network = pamfn.load(folder).network
    assert not network.training
    last = pamfn.load(str(folder), weights="last").network
    features, lengths = torch.randn(2, 12, 48), torch.tensor([12, 9])
    assert network(features, lengths).score.shape == (2,)
    assert {name: value.shape for name, value in network.state_dict().items()} == {
        name: value.shape for name, value in last.state_dict().items()
    }
    with pytest.raises(InputError, match=r"Did you mean seed"):
        pamfn.fit("sed=1")
    with pytest.raises(InputError, match=r"add -m"):
        pamfn.fit("+table=fusionnets")


def test_a_table_is_built():
    table = pamfn.table("aqa_methods", "+experiment=fisv_tes", "logger=csv")
    assert list(table.frame.columns)[:3] == ["row", "", "TES"]
    assert ".607 ± .000 (3)" in table.markdown()
