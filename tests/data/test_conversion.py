"""`python -m pamfn.convert`: converts once, says what it did, refuses in sentences and leaves nothing half-written."""

import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.reference import ReferencePAMFN
from pamfn.convert import main
from pamfn.data.features import read_features
from pamfn.models.released_weights import Imported


class RunsCode:
    """What a malicious pickle holds: on loading, a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.marker}'",)


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "pamfn.convert", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, env=os.environ | environment, check=False)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as raised:
        main([str(a) for a in arguments])
    assert raised.value.code == 1
    return capsys.readouterr().err


def videos(path: Path, seed: int = 0, dtype: str = "float16") -> Path:
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {str(n): random.normal(size=(n + 4, 6)).astype(dtype) for n in range(5)}
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    return path


def authors() -> ReferencePAMFN:
    return ReferencePAMFN(widths={"rgb": 6, "flow": 5, "audio": 4}, d_model=4, hidden=8, num_fusion_nets=6)


def same(store: Path, source: Path) -> bool:
    one, other = read_features(store), read_features(source)
    return one.checksum == other.checksum and all(np.array_equal(one.arrays[v], a) for v, a in other.arrays.items())


@pytest.fixture
def branch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A whole branch as the authors saved theirs: an object of a class of a module `models` that is not here."""
    network = authors().get_submodule("model_r")
    module = types.ModuleType("models")
    for kind in {type(part) for part in network.modules() if type(part).__module__ == ReferencePAMFN.__module__}:
        fake = type(kind.__name__, (nn.Module,), {"__module__": "models"})
        setattr(module, kind.__name__, fake)
        for part in network.modules():
            if type(part) is kind:
                part.__class__ = fake
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "models", module)
        torch.save(network, tmp_path / "branch.pth")
    assert "models" not in sys.modules
    return tmp_path / "branch.pth"


def test_every_feature_file_of_the_data_folder_is_converted(tmp_path, capsys):
    sources = [videos(tmp_path / "features" / f"{name}.npy") for name in ("A_rgb_X", "UIPRMD_vicon_positions_zscore")]
    main(["features", "--data-dir", str(tmp_path)])
    said = capsys.readouterr().out
    assert "vicon_positions of UIPRMD by zscore" in said
    assert "5 videos" in said
    assert "6 wide float16" in said
    assert all(same(source.with_suffix(".safetensors"), source) for source in sources)


def test_the_data_folder_may_come_from_the_environment(tmp_path):
    videos(tmp_path / "features" / "A_rgb_X.npy")
    done = command("features", PAMFN_DATA_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "features" / "A_rgb_X.safetensors").exists()


def test_stores_may_go_to_another_folder(tmp_path, capsys):
    source = videos(tmp_path / "A_rgb_X.npy")
    main(["features", str(source), "--out", str(tmp_path / "new" / "stores")])
    assert same(tmp_path / "new" / "stores" / "A_rgb_X.safetensors", source)
    assert not source.with_suffix(".safetensors").exists()


def test_only_what_is_not_up_to_date_is_converted_again(tmp_path, capsys):
    source = videos(tmp_path / "A_rgb_X.npy")
    store = source.with_suffix(".safetensors")
    main(["features", str(source)])
    written = store.stat().st_mtime_ns
    main(["features", str(source)])
    assert "up to date" in capsys.readouterr().out
    assert store.stat().st_mtime_ns == written
    videos(source, seed=1)
    main(["features", str(source)])
    assert same(store, source)


@pytest.mark.parametrize("place", [40, -1])
def test_a_damaged_store_is_made_again(tmp_path, place):
    source = videos(tmp_path / "A_rgb_X.npy")
    store = source.with_suffix(".safetensors")
    main(["features", str(source)])
    content = bytearray(store.read_bytes())
    content[place] ^= 1
    store.write_bytes(content)
    main(["features", str(source)])
    assert same(store, source)


def test_problems_of_all_files_are_told_together_and_the_others_converted(tmp_path, capsys):
    good = videos(tmp_path / "features" / "A_rgb_X.npy")
    videos(good.with_name("nameless.npy"))
    good.with_name("A_flow_X.npy").write_bytes(b"")
    said = refused(capsys, "features", "--data-dir", tmp_path)
    assert "nameless.npy" in said
    assert "A_flow_X.npy is empty" in said
    assert same(good.with_suffix(".safetensors"), good)
    assert len(list(good.parent.iterdir())) == 4


def test_a_folder_without_features_is_refused(tmp_path, capsys):
    assert str(tmp_path / "features") in refused(capsys, "features", "--data-dir", tmp_path)
    assert "missing_rgb_X.npy" in refused(capsys, "features", tmp_path / "missing_rgb_X.npy")


@pytest.mark.skipif("PAMFN_DATA_DIR" not in os.environ, reason="PAMFN_DATA_DIR names the folder of real data; unset")
def test_real_features_are_converted(tmp_path):
    sources = sorted(Path(os.environ["PAMFN_DATA_DIR"]).glob("features/UIPRMD_*.npy"))
    main(["features", *map(str, sources), "--out", str(tmp_path)])
    assert sources
    assert all(same(tmp_path / f"{source.stem}.safetensors", source) for source in sources)


def test_a_whole_branch_is_converted_without_its_code(branch, capsys):
    main(["checkpoint", str(branch)])
    imported = Imported.read(branch.with_suffix(".safetensors"))
    assert imported.settings == {"width": 6, "d_model": 4, "hidden": 8, "num_stages": 3}
    said = capsys.readouterr().out
    assert "branch of width 6" in said
    assert f"{sum(p.numel() for p in imported.network().parameters()):,} parameters" in said


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_network_is_converted_from_its_state_dict(tmp_path, capsys, ending):
    from safetensors.torch import save_file

    state = authors().state_dict()
    file = tmp_path / f"network.{ending}"
    (torch.save if ending == "pth" else save_file)(state, file)
    main(["checkpoint", str(file), "--out", str(tmp_path / "ours.safetensors")])
    assert Imported.read(tmp_path / "ours.safetensors").settings["num_fusion_nets"] == 6
    assert "K = 6, r = 2" in capsys.readouterr().out


def test_a_malicious_checkpoint_is_refused_before_anything_of_it_runs(tmp_path):
    file, marker = tmp_path / "branch.pth", tmp_path / "ran"
    torch.save({"embedding.0.weight": torch.zeros(2, 2, 1), "more": RunsCode(marker)}, file)
    done = command("checkpoint", file)
    assert done.returncode == 1
    assert "posix.system" in done.stderr
    assert "Traceback" not in done.stderr
    assert not marker.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["branch.pth"]


def test_a_malicious_feature_file_is_refused_before_anything_of_it_runs(tmp_path):
    file, marker = tmp_path / "A_rgb_X.npy", tmp_path / "ran"
    np.save(file, np.array({"1": RunsCode(marker)}, dtype=object), allow_pickle=True)
    done = command("features", file)
    assert done.returncode == 1
    assert "posix.system" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["A_rgb_X.npy"]


def test_the_traceback_of_a_mistake_is_shown_when_asked_for(tmp_path):
    done = command("checkpoint", tmp_path / "none.pth", PAMFN_TRACEBACK="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_problems_of_a_checkpoint_name_the_file(tmp_path, capsys):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    assert f"{tmp_path / 'other.pth'}: expected the authors' network" in refused(
        capsys, "checkpoint", tmp_path / "other.pth"
    )


def test_a_checkpoint_is_not_written_over_itself(tmp_path, capsys):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"mine")
    assert "--out" in refused(capsys, "checkpoint", file)
    assert file.read_bytes() == b"mine"


def test_an_unwritable_place_is_told(branch, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert "cannot write" in refused(capsys, "checkpoint", branch, "--out", tmp_path / "file" / "a.safetensors")
    source = videos(tmp_path / "A_rgb_X.npy")
    assert "cannot write" in refused(capsys, "features", source, "--out", tmp_path / "file")


def test_help_does_not_wait_for_torch():
    code = (
        "import sys\nfrom pamfn.convert import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
