"""Archive finished runs with the code: results and predictions, no weights."""

from pathlib import Path

from pamfn.errors import InputError
from pamfn.files import write_text
from pamfn.runs.folder import Run
from pamfn.runs.lookup import ARCHIVE

PATHS = {"data_dir": "data", "output_dir": "runs"}
"""The folders in an archived result, instead of those of the machine it ran on."""


def in_training(run: Run) -> bool:
    """Whether a run's training began and has not ended: it is under way, or was interrupted."""
    begun = run.file("resume.ckpt").exists() or run.file(".lock").exists()
    return begun and not run.file("result.json").exists()


def complete(run: Run) -> Run:
    """The run itself, after checking that its result and predictions are there.

    Raises:
        InputError: when it is not finished or its result cannot be trusted.
    """
    run.finished()
    if not run.file("predictions.csv").is_file():
        raise InputError(f"{run.path} has no predictions.csv. Remove the folder and run it again.")
    return run


def archive(run: Run, to: Path = ARCHIVE) -> Run:
    """Copy a finished run's result and predictions to `<to>/<kind>/<folder>`, replacing an earlier copy.

    Raises:
        InputError: when the run is not finished or its result cannot be trusted.
    """
    result = complete(run).finished()
    copy = Run(to / result["kind"] / run.path.name)
    write_text(copy.file("predictions.csv"), run.file("predictions.csv").read_text(encoding="utf-8"))
    copy.write_result({**result, "config": {**result["config"], "paths": PATHS}})
    return copy
