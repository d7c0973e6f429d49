"""A few cases of the fault campaign (`make faults` runs them all)."""

import re
import signal

import pytest

from faults import __main__, disks, jobs, kills, signals, sweeps
from faults.outcome import Outcome


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def points(folder):
    return kills.points(folder)


def well(outcome: Outcome) -> bool:
    assert (outcome.lost, outcome.left_behind, outcome.wrong) == (0, 0, 0), outcome.notes
    return True


def test_every_file_of_a_job_has_points_to_be_killed_at(points, folder):
    written = {name for name in jobs.reference_of(folder).files if "." in name and not name.endswith(".lock")}
    for file in written:
        assert {p.when for p in points if p.file == file} == {"before", "after"}, file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "call", "file"),
    [
        ("before", "replace", r"branch/.*/resume.ckpt"),
        ("after", "replace", r"branch/.*/result.json"),  # before its resume point is removed
        ("after", "replace", r"fusion/.*/selected.safetensors"),
    ],
)
def test_a_killed_training_goes_on_to_the_same_numbers(folder, points, when, call, file):
    (first, *_) = (p for p in points if (p.when, p.call) == (when, call) and re.match(file, p.file))
    assert well(kills.killed_at(folder, first))


def test_a_training_interrupted_in_its_imports_says_so_and_leaves_nothing(folder):
    assert well(signals.in_imports(folder, signal.SIGINT, "torch"))


def test_a_conversion_interrupted_in_its_imports_says_so_and_leaves_nothing(folder):
    assert well(signals.in_other(folder, "convert", "numpy"))


@pytest.mark.slow
def test_a_file_that_may_not_grow_is_named(folder):
    assert well(disks.limited(folder, 20_000, "resume.ckpt"))


@pytest.mark.slow
def test_a_training_needs_no_standard_output(folder):
    assert well(disks.closed_output(folder))


@pytest.mark.slow
def test_a_training_whose_lines_nobody_reads_stops(folder):
    assert well(disks.one_line_read(folder))


def test_the_workers_of_a_killed_sweep_end(folder):
    place = jobs.place_of(folder, "sweep")
    assert well(sweeps.struck(place, "start", "parent"))


def test_a_part_that_breaks_is_wrong_and_fails_the_campaign(tmp_path, capsys):
    outcome = __main__.outcome_of("nothing", tmp_path)
    assert outcome.wrong == 1
    assert __main__.told({"nothing": (outcome, 1.0), "well": (Outcome(tried=3), 1.0)}) == 1
    assert __main__.told({"well": (Outcome(tried=3), 1.0)}) == 0
    assert "ModuleNotFoundError" in capsys.readouterr().out
