"""What a path is, before it is opened."""

import stat
from pathlib import Path

from pamfn.errors import InputError

KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def regular(path: Path) -> Path:
    """The path, if it is that of a file or of nothing: opening a pipe would wait for ever.

    Raises:
        InputError: when it is anything else.
    """
    try:
        mode = path.stat().st_mode
    except OSError:  # missing, or not ours: for whoever opens it to tell
        return path
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is {KINDS.get(stat.S_IFMT(mode), 'a device')}: expected a file.")
    return path
