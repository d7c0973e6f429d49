"""How often occlusion finds a planted mistake: `python -m benchmarks.mistakes FOLDER MISTAKES.txt RUN...`.

FOLDER holds extracted features of the rendered clips with a mistake, MISTAKES.txt says when each happens. Found is a
mistake whose second lies in the window that gains most when it is masked; beside it stands the share of all windows
that hold that second, which is how often a window chosen at random would find it.
"""

import csv
import sys
from pathlib import Path
from statistics import fmean

from pamfn.evaluation.conformal import coverage
from pamfn.pipeline.inputs import read_inputs
from pamfn.pipeline.model import load


def main() -> None:
    folder, mistakes, *runs = sys.argv[1:]
    with Path(mistakes).open(newline="", encoding="utf-8") as lines:
        planted = {row["name"]: row for row in csv.DictReader(lines, delimiter="\t")}
    for run in runs:
        model = load(run)
        samples, _ = read_inputs([folder, *planted], model.streams, extracted=Path(), options=(), say=print)
        found: dict[str, list[tuple[bool, float]]] = {}
        for name, row in planted.items():
            explained = model.explain(samples[name])
            occlusion, seconds = explained.occlusion, explained.segment_seconds
            assert occlusion is not None
            assert seconds is not None
            at = float(row["second"]) / seconds
            holds = (occlusion.windows[:, 0] <= at) & (at < occlusion.windows[:, 1])
            gains_most = bool(holds[occlusion.window_losses.argmin()])
            found.setdefault(row["mistake"], []).append((gains_most, float(holds.mean())))
        for mistake, clips in found.items():
            share, low, high = coverage(sum(hit for hit, _ in clips), len(clips))
            by_chance = fmean(chance for _, chance in clips)
            said = f"{share:.2f} [{low:.2f}, {high:.2f}] of {len(clips)}, at random {by_chance:.2f}"
            print(f"{Path(run).name} {mistake}: {said}")


if __name__ == "__main__":
    main()
