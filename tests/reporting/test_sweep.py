"""A table is a sweep: its rows exist, its jobs are Hydra's own, failures are told, and nothing is trained twice."""

import copy
import json
import re
import shlex
import shutil
import sys
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from composed import SMALL
from conftest import RunCli
from finished_runs import result_like
from pamfn.archive import main
from pamfn.config.compose import CONF, EXPERIMENTS, register, table_names
from pamfn.config.schema import Table
from pamfn.config.validation import resolved
from pamfn.errors import InputError
from pamfn.pipeline.job import tagged
from pamfn.reporting.build import built
from pamfn.reporting.plan import hours, nets, plan
from pamfn.reporting.sweep import PAPER_STREAMS, Job, Sweep, by_place, expand, jobs_of, rows_of, sweep_of, sweeps
from pamfn.runs import lookup
from pamfn.runs.archive import archive
from pamfn.runs.folder import Run
from pamfn.runs.lookup import finished
from pamfn.train import prepare
from wandb_files import merged, records

CELLS = ["rg_ball", "rg_clubs", "rg_hoop", "rg_ribbon", "fisv_tes", "fisv_pcs"]
ABLATIONS = {file.stem for file in (CONF / "ablation").glob("*.yaml")}
SMALL_UIPRMD = [
    *(f"features.{m}.width={width}" for m, width in (("vicon_positions", 6), ("kinect_angles", 5))),
    *("features.kinect_positions.width=4", "data.crop=8", "logger=csv", "protocol=holdout", "protocol.holdout=0.25"),
    *(word for word in SMALL if word.startswith(("model.branch", "recipe.", "trainer."))),
]


def ablations_of(table: str) -> list[str]:
    node = OmegaConf.load(EXPERIMENTS / "table" / f"{table}.yaml").table
    return list(node.rows) if node.row == "+ablation" else []


@cache
def expanded(name: str) -> Sweep:
    """The sweep of a table over two cells."""
    return sweep_of(name, ["+experiment=rg_ball,fisv_tes"])


@pytest.mark.parametrize("name", table_names())
def test_every_table_expands_to_its_rows_columns_and_seeds(name: str):
    sweep = expanded(name)
    jobs = {(job.row, job.column, job.seed) for job in sweep.jobs}
    assert jobs == {(r, c, s) for r in sweep.table.rows for c in ("rg_ball", "fisv_tes") for s in (0, 1, 2)}
    assert len(jobs) == len(sweep.jobs)
    assert sweep.table.full is None or sweep.table.full in sweep.table.rows
    assert all(job.config.protocol.select == "test" for job in sweep.jobs)


def test_without_more_words_the_columns_are_the_cells_of_the_main_table():
    assert [job.column for job in sweep_of("fusionnets", ["seed=0", "+ablation=full"]).jobs] == CELLS


def test_every_row_of_a_table_has_its_file_and_every_file_its_row():
    assert {row for name in table_names() for row in ablations_of(name)} == ABLATIONS


def test_rows_differ_in_what_they_train_and_tables_share_their_common_row():
    def runs(name: str) -> dict[str, Path]:
        return {job.row: job.run.path for job in expanded(name).jobs if (job.column, job.seed) == ("fisv_tes", 0)}

    tables = {name: runs(name) for name in table_names()}
    for name, of_rows in tables.items():
        same = {"reading_schedule"} if name == "readings" else set()
        assert len({path for row, path in of_rows.items() if row not in same}) == len(of_rows) - len(same), name
    full = tables["fusionnets"]["full"]
    assert {of_rows["full"] for of_rows in tables.values() if "full" in of_rows} == {full}
    assert tables["number_of_fusionnets"]["6"] == full
    assert tables["modalities"]["weighted_one_stage"] == tables["fusion_strategies"]["weighted_one_stage"]


def test_words_replace_what_the_table_sweeps_and_are_checked_like_any_others():
    (job,) = sweep_of("number_of_fusionnets", ["+experiment=fisv_tes", "seed=4", "model.num_fusion_nets=3"]).jobs
    assert (job.row, job.column, job.seed, job.config.model["num_fusion_nets"]) == ("3", "fisv_tes", 4, 3)
    with pytest.raises(InputError, match=r"no table 'fusionnet'. There are: aqa_methods, decoders, "):
        sweep_of("fusionnet")
    with pytest.raises(InputError, match=r"fusionnets: .*'ablation/fulll'"):
        sweep_of("fusionnets", ["+ablation=fulll"])
    with pytest.raises(InputError, match=r"recipe.fusion.epoch: no such setting. Did you mean epochs\?"):
        sweep_of("fusionnets", ["recipe.fusion.epoch=3", "+experiment=fisv_tes"])


STRONGER = {  # K, heads of the decoders, epochs, rate
    **{"rg_ball": (6, 4, 2, 500, 8e-4), "rg_clubs": (6, 4, 2, 100, 8e-4), "rg_hoop": (6, 4, 2, 300, 8e-4)},
    **{"rg_ribbon": (6, 4, 2, 20, 8e-4), "fisv_tes": (8, 2, 4, 100, 3e-4), "fisv_pcs": (8, 2, 4, 100, 3e-4)},
}


def test_the_stronger_features_have_their_own_settings_in_every_cell():
    settings = {}
    for job in sweep_of("stronger_features", ["seed=0", "+ablation=pamfn_stronger"]).jobs:
        model, recipe = job.config.model, job.config.recipe
        heads = (model["msfd_heads"], model["cmfd_heads"])
        settings[job.column] = (model["num_fusion_nets"], *heads, recipe.fusion.epochs, recipe.fusion.lr)
        assert (model["head_dropout"], model["head_reduction"], model["feature_dropout"]) == (0.3, 1, 0.3)
        assert (recipe.fusion.clip, recipe.fusion.head_lr_scale) == (None, 1.0)
        of_branch = recipe.branch
        assert (of_branch.optimizer, of_branch.lr, of_branch.schedule) == ("adamw", 1e-3, "none")
        assert (of_branch.clip, of_branch.weight_decay, model["branch"]["head_dropout"]) == (None, 1e-2, 0.3)
        assert [stream.extractor for stream in job.config.streams.values()] == ["UNMT", "I3D", "MAST"]
    assert settings == STRONGER


def test_features_that_a_data_set_does_not_have_are_refused_with_what_it_has(run_cli: RunCli):
    sentence = (
        "features=unmt_i3d_mast: data=uiprmd has streams of its own (vicon_positions, kinect_angles, kinect_positions)"
        ". Choose features=in_data, or a data set that has those features."
    )
    with pytest.raises(InputError) as error:
        sweep_of("stronger_features", ["+experiment=uiprmd"])
    assert error.value.problems == [sentence]
    some = sweep_of("stronger_features", ["+experiment=uiprmd,fisv_tes", "seed=0"])
    assert (some.problems, {job.column for job in some.jobs}) == ([sentence], {"fisv_tes"})
    assert sweep_of("stronger_features", ["+experiment=uiprmd", "features=in_data"]).problems == []
    single = run_cli(["train", "+experiment=uiprmd", "features=unmt_i3d_mast"])
    assert (single.returncode, single.stderr) == (1, f"error: {sentence}\n")


def jobs(run_cli: RunCli, table: str, *words: str) -> list[str]:
    return ["train", "-m", f"+table={table}", "+experiment=uiprmd", "seed=0", *SMALL_UIPRMD, *words]


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_failure_and_trains_only_what_is_missing(run_cli: RunCli, tmp_path: Path):
    words = jobs(run_cli, "fusion_stages", "+ablation=first_stage,no_such_row,full")
    refused = run_cli(words)
    assert refused.returncode == 1  # before anything is trained
    assert refused.stderr == "error: fusion_stages: In 'train': Could not find 'ablation/no_such_row'\n"

    words[-1] = "+ablation=first_stage,full"
    broken = tmp_path / "runs" / "fusion"
    first = run_cli([*words, "model.fusion_stages=7"])
    assert first.returncode == 1
    assert "2 jobs of the sweep failed; the rest is done:" in first.stdout
    assert "error: model: cannot be built with these settings: fusion_stages is 1 to 3" in first.stdout
    (log, _) = sorted((tmp_path / "runs" / "sweeps").glob("*/failed/*/*.log"))
    command, _, traceback = log.read_text().partition("\n\n")
    assert command.startswith("python -m pamfn.train -m ")
    assert "Traceback" in traceback
    assert not list(broken.glob("*/result.json"))

    words[words.index("logger=csv")] = "logger=wandb"
    second = run_cli(words)
    assert second.returncode == 0, second.stdout + second.stderr
    results = {path: path.stat().st_mtime for path in broken.glob("*/result.json")}
    assert len(results) == 2
    tags = {tuple(json.loads(path.read_text())["config"]["logger"]["tags"]) for path in results}
    assert tags == {("first_stage", "uiprmd"), ("full", "uiprmd")}
    for path in results:
        (row, _), logged = json.loads(path.read_text())["config"]["logger"]["tags"], records(Run(path.parent))
        started = logged["run"][0]
        assert (started["run_group"], started["job_type"]) == ("fusion_stages", "fusion")
        assert started["tags"][:2] == [row, "uiprmd"]
        assert merged([started["config"]])["table"]["source"] == "Table VIII"
        assert "holdout/srcc" in merged(logged["summary"])
        assert [end["exit_code"] for end in logged["exit"]] == [0]
    shown = run_cli([*words, "--dry"])
    assert shown.stdout.count(" done ") == 2
    assert "2 of 2 done" in shown.stdout

    third = run_cli(words)  # says so, and logs nothing
    assert third.stdout.count("read from") == 2
    assert {path: path.stat().st_mtime for path in broken.glob("*/result.json")} == results


@pytest.mark.slow
def test_jobs_side_by_side_share_their_branches_and_tell_what_failed(run_cli: RunCli, tmp_path: Path):
    words = [w for w in jobs(run_cli, "decoders") if not w.startswith("model.num")]
    done = run_cli([*words, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "+ablation=full,weighted_msfd,average"])
    assert done.returncode == 0, done.stdout + done.stderr
    runs = tmp_path / "runs"
    assert {kind: len(list(runs.glob(f"{kind}/*/result.json"))) for kind in ("branch", "fusion")} == {
        **{"branch": 3, "fusion": 3}
    }
    words += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "+ablation=full,average", "model.fusion_stages=2"]
    failed = run_cli(words)
    assert failed.returncode == 1
    assert "1 job of the sweep failed; the rest is done:" in failed.stdout
    assert "+ablation=average" in failed.stdout.partition("the rest is done:")[2]


def test_a_sweep_of_one_data_set_in_several_columns_is_refused_before_any_job(run_cli: RunCli, tmp_path: Path):
    refused = run_cli(["train", "-m", "+table=fusionnets", "data=uiprmd", "logger=csv"])
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: data=uiprmd: the columns rg_ball, rg_clubs, ")
    assert not (tmp_path / "runs").exists()


STREAMS = ("vicon_positions", "kinect_angles", "kinect_positions", "feet")
FOUR = ("+experiment=uiprmd", "++features.feet={extractor:zscore,width:3}", "data.name=four", "logger=csv")
TWO = ("+experiment=uiprmd", "~features.kinect_angles", "data.name=two", "logger=csv")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["modalities", "missing_modality", "highlight_detection"])
def test_rows_made_from_three_streams_are_those_of_the_files(name: str):
    topic = "youtube_dog" if name == "highlight_detection" else "fisv_tes"
    of_files = sweep_of(name, [f"+experiment={topic}", "seed=0"])
    assert list(rows_of(of_files.table, PAPER_STREAMS).values()) == list(of_files.table.rows.values())
    made = rows_of(of_files.table, ("rgb", "flow", "audio"))
    again = sweep_of(name, [f"+experiment={topic}", "seed=0", f"+ablation={','.join(made)}"])
    assert [job.run.path for job in again.jobs] == [job.run.path for job in of_files.jobs]


def test_every_row_by_place_is_in_a_table_that_has_rows_for_other_streams():
    for name in table_names():
        table = expanded(name).table
        assert bool(table.streams) == any(map(by_place, table.rows.values())), name
        assert {rows.ablation for rows in table.streams} <= {*table.rows, "full"}


def test_a_data_set_of_four_streams_has_rows_for_all_of_them_under_their_names():
    sizes = {"Unimodality": [1], "Weighted fusion (one stage)": [2, 3, 4], "PAMFN": [2, 3, 4]}
    sweep = sweep_of("modalities", [*FOUR, "seed=0"])
    expected = {f"{group}, {'+'.join(c)}" for group in sizes for n in sizes[group] for c in combinations(STREAMS, n)}
    assert {sweep.table.rows[job.row] for job in sweep.jobs} == expected
    for job in sweep.jobs:
        group, streams = sweep.table.rows[job.row].split(", ")
        assert list(job.config.streams) == streams.split("+")
        assert job.run.path.name.startswith(f"four-{streams.replace('+', '_')}-seed0-")
        assert ("LateFusion" in job.config.model["_target_"], job.run.path.parent.name) == (
            group.startswith("Weighted"),
            "branch" if group == "Unimodality" else "fusion",
        )


@pytest.mark.slow
def test_four_streams_are_missing_at_test_time_as_the_rows_say():
    sweep = sweep_of("missing_modality", [*FOUR, "seed=0"])
    rows = {sweep.table.rows[job.row]: job for job in sweep.jobs}
    assert len(rows) == len(sweep.jobs) == 15 + 15 + 14
    for label, job in rows.items():
        group, _, streams = label.rpartition(", ")
        shown = job.config.streams if group == "Retrained" else job.config.available or job.config.streams
        assert list(shown) == streams.split("+")
        assert len(job.config.streams) == (len(shown) if group == "Retrained" else 4)
        assert (job.config.model["modality_dropout"] > 0) == group.startswith("Modality dropout")


def swept(words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The runs of `python -m pamfn.train` with these words, as Hydra expands them."""
    monkeypatch.setattr(sys, "argv", ["train"])
    monkeypatch.setenv("PAMFN_SWEEP", "")
    prepare(words)
    given = [word for word in sys.argv[1:] if word != "-m"]
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        raw = compose("train", [w for w in given if not sweeps(w)], return_hydra_config=True)
        params = [f"{key}={value}" for key, value in raw.hydra.sweeper.params.items()]
        combinations = expand([*params, *given])
        jobs, problems = jobs_of(Table.model_validate(resolved(raw.table)), combinations)
    assert problems == []
    return [job.run.path for job in jobs]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "words"), [("modalities", FOUR), ("missing_modality", TWO)])
def test_the_commands_of_a_table_train_the_rows_that_it_lacks(
    name: str, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = [*words, "seed=0", f"paths.output_dir={tmp_path}"]
    sweep = sweep_of(name, asked)
    (command,) = built(sweep, asked).missing
    assert command.startswith("python -m pamfn.train -m ")
    assert swept(shlex.split(command)[3:], monkeypatch) == [job.run.path for job in sweep.jobs]
    for job in (sweep.jobs[0], sweep.jobs[-1], sweep.jobs[len(sweep.jobs) // 2]):
        assert swept(["-m", *job.overrides], monkeypatch) == [job.run.path]


def test_rows_that_these_streams_do_not_have_are_refused():
    with pytest.raises(InputError) as error:
        sweep_of("modalities", [*FOUR, "+ablation=full,rgb_only"])
    assert error.value.problems == [
        "+ablation=rgb_only: for data sets of three streams, and this one has vicon_positions, kinect_angles, "
        "kinect_positions, feet. Choose a row of its own, e.g. +ablation=full_on_vicon_positions, or leave the word "
        "out for all of them."
    ]
    with pytest.raises(InputError) as error:
        sweep_of("modalities", ["+experiment=fisv_tes,uiprmd", "++features.rgb={extractor:zscore,width:3}"])
    assert error.value.problems == [
        "modalities: its rows are the data set's streams, and these columns have different ones (fisv_tes: rgb, flow, "
        "audio; uiprmd: vicon_positions, kinect_angles, kinect_positions, rgb). Choose one of them, e.g. "
        "+experiment=fisv_tes."
    ]
    for word in ("modalities=[rgb]", "available=[rgb]"):
        with pytest.raises(InputError, match=rf"^{re.escape(word)}: the rows of modalities choose the streams. Choose"):
            sweep_of("modalities", ["+experiment=fisv_tes", word])
    assert sweep_of("fusionnets", ["+experiment=fisv_tes", "modalities=[rgb,flow]", "seed=0"]).problems == []


def test_the_rows_of_two_streams_are_trained_and_shown(run_cli: RunCli, tmp_path: Path):
    words = [*TWO, "seed=0", *(word for word in SMALL_UIPRMD if "kinect_angles" not in word)]
    done = run_cli(["train", "-m", "+table=modalities", *words])
    assert done.returncode == 0, done.stdout + done.stderr
    names = {path.parent.name.rpartition("-")[0] for path in (tmp_path / "runs").glob("*/*/result.json")}
    assert names == {f"two-{s}-seed0" for s in (STREAMS[0], STREAMS[2], f"{STREAMS[0]}_{STREAMS[2]}")}
    shown = run_cli(["tables", "modalities", *words])
    assert "4 of 4 runs" in shown.stdout
    assert "What is missing" not in shown.stdout
    assert "two: its streams are vicon_positions, kinect_positions; RGB stands for vicon_positions, " in shown.stdout
    assert "PAMFN, vicon_positions+kinect_positions" in shown.stdout


def test_a_table_alone_or_an_empty_plan_is_refused(run_cli: RunCli):
    alone = run_cli(["train", "+table=fusionnets"])
    assert (alone.returncode, alone.stdout) == (1, "")
    assert alone.stderr == "error: table=fusionnets is a sweep of many runs: add -m (and --dry to only list them).\n"
    for tables in (["+table=fusionnets,decoders"], ["+table=fusionnets", "+table=decoders"]):
        several = run_cli(["train", "-m", *tables])
        assert (several.returncode, several.stderr) == (1, "error: +table=fusionnets,decoders: one table at a time.\n")
    dry = run_cli(["train", "--dry"])
    assert (dry.returncode, dry.stderr) == (1, "error: --dry lists the runs of one table: add +table=NAME.\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["recipe.fusion.lr=1e-3,1e-4"], "2 runs for full, fisv_tes, seed 0: something else is swept too. "),
        (["seed=-1"], "seed: input should be a whole number from 0 to 4294967295, found '-1'."),
        (["seed=abc"], "seed: input should be a whole number from 0 to 4294967295, found 'abc'."),
        (["seed=4294967296"], "seed: input should be a whole number from 0 to 4294967295, found '4294967296'."),
    ],
)
def test_what_would_be_lost_in_a_cell_is_refused(words: list[str], sentence: str):
    with pytest.raises(InputError) as error:
        sweep_of("fusionnets", ["+experiment=fisv_tes", "+ablation=full", "seed=0", *words])
    assert str(error.value).startswith(sentence)


def test_a_job_is_tagged_with_its_place_beside_deletions(tmp_path: Path):
    job = only_job(tmp_path)
    words = ["~model.samples", "+experiment=uiprmd", "+ablation=full"]
    assert tagged(job.config, words).logger.tags[-2:] == ["full", "uiprmd"]
    words = ["+experiment=fisv_tes", "data=uiprmd", "+ablation=full"]
    assert tagged(job.config, words).logger.tags[-2:] == ["full", "uiprmd"]


def test_a_combination_that_cannot_be_leaves_the_others():
    words = ["+experiment=fisv_tes,uiprmd", "seed=0", "model.finetune=[audio]", "+ablation=full"]
    sweep = sweep_of("fusionnets", words)
    assert [job.column for job in sweep.jobs] == ["fisv_tes"]
    (problem,) = sweep.problems
    assert problem.startswith("model.finetune: audio not among the modalities: vicon_positions, ")


def only_job(tmp_path: Path, *words: str) -> Job:
    places = [f"paths.output_dir={tmp_path / 'runs'}", f"paths.data_dir={tmp_path / 'data'}"]
    (job,) = sweep_of("fusion_stages", ["+experiment=uiprmd", "seed=0", "+ablation=full", *places, *words]).jobs
    return job


def finished_like(job: Job) -> dict:
    like = result_like()
    return result_like(
        machine=like["machine"] | {"cpu": "AMD EPYC", "gpu": None, "threads": 1},
        times=like["times"] | {"seconds_per_epoch": 36.0},
        **{"name": "uiprmd", "kind": "fusion", "modalities": list(job.config.streams), "seed": 0, "data_files": {}},
        **{"reported": "holdout", "metrics": {"holdout": {"srcc": 0.5}, "last": {"srcc": 0.5}}},
        config=job.config.model_dump(),
    )


def test_the_archive_answers_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lookup, "ARCHIVE", tmp_path / "archive")
    job = only_job(tmp_path)
    run = job.run
    run.path.mkdir(parents=True)
    with pytest.raises(InputError, match="is not a finished run: it has no result"):
        archive(run, tmp_path / "archive")
    run.write_result(finished_like(job))
    run.file("predictions.csv").write_text("weights,split,video,true,predicted,spread\n")
    copy = archive(run, tmp_path / "archive")
    kept = copy.result()
    assert kept is not None
    assert kept["config"]["paths"] == {"data_dir": "data", "output_dir": "runs"}
    shutil.rmtree(run.path)
    again = finished(only_job(tmp_path).config)
    assert again == Run(copy.path)
    assert Run(copy.path).finished() == kept


def test_an_archived_run_of_other_data_is_no_answer(
    tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Whoever has other feature files trains on those; the archive is not theirs to remove."""
    monkeypatch.setattr(lookup, "ARCHIVE", tmp_path / "archive")
    job = only_job(tmp_path, f"paths.data_dir={tiny_data}")
    job.run.write_result({**finished_like(job), "data_files": {"UIPRMD/train.txt": "another"}})
    job.run.file("predictions.csv").touch()
    archive(job.run, tmp_path / "archive")
    shutil.rmtree(job.run.path)
    assert finished(job.config) is None
    assert "archived runs are not used where they were trained on another UIPRMD/train.txt" in caplog.text


def test_of_all_given_runs_the_finished_are_archived_and_the_others_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    done, begun, interrupted = (Run(tmp_path / "fusion" / name) for name in ("done", "begun", "interrupted"))
    done.write_result(finished_like(only_job(tmp_path)))
    for run, name in ((done, "predictions.csv"), (done, ".lock"), (begun, ".lock"), (interrupted, "resume.ckpt")):
        run.path.mkdir(parents=True, exist_ok=True)
        run.file(name).touch()
    kept = tmp_path / "kept"
    given = [str(run.path) for run in (begun, done, interrupted)]
    monkeypatch.setattr(sys, "argv", ["archive", *given, "--to", str(kept)])
    main()
    assert capsys.readouterr().out == (
        f"left out, since their training has not ended: begun, interrupted\n1 runs are in {kept}\n"
    )
    assert [folder.name for folder in kept.glob("*/*")] == ["done"]


def test_if_nothing_is_finished_or_a_folder_is_no_run_nothing_is_archived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    begun, other, done = (Run(tmp_path / name) for name in ("begun", "other", "done"))
    for folder in (begun, other):
        folder.path.mkdir()
    begun.file(".lock").touch()
    done.write_result(finished_like(only_job(tmp_path)))
    done.file("predictions.csv").touch()
    for given, named in (([begun], begun), ([done, begun, other], other)):
        words = ["archive", *(str(run.path) for run in given), "--to", str(tmp_path / "kept")]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 1
        assert f"error: {named.path} is not a finished run" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()


def test_the_plan_counts_what_is_missing_by_what_like_runs_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lookup, "ARCHIVE", tmp_path / "archive")
    sweep_words = [f"paths.output_dir={tmp_path / 'runs'}", f"paths.data_dir={tmp_path}", "+experiment=uiprmd"]
    sweep = sweep_of("fusion_stages", ["+ablation=full", *sweep_words])
    nothing = plan(sweep)
    assert nothing.endswith("0 of 3 done; the others need 12 networks of unknown cost.")
    assert nothing.count("     ? h ") == 3
    sweep.jobs[0].run.path.mkdir(parents=True)
    sweep.jobs[0].run.write_result(finished_like(sweep.jobs[0]))
    sweep.jobs[1].run.path.mkdir(parents=True)
    sweep.jobs[1].run.file("result.json").write_text('{"metrics": {"la')
    text = plan(sweep_of("fusion_stages", ["+ablation=full", *sweep_words]))
    assert "unreadable: " in text
    # 60 epochs of 36 s for the third seed (the second has an unreadable result) and six branches
    assert text.endswith("1 of 3 done; the others need about 0.6 h of one thread, and 6 networks of unknown cost.")


def test_a_plan_is_without_hours_when_all_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lookup, "ARCHIVE", tmp_path / "archive")
    job = only_job(tmp_path)
    job.run.path.mkdir(parents=True)
    job.run.write_result(finished_like(job))
    words = ["seed=0", f"paths.output_dir={tmp_path / 'runs'}", f"paths.data_dir={tmp_path / 'data'}"]
    (line, end) = plan(sweep_of("fusion_stages", ["+experiment=uiprmd", "+ablation=full", *words])).splitlines()
    assert end == "1 of 1 done."
    assert " h " not in line


def test_a_refit_counts_the_training_that_chooses_its_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lookup, "ARCHIVE", tmp_path / "archive")
    held = only_job(tmp_path, "protocol=holdout")
    refit = only_job(tmp_path, "protocol=holdout", "protocol.refit=true")
    held_names, refit_names = ({net.run.path.name for net in nets(job)} for job in (held, refit))
    assert len(held_names) == 4
    assert held_names < refit_names
    assert len(refit_names) == 8
    words = ["+experiment=uiprmd", "seed=0", "+ablation=full", "protocol=holdout", "protocol.refit=true"]
    words += [f"paths.output_dir={tmp_path / 'runs'}", f"paths.data_dir={tmp_path / 'data'}"]
    assert "need 8 networks of unknown cost" in plan(sweep_of("fusion_stages", words))
    held.run.path.mkdir(parents=True)
    held.run.write_result(finished_like(held))
    assert "need 7 networks of unknown cost" in plan(sweep_of("fusion_stages", words))  # the choosing one is finished
    paper = only_job(tmp_path)
    paper.run.path.mkdir(parents=True)
    paper.run.write_result(finished_like(paper))
    text = plan(sweep_of("fusion_stages", words))  # the refit one is trained on all videos, as that is
    assert text.endswith("need about 0.6 h of one thread, and 6 networks of unknown cost.")
    svr = ["+ablation=svr", *words[:2], *words[3:]]
    (job,) = sweep_of("aqa_methods", svr).jobs
    assert len(nets(job)) == 1  # solved at once


@pytest.mark.parametrize(
    "words",
    [
        ["data.crop=16"],
        ["recipe.fusion.batch_size=64"],
        ["protocol=holdout"],
        ["trainer.precision=bf16-mixed"],
        ["model.num_fusion_nets=2"],
        ["features.kinect_angles.width=7"],
    ],
)
def test_runs_whose_epochs_cost_something_else_are_no_measurement(words: list[str], tmp_path: Path):
    job = only_job(tmp_path)
    ran, modalities = finished_like(job), list(job.config.streams)
    assert hours(job.config, "fusion", modalities, [ran]) == pytest.approx(0.6)
    assert hours(only_job(tmp_path, *words).config, "fusion", modalities, [ran]) is None
    other = only_job(tmp_path, "recipe.branch.batch_size=64", "recipe.fusion.lr=1e-5").config
    assert hours(other, "fusion", modalities, [ran]) == pytest.approx(0.6)


@pytest.mark.parametrize("machine", [{"gpu": "H100", "threads": 1}, {"gpu": None, "threads": 16}])
def test_a_gpu_or_several_threads_tell_nothing_of_one_thread(machine: dict[str, Any], tmp_path: Path):
    job = only_job(tmp_path)
    ran, modalities = finished_like(job), list(job.config.streams)
    other = copy.deepcopy(ran) | {"machine": {"cpu": "x", **machine}, "times": {"seconds_per_epoch": 0.05}}
    assert hours(job.config, "fusion", modalities, [other]) is None
    assert hours(job.config, "fusion", modalities, [ran, other, other]) == pytest.approx(0.6)
    other["config"]["trainer"]["accelerator"] = "cpu"
    on_cpu = machine["threads"] == 1
    assert hours(job.config, "fusion", modalities, [other]) == (pytest.approx(0.05 / 60) if on_cpu else None)


def test_rows_are_called_by_the_streams_of_their_data():
    own = sweep_of("modalities", ["+experiment=uiprmd", "+ablation=full", "seed=0"]).table.rows
    assert "Unimodality, kinect_angles" in own.values()
    assert "PAMFN, vicon_positions+kinect_positions" in own.values()
    papers = sweep_of("modalities", ["+experiment=fisv_tes,uiprmd", "+ablation=full", "seed=0"]).table.rows
    assert "Unimodality, Flow" in papers.values()
    assert list(own) == list(papers)
