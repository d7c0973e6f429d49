"""How often prediction intervals cover test videos, from the archived runs: `python -m benchmarks.coverage`.

The intervals are made as `pamfn.predict` makes them, and cut to the points that there are. For every method, its
settings with two or more runs that held videos out: each run by itself (mean over runs), and CV+ over the runs of one
setting, whose networks are averaged on one scale (mean over settings). Behind the share of covered
test videos stands its exact 95 % interval, as if the choice of these videos were the only thing that varies.
"""

import csv
import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import numpy as np

from pamfn.evaluation.averaging import Scale, common_scale
from pamfn.evaluation.conformal import coverage, cv_plus, split_conformal, within
from pamfn.runs.held_out import held_out_of
from pamfn.runs.lookup import ARCHIVE

LEVELS = (0.8, 0.9)


def main() -> None:
    groups: dict[tuple[str, str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for file in sorted(ARCHIVE.glob("*/*/result.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        if result["reported"] != "holdout" or result["kind"] == "missing" or result["data_source"] != "real":
            continue
        if result["config"]["protocol"].get("fold") is not None:
            continue
        if held_out_of(file.parent):
            method = (
                file.parent.name.partition(f"-{result['name']}")[0] if result["kind"] == "baseline" else result["kind"]
            )
            keys = ("model", "recipe", "features", "modalities", "trainer", "protocol")
            setting = json.dumps([result["config"][key] for key in keys], sort_keys=True)
            groups[result["name"], f"{method}, {'+'.join(result['modalities'])}"][setting].append(file.parent)
    print(
        "| data | method | runs | level | one network: points wide, covered | mean of several: points wide, covered |"
    )
    print("|---|---|---|---|---|---|")
    for (name, method), settings in sorted(groups.items()):
        several = [of_setting for of_setting in settings.values() if len(of_setting) > 1]
        runs = [run for of_setting in several for run in of_setting]
        if not runs:
            continue
        count = f"{len(runs)} of {len(several)} settings" if len(several) > 1 else f"{len(runs)}"
        for level in LEVELS:
            alone = said([single(run, level) for run in runs])
            mean = said([together(of_setting, level) for of_setting in several])
            print(f"| {name} | {method} | {count} | {level:.0%} | {alone} | {mean} |")


def said(found: list[tuple[float, float, int] | None]) -> str:
    """The mean of widths and shares of covered videos, with the interval of the share."""
    known = [each for each in found if each is not None]
    if not known:
        return "too few held out"
    widths, shares, videos = zip(*known, strict=True)
    share = fmean(shares)
    _, low, high = coverage(round(share * min(videos)), min(videos))
    return f"{fmean(widths):.1f}, {share:.2f} [{low:.2f}, {high:.2f}]"


def test_rows(run: Path) -> dict[str, tuple[float, float]]:
    """{test video: true and predicted points} under the selected weights."""
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if (row["weights"], row["split"]) == ("selected", "test")]
    return {row["video"]: (float(row["true"]), float(row["predicted"])) for row in rows}


def largest(run: Path) -> float:
    """The largest possible points."""
    return json.loads((run / "result.json").read_text(encoding="utf-8"))["config"]["data"]["max_score"]


def single(run: Path, level: float) -> tuple[float, float, int] | None:
    """Width, share of covered test videos and their number, of a run's own intervals."""
    held, rows, most = held_out_of(run)["last"], test_rows(run), largest(run)
    residuals = held.true - held.predicted
    found = [(true, x, split_conformal(x, residuals, level)) for true, x in rows.values()]
    return measured([(true, within(limits, x, most)) for true, x, limits in found if limits is not None])


def measured(intervals: list[tuple[float, tuple[float, float]]]) -> tuple[float, float, int] | None:
    """Mean width, share of true points inside, and number of intervals; None without any."""
    if not intervals:
        return None
    inside = fmean(low <= true <= high for true, (low, high) in intervals)
    return fmean(high - low for _, (low, high) in intervals), inside, len(intervals)


def together(runs: list[Path], level: float) -> tuple[float, float, int] | None:
    """The same of the intervals of the mean of several runs."""
    held, rows, most = [held_out_of(run) for run in runs], [test_rows(run) for run in runs], largest(runs[0])
    common = common_scale([Scale.of(h["selected"].predicted) for h in held])

    def scaled(i: int, of: str, points: np.ndarray) -> np.ndarray:
        factor, shift = Scale.of(held[i][of].predicted).onto(common)
        return factor * points + shift

    residuals = [h["last"].true - scaled(i, "last", h["last"].predicted) for i, h in enumerate(held)]
    found = []
    for video, (true, _) in rows[0].items():
        predicted = [float(scaled(i, "selected", np.array([each[video][1]]))[0]) for i, each in enumerate(rows)]
        if (interval := cv_plus(predicted, residuals, level)) is not None:
            mean = min(max(fmean(predicted), 0.0), most)
            found.append((true, within(interval, mean, most)))
    return measured(found)


if __name__ == "__main__":
    main()
