"""Kill -9 of a sweep's worker, or of the parent of its workers; then the same sweep again."""

import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

from faults.jobs import Place, Reference, again, finish, fresh, place_of, reference_of, results, side_by_side, until
from faults.outcome import Outcome

SWEEP = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
SEEDS = "0,1"
ORPHANED = 5.0
"""Seconds that workers may outlive their parent."""

MOMENTS = {"start": "#1 :", "stage 1": "branch synthetic rgb", "stage 2": "fusion synthetic"}
"""A sweep's moments by a part of the line that tells of them."""


def reference_of_sweep(folder: Path) -> Reference:
    """Of both seeds, one after the other."""
    return reference_of(folder, "-m", name="reference-sweep", seed=SEEDS)


def outlived(family: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """The processes that are still there after so long; they are ended."""
    _, alive = psutil.wait_procs(family, timeout=seconds)
    alive = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    for process in alive:
        process.kill()
    return alive


def workers_of(parent: psutil.Process) -> list[psutil.Process]:
    """Its joblib workers, waited for: they start after the line that announces the jobs."""
    for _ in range(100):
        found = [p for p in parent.children(recursive=True) if "popen_loky" in " ".join(p.cmdline())]
        if len(found) == 2:
            return found
        time.sleep(0.05)
    return []


def killed(folder: Path, moment: str, victim: str) -> Outcome:
    """One trial."""
    place = place_of(folder, f"sweeps/{moment}-{victim}".replace(" ", ""))
    process = fresh(place.words(*SWEEP, seed=SEEDS), place)
    if not until(process, MOMENTS[moment]):
        finish(process, place)
        return Outcome(wrong=1, notes=["the sweep did not get there"])
    parent = psutil.Process(process.pid)
    workers = workers_of(parent)
    family = parent.children(recursive=True)
    if not workers:
        finish(process, place)
        return Outcome(wrong=1, notes=["the sweep has no workers"])
    outcome = Outcome()
    if victim == "worker":
        workers[0].kill()
    else:
        parent.kill()
        left = outlived(family, ORPHANED)
        if left:
            outcome.left_behind += 1
            outcome.notes.append(f"{len(left)} processes outlived their parent by {ORPHANED:g} s")
    status, _ = finish(process, place, 60)
    if status is None:
        outcome.lost += 1
        outcome.notes.append("the sweep hangs after its worker was killed")
    left = outlived(family, ORPHANED)
    if left:
        outcome.left_behind += 1
        outcome.notes.append(f"{len(left)} processes outlived the sweep by {ORPHANED:g} s")
    if status == 0 and not complete(place, folder):
        outcome.wrong += 1
        outcome.notes.append("the sweep without its worker ended with 0, unfinished")
    outcome.add(repeated(folder, place))
    return outcome


def complete(place: Place, folder: Path) -> bool:
    """Whether every run of the sweep is finished."""
    return len(results(place.runs)) == len(reference_of_sweep(folder).numbers)


def repeated(folder: Path, place: Place) -> Outcome:
    """The same sweep again, in workers again; its folder goes."""
    had = results(place.runs)
    process = fresh(place.words(*SWEEP, seed=SEEDS), place)
    status, said = finish(process, place)
    outcome = Outcome()
    if status != 0:
        outcome.lost += 1
        outcome.notes.append(f"again: exit {status}: {said.strip()[-200:]}")
    else:  # once more, with nothing to do
        outcome.add(again(place, reference_of_sweep(folder), had, place.words("-m", seed=SEEDS)))
    shutil.rmtree(place.folder)
    return outcome


def campaign(folder: Path) -> Outcome:
    """Both victims at every moment. One after the other: each has two workers."""
    reference_of_sweep(folder)
    trials: dict[str, Callable[[], Outcome]] = {
        f"kill -{signal.SIGKILL.value} the {victim}, {moment}": partial(killed, folder, moment, victim)
        for moment in MOMENTS
        for victim in ("worker", "parent")
    }
    return side_by_side("sweeps", trials, workers=1)
