"""`python -m pamfn.predict RUN... INPUT...`: the scores of new videos, how sure they are, and a page on why."""

import argparse
import sys
from pathlib import Path

from pamfn.command_line.options import add_trust
from pamfn.command_line.process import refusing


@refusing()
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pamfn.predict", description=__doc__)
    parser.add_argument(
        "words",
        nargs="+",
        metavar="RUN|INPUT",
        help="folders of finished runs, a pattern of them, or the file of an ensemble: several give their mean; then "
        "what to score: videos or folders of them, folders of pamfn.extract, feature files (STREAM=FILE), names of "
        "videos within these; without any, the test videos. Names that start with - come last, behind --",
    )
    parser.add_argument(
        "--to", type=Path, help="folder for what is written (default: RUN/predicted; of several runs, predicted)"
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help="also write predictions.json")
    parser.add_argument("--no-pages", action="store_false", dest="pages", help="write no page a video: much faster")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the runs as an ensemble, FILE.json")
    parser.add_argument(
        "--extract",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of pamfn.extract for videos, e.g. weights.vst=FILE or device=cuda; may be repeated",
    )
    parser.add_argument("--split", choices=["test", "holdout", "train"], help="where no INPUT is given (default: test)")
    parser.add_argument("--weights", choices=["selected", "last"], default="selected")
    parser.add_argument("--data-dir", help="where the training data is now (default: where the run read it)")
    add_trust(parser)
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    arguments = parser.parse_intermixed_args(words[:end])
    arguments.words += words[end + 1 :]
    from pamfn.reporting.predictions import predict_command  # here, since it brings torch

    predict_command(**vars(arguments))


if __name__ == "__main__":
    main()
