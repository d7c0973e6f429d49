"""`python -m unchanged record FOLDER`, later `compare FOLDER`: what a change of the code must leave as it was.

That is: predictions and metrics of the demo, every table under experiments/results (rebuilt from the archived runs;
the real data beside it make them whole), the names of all archived runs, and what every command says with --help.
"""

import argparse
import difflib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from pamfn.__main__ import commands

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
UIPRMD = ("+experiment=uiprmd", "protocol=holdout", "recipe.fusion.epochs=30", "trainer.precision=bf16-mixed")
FISV = ("+experiment=fisv_tes,fisv_pcs", "trainer.precision=bf16-mixed")
METHODS = ("aqa_methods", "+experiment=fisv_tes,fisv_pcs", "+ablation=ms_lstm,action_net,gdlt,rgb_only")
METHODS = (*METHODS, "table.full=rgb_only", "trainer.precision=bf16-mixed")
CLIPS = (
    *("features=planted_clips", "recipe=highlights_batched", "recipe.branch.epochs=40", "recipe.fusion.epochs=40"),
    *("recipe.branch.schedule=none", "recipe.fusion.schedule=none"),
    *("recipe.branch.weight_decay=1e-2", "recipe.fusion.weight_decay=1e-2", "recipe.fusion.head_lr_scale=1.0"),
    "protocol=holdout",
)
OF_UIPRMD = ("decoders", "fusion_stages", "fusion_strategies", "fusionnets", "missing_modality", "modalities")
TABLES: dict[str, tuple[str, ...]] = {
    **{f"uiprmd/{name}": (name, *UIPRMD) for name in (*OF_UIPRMD, "number_of_fusionnets", "readings")},
    "uiprmd/multimodal_methods": ("multimodal_methods", "+experiment=uiprmd", "trainer.precision=bf16-mixed"),
    "uiprmd_subjects/modalities_seed0": (
        *("modalities", "+experiment=uiprmd_subjects", "protocol=folds", "protocol.folds=10"),
        *("trainer.precision=bf16-mixed", "+ablation=rgb_only,flow_only,audio_only,full", "seed=0"),
    ),
    "rendered/synchrony": ("synchrony", "protocol=holdout"),
    "highlights/table9": ("highlight_detection",),
    "highlights/synthetic": ("highlight_detection", *CLIPS),
    "fisv/modalities_paper": ("modalities", *FISV),
    "fisv/modalities_holdout": ("modalities", *FISV, "protocol=holdout"),
    "fisv/modalities_paper_recipe_paper": ("modalities", FISV[0], "+ablation=rgb_only", FISV[1], "recipe=paper"),
    "fisv/aqa_methods_paper": METHODS,
    "fisv/aqa_methods_holdout": (*METHODS, "protocol=holdout"),
    "fisv/aqa_methods_holdout_mean": (*METHODS, "protocol=holdout", "--mean"),
}
"""{file below experiments/results: what `pamfn.tables` is asked for}, as experiments/results/README.md says."""


def said(folder: Path, *words: str) -> str:
    """What `python -m pamfn.WORDS` prints."""
    places = {
        "PAMFN_OUTPUT_DIR": str(folder / "runs"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
        "WANDB_MODE": "offline",
    }
    command = [sys.executable, "-m", f"pamfn.{words[0]}", *words[1:]]
    done = subprocess.run(command, cwd=folder, env=os.environ | places, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def observed(folder: Path) -> Iterator[tuple[str, str]]:
    """Everything that must not change: its name, its text."""
    for command in commands():
        yield f"help of {command}", said(folder, command, "--help")
    for file, words in TABLES.items():
        yield f"table {file}", said(folder, "tables", *words, "--no-wandb")
    yield "names of archived runs", "\n".join(names_of_archived())
    said(folder, "train", "+experiment=demo", "logger=csv", f"paths.data_dir={folder / 'data'}")
    for result in sorted((folder / "runs").glob("*/*/result.json")):
        name = result.parent.name
        yield f"predictions of {name}", result.with_name("predictions.csv").read_text()
        yield f"metrics of {name}", json.dumps(json.loads(result.read_text())["metrics"], indent=1)


def names_of_archived() -> list[str]:
    """The name that every archived run's settings have."""
    from pamfn.config.schema import Config
    from pamfn.runs.lookup import ARCHIVE, every_run, locate

    found = []
    for run in every_run(ARCHIVE / "nothing"):
        result = run.finished()
        found.append(locate(Config.model_validate(result["config"]), result["kind"], result["modalities"]).path.name)
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m unchanged", description=__doc__)
    parser.add_argument("what", choices=["record", "compare"])
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    file, changed = asked.folder / "record.json", 0
    with TemporaryDirectory() as made:
        now = dict(observed(Path(made)))
    if asked.what == "record":
        file.write_text(json.dumps(now, indent=1))
        now = {name.removeprefix("table "): text for name, text in now.items() if name.startswith("table ")}
        before = {name: (RESULTS / f"{name}.md").read_text() for name in now}
    else:
        before = json.loads(file.read_text())
    for name in before | now:
        if before.get(name) != now.get(name):
            changed += 1
            lines = difflib.unified_diff(before.get(name, "").splitlines(), now.get(name, "").splitlines(), lineterm="")
            print(f"{name} changed:", *list(lines)[:20], sep="\n")
    print(f"{len(now)} compared, {changed} changed")
    sys.exit(bool(changed))


if __name__ == "__main__":
    main()
