"""Small trainings that several test files look at: made once, never changed. What a result.json holds."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from composed import SMALL
from conftest import WIDTHS
from pamfn.pipeline.two_stage import run_job
from pamfn.reporting.sweep import Job, sweep_of
from pamfn.runs.lookup import ARCHIVE

WORDS = (
    *(word for word in SMALL if not word.startswith("data=")),
    *(f"features.{modality}.width={width}" for modality, width in WIDTHS.items()),
    *("+experiment=fisv_tes", "data.crop=8", "seed=0", "model.decoding=argmax"),
    *("recipe.branch.epochs=1", "recipe.fusion.epochs=2"),
)


def settings(data: Path, folder: Path) -> list[str]:
    """What is added to a table's sweep so that its jobs are small and seed 0 of TES alone."""
    return [*WORDS, f"paths.data_dir={data}", f"paths.output_dir={folder / 'runs'}"]


@cache
def trained(table: str, row: str, data: Path, folder: Path) -> Job:
    """A row of a table by its word, finished; jobs in the same folder share their branches."""
    (job,) = sweep_of(table, [*settings(data, folder), row]).jobs
    run_job(job.config)
    return job


def result_like(**changes: Any) -> dict[str, Any]:
    """The content of a whole result.json, that of an archived branch, with changes."""
    file = sorted(ARCHIVE.glob("branch/fisv_tes-rgb-seed0-*/result.json"))[0]
    content = json.loads(file.read_text(encoding="utf-8"))
    return {k: v for k, v in content.items() if k not in ("schema", "digest")} | changes
