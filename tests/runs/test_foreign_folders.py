"""A run folder is data that people pass around: it runs no code, and what is wrong with it is told in a sentence."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from composed import small
from conftest import RunCli
from finished_runs import result_like, trained
from pamfn.data import synthetic
from pamfn.data.synthetic import write_synthetic
from pamfn.errors import DivergedError, InputError
from pamfn.files import TEMPORARY
from pamfn.pipeline import fit
from pamfn.pipeline.clip_scores import score_clips
from pamfn.pipeline.onnx_export import export
from pamfn.pipeline.reload import configuration, load_network
from pamfn.pipeline.rescore import evaluate
from pamfn.pipeline.two_stage import run_job
from pamfn.reporting.paper_figures import draw_runs
from pamfn.runs.archive import archive
from pamfn.runs.folder import Run, digest
from pamfn.training import tasks

OPENERS: dict[str, Callable[[Path], Any]] = {
    "evaluate": lambda run: evaluate(run, "test", "selected", None, None, None),
    "predict": lambda run: score_clips(run, [], "test", "selected", None, None),
    "figures": lambda run: draw_runs([run], run / "figures", split="train"),
    "export": lambda run: export(run, "selected", None, None),
}
"""Commands that build the network of a run folder."""


@pytest.fixture(scope="module")
def fused(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained("fusionnets", "+ablation=full", tiny_data, tmp_path_factory.mktemp("fused")).run.path


@pytest.fixture
def copied(fused: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fused, tmp_path / fused.name))


def rewrite(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes a result.json as whoever wants to harm would: with a digest that matches."""
    content = json.loads((run / "result.json").read_text())
    change(content)
    content["digest"] = digest(content)
    (run / "result.json").write_text(json.dumps(content))


def refusal(command: str, run: Path) -> str:
    with pytest.raises(InputError) as error:
        OPENERS[command](run)
    return str(error.value)


def planted(folder: Path) -> str:
    """A module that leaves a mark when it is imported."""
    (folder / "planted.py").write_text(
        f"open({str(folder / 'ran')!r}, 'w').close()\n"
        "from pamfn.models import Network\nclass Net(Network):\n    def __init__(self, *, branches): pass\n"
    )
    return "planted.Net"


@pytest.mark.parametrize("command", OPENERS)
@pytest.mark.parametrize("place", ["model", "model.branch", "data", "trainer"])
def test_a_run_folder_runs_no_code_of_others(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, command: str
):
    name = planted(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def change(content: dict[str, Any]) -> None:
        node = content["config"]
        for key in place.split("."):
            node = node[key]
        node["_target_"] = name

    rewrite(copied, change)
    assert f"{place}._target_: this run asks for 'planted.Net', code of another package" in refusal(command, copied)
    assert "--trust planted" in refusal(command, copied)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    [
        *("torch.hub.load", "os.system", "torch.nn.Linear", "pamfn.models.branch.nn.Linear", "a:b", "__import__"),
        *("pamfn.pipeline.build.L.Trainer", "pamfn.evaluate.main", "pamfn.data.pickles.pickle.loads", "", "pamfn..x"),
    ],
)
def test_only_networks_of_this_package_are_built_from_a_run_folder(copied: Path, name: str):
    rewrite(copied, lambda content: content["config"]["model"].update(_target_=name))
    assert refusal("evaluate", copied).startswith("model._target_: ")


def test_a_package_that_is_trusted_is_imported(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine.py").write_text("from pamfn.models import PAMFN\nclass Mine(PAMFN): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    rewrite(copied, lambda content: content["config"]["model"].update(_target_="mine.Mine"))
    assert "--trust mine" in refusal("evaluate", copied)
    assert evaluate(copied, "test", "selected", None, None, None, trust=["mine"]) == []


def test_a_class_of_ones_own_is_imported_after_everything_else_was_found_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    name = planted(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="seed: "):
        small(tmp_path, f"model._target_={name}", "seed=-1")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(InputError, match=r"model\.num_fusion_nets: no such setting"):
        small(tmp_path, f"model._target_={name}")
    assert (tmp_path / "ran").exists()


def test_nothing_is_imported_from_the_current_folder(run_cli: RunCli, tmp_path: Path):
    for module in ("hydra", "logging", "threading", "contextlib"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('foreign code ran')")
    planted(tmp_path)
    done = run_cli(["train", "model._target_=planted.Net"])
    assert (done.returncode, (tmp_path / "ran").exists()) == (1, False)
    assert "planted.py is in the current folder, from where nothing is imported unless PYTHONPATH=. says so" in (
        done.stderr
    )


def test_a_command_imports_nothing_from_the_current_folder_from_its_first_line_on(tmp_path: Path):
    for module in ("threading", "string", "weakref", "logging"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('foreign code ran')")
    words = [sys.executable, "-m", "pamfn.archive", "--help"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def without(*keys: str) -> Callable[[dict[str, Any]], Any]:
    return lambda content: [content.pop(key) for key in keys]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without("kind"), "kind: Field required"),
        (without("config"), "config: Field required"),
        (without("metrics", "seed"), "seed: Field required"),
        (lambda content: content.update(kind="../../x"), "kind: Input should be 'branch'"),
        (lambda content: content.update(modalities=["../x"]), "modalities.0: "),
        (lambda content: content.update(name="a\nb"), "name: "),
        (lambda content: content.update(branches={"rgb": "../../elsewhere"}), "branches.rgb: "),
        (lambda content: content.update(modalities=["smell"]), "modalities: no smell among config.features"),
        (lambda content: content.update(reported="last9"), "reported: "),
        (lambda content: content["metrics"].pop("last"), "metrics: no last"),
        (lambda content: content["metrics"].update(last={"mae": 1.0}), "metrics.last: neither srcc nor map"),
        (lambda content: content.update(videos={}), "videos: no test"),
        (lambda content: content.update(kind="baseline"), "kind: baseline does not go with its config.model"),
        (lambda content: content.update(commit="\x1b[31m"), "commit: "),
        (lambda content: content["machine"].update(cpu="\x1b[31m"), "machine.cpu: holds "),
        (lambda content: content.update(decisions=[[-1, 2]]), "decisions.0.0: "),
        (lambda content: content["config"]["model"].pop("_target_"), "config.model._target_: missing"),
        (lambda content: content["metrics"].update(last={"srcc": "high"}), "metrics.last.srcc: "),
        (lambda content: content["config"]["features"]["rgb"].update(width=10**13), "config.features.rgb.width: "),
        (lambda content: content.update(data_files=[1]), "data_files: "),
        (lambda content: content["config"].update(seed="0"), "config.seed: "),
    ],
)
def test_a_result_is_checked_whole_before_it_is_used(
    copied: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], told: str
):
    rewrite(copied, change)
    assert f"result.json is not the result of a run: {told}" in refusal("evaluate", copied)
    with pytest.raises(InputError, match="is not the result of a run"):
        archive(Run(copied), tmp_path / "archive")
    assert not (tmp_path / "archive").exists()


def nested(file: Path) -> None:
    file.write_text('{"schema": 1, "config": ' + "[" * 100_000 + "]" * 100_000 + "}")


def large(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(2**30)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (nested, "is damaged"),
        (large, "it has 1073741824 bytes, and 16777216 at most were expected"),
        (lambda file: file.write_text("[]"), "has version None of the result format"),
        (lambda file: (file.unlink(), os.mkfifo(file)), "it is a pipe: expected a file"),
        (lambda file: (file.unlink(), file.mkdir()), "it is a folder: expected a file"),
    ],
    ids=["nested", "large", "list", "pipe", "folder"],
)
def test_a_result_that_is_no_file_of_ours_is_refused(copied: Path, spoil: Callable[[Path], Any], told: str):
    spoil(copied / "result.json")
    assert told in refusal("evaluate", copied)


def test_a_network_as_large_as_a_result_claims_is_not_made(copied: Path):
    def widen(content: dict[str, Any]) -> None:
        for stream in content["config"]["features"].values():
            stream["width"] = 2**20
        content["config"]["model"]["branch"]["hidden"] = 2**14

    rewrite(copied, widen)
    settings = configuration(Run(copied).finished(), None, None, None)
    with pytest.raises(InputError, match=r"selected\.safetensors is of another network \("):
        load_network(settings, copied)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def of_another(file: Path) -> None:
    weights = load_file(file)
    weights.popitem()
    save_file(weights, file)


@pytest.mark.parametrize("command", [name for name in OPENERS if name != "predict"])
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (cut, " is damaged ("),
        (of_another, " is of another network ("),
        (lambda file: file.write_bytes(b""), " is damaged ("),
        (lambda file: file.write_bytes(b"\xff" * 1000), " is damaged ("),
        (lambda file: (file.unlink(), file.mkdir()), ": it is a folder: expected a file"),
    ],
    ids=["cut", "of another", "empty", "garbage", "folder"],
)
def test_weights_that_cannot_be_right_are_refused(copied: Path, command: str, spoil: Callable[[Path], Any], told: str):
    spoil(copied / "selected.safetensors")
    assert f"selected.safetensors{told}" in refusal(command, copied)


def test_weights_that_are_gone_are_missed(copied: Path):
    (copied / "last.safetensors").unlink()
    with pytest.raises(InputError, match=r"no weights: looked for .*last\.safetensors"):
        evaluate(copied, "test", "last", None, None, None)


def test_weights_that_are_no_numbers_give_no_score(copied: Path):
    file = copied / "selected.safetensors"
    save_file({name: x * float("nan") if x.is_floating_point() else x for name, x in load_file(file).items()}, file)
    assert "predictions are no finite numbers" in refusal("evaluate", copied)


# ---- trainings that go on, end, and leave nothing behind


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_synthetic(tmp_path / "data", train=24, test=10)
    monkeypatch.setattr(synthetic, "write_synthetic", lambda data_dir: None)
    return tmp_path


def begun(folder: Path) -> Path:
    """The resume point of a branch that was interrupted after two epochs of three."""

    def stop(*_: Any) -> None:
        raise RuntimeError("stopped")

    settings = small(folder, "modalities=[rgb]", "resume_seconds=0")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fit, "write_weights", stop)
        with pytest.raises(RuntimeError, match="stopped"):
            run_job(settings)
    (file,) = folder.rglob("resume.ckpt")
    return file


def other_tensors(file: Path) -> None:
    content = torch.load(file, weights_only=True)
    content["state_dict"] = {"network.x": torch.zeros(3)}
    torch.save(content, file)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(b"garbage"),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
        lambda file: torch.save([1, 2], file),
        lambda file: torch.save({}, file),
        lambda file: torch.save({"state_dict": print}, file),
        lambda file: (file.unlink(), file.mkdir()),
        lambda file: (file.unlink(), os.mkfifo(file)),
        other_tensors,
    ],
    ids=["garbage", "empty", "cut", "list", "nothing", "code", "folder", "pipe", "other"],
)
def test_a_resume_point_that_cannot_be_one_is_told_with_what_to_do(data: Path, spoil: Callable[[Path], Any]):
    file = begun(data)
    spoil(file)
    with pytest.raises(
        InputError,
        match=r"resume\.ckpt(?: is damaged or of another training .*Remove it|: it is a folder|: it is a pipe)",
    ):
        run_job(small(data, "modalities=[rgb]", "resume_seconds=0"))


def test_a_resume_point_of_another_run_is_refused(data: Path):
    file = begun(data)
    other = small(data, "modalities=[rgb]", "seed=5")
    (folder,) = file.parents[1].glob("*-seed0-*")
    moved = folder.with_name(run_job(other).path.name)
    shutil.rmtree(moved)
    folder.rename(moved)
    with pytest.raises(InputError, match=r"resume\.ckpt is of synthetic-rgb-seed0-.*Remove it"):
        run_job(other)


def test_lightnings_own_checkpoints_are_never_read(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    clean = run_job(small(data, "modalities=[rgb]", "seed=5", f"paths.output_dir={data / 'clean'}"))
    point = begun(data)
    strays = [data / "runs" / "hpc_ckpt_1.ckpt", data / "hpc_ckpt_1.ckpt"]
    for stray in strays:
        shutil.copy(point, stray)  # of seed 0
    for name, value in {"NTASKS": "1", "JOB_NAME": "job", "JOB_ID": "1", "LOCALID": "0", "NODEID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.chdir(data)
    run = run_job(small(data, "modalities=[rgb]", "seed=5"))
    assert run.file("predictions.csv").read_bytes() == clean.file("predictions.csv").read_bytes()
    assert f"{strays[0]} is not read" in caplog.text
    assert evaluate(run.path, "test", "last", None, None, None) == []


@pytest.mark.parametrize(
    "words", [["recipe.branch.lr=1e38"], ["recipe.branch.lr=1e9"], ["recipe.branch.weight_decay=1e30"]]
)
def test_a_network_whose_predictions_are_no_numbers_is_no_result(data: Path, words: list[str]):
    with pytest.raises(DivergedError, match="diverged"):
        run_job(small(data, "modalities=[rgb]", "recipe.branch.clip=null", "recipe.branch.epochs=2", *words))
    assert list(data.rglob("result.json")) == []


def test_a_finite_loss_is_not_enough(data: Path):
    words = ("recipe.stages=1", "model.finetune=null", "recipe.fusion.lr=1e9", "recipe.fusion.epochs=1")
    with pytest.raises(DivergedError, match="diverged"):
        run_job(small(data, *words, "recipe.fusion.clip=null"))
    assert list(data.rglob("result.json")) == []


def test_a_plot_that_fails_loses_no_result(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fails(*_: Any, **__: Any) -> None:
        raise ValueError("ParseException")

    monkeypatch.setattr(tasks, "plot_predictions", fails)
    run = run_job(small(data, "modalities=[rgb]"))
    assert run.result() is not None
    assert run.file("curves.png").exists()
    assert f"no predictions.png of {run.path}: it cannot be drawn (ParseException)" in caplog.text


def test_who_takes_the_lock_removes_what_no_process_owns(tmp_path: Path):
    run = Run(tmp_path)
    left = [tmp_path / f".{name}.abcdefgh{TEMPORARY}" for name in ("result.json", "resume.ckpt")]
    for file in (*left, tmp_path / "resume.ckpt", tmp_path / ".mine"):
        file.touch()
    os.mkfifo(tmp_path / f".x.y{TEMPORARY}")  # is no file of ours, and would be waited for
    code = (
        "import sys; from pathlib import Path; from pamfn.files import whole\n"
        "with whole(Path(sys.argv[1])) as file: print(file, flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "model.onnx")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        owned = Path(writer.stdout.readline().strip())
        with run.locked():
            names = {file.name for file in tmp_path.iterdir()}
            assert names == {".lock", ".mine", ".x.y.tmp", "resume.ckpt", owned.name}
        writer.kill()
    with run.locked():
        assert {file.name for file in tmp_path.iterdir()} == {".lock", ".mine", ".x.y.tmp", "resume.ckpt"}


def test_a_finished_run_that_is_read_has_no_resume_point(tmp_path: Path):
    run = Run(tmp_path)
    run.write_result(result_like())
    (tmp_path / "resume.ckpt").touch()
    run.tidy()
    assert {file.name for file in tmp_path.iterdir()} == {".lock", "result.json"}


def test_evaluation_writes_no_data(data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    run = run_job(small(data, "modalities=[rgb]", "recipe.branch.epochs=1", f"paths.data_dir={data / 'own'}"))
    with pytest.raises(InputError, match="no label file: looked for"):
        evaluate(run.path, "test", "selected", str(data / "nowhere"), None, None)
    assert not (data / "nowhere").exists()
