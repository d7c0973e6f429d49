"""What each rule for choosing an epoch costs on small sets: `python -m benchmarks.small_sets DATA_DIR FOLDER`.

Branches are trained on 40, 80 and 160 of the training videos of Fis-V (TES, RGB) and of UI-PRMD (up to 120), drawn so
that every part of the scores has its share, another draw for each seed. The test videos are the data set's own. Three
numbers: the epoch chosen on a held-out fifth, the last epoch of the same training, and the last epoch of a training on
all of the videos (protocol=last). FOLDER keeps the runs; a second call goes on.
"""

import os
import sys
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from pamfn.data.score_labels import read_scores
from pamfn.pipeline.job import fit
from pamfn.runs.folder import Run

SIZES = (40, 80, 160)
SEEDS = range(5)
SETS = {
    "fisv_tes": ("FISV", ["name", "tes", "pcs", "deduction"], "tes", ["modalities=[rgb]", "recipe.branch.epochs=250"]),
    "uiprmd": ("UIPRMD", ["name", "score"], "score", ["modalities=[kinect_angles]", "recipe.branch.epochs=60"]),
}


def main() -> None:
    source, folder = map(Path, sys.argv[1:])
    print("| data | videos | chosen on a held-out fifth | last epoch of that training | last epoch, nothing held out |")
    print("|---|---|---|---|---|")
    for name, (dataset, columns, score, words) in SETS.items():
        place = folder / "data" / dataset
        place.mkdir(parents=True, exist_ok=True)
        for there, target in ((place / "test.txt", dataset + "/test.txt"), (folder / "data/features", "features")):
            if not there.is_symlink():
                there.symlink_to((source / target).resolve())
        points = read_scores(source / dataset / "train.txt", columns=columns, score=score)
        lines = {line.split()[0]: line for line in (source / dataset / "train.txt").read_text().splitlines()}
        for size in (size for size in SIZES if size <= len(points)):
            found: dict[str, list[float]] = {"chosen": [], "its last": [], "last": []}
            for seed in SEEDS:
                file = place / f"train_{size}_{seed}.txt"
                file.write_text("\n".join(lines[video] for video in drawn(points, size, seed)) + "\n")
                common = [f"+experiment={name}", *words, f"data.train={dataset}/{file.name}", f"seed={seed}"]
                common += ["trainer.precision=bf16-mixed", f"paths.data_dir={folder / 'data'}", "logger=csv"]
                common.append(f"paths.output_dir={folder / 'runs'}")
                holdout, last = (metrics(fit(*common, f"protocol={rule}")) for rule in ("holdout", "last"))
                found["chosen"].append(holdout["holdout"]["srcc"])
                found["its last"].append(holdout["last"]["srcc"])
                found["last"].append(last["last"]["srcc"])
            shown = " | ".join(f"{fmean(values):.3f} ± {stdev(values):.3f}" for values in found.values())
            print(f"| {name} | {size} | {shown} |", flush=True)


def drawn(points: dict[str, float], size: int, seed: int) -> list[str]:
    """Videos of which one is from each of `size` equal parts of the scores, in the order of the file."""
    random = np.random.default_rng([seed, size])
    parts = np.array_split(sorted(points, key=lambda video: points[video]), size)
    chosen = {str(random.choice(part)) for part in parts}
    return [video for video in points if video in chosen]


def metrics(run: Path) -> dict[str, dict[str, float]]:
    return Run(run).finished()["metrics"]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
