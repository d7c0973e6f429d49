"""Tables from fabricated runs: what is in the cells, what is said below, what is refused."""

import csv
import io
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from composed import composed
from conftest import RunCli
from finished_runs import result_like
from pamfn import tables
from pamfn.config.compose import CONF, EXPERIMENTS, table_names
from pamfn.config.schema import Config, Table
from pamfn.config.validation import resolved
from pamfn.errors import InputError
from pamfn.evaluation.metrics import METRICS, Metric, mean_of, metrics_of, score_metrics
from pamfn.reporting import sweep as sweep_module
from pamfn.reporting.build import paper_figures
from pamfn.reporting.build import table as build
from pamfn.reporting.cells import AVERAGES, COLUMNS, Measured, misprinted, ordered
from pamfn.reporting.collect import every_result
from pamfn.reporting.forest_plot import draw_forest
from pamfn.reporting.plan import plan
from pamfn.reporting.print_tables import refuse_unread
from pamfn.reporting.render import BuiltTable, Layout, Section, build_table, number, page
from pamfn.reporting.selection_table import protocols
from pamfn.reporting.sweep import Job, sweep_of
from pamfn.runs import lookup
from pamfn.runs.folder import Run
from pamfn.runs.lookup import locate, wanted
from pamfn.runs.summary import summary_of
from wandb_files import merged, records

FISV = "+experiment=fisv_tes,fisv_pcs"
RANGE = 50.0
REFERENCES = sorted(file.stem for file in (EXPERIMENTS / "reference").glob("*.csv"))


@pytest.fixture(autouse=True)
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of our own, empty at first."""
    monkeypatch.setattr(lookup, "ARCHIVE", tmp_path / "archive")
    return tmp_path / "archive"


def places(folder: Path) -> list[str]:
    return [f"paths.data_dir={folder / 'data'}", f"paths.output_dir={folder / 'runs'}", "logger=csv"]


def points(name: str, noise: float, videos: int = 40) -> tuple[list[float], list[float]]:
    """True points, the same for every run of a data set, and predictions decided by everything in `name`."""
    true = np.random.default_rng(len(name.split("/")[0])).uniform(0, RANGE, videos)
    random = np.random.default_rng([*name.encode()])
    return true.tolist(), (true + noise * random.normal(size=videos)).tolist()


def write_predictions(run: Run, true: Sequence[float], predicted: Sequence[float]) -> None:
    run.path.mkdir(parents=True, exist_ok=True)
    lines = ["weights,split,video,true,predicted,spread"]
    for weights, shift in (("selected", 0.0), ("last", 1.0)):
        lines += [
            f"{weights},test,v{i},{y!r},{p + shift!r},0" for i, (y, p) in enumerate(zip(true, predicted, strict=True))
        ]
    run.file("predictions.csv").write_text("\n".join(lines) + "\n")


def result_of(config: Config, metrics: dict[str, Any], reported: str) -> dict[str, Any]:
    kind, modalities = wanted(config)
    like = result_like()
    return result_like(
        name=config.data["name"],
        kind=kind,
        modalities=modalities,
        seed=config.seed,
        reported=reported,
        metrics=metrics,
        data_source="synthetic" if "synthetic" in config.data["name"] else "real",
        data_files={},
        videos={"train": 80, "test": 40},
        score_range=RANGE,
        commit="0123456789abcdef+",
        machine=like["machine"] | {"cpu": "a processor", "gpu": None, "threads": 1},
        times=like["times"] | {"started": "2026-01-02T03:04:05Z"},
        network="the-fused-network" if kind == "missing" else None,
        inference_ms=None,
        config=config.model_dump(),
    )


def fabricate(
    config: Config, noise: float = 10.0, name: str = "", folder: Path | None = None, **changed: Any
) -> tuple[Run, dict[str, float]]:
    """A finished run of a configuration; its reported test metrics. `changed` replaces parts of its result."""
    run = locate(config, *wanted(config), folder)
    data = str(config.data["name"])
    true, predicted = points(f"{data}/{name or run.path.name}/{config.seed}", noise)
    metrics = score_metrics(true, predicted, RANGE)
    last = score_metrics(true, [p + 1.0 for p in predicted], RANGE)
    reported = "best_on_test" if config.protocol.select == "test" else "holdout"
    every = {"best_on_test": metrics, "last": last, "last10": last} | {reported: metrics}
    write_predictions(run, true, predicted)
    run.write_result({**result_of(config, every, reported), **changed})
    return run, metrics


def jobs(folder: Path, *overrides: str, table: str = "fusionnets") -> list[Job]:
    return sweep_of(table, [*overrides, *places(folder)]).jobs


def built(folder: Path, *overrides: str, table: str = "fusionnets", **how: Any) -> BuiltTable:
    return build(table, *overrides, *places(folder), **how)


def measured(row: str, column: str, values: Sequence[float]) -> list[Measured]:
    return [Measured(row, column, seed, value) for seed, value in enumerate(values)]


def plain(rows: Sequence[str], columns: Sequence[str], metric: str = "srcc", full: str | None = None) -> Layout:
    return Layout("name", "Title", rows, columns, full, metric)


class Nesting(HTMLParser):
    """Checks that every element that is opened is closed, and collects what would be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open += [] if tag in ("meta", "br") else [tag]
        self.loads += [str(value) for key, value in attrs if key in ("src", "href", "action", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def html(table: BuiltTable) -> str:
    return page(table.title, [Section(table)])


def fisher_mean(correlations: Sequence[float]) -> float:
    """The paper's average over actions."""
    return float(np.tanh(np.mean(np.arctanh(correlations))))


# what is in the cells


def test_a_cell_has_mean_deviation_number_of_seeds_and_interval(tmp_path: Path):
    ours = [fabricate(job.config)[1] for job in jobs(tmp_path, "+experiment=uiprmd") if job.row == "full"]
    table = built(tmp_path, "+experiment=uiprmd")
    cell = table.cells["Ranked FusionNets", "uiprmd"]
    values = [metrics["srcc"] for metrics in ours]
    assert list(cell.values.values()) == pytest.approx(values)
    assert (cell.n, cell.mean, cell.std) == (3, pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert 0 < cell.low < cell.mean < cell.high < 1
    (text,) = table.frame.loc[table.frame["row"] == "Ranked FusionNets", "uiprmd"]
    assert re.fullmatch(r"\.\d{3} ± \.\d{3} \(3\) \[\.\d\d, \.\d\d\]", text)
    assert table.cells["Free FusionNets", "uiprmd"].n == 0
    assert "-" in set(table.frame["uiprmd"])


@pytest.mark.parametrize("metric", metrics_of("score"))
def test_every_metric_is_the_one_that_the_runs_stored(tmp_path: Path, metric: str):
    (job,) = jobs(tmp_path, "+experiment=uiprmd", "+ablation=full", "seed=4")
    _, metrics = fabricate(job.config)
    table = built(tmp_path, "+experiment=uiprmd", "+ablation=full", "seed=4", metric=metric)
    cell = table.cells["Ranked FusionNets", "uiprmd"]
    assert cell.values == {4: pytest.approx(metrics[metric])}
    assert cell.low < cell.mean < cell.high
    assert math.isnan(cell.paper)


def test_a_metric_needs_a_row_of_the_table_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    bias = mean_of(lambda true, predicted, score_range: predicted - true)
    monkeypatch.setitem(METRICS, "bias", Metric("bias", *bias, at_most_one=False, unit="points"))
    asked = ("+experiment=uiprmd", "+ablation=full", "seed=4")
    (job,) = jobs(tmp_path, *asked)
    run, metrics = fabricate(job.config)
    true, predicted = points(f"uiprmd/{run.path.name}/4", 10.0)
    value = float(np.mean(np.subtract(predicted, true)))
    assert metrics["bias"] == pytest.approx(value)
    summary = summary_of(run, run.finished())
    assert f"bias {value:.4f}" in summary
    assert "Errors (mae, bias) are in points, rl2 is x 100." in summary
    words = ["tables", "fusionnets", *asked, *places(tmp_path), "--metric", "bias", "--format", "csv", "--no-wandb"]
    monkeypatch.setattr(sys, "argv", words)
    tables.main()
    (line,) = [line for line in csv.DictReader(io.StringIO(capsys.readouterr().out)) if line["n"] == "1"]
    assert (line["metric"], float(line["mean"])) == ("bias", pytest.approx(value))
    assert float(line["low"]) < value < float(line["high"])
    (text, *_) = built(tmp_path, *asked, metric="bias").frame["uiprmd"]
    assert text.startswith(f"{value:.3g} (1) [")


def test_averages_appear_with_all_their_members_and_are_fisher_means(tmp_path: Path):
    for job in jobs(tmp_path, FISV):
        fabricate(job.config, noise=20 if "unranked" in job.row else 8)
    table = built(tmp_path, FISV)
    row = "Unranked FusionNets"
    tes, pcs, both = (table.cells[row, column] for column in ("TES", "PCS", "FisV_Avg"))
    assert both.mean == pytest.approx(fisher_mean([tes.mean, pcs.mean]))
    assert list(both.values) == [0, 1, 2]
    assert both.low < both.mean < both.high
    assert both.p < 0.01
    assert both.high - both.low < max(tes.high - tes.low, pcs.high - pcs.low)
    assert list(table.frame.columns) == ["row", "", "TES", "PCS", "FisV_Avg"]
    assert "FisV_Avg" not in built(tmp_path, "+experiment=fisv_tes").frame.columns


@given(st.lists(st.lists(st.floats(-0.99, 0.99), min_size=2, max_size=2), min_size=4, max_size=4))
def test_averages_agree_with_the_metric_of_the_means_and_errors_are_averaged_as_they_are(values: list[list[float]]):
    members = AVERAGES["RG_Avg"]
    runs = [one for name, of_seeds in zip(members, values, strict=True) for one in measured("a", name, of_seeds)]
    means = [float(np.mean(of_seeds)) for of_seeds in values]
    for metric, expected in (("srcc", fisher_mean(means)), ("mse", np.mean(means))):
        table = build_table(plain(["a"], members, metric), runs, {})
        assert table.cells["a", "RG_Avg"].mean == pytest.approx(expected, abs=1e-12)


def test_an_average_is_over_the_seeds_that_all_members_have():
    runs = [*measured("a", "TES", [0.5, 0.7, 0.9]), *measured("a", "PCS", [0.6])]
    cell = build_table(plain(["a"], ["TES", "PCS"]), runs, {}).cells["a", "FisV_Avg"]
    assert cell.values == {0: pytest.approx(fisher_mean([0.5, 0.6]))}
    assert cell.mean == pytest.approx(fisher_mean([0.5, 0.6]))


def test_the_columns_are_in_the_papers_order():
    assert ordered(["uiprmd", *reversed(COLUMNS.values())]) == [
        *("Ball", "Clubs", "Hoop", "Ribbon", "RG_Avg", "TES", "PCS", "FisV_Avg"),
        *("Dog", "Gymnastics", "Parkour", "Skating", "Skiing", "Surfing", "Avg", "uiprmd"),
    ]
    assert ordered(["PCS", "Ball"]) == ["Ball", "PCS"]


def test_a_row_is_compared_with_the_full_model_on_the_same_videos(tmp_path: Path):
    for job in jobs(tmp_path, "+experiment=uiprmd"):
        fabricate(job.config, noise={"full": 5, "free_fusionnets": 5.2, "unranked_fusionnets": 40}[job.row])
    table = built(tmp_path, "+experiment=uiprmd")
    worse, alike, full = (table.cells[f"{row} FusionNets", "uiprmd"] for row in ("Unranked", "Free", "Ranked"))
    assert worse.p < 0.01 < alike.p
    assert math.isnan(full.p)
    assert any("to full: less Ranked FusionNets" in note for note in table.notes)
    for cell in (worse, alike):
        compared = cell.to_full
        assert compared is not None
        assert compared.difference == pytest.approx(cell.mean - full.mean)
        assert compared.low < compared.difference < compared.high
    assert worse.to_full is not None
    assert worse.to_full.high < 0
    assert worse.to_full.p_holm == 2 * worse.p
    assert any("in brackets by Holm for the 2 rows" in note for note in table.notes)
    (power,) = [note for note in table.notes if "in four of five cases" in note]
    shown = np.median([cell.to_full.detectable for cell in (worse, alike) if cell.to_full is not None])
    assert power.endswith(f"uiprmd {f'{shown:.2f}'.removeprefix('0')}.")


def test_rows_are_compared_over_the_seeds_that_both_have():
    """A row of the full model's first seed alone does not differ from it, however its other seeds came out."""
    random = np.random.default_rng(0)
    true = random.uniform(0, 50, 40)
    runs = [
        Measured(row, column, seed, 0.5, {str(v): (t, t + e) for v, (t, e) in enumerate(zip(true, noise, strict=True))})
        for column in ("TES", "PCS")
        for seed, noise in enumerate(random.normal(0, [[5], [50], [50]], (3, 40)))
        for row in (["Full", "Other"] if seed == 0 else ["Full"])
    ]
    table = build_table(plain(["Other", "Full"], ["TES", "PCS"], full="Full"), runs, {})
    for column in ("TES", "PCS", "FisV_Avg"):
        compared = table.cells["Other", column].to_full
        assert compared is not None
        assert (compared.p, compared.seeds) == (1.0, (0,))
        assert f"to full of Other, {column}: over seed 0, which both rows have." in table.notes


def test_a_correlation_that_is_not_defined_is_left_out_and_named(tmp_path: Path):
    for job in jobs(tmp_path, "+experiment=uiprmd", "+ablation=full"):
        run, metrics = fabricate(job.config)
        if job.seed == 1:
            constant = {"best_on_test": {**metrics, "srcc": math.nan}, "last": metrics}
            run.write_result({**(run.result() or {}), "metrics": constant})
    table = built(tmp_path, "+experiment=uiprmd", "+ablation=full")
    assert table.cells["Ranked FusionNets", "uiprmd"].n == 2
    assert any("no number for seed 1" in note for note in table.notes)


@pytest.mark.parametrize(("true", "predicted"), [(None, 7.5), (7.5, None)])
def test_a_constant_prediction_is_a_warning_before_all_other_notes(
    tmp_path: Path, true: float | None, predicted: float | None
):
    for job in jobs(tmp_path, "+experiment=uiprmd", "+ablation=full"):
        run, metrics = fabricate(job.config)
        if job.seed:
            of_videos, guesses = points("uiprmd/other/1", 10.0)
            write_predictions(run, [true or y for y in of_videos], [predicted or p for p in guesses])
            constant = {"best_on_test": {**metrics, "srcc": math.nan}, "last": metrics}
            run.write_result({**(run.result() or {}), "metrics": constant})
    table = built(tmp_path, "+experiment=uiprmd", "+ablation=full")
    assert table.cells["Ranked FusionNets", "uiprmd"].n == 1
    why = (
        "which predicted the same score for every test video: its"
        if predicted
        else ("since its test videos all have the same points:")
    )
    start = "WARNING: Ranked FusionNets, uiprmd: no number for seed 1, 2, "
    assert table.notes[0] == f"{start}{why} correlations are nan; left out of the mean."
    (protocol,) = protocols(every_result(str(tmp_path / "runs")), "srcc")
    assert protocol.notes[0].startswith("WARNING: uiprmd | PAMFN | ")
    assert ", best on test: no number for seed 1, 2, whose correlations are nan" in protocol.notes[0]


# the paper's figures


def test_the_papers_figure_the_difference_and_the_mark_are_beside_ours(tmp_path: Path):
    for job in jobs(tmp_path, "+experiment=fisv_tes", "+ablation=full"):
        fabricate(job.config, noise=0.5)
    table = built(tmp_path, "+experiment=fisv_tes", "+ablation=full")
    cell = table.cells["Ranked FusionNets", "TES"]
    assert (cell.paper, cell.outside) == (0.754, True)
    assert cell.difference == pytest.approx(cell.mean - 0.754)
    (text,) = table.frame.loc[table.frame[""] == "paper", "TES"]
    assert text == f".754 ({number('srcc', cell.difference, sign='+')}) †"
    assert any(note.startswith("†") for note in table.notes)


@pytest.mark.parametrize("name", table_names())
def test_every_row_that_names_a_reference_is_in_it_and_the_other_way_round(name: str):
    table = table_file(name)
    rows = {row for row, _ in paper_figures(table, table.metric)}
    published = {"RRAE", "GIFs", "LSVM", "CLA", "LM", "Trail.", "DL-VHD", "PLD", "CO-AV"}  # nobody trains them here
    more = published if name == "highlight_detection" else set()
    assert rows == ({*table.rows.values(), *more} if table.reference else set())
    assert paper_figures(table, "mse") == {}


def table_file(name: str) -> Table:
    return Table.model_validate(resolved(composed(f"+table={name}").table))


def test_the_full_model_has_the_same_figures_in_every_table_that_has_it():
    of_tables = {}
    for name in table_names():
        table = table_file(name)
        if table.reference and table.full == "full" and table.metric == "srcc":
            figures = paper_figures(table, "srcc")
            columns = ordered(["Ball", "Clubs", "Hoop", "Ribbon", "TES", "PCS"])
            of_tables[name] = [figures[table.rows[table.full], column] for column in columns]
    assert len(of_tables) == 7
    assert all(row == [0.757, 0.825, 0.836, 0.846, 0.819, 0.754, 0.872, 0.822] for row in of_tables.values())


@pytest.mark.parametrize("reference", REFERENCES)
def test_only_the_known_slips_of_the_paper_become_footnotes(reference: str):
    lines = csv.DictReader((EXPERIMENTS / "reference" / f"{reference}.csv").open())
    figures = {(f"{line['group']}, {line['row']}", line["column"]): float(line["value"]) for line in lines}
    metric = "map" if "highlight" in reference else "srcc"
    slips = {
        "table1_aqa_methods": {("AQA methods, ACTION-NET", "FisV_Avg"): 0.757},
        "table9_highlight_detection": {
            (f"Highlight detection, {row}", "Avg"): average
            for row, average in (("GIFs", 0.434), ("PLD", 0.717), ("CO-AV", 0.734))
        },
    }
    expected = slips.get(reference, {})
    assert misprinted(metric, figures) == {place: pytest.approx(value, abs=6e-4) for place, value in expected.items()}
    members = ["TES", "PCS"] if metric == "srcc" else list(AVERAGES["Avg"])
    table = build_table(plain(sorted({row for row, _ in figures}), members, metric), [], figures)
    assert len([note for note in table.notes if note.startswith("‡")]) == len(expected)


def test_a_row_of_the_paper_without_runs_and_a_row_of_ours_without_a_figure_are_both_there():
    table = build_table(plain(["mine"], ["TES"]), measured("mine", "TES", [0.5]), {("theirs", "TES"): 0.7})
    assert table.frame.to_numpy().tolist() == [
        ["mine", "ours", ".500 (1)"],
        ["theirs", "ours", "-"],
        ["", "paper", ".700"],
    ]


def test_rows_that_are_not_asked_for_are_not_shown(tmp_path: Path):
    table = built(tmp_path, "+experiment=fisv_tes", "+ablation=full")
    assert {row for row, _ in table.cells} == {"Ranked FusionNets"}


def test_what_a_row_costs_is_beside_what_it_costs_in_the_paper(tmp_path: Path):
    """The older runs of the full model were not timed, and its size depends on the data set."""
    words = ("+experiment=rg_ball,fisv_tes", "seed=0,1")
    for job in jobs(tmp_path, *words, table="aqa_methods"):
        size = {"gdlt": 3_163_396, "full": 22_711_421 if job.column == "rg_ball" else 17_955_917}.get(job.row)
        timed: dict[str, Any] = {} if job.row == "full" else {"inference_ms": 7.0 + job.seed}
        if size:
            fabricate(job.config, parameters={"total": size, "trained": size}, **timed)
    table = built(tmp_path, *words, table="aqa_methods")
    costs = {(row["row"], row[""]): [*row.values()][-2:] for row in table.frame.to_dict("records")}
    assert list(table.frame.columns)[-2:] == ["parameters (M)", "one video (ms)"]
    assert costs["GDLT", "ours"] == ["3.16", "7.5"]
    assert costs["PAMFN", "ours"] == ["17.96 to 22.71", "-"]
    assert costs["VST+SVR", "ours"] == ["-", "-"]
    papers = [[*row.values()][-2:] for row in table.frame.to_dict("records") if row[""] == "paper"]
    assert papers == [["", ""], ["1.08", "342"], ["3.54", "2"], ["1.84", "5"], ["18.06", "33"]]
    notes = "\n".join(table.notes)
    for part in ("thop 0.0.31", "on a processor (1 thread)", "- where the runs are older"):
        assert part in notes
    lines = {(line["row"], line["metric"]): line for line in csv.DictReader(io.StringIO(table.csv()))}
    line = lines["GDLT", "one video (ms)"]
    assert (line["n"], line["mean"], line["paper"]) == ("4", "7.5", "5.0")


# marks and notes


def test_two_rows_with_the_same_predictions_are_marked(tmp_path: Path):
    for job in jobs(tmp_path, "+experiment=uiprmd"):
        fabricate(job.config, name="same" if job.row != "full" else "full")
    table = built(tmp_path, "+experiment=uiprmd")
    assert table.cells["Free FusionNets", "uiprmd"].equal_to == ("Unranked FusionNets",)
    assert table.cells["Ranked FusionNets", "uiprmd"].equal_to == ()
    assert [cell.endswith("=") for cell in table.frame.loc[table.frame[""] == "ours", "uiprmd"]] == [True, True, False]
    assert any("Is the switch connected?" in note for note in table.notes)


def test_equal_numbers_of_different_predictions_are_a_coincidence():
    true = [1.0, 2.0, 3.0]
    runs = [
        Measured(row, "uiprmd", 0, 1.0, {f"v{i}": (y, y + shift) for i, y in enumerate(true)})
        for row, shift in (("a", 0.0), ("b", 0.5))
    ]
    assert build_table(plain(["a", "b"], ["uiprmd"]), runs, {}).cells["a", "uiprmd"].equal_to == ()
    runs = [one for row in "ab" for one in measured(row, "uiprmd", [0.1234567, 0.5])]
    assert build_table(plain(["a", "b"], ["uiprmd"]), runs, {}).cells["a", "uiprmd"].equal_to == ("b",)


def test_what_the_numbers_mix_is_said_below(tmp_path: Path):
    for job in jobs(tmp_path, "+experiment=uiprmd", "+ablation=full"):
        fabricate(job.config, commit="fedcba9876543210" if job.seed else "0123456789abcdef+")
    notes = "\n".join(built(tmp_path, "+experiment=uiprmd", "+ablation=full").notes)
    for part in (
        *("fedcba9876 (2)", "0123456789+ (1)", "2026-01-02", "a processor (1 thread)", "32-true", "real uiprmd"),
        *("selection on test", "select on test", "seeds 0, 1, 2", "3 of 3 runs with +experiment=uiprmd"),
    ):
        assert part in notes
    assert "stage 1" not in notes


def test_stage_1_is_said_to_be_included_where_runs_were_built_on_branches(tmp_path: Path):
    for job in jobs(tmp_path, "+experiment=uiprmd", "+ablation=full"):
        fabricate(job.config, branches={"vicon_positions": "gone"})
    (note,) = (n for n in built(tmp_path, "+experiment=uiprmd", "+ablation=full").notes if n.startswith("Trained"))
    assert note.startswith("Trained 2026-01-02, stage 1 included, by commit")


def test_last10_has_no_interval_and_says_so(tmp_path: Path):
    for job in jobs(tmp_path, "+experiment=uiprmd", "+ablation=full"):
        fabricate(job.config)
    asked = ("+experiment=uiprmd", "+ablation=full")
    table = built(tmp_path, *asked, select="last10")
    cell = table.cells["Ranked FusionNets", "uiprmd"]
    assert cell.n == 3
    assert math.isnan(cell.low)
    assert any("No interval and no p for last10 of 3 runs" in note for note in table.notes)
    last = built(tmp_path, *asked, select="last").cells["Ranked FusionNets", "uiprmd"]
    assert last.low < last.mean < last.high
    honest = built(tmp_path, *asked, select="holdout")
    assert honest.cells["Ranked FusionNets", "uiprmd"].n == 0
    assert any("no number for holdout" in note for note in honest.notes)


def test_what_is_missing_is_one_command_a_column_with_the_users_settings(tmp_path: Path):
    for job in jobs(tmp_path, FISV, "protocol=holdout"):
        if job.column == "fisv_tes" or job.seed:
            fabricate(job.config)
    table = built(tmp_path, FISV, "protocol=holdout")
    (command,) = table.missing
    assert command.startswith("python -m pamfn.train -m +table=fusionnets +experiment=fisv_pcs protocol=holdout paths.")
    assert command in table.markdown()
    assert table.cells["Ranked FusionNets", "PCS"].n == 2
    fabricate_all = [job for job in jobs(tmp_path, FISV, "protocol=holdout") if not job.seed]
    for job in fabricate_all:
        fabricate(job.config)
    assert built(tmp_path, FISV, "protocol=holdout").missing == []


def test_runs_of_other_settings_are_missing_not_stale(tmp_path: Path):
    for job in jobs(tmp_path, "+experiment=uiprmd", "protocol=holdout"):
        fabricate(job.config)
    assert built(tmp_path, "+experiment=uiprmd", "protocol=holdout").missing == []
    assert all(cell.n == 0 for cell in built(tmp_path, "+experiment=uiprmd").cells.values())


def test_the_archive_answers_too(tmp_path: Path, archive: Path):
    for job in jobs(tmp_path, "+experiment=uiprmd", "+ablation=full"):
        fabricate(job.config, folder=archive)
    assert built(tmp_path, "+experiment=uiprmd", "+ablation=full").cells["Ranked FusionNets", "uiprmd"].n == 3


# what cannot be trusted


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: text.replace('"seed": 1,', '"seed": 7,', 1), "changed after it was written"),
        (lambda text: text.replace('"schema": 1', '"schema": 99'), "version 99"),
    ],
)
def test_a_result_that_cannot_be_trusted_is_told_and_the_rest_is_shown(tmp_path: Path, spoil: Any, sentence: str):
    for job in jobs(tmp_path, "+experiment=uiprmd", "+ablation=full"):
        run, _ = fabricate(job.config)
        if job.seed == 1:
            file = run.file("result.json")
            file.write_text(spoil(file.read_text()))
    table = built(tmp_path, "+experiment=uiprmd", "+ablation=full")
    assert list(table.cells["Ranked FusionNets", "uiprmd"].values) == [0, 2]
    assert [note for note in table.notes if note.startswith("Left out") and sentence in note]
    assert len(table.missing) == 1


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"metrics": {"best_on_test": {"map": 0.5}, "last": {"map": 0.5}}},
            "Left out: 1 runs have no srcc under best_on_test, but map; shown",
        ),
        ({"metrics": {"best_on_test": {"srcc": "high"}}}, "metrics.best_on_test.srcc: Input should be a valid number"),
        ({"metrics": {"last": {"srcc": 0.5}}}, "is not the result of a run: metrics: no best_on_test."),
    ],
)
def test_a_result_that_lacks_the_metric_is_left_out_with_a_sentence(
    tmp_path: Path, changed: dict[str, Any], sentence: str
):
    for job in jobs(tmp_path, "+experiment=uiprmd", "+ablation=full", "seed=0,1"):
        fabricate(job.config, **changed if job.seed else {})
    table = built(tmp_path, "+experiment=uiprmd", "+ablation=full", "seed=0,1")
    assert table.cells["Ranked FusionNets", "uiprmd"].n == 1
    assert any(sentence in note for note in table.notes if note.startswith("Left out: "))


def test_a_result_without_what_tables_need_is_left_out_with_a_sentence(tmp_path: Path):
    (job,) = jobs(tmp_path, "+experiment=uiprmd", "+ablation=full", "seed=0")
    run, _ = fabricate(job.config)
    result = run.result() or {}
    for key in ("name", "kind", "reported", "metrics", "config", "commit", "machine", "times", "data_files"):
        run.write_result({name: value for name, value in result.items() if name != key})
        notes = built(tmp_path, "+experiment=uiprmd", "+ablation=full", "seed=0").notes
        assert any(note.startswith("Left out: ") and key in note for note in notes), key


def test_highlights_without_a_chance_level_have_no_row_of_it(tmp_path: Path):
    asked = ("+experiment=youtube_dog", "+ablation=full", "seed=0")
    (job,) = jobs(tmp_path, *asked, table="highlight_detection")
    fabricate(job.config, metrics={key: {"map": 0.5, "map_step": 0.5} for key in ("best_on_test", "last")})
    table = built(tmp_path, *asked, table="highlight_detection")
    assert table.cells["PAMFN", "Dog"].mean == 0.5
    assert [note for note in table.notes if note.startswith(f"No chance level for {job.run.path.name}: its result has")]
    (job,) = jobs(tmp_path, *asked)
    fabricate(job.config, metrics={key: {"map": 0.5, "map_step": 0.5} for key in ("best_on_test", "last")})
    assert (
        "Left out: 1 runs have no srcc under best_on_test, but map, map_step; shown as not run."
        in built(tmp_path, *asked).notes
    )


@pytest.mark.parametrize("content", [None, "", "weights,split\nselected,test\n", "other"])
def test_predictions_that_do_not_give_the_number_give_no_interval(tmp_path: Path, content: str | None):
    (job,) = jobs(tmp_path, "+experiment=uiprmd", "+ablation=full", "seed=0")
    run, _ = fabricate(job.config)
    file = run.file("predictions.csv")
    if content is None:
        file.unlink()
    elif content == "other":
        write_predictions(run, *points("uiprmd/other/0", 30.0))
    else:
        file.write_text(content)
    table = built(tmp_path, "+experiment=uiprmd", "+ablation=full", "seed=0")
    cell = table.cells["Ranked FusionNets", "uiprmd"]
    assert cell.n == 1
    assert math.isnan(cell.low)
    assert any(note.startswith(f"No interval for {run.path.name}") for note in table.notes)


def test_real_and_synthetic_data_are_not_put_in_one_table(tmp_path: Path):
    for job in jobs(tmp_path, "+experiment=uiprmd,demo", "+ablation=full", "seed=0"):
        fabricate(job.config)
    with pytest.raises(InputError, match=r"mix real and synthetic data \(uiprmd is real, demo is synthetic\)"):
        built(tmp_path, "+experiment=uiprmd,demo", "+ablation=full", "seed=0")
    table = built(tmp_path, "+experiment=demo", "+ablation=full", "seed=0")
    assert table.title.endswith("SYNTHETIC DATA")
    assert list(table.frame.columns) == ["row", "", "synthetic"]


def test_synthetic_data_is_never_beside_the_papers_figures(tmp_path: Path):
    table = built(tmp_path, "+experiment=fisv_tes", "data=synthetic", "+ablation=full", "seed=0")
    assert list(table.frame.columns) == ["row", "", "synthetic"]
    assert all(math.isnan(cell.paper) for cell in table.cells.values())
    topic = ("+experiment=youtube_dog", "features=planted_clips", "+ablation=full", "seed=0")
    assert all(math.isnan(c.paper) for c in built(tmp_path, *topic, table="highlight_detection").cells.values())


OWN = ("data=uiprmd", "+ablation=full", "seed=0")
TAKEN = ("data.dataset=MINE", "data.score=total", "data.columns=[name,total]", "data.select=null")


@pytest.mark.parametrize("words", [("data=uiprmd",), ("data.name=mine",), TAKEN])
def test_one_data_set_in_several_columns_is_refused(tmp_path: Path, words: tuple[str, ...]):
    """It would be one network under several names."""
    with pytest.raises(InputError) as error:
        built(tmp_path, *words, "+ablation=full", "seed=0")
    columns = "rg_ball, rg_clubs, rg_hoop, rg_ribbon" + ("" if words == TAKEN else ", fisv_tes, fisv_pcs")
    name = {"data=uiprmd": "uiprmd", "data.name=mine": "mine"}.get(words[0], "rg_ball")
    assert error.value.problems == [
        f"{' '.join(words)}: the columns {columns} of fusionnets would all be of the same data, {name}. "
        "Choose the one column whose other settings it takes, e.g. +experiment=rg_ball."
    ]


def test_a_column_is_called_by_its_data_whatever_experiment_its_settings_are_of(tmp_path: Path):
    (job,) = jobs(tmp_path, *OWN, "+experiment=fisv_tes")
    assert job.config.recipe.fusion.lr == 8e-4  # of fisv_tes
    fabricate(job.config)
    table = built(tmp_path, *OWN, "+experiment=fisv_tes")
    assert list(table.frame.columns) == ["row", "", "uiprmd"]
    assert table.cells["Ranked FusionNets", "uiprmd"].n == 1
    assert all(math.isnan(cell.paper) for cell in table.cells.values())
    assert "uiprmd       seed 0" in plan(sweep_of("fusionnets", [*OWN, "+experiment=fisv_tes", *places(tmp_path)]))
    tes = built(tmp_path, "data=fisv_tes", "+ablation=full", "seed=0", "+experiment=rg_ball")
    assert list(tes.frame.columns) == ["row", "", "TES"]


def test_experiments_of_one_data_set_are_columns_under_their_own_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    conf = shutil.copytree(CONF, tmp_path / "conf")
    for name in ("one", "two"):
        (conf / "experiment" / f"{name}.yaml").write_text("# @package _global_\ndefaults: [uiprmd]\n")
    monkeypatch.setattr(sweep_module, "CONF", conf)
    table = built(tmp_path, "+experiment=one,two", "data.crop=8", "+ablation=full", "seed=0")
    assert list(table.frame.columns) == ["row", "", "one", "two"]
    with pytest.raises(InputError, match=r"^data=fisv_tes: the columns one, two of fusionnets would all be of"):
        built(tmp_path, "+experiment=one,two", "data=fisv_tes", "+ablation=full", "seed=0")


def test_the_papers_figures_are_beside_its_own_data_only(tmp_path: Path):
    asked = ("+experiment=fisv_tes,fisv_pcs", "+ablation=full", "seed=0")
    own = built(tmp_path, *asked, "data.crop=8", "paths.data_dir=elsewhere")
    assert not math.isnan(own.cells["Ranked FusionNets", "FisV_Avg"].paper)
    for word in ("data.dataset=MINE", "data.train=MINE/train.txt", "data.columns=[name,pcs,tes,deduction]"):
        table = built(tmp_path, *asked, word)
        assert list(table.frame.columns) == ["row", "", "fisv_tes", "fisv_pcs"]
        assert all(math.isnan(cell.paper) for cell in table.cells.values())
        sentence = "fisv_tes, fisv_pcs: not what the paper has under this name; its figures are not shown here."
        assert sentence in table.notes
    with pytest.raises(InputError, match=r"^data.name=TES: so is a column of the paper called"):
        built(tmp_path, "+experiment=uiprmd", "data.name=TES")


@pytest.mark.parametrize(
    ("name", "overrides", "how", "sentence"),
    [
        ("nothing", [], {}, "no table 'nothing'"),
        ("fusionnets", ["+ablation=nothing"], {}, "nothing"),
        ("fusionnets", ["+experiment=uiprmd", "sed=1"], {}, "Did you mean seed"),
        ("fusionnets", [], {"metric": "accuracy"}, "fusionnets has srcc"),
        ("fusionnets", [], {"select": "best"}, "choose one of best_on_test"),
    ],
)
def test_what_is_not_there_is_refused(name: str, overrides: list[str], how: dict[str, Any], sentence: str):
    with pytest.raises(InputError, match=sentence):
        build(name, *overrides, **how)


# formats


@pytest.mark.slow
@pytest.mark.parametrize("name", table_names())
def test_every_table_builds_without_runs_in_every_format(tmp_path: Path, name: str):
    table = built(tmp_path, "+experiment=fisv_tes", "seed=0", table=name)
    cells = set(table.frame.loc[table.frame[""] == "ours"].iloc[:, 2:].to_numpy().ravel().tolist())
    assert cells <= {"-", ""}
    assert len(table.missing) == 1
    assert table.markdown().startswith(f"## {table.title}\n\n| row")
    assert "\\toprule" in table.latex()
    assert len(table.csv().splitlines()) == 1 + len(table.cells) + 2 * len(table.costs)
    page = Nesting()
    page.feed(html(table))
    assert (page.open, page.loads) == ([], [])


def test_side_by_side_rows_are_columns_by_what_is_before_the_comma():
    layout = Layout("name", "Title", ["Zeroed, RGB", "Zeroed, All", "Retrained, RGB"], ["TES"], None, "srcc", True)
    table = build_table(layout, measured("Retrained, RGB", "TES", [0.5]), {})
    assert table.frame.to_dict("split")["columns"] == ["row", "", "Zeroed: TES", "Retrained: TES"]
    assert table.frame.to_numpy().tolist() == [["RGB", "ours", "-", ".500 (1)"], ["All", "ours", "-", ""]]


def test_csv_has_a_line_for_every_cell_with_all_numbers():
    runs = measured("a, b", "TES", [0.5, 0.7])
    lines = list(
        csv.DictReader(io.StringIO(build_table(plain(["a, b"], ["TES"]), runs, {("a, b", "TES"): 0.25}).csv()))
    )
    (line,) = lines
    assert {key: line[key] for key in ("row", "column", "metric", "n", "values", "paper")} == {
        **{"row": "a, b", "column": "TES", "metric": "srcc", "n": "2"},
        **{"values": "0:0.5 1:0.7", "paper": "0.25"},
    }
    assert float(line["mean"]) == pytest.approx(0.6)
    assert float(line["difference"]) == pytest.approx(0.35)
    assert line["low"] == line["p"] == line["outside"] == ""


def test_what_is_special_in_latex_and_html_is_escaped():
    table = build_table(plain(["a & b <c>", "50 %_$"], ["TES"]), [], {}, ["a_b & <c> 95 %"], ["train 'x<y'"])
    assert "a \\& b $<$c$>$" in table.latex()
    assert "a\\_b \\& $<$c$>$ 95 \\%\\\\" in table.latex()
    assert "a &amp; b &lt;c&gt;" in html(table)
    assert "<li>a_b &amp; &lt;c&gt; 95 %</li>" in html(table)


@pytest.mark.parametrize(
    ("metric", "value", "digits", "text"),
    [
        *(
            ("srcc", 0.9204, 3, ".920"),
            ("srcc", -0.05, 2, "-.05"),
            ("srcc", 0.9996, 3, "1.000"),
            ("srcc", 1.0, 2, "1.00"),
        ),
        *(("mse", 169.15, 3, "169"), ("mae", 9.8759, 2, "9.88"), ("srcc", 0.0, 3, ".000")),
    ],
)
def test_numbers_are_written_as_in_the_paper(metric: str, value: float, digits: int, text: str):
    assert number(metric, value, digits) == text


# protocols


def test_protocols_show_every_run_under_every_rule_real_and_synthetic_apart(tmp_path: Path):
    overrides = ("+experiment=uiprmd,demo", "+ablation=full", "protocol=holdout")
    for job in jobs(tmp_path, *overrides):
        run, metrics = fabricate(job.config)
        every = {name: {**metrics, "srcc": value} for name, value in RULES.items()}
        run.write_result({**(run.result() or {}), "metrics": every})
    real, synthetic = protocols(every_result(str(tmp_path / "runs")), "srcc")
    assert (real.title, synthetic.title) == ("Protocols, real data", "Protocols, synthetic data")
    (row,) = real.frame.to_dict("records")
    assert (row["data"], row["network"], row["protocol"], row["seeds"]) == ("uiprmd", "PAMFN", "holdout 0.2", "3")
    assert (row["best on test"], row["hold-out"], row["refit"]) == (".900 ± .000", ".700 ± .000", "-")
    assert (row["best on test - hold-out"], row["best on test - last"]) == ("+.200 ± .000", "+.100 ± .000")
    assert set(synthetic.frame["data"]) == {"synthetic"}


RULES = {"best_on_test": 0.9, "last": 0.8, "last10": 0.75, "holdout": 0.7}


def test_protocols_tell_networks_apart_by_the_settings_that_differ(tmp_path: Path):
    for overrides in ((), ("recipe.fusion.epochs=7",), ("protocol=holdout",)):
        for job in jobs(tmp_path, "+experiment=uiprmd", "+ablation=full,free_fusionnets", "seed=0,1", *overrides):
            fabricate(job.config)
    (table,) = protocols(every_result(str(tmp_path / "runs")), "srcc")
    rows = {(row["settings"], row["protocol"], row["seeds"]) for row in table.frame.to_dict("records")}
    assert rows == {
        (f"model.policy={policy}, recipe.fusion.epochs={epochs}", protocol, "2")
        for policy in ("ranked", "free")
        for epochs, protocol in (("60", "paper"), ("7", "paper"), ("60", "holdout 0.2"))
    }


def test_protocols_refuse_settings_that_they_do_not_read():
    refuse_unread(["paths.output_dir=runs", "++paths.data_dir=data", "logger=csv", "logger.mode=offline"])
    with pytest.raises(InputError, match=r"^\+experiment=uiprmd, seed=0: `protocols` shows every finished run"):
        refuse_unread(["+experiment=uiprmd", "paths.output_dir=runs", "seed=0"])


# the command


def test_the_command_prints_logs_and_needs_no_torch(tmp_path: Path, run_cli: RunCli):
    asked = ["+experiment=uiprmd", "+ablation=full", "seed=0", "recipe.fusion.epochs=2"]
    (job,) = sweep_of("fusionnets", [*asked, f"paths.output_dir={tmp_path / 'runs'}"]).jobs
    fabricate(job.config)
    done = run_cli(["tables", "fusionnets", "--format", "html", *asked])
    assert (done.returncode, done.stderr) == (0, "")
    page = Nesting()
    page.feed(done.stdout)
    assert (page.open, page.loads) == ([], [])
    assert "http" not in done.stdout
    logged = records(Run(tmp_path / "runs" / "tables" / "fusionnets"))
    started = logged["run"][0]
    assert (started["run_group"], started["job_type"]) == ("fusionnets", "table")
    assert [end["exit_code"] for end in logged["exit"]] == [0]
    assert {"fusionnets/table", "fusionnets/cells"} <= {key.partition(".")[0] for key in merged(logged["summary"])}
    text = run_cli(["tables", "fusionnets", *asked, "--no-wandb", "--format", "csv", "--runs", "runs"])
    assert (text.returncode, len(text.stdout.splitlines())) == (0, 2)
    assert "Selection: best_on_test" in text.stderr
    assert len(list(tmp_path.glob("runs/tables/fusionnets/wandb/offline-run-*"))) == 1


def test_mistakes_end_the_command_with_a_sentence(run_cli: RunCli):
    for words in ("nothing", "fusionnets +ablation=nothing", "protocols --select last", "protocols seed=0"):
        done = run_cli(["tables", *words.split()])
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr


def test_tables_are_built_without_torch():
    code = "import sys, pamfn.tables; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_table_is_drawn_with_its_intervals(tmp_path: Path):
    for job in jobs(tmp_path, FISV):
        fabricate(job.config)
    drawn = tmp_path / "forest.png"
    draw_forest(built(tmp_path, FISV), drawn)
    assert drawn.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="no row has a number to draw"):
        draw_forest(built(tmp_path, "+experiment=uiprmd"), tmp_path / "nothing.png")
    assert not (tmp_path / "nothing.png").exists()
