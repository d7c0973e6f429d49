"""`python -m pamfn.export RUN`: a finished run's network as one ONNX file, checked against the network it came from."""

import argparse
from pathlib import Path

from pamfn.command_line.options import add_runs, add_trust
from pamfn.command_line.process import refusing


@refusing()
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pamfn.export", description=__doc__)
    add_runs(parser)
    parser.add_argument("--weights", choices=["selected", "last"], default="selected")
    parser.add_argument("--data-dir", help="where the data is now (default: where the run read it)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="an .onnx file to write (default: RUN/model.onnx)")
    add_trust(parser)
    arguments = parser.parse_args()
    from pamfn.pipeline.onnx_export import export  # here, since it brings torch

    export(**vars(arguments))


if __name__ == "__main__":
    main()
