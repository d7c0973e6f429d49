"""`python -m pamfn.archive RUN ...`: keeps finished runs with the code, as results and predictions without weights."""

import argparse
from pathlib import Path

from pamfn.config.compose import ROOT, refuse
from pamfn.errors import InputError
from pamfn.runs.folder import Run, write_text
from pamfn.runs.lookup import ARCHIVE

PATHS = {"data_dir": "data", "output_dir": "runs"}
"""What an archived result says of its folders, whatever the machine it ran on."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pamfn.archive", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a finished run")
    if ROOT:
        parser.add_argument("--to", type=Path, default=ARCHIVE, help=f"default: {ARCHIVE.relative_to(ROOT)}")
    else:
        parser.add_argument("--to", type=Path, required=True, help="the folder that keeps them, for tables --runs")
    arguments = parser.parse_args()
    try:
        given = [Run(folder.resolve()) for folder in arguments.runs]
        ended = [run for run in given if not in_training(run)]
        runs = [complete(run) for run in ended or given]
        for run in runs:
            archive(run, arguments.to)
    except InputError as error:
        refuse(error)
    begun = [run.path.name for run in given if run not in ended]
    if begun:
        print(f"left out, since their training has not ended: {', '.join(begun)}")
    print(f"{len(runs)} runs are in {arguments.to}")


def in_training(run: Run) -> bool:
    """Whether its training began and has not ended: it is under way, or was interrupted."""
    begun = run.file("resume.ckpt").exists() or run.file(".lock").exists()
    return begun and not run.file("result.json").exists()


def complete(run: Run) -> Run:
    """The run, if all that is kept of it is there.

    Raises:
        InputError: when it is not finished or its result cannot be trusted.
    """
    run.finished()
    if not run.file("predictions.csv").is_file():
        raise InputError(f"{run.path} has no predictions.csv. Remove the folder and run it again.")
    return run


def archive(run: Run, to: Path = ARCHIVE) -> Run:
    """Copies a finished run's result and predictions to `<to>/<kind>/<folder>`, in the place of an earlier copy.

    Raises:
        InputError: when the run is not finished or its result cannot be trusted.
    """
    result = complete(run).result()
    assert result is not None
    copy = Run(to / result["kind"] / run.path.name)
    write_text(copy.file("predictions.csv"), run.file("predictions.csv").read_text(encoding="utf-8"))
    copy.write_result({**result, "config": {**result["config"], "paths": PATHS}})
    return copy


if __name__ == "__main__":
    main()
