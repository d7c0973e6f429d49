"""Folds in tables and at the end of a sweep, from fabricated runs."""

from pathlib import Path

import numpy as np
import pytest

from fabricated_runs import POINTS, fabricate, srcc
from pamfn.evaluation.bootstrap import Scored, bootstrap, bootstrap_over_folds, counts_of
from pamfn.evaluation.metrics import average, average_over_folds
from pamfn.reporting.build import table as build
from pamfn.reporting.collect import every_result
from pamfn.reporting.folds import folds_summary
from pamfn.reporting.selection_table import protocols
from pamfn.reporting.sweep import Job, sweep_of, swept_over_folds
from pamfn.runs import lookup

FOLDS = 4
GROUPS = {video: f"g{i % 8}" for i, video in enumerate(POINTS)}
FOLD = {video: i % FOLDS for i, video in enumerate(POINTS)}
WORDS = ("+experiment=fisv_tes", "protocol=folds", f"protocol.folds={FOLDS}", "seed=0,1")
TABLE = (*WORDS, "+ablation=free_fusionnets,full")
ROW = ("Ranked FusionNets", "TES")


@pytest.fixture(autouse=True)
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "ARCHIVE", tmp_path / "archive")


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    return [f"paths.data_dir={tmp_path / 'data'}", f"paths.output_dir={tmp_path / 'runs'}", "logger=csv"]


@pytest.fixture
def jobs(places: list[str]) -> list[Job]:
    """The finished jobs of a table: two rows, two seeds, four folds of two groups each."""
    jobs = sweep_of("fusionnets", [*TABLE, *places]).jobs
    for number, job in enumerate(jobs):
        tested = {video: points for video, points in POINTS.items() if FOLD[video] == job.fold}
        groups = {video: GROUPS[video] for video in tested}
        fabricate(job.config, np.random.default_rng(number), tested, groups=groups, noise=6)
    return jobs


def predicted(job: Job) -> dict[str, float]:
    rows = (line.split(",") for line in job.run.file("predictions.csv").read_text().splitlines())
    return {row[2]: float(row[4]) for row in rows if row[:2] == ["selected", "test"]}


def test_a_sweep_has_a_job_for_every_fold(jobs: list[Job]):
    assert len(jobs) == 2 * 2 * FOLDS
    assert {job.fold for job in jobs} == set(range(FOLDS))
    assert len({job.run.path for job in jobs}) == len(jobs)
    assert all(f"-fold{job.fold}-" in job.run.path.name for job in jobs)


def test_a_cell_is_of_all_folds_together_with_the_mean_over_folds_below(jobs: list[Job], places: list[str]):
    built = build("fusionnets", *TABLE, *places)
    cell = built.cells[ROW]
    together, over = [], []
    for seed in (0, 1):
        of_folds = [predicted(job) for job in jobs if (job.row, job.seed) == ("full", seed)]
        pooled = {video: points for of in of_folds for video, points in of.items()}
        together.append(srcc(np.array([*POINTS.values()]), np.array([pooled[v] for v in POINTS]), 40.0))
        each = [srcc(np.array([POINTS[v] for v in of]), np.array([*of.values()]), 40.0) for of in of_folds]
        over.append(float(average("srcc", each)))
    assert cell.values == pytest.approx(dict(enumerate(together)))
    assert cell.over_folds is not None
    assert cell.over_folds.mean == pytest.approx(np.mean(over))
    assert cell.over_folds.low < cell.over_folds.mean < cell.over_folds.high
    assert built.cells["Free FusionNets", "TES"].p <= 1
    text = built.markdown()
    assert text.count("| folds ") == 2
    assert "bootstrap over whole groups of them (8 groups)" in text
    assert "Protocol: 4 folds, 0.2 of train held out" in text
    assert "folds_mean" in built.csv().splitlines()[0]
    assert "16 of 16 runs" in text


def test_a_fold_that_is_missing_is_said_with_its_command(jobs: list[Job], places: list[str]):
    (gone,) = [job for job in jobs if (job.row, job.seed, job.fold) == ("full", 1, 2)]
    gone.run.file("result.json").unlink()
    built = build("fusionnets", *TABLE, *places)
    assert set(built.cells[ROW].values) == {0}
    assert "Ranked FusionNets, TES, seed 1: 3 of 4 folds are done; shown as not run." in built.notes
    (command,) = built.missing
    assert command.startswith("python -m pamfn.train -m +table=fusionnets +experiment=fisv_tes protocol=folds")


def test_a_fold_whose_videos_have_one_score_is_left_out_of_the_mean(jobs: list[Job], places: list[str]):
    for job in jobs:
        if job.fold == 1:
            text = job.run.file("predictions.csv").read_text().splitlines()
            flat = [
                ",".join([*line.split(",")[:3], "7.0", *line.split(",")[4:]]) if ",test," in line else line
                for line in text
            ]
            job.run.file("predictions.csv").write_text("\n".join(flat))
            fixed = job.run.finished()
            metrics = {rule: {"srcc": None} for rule in fixed["metrics"]}
            kept = {key: value for key, value in fixed.items() if key not in ("schema", "digest")}
            job.run.write_result(kept | {"metrics": metrics})
    built = build("fusionnets", *TABLE, *places)
    over = built.cells[ROW].over_folds
    assert over is not None
    assert over.undefined == 2
    assert any("4 folds have no number" in note for note in built.notes)


def test_means_of_networks_are_of_the_networks_of_every_fold(jobs: list[Job], places: list[str]):
    built = build("fusionnets", *TABLE, *places, mean=True)
    cell = built.cells["Ranked FusionNets, mean of 2 networks", "TES"]
    assert cell.over_folds is not None
    assert cell.mean > built.cells[ROW].mean
    assert ("All rows, mean of 4 networks", "TES") in built.cells


def test_the_end_of_a_sweep_says_what_its_folds_came_to(jobs: list[Job], places: list[str]):
    said = folds_summary(["-m", *WORDS, "+ablation=full", *places])
    assert "fisv_tes: 4 folds, 40 videos of 8 groups, srcc" in said
    assert "all together" in said
    assert "mean over folds" in said
    both = folds_summary(["-m", *TABLE, *places])
    assert "fisv_tes +ablation=free_fusionnets: 4 folds" in both
    assert folds_summary(["-m", "+experiment=fisv_tes", "seed=0,1", *places]) == ""
    assert folds_summary(["-m", "+table=fusionnets", *TABLE, *places]) == ""


def test_folds_and_seeds_may_be_named_one_by_one_or_stand_in_a_file(places: list[str]):
    words = ["-m", "+experiment=fisv_tes", "protocol.folds=4", "protocol.fold=0,1,2,3", *places]
    of_words = swept_over_folds(words)
    assert [(job.seed, job.fold) for job in of_words] == [(0, fold) for fold in range(4)]
    of_file = swept_over_folds(["-m", "+experiment=fisv_tes", "protocol=folds", "seed=3", *places])
    assert {job.seed for job in of_file} == {3}


def test_single_folds_are_no_rows_of_protocols(jobs: list[Job], tmp_path: Path):
    assert protocols(every_result(str(tmp_path / "runs"))) == []


def test_whole_groups_are_drawn():
    random = np.random.default_rng(0)
    videos = tuple(sorted(POINTS))
    groups = tuple(GROUPS[video] for video in videos)
    scored = Scored(videos, np.array([POINTS[v] for v in videos]), random.normal(size=(2, 40)), 40.0, groups)
    counts = counts_of(scored, 50)
    for group in set(groups):
        own = [i for i, name in enumerate(groups) if name == group]
        assert (counts[:, own] == counts[:, own[:1]]).all()
    assert counts.sum(axis=1) == pytest.approx(40)
    assert bootstrap("srcc", scored, 50).shape == (2, 50)


@pytest.mark.filterwarnings("error")
def test_a_fold_of_one_group_counts_as_often_as_it_was_drawn():
    random = np.random.default_rng(0)
    videos = tuple(f"v{i:02}" for i in range(12))
    groups = tuple(f"g{i // 4}" for i in range(12))
    scored = Scored(videos, random.normal(size=12), random.normal(size=(1, 12)), 1.0, groups)
    fold = [i // 4 for i in range(12)]
    each = [srcc(scored.true[i : i + 4], scored.predicted[0, i : i + 4], 1.0) for i in (0, 4, 8)]
    counts = counts_of(scored, 30)[:, [0, 4, 8]]
    expected = [average_over_folds("srcc", np.array(each), row) for row in counts]
    np.testing.assert_allclose(bootstrap_over_folds("srcc", scored, fold, 30)[0], expected, atol=1e-12)
