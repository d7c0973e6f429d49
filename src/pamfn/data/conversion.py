"""Conversion of feature files into stores without pickle."""

from pathlib import Path

from pamfn.data.features import read_features, source_checksum, source_size, write_store
from pamfn.data.umt_folders import plain_sources, read_plain
from pamfn.errors import InputError


def features(files: list[Path], data_dir: Path, out: Path | None) -> None:
    """Write the store of every feature file that has none yet; go on after a file that cannot be converted.

    Without `files`: of all in the data folder, and of UMT's folders of plain arrays.

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
            print(convert_file(source, store), flush=True)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)


def convert_file(source: Path, store: Path) -> str:
    """Convert one source if there is need to, and return what was done; InputError when it cannot be converted."""
    dataset, *modality, extractor = store.stem.split("_") if store.stem.count("_") > 1 else ("", "")
    if source.suffix != ".npy" or not all((dataset, *modality, extractor)):
        raise InputError(f"{source} is not named DATASET_modality_EXTRACTOR.npy: rename it, its name says what it is.")
    if store.exists() and made_of(store, source):
        return f"{store}: up to date"
    read = read_plain(source) if "*" in source.name else read_features(source)
    write_store(read, store, extractor=extractor)
    before, after = source_size(source), store.stat().st_size
    array = next(iter(read.arrays.values()))
    return (
        f"{store}: {len(read.arrays)} videos, {'_'.join(modality)} of {dataset} by {extractor}, "
        f"{array.shape[1]} wide {array.dtype}; {size(before)} -> {size(after)} ({after / before - 1:+.0%})"
    )


def made_of(store: Path, source: Path) -> bool:
    """Whether an undamaged store holds what is in `source` now."""
    try:
        return read_features(store).checksum == source_checksum(source)
    except (InputError, OSError):
        return False


def size(count: int) -> str:
    """Write a number of bytes for people."""
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"
