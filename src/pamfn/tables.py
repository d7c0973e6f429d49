"""`python -m pamfn.tables fusionnets`: a table of the paper from the finished runs of its sweep, beside its figures.

`python -m pamfn.tables protocols`: every finished run under every rule for choosing an epoch, and what each flatters.
Settings after the name are those of the sweep: `+experiment=uiprmd seed=0 protocol=holdout`; `protocols` has no sweep,
and reads those of paths and logger alone.
"""

import argparse
from pathlib import Path
from typing import get_args

from pamfn.command_line.process import refuse
from pamfn.errors import InputError
from pamfn.evaluation.metrics import METRICS
from pamfn.evaluation.selection import RULES
from pamfn.reporting.print_tables import print_tables, quoted
from pamfn.reporting.render import Format


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pamfn.tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help="a file of experiments/table, or `protocols`")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, as given to pamfn.train")
    parser.add_argument("--format", choices=get_args(Format), default="markdown")
    parser.add_argument("--metric", choices=list(METRICS), help="default: srcc, or map of highlights")
    parser.add_argument("--select", choices=list(RULES), help="another epoch's number than the runs report")
    parser.add_argument("--mean", action="store_true", help="also the means of each row's networks, and of all of them")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw its rows and intervals, as a PNG")
    parser.add_argument("--runs", metavar="DIR", help="where finished runs are (default: PAMFN_OUTPUT_DIR or runs)")
    parser.add_argument("--no-wandb", action="store_true", help="do not log the table to W&B")
    arguments = parser.parse_intermixed_args()
    places = [] if arguments.runs is None else [f"paths.output_dir={quoted(str(Path(arguments.runs).resolve()))}"]
    try:
        print_tables(
            arguments.name,
            [*arguments.overrides, *places],
            arguments.format,
            arguments.metric,
            arguments.select,
            mean=arguments.mean,
            plot=arguments.plot,
            wandb=not arguments.no_wandb,
        )
    except InputError as error:
        refuse(error)


if __name__ == "__main__":
    main()
