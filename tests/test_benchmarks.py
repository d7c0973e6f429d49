"""The benchmark runs, and counts what it says it counts. How fast anything is, is not tested."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.counts import Counts, counted
from benchmarks.devices import CPU
from benchmarks.profiles import seconds_by_kind
from benchmarks.timing import compare


def test_operations_of_products_and_bytes_of_everything_else_are_counted():
    a, b, c = torch.randn(8, 4), torch.randn(4, 16), torch.randn(8, 16)
    assert counted(lambda: a @ b) == Counts(2 * 8 * 4 * 16, 0)
    assert counted(lambda: (a @ b).t() + c.t()) == Counts(2 * 8 * 4 * 16, 3 * c.nbytes)
    assert counted(lambda: c.mul_(2)) == Counts(0, 2 * c.nbytes)
    row = torch.randn(1, 16)
    assert counted(lambda: row.expand(8, 16).relu()).moved == row.nbytes + c.nbytes
    scaled = counted(lambda: torch._foreach_mul_([c, a], 2.0))  # type: ignore[attr-defined]
    assert scaled == Counts(0, 2 * (c.nbytes + a.nbytes))


def test_sides_take_turns_and_ratios_are_of_neighbours():
    order: list[str] = []
    row = compare("order", lambda: order.append("reference"), lambda: order.append("ours"), pairs=2)
    assert order == ["reference", "ours", "reference", "ours", "ours", "reference"]
    assert (len(row.reference), len(row.ours)) == (2, 2)
    row.reference, row.ours = [2.0, 3.0], [1.0, 2.0]
    assert row.ratios() == [2.0, 1.5]


def test_a_profile_tells_forward_from_backward():
    x = torch.randn(64, 64, requires_grad=True)
    found = seconds_by_kind(lambda: (x @ x).relu().sum().backward(), CPU, calls=2)
    assert {"products and convolutions", "products and convolutions, backward", "elementwise"} <= found.keys()
    assert all(seconds >= 0 for seconds in found.values())


def test_the_benchmark_runs_a_row_and_refuses_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def bench(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
        main()

    bench("--quick", "--only", "data", "--sizes", "rg", "--json", str(tmp_path / "found.json"))
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [row["title"].split()[0] for row in rows] == ["opening", "opening"]
    shown = capsys.readouterr().out
    assert all(row["title"] in shown for row in rows)
    refused = {
        "--only: no speed; there are step, stage1, test, ": ["--only", "speed"],
        "no such GPU": ["--device=cuda:9"],
        "--device gpu: choose cpu or cuda": ["--device=gpu"],
    }
    for sentence, words in refused.items():
        with pytest.raises(SystemExit):
            bench(*words)
        assert sentence in capsys.readouterr().err
