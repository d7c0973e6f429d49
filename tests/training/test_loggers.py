"""Weights & Biases, offline: what is in the files that it would upload."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from composed import small
from pamfn.config.schema import Logger
from pamfn.data import synthetic
from pamfn.data.synthetic import write_synthetic
from pamfn.errors import InputError
from pamfn.pipeline import record
from pamfn.pipeline.two_stage import run_job
from pamfn.runs.folder import Run
from pamfn.training.loggers import mode_of
from wandb_files import Records, merged, records

EPOCHS = {"branch": 1, "fusion": 2}
WORDS = ("logger=wandb", "logger.tags=[mine]", "recipe.branch.epochs=1", "recipe.fusion.epochs=2")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Runs a job on a small data set."""
    folder = tmp_path_factory.mktemp("wandb")
    write_synthetic(folder / "data", train=24, test=10)

    def run(*overrides: str) -> Run:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("WANDB_DATA_DIR", str(folder / "staging"))
            patched.setattr(synthetic, "write_synthetic", lambda data_dir: None)
            return run_job(small(folder, *WORDS, *overrides))

    return run


@pytest.fixture(scope="module")
def networks(finished: Callable[..., Run]) -> dict[str, tuple[Run, Records]]:
    """The four networks of a job by kind and modalities, with what W&B recorded of each."""
    fused = finished()
    runs = [fused, *map(Run, sorted(fused.path.parents[1].glob("branch/*")))]
    return {"+".join((run.result() or {})["modalities"]): (run, records(run)) for run in runs}


NETWORKS = ["rgb", "flow", "audio", "rgb+flow+audio"]


def test_every_network_is_a_run_of_its_own(networks: dict[str, tuple[Run, Records]]):
    assert set(networks) == set(NETWORKS)
    assert len({found["run"][0]["run_id"] for _, found in networks.values()}) == 4


@pytest.mark.parametrize("network", NETWORKS)
def test_a_run_says_which_network_it_is(networks: dict[str, tuple[Run, Records]], network: str):
    run, found = networks[network]
    started = found["run"][0]
    assert started["display_name"] == run.path.name
    assert started["project"] == "pamfn"
    assert started["run_group"] == "synthetic"
    assert started["job_type"] == ("fusion" if "+" in network else "branch")
    assert started["tags"] == ["mine", "synthetic", *network.split("+"), "holdout"]
    config = merged([started["config"]])
    result = run.result() or {}
    assert {key: config[key] for key in ("data", "model", "recipe", "protocol", "seed")} == {
        key: result["config"][key] for key in ("data", "model", "recipe", "protocol", "seed")
    }


@pytest.mark.parametrize("network", NETWORKS)
def test_the_configuration_stays_that_of_the_training(networks: dict[str, tuple[Run, Records]], network: str):
    run, found = networks[network]
    config = merged([*(started["config"] for started in found["run"]), *found.get("config", [])])
    result = run.result() or {}
    assert {key: config[key] for key in result["config"]} == result["config"]
    assert not set(config) & {"lr", "optimizer", "epochs", "splits"}  # of the module that only scores


@pytest.mark.parametrize("network", NETWORKS)
def test_a_run_holds_the_curves_and_nothing_after_them(networks: dict[str, tuple[Run, Records]], network: str):
    run, found = networks[network]
    header, *rows = [line.split(",") for line in run.file("curves.csv").read_text().splitlines()]
    for column in ("test/srcc", "holdout/srcc", "test/mae", "train/loss"):
        logged = [item["item"][column] for item in found["history"] if column in item["item"]]
        assert logged == pytest.approx([float(row[header.index(column)]) for row in rows], rel=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_run_ends_with_its_metrics_plots_and_predictions(networks: dict[str, tuple[Run, Records]], network: str):
    run, found = networks[network]
    result = run.result() or {}
    summary = merged(found["summary"])
    for protocol, metrics in result["metrics"].items():
        for name, value in metrics.items():
            assert summary[f"protocol/{protocol}/{name}"] == pytest.approx(value)
    assert {k: summary[f"reported/{k}"] for k in ("srcc", "mae")} == pytest.approx(
        {k: result["metrics"]["holdout"][k] for k in ("srcc", "mae")}
    )
    last = [item["item"] for item in found["history"] if "holdout/srcc" in item["item"]][-1]
    assert summary["holdout/srcc"] == last["holdout/srcc"]  # one meaning: the curve of the held-out videos
    (folder,) = run.path.glob("wandb/offline-run-*/files")
    for plot in ("predictions", "curves"):
        assert (folder / summary[f"plots/{plot}.path"]).read_bytes() == run.file(f"{plot}.png").read_bytes()
    table = json.loads((folder / summary["predictions.path"]).read_text())
    header, *rows = [line.split(",") for line in run.file("predictions.csv").read_text().splitlines()]
    assert table["columns"] == header
    assert [[*row[:3], *map(float, row[3:])] for row in rows] == table["data"]


def test_what_weights_and_biases_refuses_is_told_and_the_result_is_there(
    finished: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refused(*_: Any) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(record, "log_to_wandb", refused)
    run = finished("modalities=[rgb]", "seed=7")
    assert run.result() is not None
    assert "did not take the results" in caplog.text


@pytest.mark.parametrize("network", NETWORKS)
def test_a_finished_run_ends_with_exit_code_zero(networks: dict[str, tuple[Run, Records]], network: str):
    assert [end["exit_code"] for end in networks[network][1]["exit"]] == [0]


def test_a_training_that_fails_ends_with_exit_code_one(finished: Callable[..., Run], networks: dict):
    before = set(networks["rgb"][0].path.parent.iterdir())
    with pytest.raises(InputError, match="diverged"):
        finished("modalities=[rgb]", "recipe.branch.lr=1e30", "recipe.branch.clip=null")
    (folder,) = set(networks["rgb"][0].path.parent.iterdir()) - before
    assert [end["exit_code"] for end in records(Run(folder))["exit"]] == [1]


@pytest.mark.parametrize(
    ("asked", "environment", "netrc", "mode"),
    [
        ("auto", {}, "", "offline"),
        ("auto", {"WANDB_API_KEY": "x"}, "", "online"),
        ("auto", {}, "machine api.wandb.ai login user password x", "online"),
        ("auto", {}, "machine example.org login user password x", "offline"),
        ("auto", {"WANDB_API_KEY": "x", "WANDB_MODE": "offline"}, "", "offline"),
        ("offline", {"WANDB_API_KEY": "x"}, "", "offline"),
        ("online", {}, "", "online"),
    ],
)
def test_without_an_account_runs_are_kept_offline(
    asked: Any, environment: dict[str, str], netrc: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "netrc").write_text(netrc)
    for name, value in (environment | {"NETRC": str(tmp_path / "netrc")}).items():
        monkeypatch.setenv(name, value)
    settings = Logger(wandb=True, project="p", entity=None, group=None, tags=[], mode=asked)
    assert mode_of(settings) == mode
