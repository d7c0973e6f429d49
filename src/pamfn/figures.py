"""`python -m pamfn.figures RUN ...`: decisions, attention and policy over time (the paper's Figures 5, 7 and 8).

With `--table number_of_fusionnets` Figure 6 instead, from the finished runs of that table's sweep.
"""

import argparse
from pathlib import Path

from pamfn.command_line.options import add_trust
from pamfn.command_line.process import refuse
from pamfn.config.compose import register
from pamfn.errors import InputError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pamfn.figures", description=__doc__)
    parser.add_argument(
        "words", nargs="*", metavar="RUN", help="folders of finished fused runs; with --table: settings as key=value"
    )
    parser.add_argument("--table", metavar="NAME", help="draw Spearman's correlation against K from this table's runs")
    parser.add_argument("--video", help="of the first RUN (default: the one with the highest judges' score)")
    parser.add_argument("--split", choices=["test", "holdout", "train"], help="default: test")
    parser.add_argument("--to", type=Path, default=Path("figures"), help="folder for the PNGs (default: figures)")
    parser.add_argument("--data-dir", help="where the data is now (default: where the runs read it)")
    add_trust(parser)
    arguments = parser.parse_intermixed_args()
    of_runs = {"--video": arguments.video, "--split": arguments.split, "--data-dir": arguments.data_dir}
    unread = [option for option, value in of_runs.items() if value is not None]
    if arguments.table and unread:
        parser.error(f"{', '.join(unread)}: --table draws stored results and reads no videos. Leave it out.")
    from pamfn.reporting.paper_figures import draw_runs, draw_table  # here, since it brings torch

    register()
    try:
        if arguments.table:
            drawn = draw_table(arguments.table, arguments.words, arguments.to)
        else:
            folders = [Path(word) for word in arguments.words]
            split = arguments.split or "test"
            drawn = draw_runs(folders, arguments.to, arguments.video, split, arguments.data_dir, arguments.trust)
    except InputError as error:
        refuse(error)
    for path in drawn.files:
        print(f"wrote {path}")
    for sentence in drawn.left_out:
        print(f"left out: {sentence}")


if __name__ == "__main__":
    main()
