"""`python -m pamfn.evaluate RUN`: scores a finished run's videos again from its stored weights."""

import argparse

from pamfn.command_line.options import add_runs, add_trust
from pamfn.command_line.process import refusing


@refusing()
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pamfn.evaluate", description=__doc__)
    add_runs(parser)
    parser.add_argument("--split", choices=["test", "holdout", "train"], default="test")
    parser.add_argument("--weights", choices=["selected", "last"], default="selected")
    parser.add_argument("--data-dir", help="where the data is now (default: where the run read it)")
    parser.add_argument("--decoding", choices=["argmax", "sample", "mean"], help="another decision rule than the run's")
    parser.add_argument("--samples", type=int, help="how many samples the decoding `mean` averages")
    add_trust(parser)
    arguments = parser.parse_args()
    from pamfn.pipeline.rescore import evaluate  # here, since it brings torch

    raise SystemExit(1 if evaluate(**vars(arguments)) else 0)


if __name__ == "__main__":
    main()
