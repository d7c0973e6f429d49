"""`python -m pamfn.predict RUN`: a highlight network's score of every clip, and their curves over time."""

import argparse
import sys
from pathlib import Path

from pamfn.command_line.options import add_trust
from pamfn.command_line.process import refusing


@refusing()
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pamfn.predict", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished highlight run")
    parser.add_argument(
        "videos",
        nargs="*",
        metavar="VIDEO",
        help="videos to draw (default: all of the split); those that start with - come last, behind --",
    )
    parser.add_argument("--split", choices=["test", "holdout", "train"], default="test")
    parser.add_argument("--weights", choices=["selected", "last"], default="selected")
    parser.add_argument("--data-dir", help="where the data is now (default: where the run read it)")
    parser.add_argument("--to", type=Path, help="folder for scores_SPLIT.csv and VIDEO.png (default: RUN/highlights)")
    add_trust(parser)
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    arguments = parser.parse_intermixed_args(words[:end])
    arguments.videos += words[end + 1 :]
    from pamfn.pipeline.clip_scores import predict  # here, since it brings torch

    predict(**vars(arguments))


if __name__ == "__main__":
    main()
