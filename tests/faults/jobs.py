"""The small job that every fault strikes: started, started again, and compared with one that nothing disturbed."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from commands import SERVER, perform
from faults.outcome import Outcome

JOB = (
    "pamfn.train",
    "+experiment=demo",
    "logger=csv",
    "resume_seconds=0",
    "data._target_=pamfn.data.ScoreDataModule",  # the synthetic one would write its larger data set
    "modalities=[rgb,flow]",
    "model.branch.d_model=8",
    "model.branch.hidden=8",
    "model.num_fusion_nets=3",
    "recipe.branch.epochs=3",
    "recipe.fusion.epochs=3",
    "recipe.branch.lr=0.01",
    "recipe.fusion.lr=0.01",
    "recipe.branch.batch_size=8",
    "recipe.fusion.batch_size=8",
    "trainer.accelerator=cpu",
)
"""Two branches and the fused network on top: two stages in two seconds."""

SEED = "3"
"""Its best epochs are the first, the second and the last: selected weights are replaced at different times."""

INSIDE = Path(__file__).parent / "inside"
PATIENCE = 120.0
"""Seconds after which a job counts as hanging."""

LOCK = threading.Lock()
"""Multiprocessing's bookkeeping of children is not for several threads."""


@dataclass(frozen=True)
class Place:
    """The folders of one trial; what it trains on is shared."""

    folder: Path
    data: Path

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Of the job: its own TMPDIR, its lines at once, nothing of ours from outside."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PAMFN_", "FAULT_", "TORCHINDUCTOR_"))}
        own = {"TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        return (
            kept
            | own
            | {"PYTHONPATH": os.pathsep.join(filter(None, (str(INSIDE), kept.get("PYTHONPATH"))))}
            | dict(more or {})
        )

    def words(self, *more: str, seed: str = SEED) -> list[str]:
        """Of the job, with more settings."""
        return [JOB[0], *more, *JOB[1:], f"seed={seed}", f"paths.data_dir={self.data}", f"paths.output_dir={self.runs}"]


@dataclass(frozen=True)
class Reference:
    """What an undisturbed job leaves: numbers by run, files below the output folder and TMPDIR, its seconds."""

    numbers: dict[str, tuple[bytes, Any]]
    files: frozenset[str]
    temporary: frozenset[str]
    seconds: float


def place_of(folder: Path, name: str) -> Place:
    """A new trial's folders below the campaign's; the data set is written with the first."""
    data = folder / "data"
    if not data.exists():
        from pamfn.data.synthetic import write_synthetic

        write_synthetic(data, train=24, test=10)
    place = Place(folder / name, data)
    place.temporary.mkdir(parents=True)
    return place


def reference_of(folder: Path, *more: str, name: str = "reference", seed: str = SEED) -> Reference:
    """Of the campaign's job, with more settings; trained when it is first asked for."""
    place = Place(folder / name, folder / "data")
    if not place.folder.exists():
        place = place_of(folder, name)
        forked(["pamfn.train", "--help"], place)  # the server's start is not the job's
        began = time.monotonic()
        ended = forked(place.words(*more, seed=seed), place)
        if ended.returncode != 0:
            raise RuntimeError(f"the undisturbed job fails: {ended.stderr}")
        (place.folder / "seconds").write_text(str(time.monotonic() - began))
    seconds = float((place.folder / "seconds").read_text())
    return Reference(numbers(place.runs), names(place.runs), names(place.temporary), seconds)


def numbers(runs: Path) -> dict[str, tuple[bytes, Any]]:
    """The predictions and the metrics of every finished run."""
    found = {}
    for result in sorted(runs.glob("*/*/result.json")):
        predictions = result.with_name("predictions.csv")
        read = predictions.read_bytes() if predictions.exists() else b""
        found[str(result.parent.relative_to(runs))] = (read, json.loads(result.read_text())["metrics"])
    return found


def names(folder: Path) -> frozenset[str]:
    """Everything below a folder, but for what a sweep says of itself and the one cache of all processes' torch."""
    found = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return frozenset(name for name in found if not name.startswith(("sweeps", "torchinductor_")))


def results(runs: Path) -> dict[Path, bytes]:
    """The result.json of every finished run."""
    return {file: file.read_bytes() for file in runs.glob("*/*/result.json")}


class Fork:
    """`python -m WORDS` as a fork of a server that has imported the libraries.

    before: what is done first in the fork.
    """

    def __init__(self, words: Sequence[str], place: Place, before: Callable[[], None] | None = None) -> None:
        self.words = list(words)
        self.files = [str(place.folder / name) for name in ("stdout", "stderr")]
        for file in self.files:
            Path(file).unlink(missing_ok=True)
        arguments = (before, self.words, str(place.folder), place.environment(), self.files)
        self.process: ForkServerProcess = SERVER.Process(target=inside, args=arguments)
        with LOCK:
            self.process.start()

    def wait(self, seconds: float = PATIENCE) -> bool:
        """Whether it ended in time."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            with LOCK:
                if self.process.exitcode is not None:
                    return True
            time.sleep(0.01)
        return False

    def ended(self) -> subprocess.CompletedProcess[str]:
        """Waits; a job that hangs is killed."""
        if not self.wait():
            self.process.kill()
            self.wait()
        with LOCK:
            status = self.process.exitcode
        said = (Path(file).read_text() if Path(file).exists() else "" for file in self.files)
        return subprocess.CompletedProcess(self.words, -9 if status is None else status, *said)


def inside(before: Callable[[], None] | None, *arguments: Any) -> None:
    """The job, in the fork."""
    tempfile.tempdir = None  # the server's, found before TMPDIR was set
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if before is not None:
        before()
    perform(*arguments)


def forked(
    words: Sequence[str], place: Place, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """A job from start to end."""
    return Fork(words, place, before).ended()


def fresh(
    words: Sequence[str], place: Place, more: Mapping[str, str] | None = None, shell: str = 'exec "$@"'
) -> subprocess.Popen[str]:
    """`python -m WORDS` in an interpreter of its own; it writes to pipes, which a limit of file sizes does not stop."""
    return subprocess.Popen(
        ["/bin/sh", "-c", shell, "sh", sys.executable, "-m", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place.folder,
        env=place.environment(more),
    )


def until(process: subprocess.Popen[str], *texts: str) -> bool:
    """Reads the process's lines to the first with all these texts; whether there was one."""
    assert process.stdout is not None
    return any(all(text in line for text in texts) for line in process.stdout)


def finish(process: subprocess.Popen[str], seconds: float = PATIENCE) -> tuple[int | None, str]:
    """Exit status and stderr of a process; one that does not end in time is killed, and has no status."""
    try:
        _, said = process.communicate(timeout=seconds)
        return process.returncode, said
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None, ""


def strays(place: Place, reference: Reference, resumable: bool = False) -> list[str]:
    """What is there and would not be after an undisturbed job; a resume point may be where the job is not over."""
    found = sorted(names(place.runs) - reference.files) if place.runs.exists() else []
    if resumable:
        found = [
            n for n in found if Path(n).name != "resume.ckpt" or (place.runs / n).with_name("result.json").exists()
        ]
    return found + [f"TMPDIR/{name}" for name in sorted(names(place.temporary) - reference.temporary)]


def last_line(text: str) -> str:
    """What a process said last."""
    return (text.strip().splitlines() or ["(nothing)"])[-1][:200]


def again(place: Place, reference: Reference, had: Mapping[Path, bytes], words: Sequence[str] | None = None) -> Outcome:
    """The same command once more: it must end well, with the reference's numbers, and leave nothing else.

    had: results that were finished when the fault struck; they stay as they were.
    """
    outcome = Outcome()
    ended = forked(words or place.words(), place)
    if ended.returncode != 0:
        outcome.lost = 1
        outcome.notes.append(f"again: exit {ended.returncode}: {last_line(ended.stderr)}")
    elif numbers(place.runs) != reference.numbers:
        outcome.wrong = 1
        outcome.notes.append("again: not the reference's numbers")
    missing = reference.files - names(place.runs)
    if ended.returncode == 0 and missing:
        outcome.lost = 1
        outcome.notes.append(f"again: not there: {', '.join(sorted(missing))}")
    if any(not file.exists() or file.read_bytes() != content for file, content in had.items()):
        outcome.lost = 1
        outcome.notes.append("a finished result was lost or replaced")
    left = strays(place, reference)
    if left:
        outcome.left_behind = 1
        outcome.notes.append(f"left behind: {', '.join(left)}")
    return outcome


def one_case(part: str, case: str, trial: Callable[[], Outcome]) -> Outcome:
    """A trial as a single case, and a line about it."""
    try:
        found = trial()
    except Exception as error:  # the other cases go on
        found = Outcome(wrong=1, notes=[f"the case itself failed: {type(error).__name__}: {error}"])
    lost, left, wrong = (min(count, 1) for count in (found.lost, found.left_behind, found.wrong))
    outcome = Outcome(1, lost, left, wrong, [f"{part}: {case}: {note}" for note in found.notes])
    bad = lost or left or wrong
    print(
        f"{'FAIL' if bad else 'ok':4}  {part}: {case}" + "".join(f"\n        {note}" for note in found.notes),
        flush=True,
    )
    return outcome


def side_by_side(part: str, trials: Mapping[str, Callable[[], Outcome]], workers: int = 2) -> Outcome:
    """All trials, by name, some at a time."""
    from concurrent.futures import ThreadPoolExecutor

    total = Outcome()
    with ThreadPoolExecutor(workers) as pool:
        for outcome in pool.map(lambda item: partial(one_case, part)(*item), trials.items()):
            total.add(outcome)
    return total
