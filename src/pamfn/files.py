"""Files: refused before they are opened when they cannot be right; written whole or not at all."""

import errno
import fcntl
import glob
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pamfn.errors import InputError, WriteError

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

MOST_PROBLEMS = 20
"""Most problems of one file that an error names."""


def regular(path: Path, most: int | None = None) -> Path:
    """The path itself, if it is a regular file or nothing: a pipe would block, and a device may never end.

    Other reasons why it cannot be opened are left to the caller.

    Raises:
        InputError: when it is a folder, pipe, socket or device, or a file of more than `most` bytes.
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
    """An open file that is never asked for more bytes than it has: memory for them is allocated before reading."""

    def __init__(self, file: BinaryIO) -> None:
        self.size: int = os.fstat(file.fileno()).st_size
        self.readline = file.readline
        self._read = file.read

    def read(self, count: int) -> bytes:
        return self._read(min(count, self.size))


def few(path: Path, problems: Sequence[str]) -> list[str]:
    """The first problems of a file, and how many more there are."""
    more = len(problems) - MOST_PROBLEMS
    rest = [f"{path}: and {more} more problems of these kinds."] if more > 0 else []
    return [*problems[:MOST_PROBLEMS], *rest]


TEMPORARY = ".tmp"
"""Ending of files being written; they begin with a dot and the final name."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary file that replaces `path` if the block succeeds, and is removed if it fails.

    What a killed process left of the same file is removed.

    Raises:
        InputError: when the file cannot be written (no space, no permission).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent, path.name)
        handle, temporary = own_temporary(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield temporary
        temporary.chmod(0o666 & ~current_umask())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) or full(path.parent):
            raise cannot_write(path, error) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def own_temporary(path: Path) -> tuple[int, Path]:
    """An empty file beside `path`, locked while its handle is open: the lock shows that its process lives."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=TEMPORARY, dir=path.parent)
        with suppress(OSError):  # a file system without locks: nothing is taken for abandoned there
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:  # else it was taken for abandoned before it was locked
            return handle, Path(name)
        os.close(handle)


def remove_abandoned(folder: Path, name: str = "") -> None:
    """Removes half-written files of dead processes from a folder (of one name, or of all)."""
    for left in folder.glob(f".{glob.escape(name) or '*'}.*{TEMPORARY}"):
        if left.is_symlink() or not left.is_file():  # a pipe would be waited for
            continue
        with suppress(OSError), left.open("rb") as file:  # OSError: locked by who writes it, or gone by now
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink(missing_ok=True)


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def full(folder: Path) -> bool:
    """Whether a disk has less than a megabyte left (torch reports a full disk as a RuntimeError)."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize < 2**20


def cannot_write(path: Path, error: Exception) -> WriteError:
    number = getattr(error, "errno", None)
    if number == errno.EFBIG:
        return WriteError(
            f"{path} would be larger than files may be here (`ulimit -f`); nothing half-written was left. Raise that "
            "limit and run the same command again: a training goes on where it stopped."
        )
    if number in (errno.ENOSPC, errno.EDQUOT) or not isinstance(error, OSError):
        return WriteError(
            f"no space left to write {path}; nothing half-written was left. Free some, or write "
            "elsewhere, and run the same command again: a training goes on where it stopped."
        )
    reason = getattr(error, "strerror", None) or error
    return WriteError(
        f"cannot write {path}: {reason}. Choose a folder that can be written (training: paths.output_dir)."
    )


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


NO_NAMES = re.compile(r'[/\\:*?"<>|~]|^\.|[. ]$')
"""What a file's name cannot contain, start with or end with on some system; `~` is kept for digests."""


DEVICES = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", re.IGNORECASE)
"""Names that Windows reserves, with any ending."""


NAME_BYTES = 100


def file_name(text: str) -> str:
    """A name for a file or folder, of at most 100 bytes; different texts get different names.

    A text that can be a name is kept. In any other, unfit characters are replaced, and `~` and a digest of the text are
    appended.
    """
    name = "".join(c if c.isprintable() else "_" for c in text)
    name = DEVICES.sub(r"_\g<0>", NO_NAMES.sub("_", name))
    if name and name == text and len(name.encode()) <= NAME_BYTES:
        return name
    return name_with_digest(name, text)


def name_with_digest(name: str, text: str) -> str:
    """A name for a file, of at most 100 bytes, that ends in `~` and a digest of the text."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    kept = name.encode()[: NAME_BYTES - 1 - len(digest)].decode("utf-8", "ignore")
    return f"{kept}~{digest}"
