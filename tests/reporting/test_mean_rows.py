"""Rows for means of several networks, from fabricated runs."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from fabricated_runs import fabricate, srcc
from pamfn.errors import InputError
from pamfn.evaluation.averaging import Scale, common_scale
from pamfn.reporting.build import table as build
from pamfn.reporting.sweep import sweep_of
from pamfn.runs import lookup

SWEEP = ("+experiment=fisv_tes,fisv_pcs", "+ablation=free_fusionnets,full", "protocol=holdout")


@pytest.fixture(autouse=True)
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "ARCHIVE", tmp_path / "archive")


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A sweep of two rows, two columns and three seeds, all of whose runs are finished."""
    words = [*SWEEP, f"paths.data_dir={tmp_path / 'data'}", f"paths.output_dir={tmp_path / 'runs'}", "logger=csv"]
    for number, job in enumerate(sweep_of("fusionnets", words).jobs):
        fabricate(job.config, np.random.default_rng(number))
    return words


def files(words: Sequence[str], row: str, column: str) -> list[Path]:
    jobs = [job for job in sweep_of("fusionnets", words).jobs if (job.row, job.column) == (row, column)]
    return [job.run.file("predictions.csv") for job in jobs]


def read(file: Path) -> Mapping[str, Mapping[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {}
    for row in csv.DictReader(file.read_text().splitlines()):
        if row["weights"] == "selected":
            columns = found.setdefault(row["split"], {"true": [], "predicted": []})
            for name, numbers in columns.items():
                numbers.append(float(row[name]))
    return found


def test_points_are_brought_from_one_scale_to_another():
    factor, shift = Scale(10.0, 2.0).onto(Scale(5.0, 1.0))
    assert [factor * x + shift for x in (10.0, 12.0)] == [5.0, 6.0]
    assert common_scale([Scale(1.0, 2.0), Scale(3.0, 4.0)]) == (2.0, 3.0)


def test_a_mean_is_scored_on_the_scale_of_the_networks_held_out_predictions(words: list[str]):
    built = build("fusionnets", *words, mean=True)
    runs = [read(file) for file in files(words, "full", "fisv_tes")]
    held = [np.array(run["holdout"]["predicted"]) for run in runs]
    standard = [
        (np.array(run["test"]["predicted"]) - own.mean()) / own.std() for run, own in zip(runs, held, strict=True)
    ]
    expected = srcc(np.array(runs[0]["test"]["true"]), np.mean(standard, axis=0), 40.0)
    name = "Ranked FusionNets, mean of 3 networks"
    cell = built.cells[name, "TES"]
    assert cell.mean == pytest.approx(expected)
    assert cell.low < cell.mean < cell.high
    assert 0 <= cell.p <= 1
    plain = build("fusionnets", *words)
    assert set(plain.cells) < set(built.cells)
    assert all(built.cells[place] == cell for place, cell in plain.cells.items())
    line = next(line for line in built.markdown().splitlines() if line.startswith(f"| {name}"))
    assert "±" not in line
    assert "(3)" not in line
    assert f'{name}",TES,srcc,1,mean:' in built.csv()
    assert "All rows, mean of 6 networks" in {row for row, _ in built.cells}
    assert ("All rows, mean of 6 networks", "FisV_Avg") in built.cells
    assert any("each network is brought to one scale" in note for note in built.notes)


def test_a_row_whose_networks_have_no_scale_has_no_mean_and_the_others_have(words: list[str]):
    file = files(words, "full", "fisv_tes")[1]
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if "holdout9" not in line and "holdout1" not in line))
    built = build("fusionnets", *words, mean=True)
    with_mean = {(row, column) for (row, column), cell in built.cells.items() if "mean of" in row and cell.values}
    assert with_mean == {
        ("Ranked FusionNets, mean of 3 networks", "PCS"),
        *(("Free FusionNets, mean of 3 networks", column) for column in ("TES", "PCS", "FisV_Avg")),
        ("All rows, mean of 6 networks", "PCS"),
    }
    notes = [note for note in built.notes if note.startswith("No mean of networks for")]
    assert len(notes) == 2
    assert all(f"{file.parent.name} held out fewer than 10 videos" in note for note in notes)


def test_one_network_is_no_mean(words: list[str]):
    built = build("fusionnets", *words, "seed=0", "+ablation=full", mean=True)
    assert not [row for row, _ in built.cells if "mean of" in row]


def test_constant_predictions_and_other_test_videos_are_refused(words: list[str]):
    constant, other, _ = files(words, "full", "fisv_pcs")
    said = ["predicts the same for every video", "tested on different videos"]
    kept = constant.read_text(), other.read_text()
    constant.write_text("\n".join(flat(line) for line in kept[0].splitlines()))
    built = build("fusionnets", *words, mean=True)
    assert any(said[0] in note for note in built.notes)
    constant.write_text(kept[0])
    other.write_text(kept[1].replace("test,test3,", "test,testing,"))
    assert any(said[1] in note for note in build("fusionnets", *words, mean=True).notes)


def flat(line: str) -> str:
    weights, split, video, true, predicted, spread = line.split(",")
    return ",".join([weights, split, video, true, "3.0" if split == "holdout" else predicted, spread])


def test_clips_have_no_mean(tmp_path: Path):
    with pytest.raises(InputError, match=r"--mean: the scores of clips"):
        build(
            "highlight_detection",
            "+experiment=youtube_dog",
            "+ablation=full",
            "seed=0",
            f"paths.output_dir={tmp_path}",
            mean=True,
        )
