"""Commands as a user runs them: what a mistake is answered with, and that it does not matter where one starts."""

import logging
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from composed import SMALL, composed
from conftest import WIDTHS, RunCli
from pamfn import evaluate, train
from pamfn.config.compose import CONF
from pamfn.config.validation import checked
from pamfn.errors import InputError
from pamfn.files import write_text
from pamfn.pipeline import rescore
from pamfn.pipeline.reload import configuration
from pamfn.runs.lookup import locate

TINY = [
    *(word for word in SMALL if not word.startswith("data=")),
    *(f"features.{modality}.width={width}" for modality, width in WIDTHS.items()),
    *("data.crop=8", "recipe.branch.epochs=1"),
]


Ended = Callable[..., str]


@pytest.fixture
def without_flow(tiny_data: Path, tmp_path: Path) -> dict[str, str]:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    (data / "features" / "FISV_flow_I3D.npy").unlink()
    return {"PAMFN_DATA_DIR": str(data)}


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """Hydra sets up the logging of its process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def ended(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tiny_data: Path,
    tmp_path: Path,
    logging_as_it_was: None,
) -> Ended:
    """What a training command in this process says on stderr before it ends with status 1."""

    def run(*words: str) -> str:
        monkeypatch.setenv("PAMFN_DATA_DIR", str(tiny_data))
        monkeypatch.setenv("PAMFN_OUTPUT_DIR", str(tmp_path / "runs"))
        monkeypatch.setattr(sys, "argv", ["train", *words])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as end:
            train.main()
        assert end.value.code == 1
        return capfd.readouterr().err

    return run


@pytest.fixture
def refused(ended: Ended) -> Ended:
    """The same, without a traceback."""

    def run(*words: str) -> str:
        said = ended(*words)
        assert "Traceback" not in said
        return said

    return run


def test_missing_features_end_the_command_with_a_sentence(
    run_cli: RunCli, without_flow: dict[str, str], tmp_path: Path
):
    done = run_cli(["train", "data=fisv_tes", *TINY], without_flow)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: no flow features for FISV: looked for {tmp_path}/data/features/FISV_flow_I3D.npy (or .safetensors); "
        "there are: audio (AST), audio (MAST), rgb (UNMT), rgb (VST). Put them there (README, 'Data'), "
        "or run without them: modalities=[audio, rgb].\n"
    )
    assert [path.name for path in (tmp_path / "runs").rglob("*")] == []


def test_a_command_may_start_anywhere_and_leaves_its_results_where_it_was_told(run_cli: RunCli, tmp_path: Path):
    done = run_cli(["train", "data=fisv_tes", "modalities=[audio]", "paths.output_dir=here/and/there", *TINY])
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (folder,) = (tmp_path / "here" / "and" / "there" / "branch").iterdir()
    assert f"Run folder: {folder.relative_to(tmp_path)}  (result.json" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_help_lists_the_experiments_and_the_choices(run_cli: RunCli):
    done = run_cli(["train", "--help"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "  +experiment=fisv_tes              Fis-V, Total Element Score (paper: Spearman .754)." in done.stdout
    assert "  +table=fusionnets           Table VII: what ranking the FusionNets is worth." in done.stdout
    assert "\ndata: fisv_pcs, fisv_tes, rendered, rg_ball" in done.stdout
    assert "\nrecipe: highlights, highlights_batched, official, paper\n" in done.stdout


def test_a_folder_that_is_no_run_cannot_be_evaluated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setattr(sys, "argv", ["evaluate", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        evaluate.main()
    assert ended.value.code == 1
    sentence = f"error: {tmp_path} is not a finished run: it has no result.json. Give a folder like runs/fusion/NAME.\n"
    assert capsys.readouterr().err == sentence


def fused(*words: str, kind: str = "fusion", modalities: tuple[str, ...] = ("rgb", "flow", "audio")) -> dict[str, Any]:
    """What `configuration` reads of the result of a finished run."""
    settings = checked(composed("data=fisv_tes", *words))
    return {"kind": kind, "modalities": list(modalities), "config": settings.model_dump()}


def test_what_a_job_trained_before_it_left_modalities_out_is_configured_with_all_of_them():
    branch = fused("available=[rgb,audio]", kind="branch", modalities=("rgb",))
    assert configuration(branch, None, None, None).available is None
    assert configuration(fused("available=[rgb,audio]"), None, None, None).available is None


@pytest.mark.parametrize(
    ("own", "asked", "samples", "sentence"),
    [
        ("argmax", "mean", 0, "--samples 0: the mean of no scores is none. Give 1 or more."),
        ("argmax", "mean", -1, "--samples -1: the mean of no scores is none. Give 1 or more."),
        ("argmax", None, 5, "--samples 5: decoding=argmax averages no samples. Add --decoding mean, or leave it out."),
        ("mean", "sample", 5, "--samples 5: decoding=sample averages no samples. "),
    ],
)
def test_a_number_of_samples_that_cannot_be_averaged_is_refused(
    own: str, asked: str | None, samples: int, sentence: str
):
    with pytest.raises(InputError) as error:
        configuration(fused(f"model.decoding={own}"), None, asked, samples)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(("own", "asked"), [("mean", None), ("argmax", "mean")])
def test_the_number_of_samples_is_read_where_the_mean_is_taken(own: str, asked: str | None):
    settings = configuration(fused(f"model.decoding={own}"), None, asked, 3)
    assert (settings.model["decoding"], settings.model["samples"]) == ("mean", 3)


def test_a_stored_null_is_another_number_than_one_computed_now(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    stored = {"srcc": None, "pearson": None, "mse": 1.0, "mae": 1.0}
    now = {"srcc": 0.5, "pearson": math.nan, "mse": math.nan, "mae": 1.0, "new": 1.0}
    result = {"name": "fisv_tes", "modalities": ["rgb"], "seed": 0, "reported": "holdout"}
    result["metrics"] = {"holdout": stored}
    monkeypatch.setattr(rescore, "with_weights", lambda run: result)
    monkeypatch.setattr(rescore, "configuration", lambda *_: None)
    monkeypatch.setattr(rescore, "rescored", lambda *_: (now, None))
    monkeypatch.setattr(rescore, "changed_data", lambda *_: ["FISV/test.txt"])
    assert rescore.evaluate(tmp_path, "test", "selected", None, None, None) == ["srcc", "mse"]
    told = capsys.readouterr().out
    assert "  srcc     0.500000   stored nan   DIFFERENT\n" in told
    assert "  new      1.000000\n" in told
    assert told.endswith("The data are others than the run was scored on: FISV/test.txt changed since.\n")


def test_a_misspelt_key_is_one_sentence_and_several_are_a_list(refused: Ended):
    said = refused("+experiment=rg_ball", "recipe.fusion.epoch=3")
    assert said.startswith("error: recipe.fusion.epoch: no such setting. Did you mean epochs? Allowed here: ")
    said = refused("data.crpo=1", "seed=x")
    assert said.startswith("errors:\n  ")
    assert "\n  seed: input should be a valid integer, found 'x'.\n" in said
    assert "\n  data.crpo: no such setting." in said


def test_the_traceback_of_a_mistake_is_shown_on_request(ended: Ended, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PAMFN_TRACEBACK", "1")
    said = ended("sede=1")
    assert "Traceback (most recent call last)" in said
    assert "InputError: sede: no such setting. Did you mean seed?" in said


def test_a_sweep_goes_on_after_a_mistake_and_tells_every_one(run_cli: RunCli):
    done = run_cli(["train", "-m", "modalities=[smell],[touch]"])
    assert done.returncode == 1
    for m in ("smell", "touch"):
        assert f"error: modalities: {m} not among this data set's modalities: rgb, flow, audio." in done.stdout
        assert f"  python -m pamfn.train -m '++modalities=[{m}]'\n    log: " in done.stdout


@pytest.mark.parametrize("words", [["~data.name"], ["~model.branch"], ["data.name=null"]])
def test_what_is_needed_to_name_a_run_may_not_be_left_out(refused: Ended, words: list[str]):
    assert refused(*words).startswith(f"error: {words[0].lstrip('~').partition('=')[0]}: ")


def test_an_output_folder_that_cannot_be_written_is_refused_before_anything_is_read(refused: Ended, tmp_path: Path):
    (tmp_path / "runs").write_text("a file in the way")
    assert refused("data=fisv_tes", *TINY) == (
        f"error: cannot write {tmp_path}/runs: File exists. "
        "Choose a folder that can be written (training: paths.output_dir).\n"
    )


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("model.msfd_heads=3", "model: cannot be built with these settings: d_model 8 is not divisible by 3 heads."),
        ("model.cmfd_heads=0", "model.cmfd_heads: input should be greater than 0, found 0."),
        (
            "model.initial_temperature=0.0",
            "model.initial_temperature: input should be greater than or equal to 0.000001",
        ),
        ("trainer.accelerator=abacus", "trainer: cannot be built with these settings: "),
    ],
)
def test_a_number_that_nothing_can_be_built_with_is_refused_before_any_branch_is_trained(
    refused: Ended, word: str, sentence: str, tmp_path: Path
):
    said = refused("data=fisv_tes", "recipe=paper", *TINY, word)
    assert said.startswith(f"error: {sentence}")
    assert not list((tmp_path / "runs").rglob("*"))


def test_a_damaged_result_is_refused_with_what_to_do(refused: Ended, tmp_path: Path):
    words = ["data=fisv_tes", "modalities=[audio]", *TINY]
    run = locate(checked(composed(*words, f"paths.output_dir={tmp_path / 'runs'}")), "branch", ["audio"])
    write_text(run.file("result.json"), '{"metrics": ')
    said = refused(*words)
    assert said.startswith(f"error: {run.path}/result.json is damaged (")
    assert said.endswith(f"Remove the folder {run.path} and run it again.\n")


def own(folder: Path, name: str, text: str) -> None:
    """A file of the user's own `conf` folder, where the commands of a test start."""
    file = folder / "conf" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_configuration_files_of_ones_own_are_found_where_the_command_starts(refused, tmp_path):
    own(tmp_path, "data/mydata", (CONF / "data" / "fisv_tes.yaml").read_text().replace("name: fisv_tes", "name: mine"))
    own(tmp_path, "data/streams", (CONF / "data" / "uiprmd.yaml").read_text())
    own(tmp_path, "experiment/mine", "# @package _global_\ndefaults: [override /data: mydata]\nmodalities: [smell]\n")
    assert refused("+experiment=mine").startswith("error: modalities: smell not among")
    told = refused("data=streams", "features=vst_i3d_ast")
    assert told.startswith("error: features=vst_i3d_ast: data=streams has streams of its own")


def test_files_of_ones_own_replace_none_of_ours(refused, ended, tmp_path):
    own(tmp_path, "train", "seed: nothing")  # of whatever else uses Hydra here
    own(tmp_path, "recipe/official", (CONF / "recipe" / "official.yaml").read_text())
    own(tmp_path, "data/fisv_pcs", "of something else")
    own(tmp_path, "table/fusionnets", "table: null")
    assert "Did you mean seed" in refused("sed=1")
    told = f"error: {tmp_path}/conf/data/fisv_pcs.yaml: pamfn has another conf/data/fisv_pcs.yaml, which nothing"
    assert refused("data=fisv_pcs").startswith(told)
    assert refused("+experiment=fisv_pcs").startswith(told)
    swept = ended("-m", "+table=fusionnets", "+experiment=fisv_tes", "seed=0")
    assert swept.startswith(f"error: {tmp_path}/conf/table/fusionnets.yaml: pamfn has another")
