"""Options that several commands share."""

import argparse


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add `--trust`, which lets a run's classes come from other packages."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="import classes that the run names from this package too, which runs its code; may be repeated",
    )
