"""`python -m pamfn.convert`: feature files into stores without pickle, the authors' weights into ours, once."""

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from pamfn.config.compose import home, refuse
from pamfn.data.features import read_features, source_checksum, source_size, write_store
from pamfn.data.umt_folders import plain_sources, read_plain
from pamfn.errors import InputError


def features(files: list[Path], data_dir: Path, out: Path | None) -> None:
    """Writes the store of every feature file that has none yet; goes on after a file that cannot be converted.

    Without `files`, of all in the data folder and of UMT's folders of plain arrays.

    Raises:
        InputError: the problems of all files together.
    """
    place = data_dir / "features"
    stores = {(out or file.parent) / f"{file.stem}.safetensors": file for file in files or sorted(place.glob("*.npy"))}
    if not files:
        folders = {(out or place) / f"{name}.safetensors": source for name, source in plain_sources(data_dir)}
        stores = folders | stores  # a file is used before a folder
    if not stores:
        raise InputError(
            f"no feature files: looked for {place}/*.npy and for folders of plain arrays as UMT's below {data_dir}. "
            "Name the files, or --data-dir."
        )
    problems = []
    for store, source in stores.items():
        try:
            print(feature_file(source, store), flush=True)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)


def feature_file(source: Path, store: Path) -> str:
    """Converts one source if there is need to, and says what it did; InputError when it cannot be converted."""
    dataset, *modality, extractor = store.stem.split("_") if store.stem.count("_") > 1 else ("", "")
    if source.suffix != ".npy" or not all((dataset, *modality, extractor)):
        raise InputError(f"{source} is not named DATASET_modality_EXTRACTOR.npy: rename it, its name says what it is.")
    if store.exists() and made_of(store, source):
        return f"{store}: up to date"
    found = read_plain(source) if "*" in source.name else read_features(source)
    write_store(found, store, extractor=extractor)
    before, after = source_size(source), store.stat().st_size
    array = next(iter(found.arrays.values()))
    return (
        f"{store}: {len(found.arrays)} videos, {'_'.join(modality)} of {dataset} by {extractor}, "
        f"{array.shape[1]} wide {array.dtype}; {size(before)} -> {size(after)} ({after / before - 1:+.0%})"
    )


def made_of(store: Path, source: Path) -> bool:
    """Whether an undamaged store holds what is in `source` now."""
    try:
        return read_features(store).checksum == source_checksum(source)
    except (InputError, OSError):
        return False


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


def checkpoint(file: Path, out: Path | None) -> None:
    """Writes the authors' weights under our names and prints what was found.

    Raises:
        InputError: when the file is not such a checkpoint, or the result cannot be written.
    """
    from pamfn.data.pickles import load_module_state
    from pamfn.models.released_weights import from_authors

    out = out or file.with_suffix(".safetensors")
    if out.resolve() == file.resolve():
        raise InputError(f"{file} would be written over itself: choose another file with --out.")
    try:
        state = load_module_state(file)
        imported = from_authors(state)
    except InputError as error:
        raise InputError(within(file, error.problems)) from error
    imported.write(out)
    numbers = imported.settings
    if imported.is_branch:
        print(f"branch of {sizes(numbers)}")
    else:
        print("network: " + ", ".join(f"{m} of {sizes(branch)}" for m, branch in numbers["branches"].items()))
        print(f"K = {numbers['num_fusion_nets']}, r = {numbers['head_reduction']}; numbers of heads are not in weights")
    parameters = sum(p.numel() for p in imported.network().parameters())
    print(f"{parameters:,} parameters in use, {len(state)} tensors read\n{out}")


def within(file: Path, problems: Iterable[str]) -> list[str]:
    """Problems that all name their file."""
    return [problem if str(file) in problem else f"{file}: {problem}" for problem in problems]


def sizes(branch: dict[str, int]) -> str:
    """One branch's numbers for people."""
    return (
        f"width {branch['width']} (hidden {branch['hidden']}, d_model {branch['d_model']}, "
        f"{branch['num_stages']} stages)"
    )


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
