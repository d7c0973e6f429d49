"""`python -m pamfn.convert`: feature files into stores without pickle, the authors' weights into ours, once."""

import argparse
import os
from pathlib import Path

from pamfn.command_line.process import refusing
from pamfn.config.compose import home
from pamfn.data.conversion import features
from pamfn.pipeline.import_weights import checkpoint


@refusing()
def main(words: list[str] | None = None) -> None:
    data_dir = Path(os.environ.get("PAMFN_DATA_DIR") or home() / "data")
    parser = argparse.ArgumentParser(prog="python -m pamfn.convert", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
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
    arguments = parser.parse_args(words)
    if arguments.command == "features":
        features(arguments.files, arguments.data_dir, arguments.out)
    else:
        checkpoint(arguments.file, arguments.out)


if __name__ == "__main__":
    main()
