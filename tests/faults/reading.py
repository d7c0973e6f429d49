"""`python -m faults.reading READER FILE [READER FILE ...]`: reads files, one line each of what came of it.

Seconds are of this process alone, whatever else the machine does.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from pamfn.data.features import read_features, source_checksum
from pamfn.data.highlight_labels import read_clips, read_split
from pamfn.data.score_labels import read_scores
from pamfn.data.umt_folders import read_plain
from pamfn.errors import InputError
from pamfn.models.saved_networks import load_module_state

READERS: dict[str, Callable[[Path], object]] = {
    "features": lambda path: read_features(path).arrays,
    "checksum": source_checksum,
    "plain": lambda path: read_plain(path.parent / "*.npy").arrays,
    "labels": lambda path: read_scores(path, columns=["name", "points"], score="points"),
    "clips": read_clips,
    "split": read_split,
    "network": load_module_state,
}


def peak() -> int:
    """The most memory this process had so far, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def main(words: list[str]) -> None:
    for reader, file in zip(words[::2], words[1::2], strict=True):
        before, start = peak(), time.process_time()
        try:
            told = f"read {str(READERS[reader](Path(file)))[:60]!r}"
        except InputError as error:
            told = "refused: " + " | ".join(error.problems)
        print(f"{time.process_time() - start:.3f} s, {peak() - before} MiB, {told}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
