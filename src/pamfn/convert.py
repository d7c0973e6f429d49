"""`python -m pamfn.convert`: feature files into stores without pickle, the authors' weights into ours, once."""

import argparse
import os
from pathlib import Path

from pamfn.command_line.process import refuse
from pamfn.config.compose import home
from pamfn.data.conversion import features
from pamfn.errors import InputError
from pamfn.pipeline.import_weights import checkpoint


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    data_dir = Path(os.environ.get("PAMFN_DATA_DIR") or home() / "data")
    top = argparse.ArgumentParser(prog="python -m pamfn.convert", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser(
        "features", help="DATASET_modality_EXTRACTOR.npy, or UMT's folders -> .safetensors, memory-mapped, no pickle"
    )
    one.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="default: every features/*.npy of the data folder, and UMT's folders of plain arrays",
    )
    one.add_argument("--data-dir", type=Path, default=data_dir, help="default: %(default)s, or $PAMFN_DATA_DIR")
    one.add_argument("--out", type=Path, metavar="DIR", help="where stores go; default: beside each file")
    two = commands.add_parser("checkpoint", help="the authors' branch or network (.pth, .safetensors) -> our names")
    two.add_argument("file", type=Path, metavar="FILE", help="a state dict, or a whole network saved with torch.save")
    two.add_argument("--out", type=Path, metavar="FILE", help="default: FILE with the ending .safetensors")
    return top


def main(arguments: list[str] | None = None) -> None:
    """Does what the command line asks; exits with 1 and a sentence when it cannot."""
    asked = parser().parse_args(arguments)
    try:
        if asked.command == "features":
            features(asked.files, asked.data_dir, asked.out)
        else:
            checkpoint(asked.file, asked.out)
    except InputError as error:
        refuse(error)


if __name__ == "__main__":
    main()
