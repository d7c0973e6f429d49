"""Several runs under one name: a file that lists them, with what shows that they are still the same."""

import glob
import json
import os
from collections.abc import Sequence
from pathlib import Path

from pamfn.data.features import file_checksum
from pamfn.errors import InputError
from pamfn.files import regular, write_text
from pamfn.runs.folder import Run

VERSION = 2
"""Version of the file; version 1 has checksums of the result and the weights alone."""

OF_VERSION_1 = ("result", "selected", "last")
KEPT = ("predictions.csv", "reference.safetensors")
"""Files of a run, where it has them, from which its scale and its intervals follow."""

LARGEST = 2**20


def runs_of(words: Sequence[Path | str]) -> list[Path]:
    """Return the folders of runs that words name: a folder, a pattern of folders, or the file of an ensemble.

    Raises:
        InputError: when a word names no run, or a run is named twice.
    """
    folders: list[Path] = []
    for word in words:
        folders += folders_of(str(word))
    if not folders:
        raise InputError("no run: give the folder of a finished run, e.g. runs/fusion/NAME.")
    twice = {folder.resolve() for folder in folders}
    if len(twice) < len(folders):
        raise InputError("a run is named twice: every network of a mean counts once.")
    return folders


def folders_of(word: str) -> list[Path]:
    place = Path(word)
    if place.is_file() and place.suffix == ".json":
        return read_ensemble(place)
    if place.exists() or not glob.has_magic(word):
        return [place]
    found = matching(word)
    if not found:
        raise InputError(f"{word}: no finished run matches.")
    return found


def is_run(word: str) -> bool:
    """Whether a word of the command line names runs: a run's folder, a pattern of them, or an ensemble's file."""
    place = Path(word)
    if place.is_dir():
        return (place / "result.json").exists()
    if place.is_file():
        return place.suffix == ".json"
    return glob.has_magic(word) and bool(matching(word))


def matching(pattern: str) -> list[Path]:
    """Return the folders of finished runs that a pattern names, in order."""
    place = Path(pattern)
    found = Path(place.anchor).glob(str(place.relative_to(place.anchor)))
    return sorted(folder for folder in found if (folder / "result.json").exists())


def write_ensemble(file: Path, folders: Sequence[Path]) -> None:
    """Write the file of an ensemble.

    Raises:
        InputError: when its name is not that of a JSON file, or it cannot be written.
    """
    if file.suffix != ".json":
        raise InputError(f"--save {file}: name a file that ends in .json.")
    place = file.resolve().parent
    runs = [{"run": os.path.relpath(folder.resolve(), place), **checksums(folder)} for folder in folders]
    write_text(file, json.dumps({"version": VERSION, "runs": runs}, indent=1) + "\n")


def checksums(folder: Path) -> dict[str, str]:
    """Return what shows that a run is still the same: the digest of its result, checksums of its other files."""
    weights = {name: file_checksum(folder / f"{name}.safetensors") for name in ("selected", "last")}
    kept = {name: file_checksum(folder / name) for name in KEPT if (folder / name).exists()}
    return {"result": Run(folder).finished()["digest"], **weights, **kept}


def read_ensemble(file: Path) -> list[Path]:
    """Return the folders of an ensemble's runs.

    Raises:
        InputError: when the file is none of an ensemble, or one of its runs has changed since.
    """
    try:
        content = json.loads(regular(file, most=LARGEST).read_text(encoding="utf-8"))
        version = content["version"]
        if version not in (1, VERSION):
            raise ValueError(f"version {version}, and this code reads 1 and {VERSION}")
        listed = {str(run.pop("run")): dict(run) for run in content["runs"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{file} is not the file of an ensemble ({error}): write one with --save.") from None
    for name, expected in listed.items():
        now = checksums(file.parent / name)
        if version == 1:
            now = {key: now[key] for key in OF_VERSION_1}
        if now != expected:
            raise InputError(
                f"{file}: {file.parent / name} has changed since it was listed. Write the ensemble again with --save."
            )
    return [file.parent / name for name in listed]
