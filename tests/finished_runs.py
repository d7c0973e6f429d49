"""Small trainings that several test files look at: made once, never changed."""

from functools import cache
from pathlib import Path

from composed import SMALL
from conftest import WIDTHS
from pamfn.pipeline import run_job
from pamfn.sweep import Job, sweep_of

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
