"""Files that are about to be read: what is no file, or cannot be the right one, is refused before it is opened."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from pamfn.errors import InputError

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

MOST_PROBLEMS = 20
"""Told of one file."""


def regular(path: Path, most: int | None = None) -> Path:
    """The path, if there is a file or nothing: to open a pipe would wait for ever, a device may never end.

    Raises InputError when it is a folder, pipe, socket or device, or a file of more than `most` bytes. What else keeps
    it from being opened is left for the caller to say.
    """
    try:
        status = path.stat()
    except OSError:
        return path
    except ValueError:  # a NUL
        raise InputError(f"cannot read {str(path)!r}: no file can have this name.") from None
    kind = KINDS.get(stat.S_IFMT(status.st_mode))
    if kind:
        raise InputError(f"cannot read {path}: it is {kind}: expected a file.")
    if most is not None and status.st_size > most:
        raise InputError(f"cannot read {path}: it has {status.st_size} bytes, and {most} at most were expected.")
    return path


class Bounded:
    """An open file of which nobody can ask for more bytes than it has: they would be set aside before they are read."""

    def __init__(self, file: BinaryIO) -> None:
        self.size: int = os.fstat(file.fileno()).st_size
        self.readline = file.readline
        self._read = file.read

    def read(self, count: int) -> bytes:
        return self._read(min(count, self.size))


def few(path: Path, problems: Sequence[str]) -> list[str]:
    """The first problems of a file, and how many more there are."""
    more = len(problems) - MOST_PROBLEMS
    told = [f"{path}: and {more} more problems of these kinds."] if more > 0 else []
    return [*problems[:MOST_PROBLEMS], *told]
