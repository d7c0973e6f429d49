"""Options that several commands share."""

import argparse
from pathlib import Path


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add the runs that a command is about: one, or several that are averaged."""
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="folder of a finished run, or the file of an ensemble; several: their mean",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add `--trust`, which lets a run's classes come from other packages."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="import classes that the run names from this package too, which runs its code; may be repeated",
    )
