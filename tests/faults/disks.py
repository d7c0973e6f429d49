"""Disks that fill up, files that may not grow, an output that nobody reads; then, with space, the command again."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from faults.jobs import (
    Place,
    again,
    finish,
    fresh,
    last_line,
    numbers,
    place_of,
    reference_of,
    results,
    side_by_side,
    strays,
)
from faults.outcome import Outcome

SHARES = (0.03, 0.2, 0.4, 0.6, 0.8, 0.95)
"""Sizes of the small disk, of what the job needs."""

LIMITS = (512, 4096, 20_000, 60_000, 100_000)
"""Limits of a file's size from the start, in bytes."""

LIMITED = {
    "selected.safetensors": 4096,
    "resume.ckpt": 20_000,
    "curves.csv": 200,
    "last.safetensors": 4096,
    "predictions.csv": 400,
    "predictions.png": 8192,
    "curves.png": 8192,
    "result.json": 2048,
}
"""Limits, in bytes, that begin when a file is written: it is larger in every run."""


def mount(folder: Path, options: str) -> bool:
    """Mounts a disk in memory, if this user may."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def remount(folder: Path, options: str) -> None:
    """Changes a mounted disk."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True, capture_output=True)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[bool]:
    """A disk in memory for a while; whether it is there."""
    there = mount(folder, options)
    try:
        yield there
    finally:
        if there:
            subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def judged(status: int | None, said: str, expected: str) -> Outcome:
    """The end of a job that could not write: exit 1, and a sentence that says what is full."""
    outcome = Outcome()
    if status is None:
        outcome.notes.append("it hangs")
    elif status != 1:
        outcome.notes.append(f"exit {status}")
    if "Traceback" in said or "Logging error" in said:
        outcome.notes.append(f"a traceback: {last_line(said)}")
    elif not re.search(expected, said):
        outcome.notes.append(f"it does not say {expected!r}: {last_line(said)}")
    outcome.wrong = int(bool(outcome.notes))
    return outcome


def left_by(place: Place, folder: Path) -> Outcome:
    """What the failed job left but should not."""
    left = strays(place, reference_of(folder), resumable=True)
    empty = sorted(
        p.name for p in place.runs.glob("*/*/*") if p.name != ".lock" and p.is_file() and not p.stat().st_size
    )
    notes = [f"left behind by the fault: {', '.join(left + empty)}"] if left or empty else []
    return Outcome(left_behind=len(notes), notes=notes)


def small_disk(folder: Path, share: float) -> Outcome:
    """The output folder on a disk with too little space."""
    reference = reference_of(folder)
    needed = sum((folder / "reference/runs" / name).stat().st_size for name in reference.files)
    place = place_of(folder, f"disks/disk{share}")
    with mounted(place.runs, f"size={int(needed * share) // 4096 * 4}k"):
        status, said = finish(fresh(place.words(), place))
        outcome = judged(status, said, rf"(?i)no space[^\n]*{re.escape(str(place.runs))}")
        outcome.add(left_by(place, folder))
        remount(place.runs, "size=64m")
        outcome.add(again(place, reference, results(place.runs)))
    return removed(place, outcome)


def limited(folder: Path, limit: int, name: str = "") -> Outcome:
    """A limit of the size of files, from the start or once a file of that name is written."""
    place = place_of(folder, f"disks/limit{limit}{name}")
    status, said = finish(fresh(place.words(), place, {"FAULT_SIZE": f"{name}:{limit}"}))
    outcome = judged(status, said, rf"(?i){re.escape(name)}[^\n]*(limit|too large)")
    outcome.add(left_by(place, folder))
    outcome.add(again(place, reference_of(folder), results(place.runs)))
    return removed(place, outcome)


def full_temporary(folder: Path) -> Outcome:
    """TMPDIR on a full disk: the job does without, or says that it is TMPDIR that is full."""
    place = place_of(folder, "disks/tmpdir")
    with mounted(place.temporary, "size=8k"):
        with (place.temporary / "full").open("wb") as file:
            file.write(b"\0" * 8192)
        status, said = finish(fresh(place.words(), place))
        outcome = judged(status, said, re.escape(str(place.temporary))) if status else Outcome()
        if status == 0 and numbers(place.runs) != reference_of(folder).numbers:
            outcome = Outcome(wrong=1, notes=["exit 0, but not the reference's numbers"])
        (place.temporary / "full").unlink()
        outcome.add(left_by(place, folder))
        outcome.add(again(place, reference_of(folder), results(place.runs)))
    return removed(place, outcome)


def read_only(folder: Path) -> Outcome:
    """An output folder that cannot be written."""
    place = place_of(folder, "disks/readonly")
    with mounted(place.runs, "size=64m") as there:
        if there:
            remount(place.runs, "ro")
        else:
            place.runs.chmod(0o555)
        status, said = finish(fresh(place.words(), place))
        outcome = judged(status, said, rf"cannot write {re.escape(str(place.runs))}")
        if there:
            remount(place.runs, "rw")
        else:
            place.runs.chmod(0o755)
        outcome.add(left_by(place, folder))
        outcome.add(again(place, reference_of(folder), results(place.runs)))
    return removed(place, outcome)


def closed_output(folder: Path) -> Outcome:
    """Standard output closed (`>&-`): the job trains all the same."""
    place = place_of(folder, "disks/closed")
    status, said = finish(fresh(place.words(), place, shell='exec "$@" >&-'))
    outcome = Outcome()
    if status != 0 or "Traceback" in said or "Logging error" in said:
        outcome = Outcome(wrong=1, notes=[f"exit {status}: {last_line(said)}"])
    outcome.add(left_by(place, folder))
    outcome.add(again(place, reference_of(folder), results(place.runs)))
    return removed(place, outcome)


def one_line_read(folder: Path) -> Outcome:
    """`| head -1`: the job stops early, without a traceback."""
    place = place_of(folder, "disks/head")
    process = fresh(place.words(), place)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    began = time.monotonic()
    status, said = finish(process)
    outcome = Outcome()
    if "Traceback" in said or "Logging error" in said:
        outcome.notes.append(f"a traceback: {last_line(said)}")
    elif status == 0 or status is None:
        outcome.notes.append(f"exit {status} after {time.monotonic() - began:.0f} s")
    if len(results(place.runs)) == len(reference_of(folder).numbers):
        outcome.notes.append("it trained to the end")
    outcome.wrong = int(bool(outcome.notes))
    outcome.add(left_by(place, folder))
    outcome.add(again(place, reference_of(folder), results(place.runs)))
    return removed(place, outcome)


def removed(place: Place, outcome: Outcome) -> Outcome:
    """The outcome, and the trial's folder is gone."""
    shutil.rmtree(place.folder, ignore_errors=True)
    return outcome


def campaign(folder: Path) -> Outcome:
    """Every fault of writing."""
    reference_of(folder)
    trials: dict[str, Callable[[], Outcome]] = {
        "standard output closed": partial(closed_output, folder),
        "standard output read by head -1": partial(one_line_read, folder),
        "a read-only output folder": partial(read_only, folder),
    }
    for limit in LIMITS:
        trials[f"files of at most {limit} bytes"] = partial(limited, folder, limit)
    for name, limit in LIMITED.items():
        trials[f"files of at most {limit} bytes from {name} on"] = partial(limited, folder, limit, name)
    with mounted(folder / "probe", "size=64k") as there:
        if there:
            trials |= {
                f"a disk of {share:.0%} of what is needed": partial(small_disk, folder, share) for share in SHARES
            }
            trials["a full TMPDIR"] = partial(full_temporary, folder)
    outcome = side_by_side("disks", trials)
    if not there:
        outcome.notes.append("disks: small disks and a full TMPDIR were not tried: this user may not mount any")
    return outcome
