"""`python -m pamfn.archive RUN ...`: keeps finished runs with the code, as results and predictions without weights."""

import argparse
from pathlib import Path

from pamfn.command_line.process import refuse
from pamfn.config.compose import ROOT
from pamfn.errors import InputError
from pamfn.runs.archive import archive, complete, in_training
from pamfn.runs.folder import Run
from pamfn.runs.lookup import ARCHIVE


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


if __name__ == "__main__":
    main()
