"""Kill -9 at every rename, unlink and fsync of a job, and at random moments; then the same command again."""

import os
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from faults.jobs import Fork, Place, again, forked, last_line, place_of, reference_of, results, side_by_side
from faults.outcome import Outcome

CALLS = ("rename", "replace", "unlink", "remove", "fsync")
RANDOM_MOMENTS = 20


@dataclass(frozen=True)
class Point:
    """A moment of a job: just before or after its `number`th call of `CALLS`."""

    number: int
    when: str
    call: str
    file: str

    def __str__(self) -> str:
        return f"#{self.number} {self.when} {self.call} {self.file}"


@dataclass
class Watch:
    """Counts a process's calls of `CALLS` on files below `folder`: records them in `record`, or kills it at a point."""

    folder: str
    record: str | None = None
    point: Point | None = None
    count: int = -1

    def __call__(self) -> None:
        """Begins."""
        for name in CALLS:
            setattr(os, name, partial(self.call, name, getattr(os, name)))

    def call(self, name: str, original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """One of the calls, watched."""
        file = target(name, arguments)
        if not Path(file).is_relative_to(self.folder):
            return original(*arguments, **named)
        self.count += 1
        if self.record is not None:
            changes = name != "fsync" and Path(file if "un" in name or "rem" in name else arguments[0]).exists()
            with Path(self.record).open("a") as opened:
                opened.write(f"{name}\t{int(changes)}\t{Path(file).relative_to(self.folder)}\n")
        self.kill("before")
        done = original(*arguments, **named)
        self.kill("after")
        return done

    def kill(self, when: str) -> None:
        if self.point is not None and (self.count, when) == (self.point.number, self.point.when):
            os.kill(os.getpid(), signal.SIGKILL)


def target(name: str, arguments: tuple[Any, ...]) -> str:
    """The file that a call is about."""
    if name == "fsync":
        descriptor = Path(f"/proc/self/fd/{arguments[0]}")
        return str(descriptor.readlink()) if descriptor.is_symlink() else str(Path.cwd() / "unnamed")
    return str(Path(os.fsdecode(arguments[1 if name in ("rename", "replace") else 0])).absolute())


def points(folder: Path) -> list[Point]:
    """Every point of the job: before a call, and after it where the call changes what is on disk.

    In the output folder: a kill while tempfile probes TMPDIR leaves its probe there, whatever the program.
    """
    place, record = place_of(folder, "kills/points"), folder / "kills/record"
    ended = forked(place.words(), place, Watch(str(place.runs), record=str(record)))
    assert ended.returncode == 0, ended.stderr
    found = []
    for number, line in enumerate(record.read_text().splitlines()):
        call, changes, file = line.split("\t")
        if changes == "1" or call == "fsync":
            found += [Point(number, when, call, file) for when in ("before", "after")[: 1 + int(changes)]]
    shutil.rmtree(place.folder)
    return found


def killed_at(folder: Path, point: Point) -> Outcome:
    """One trial: killed at the point."""
    place = place_of(folder, f"kills/{point.number}{point.when}")
    ended = forked(place.words(), place, Watch(str(place.runs), point=point))
    if ended.returncode != -signal.SIGKILL:
        return Outcome(
            wrong=1, notes=[f"the job did not get there: exit {ended.returncode}: {last_line(ended.stderr)}"]
        )
    return afterwards(folder, place)


def killed_after(folder: Path, name: str, seconds: float) -> Outcome:
    """One trial: killed so long after its start."""
    place = place_of(folder, f"kills/{name}")
    fork = Fork(place.words(), place)
    if not fork.wait(seconds):
        fork.process.kill()
        fork.wait()
    return afterwards(folder, place)


def afterwards(folder: Path, place: Place) -> Outcome:
    """The same command again, and whether it cleared up; the trial's folder goes."""
    outcome = again(place, reference_of(folder), results(place.runs))
    shutil.rmtree(place.folder)
    return outcome


def campaign(folder: Path) -> Outcome:
    """Every point, and random moments of the whole job."""
    reference = reference_of(folder)
    trials: dict[str, Callable[[], Outcome]] = {str(p): partial(killed_at, folder, p) for p in points(folder)}
    draw = random.Random(0)
    for number in range(RANDOM_MOMENTS):
        seconds = draw.uniform(0.1, reference.seconds)
        name = f"random{number}"
        trials[f"after {seconds:.2f} s"] = partial(killed_after, folder, name, seconds)
    return side_by_side("kills", trials)
