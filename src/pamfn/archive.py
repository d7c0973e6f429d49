"""`python -m pamfn.archive RUN ...`: keeps finished runs with the code, as results and predictions without weights."""

import argparse
import shutil
from pathlib import Path

from pamfn import config
from pamfn.errors import InputError
from pamfn.finished import ARCHIVE
from pamfn.store import Run

PATHS = {"data_dir": "data", "output_dir": "runs"}
"""What an archived result says of its folders, whatever the machine it ran on."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pamfn.archive", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a finished run")
    parser.add_argument("--to", type=Path, default=ARCHIVE, help=f"default: {ARCHIVE.relative_to(config.ROOT)}")
    arguments = parser.parse_args()
    try:
        copies = [archive(Run(folder.resolve()), arguments.to) for folder in arguments.runs]
    except InputError as error:
        config.refuse(error)
    print(f"{len(copies)} runs are in {arguments.to}")


def archive(run: Run, to: Path = ARCHIVE) -> Run:
    """Copies a finished run's result and predictions to `<to>/<kind>/<folder>`.

    Raises:
        InputError: when the run is not finished or its result cannot be trusted.
    """
    result = run.result()
    if result is None:
        raise InputError(f"{run.path} is not a finished run: it has no result.json. Give folders like runs/fusion/*.")
    copy = Run(to / result["kind"] / run.path.name)
    copy.path.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run.file("predictions.csv"), copy.file("predictions.csv"))
    copy.write_result({**result, "config": {**result["config"], "paths": PATHS}})
    return copy


if __name__ == "__main__":
    main()
