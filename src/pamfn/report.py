"""`python -m pamfn.report TABLE ...`: tables, figures and the runs behind them as one HTML page, all in one file."""

import argparse
from pathlib import Path

from pamfn.command_line.process import refuse
from pamfn.config.compose import register, table_names
from pamfn.errors import InputError
from pamfn.files import write_text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pamfn.report", description=__doc__)
    parser.add_argument(
        "words", nargs="*", metavar="TABLE", help="tables, and settings as key=value that each of them gets"
    )
    parser.add_argument("--all", action="store_true", help="every table")
    parser.add_argument("--to", type=Path, default=Path("report.html"), help="default: report.html")
    arguments = parser.parse_intermixed_args()
    overrides = [word for word in arguments.words if "=" in word]
    names = table_names() if arguments.all else [word for word in arguments.words if "=" not in word]
    from pamfn.reporting.html_report import report  # here, since it brings torch

    register()
    try:
        write_text(arguments.to, report(names, overrides))
    except InputError as error:
        refuse(error)
    print(f"wrote {arguments.to}")


if __name__ == "__main__":
    main()
