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
    outcome = struck(place, moment, victim)
    outcome.add(repeated(folder, place))
    return outcome


def struck(place: Place, moment: str, victim: str) -> Outcome:
    """A sweep that loses a worker or its parent, to its end."""
    process = fresh(place.words(*SWEEP, seed=SEEDS), place)
    reached = until(process, MOMENTS[moment])
    parent = psutil.Process(process.pid)
    workers = workers_of(parent) if reached else []
    if not workers:
        finish(process)
        return Outcome(wrong=1, notes=["the sweep did not get there"])
    family, outcome = parent.children(recursive=True), Outcome()
    (workers[0] if victim == "worker" else parent).kill()
    if victim == "parent":  # whoever lives holds its stdout open
        outcome.add(orphans(family))
    status, _ = finish(process, 60)
    if status is None:
        outcome.add(Outcome(lost=1, notes=["the sweep hangs after its worker was killed"]))
    if status == 0:
        outcome.add(Outcome(wrong=1, notes=["the sweep lost a worker and ends with 0"]))
    if victim == "worker":
        outcome.add(orphans(family))
    return outcome


def orphans(family: list[psutil.Process]) -> Outcome:
    """What is left of a sweep's processes some seconds after its end."""
    left = outlived(family, ORPHANED)
    notes = [f"{len(left)} processes outlived the sweep by {ORPHANED:g} s"] if left else []
    return Outcome(left_behind=len(notes), notes=notes)


def repeated(folder: Path, place: Place) -> Outcome:
    """The same sweep again, in workers again; its folder goes."""
    had = results(place.runs)
    process = fresh(place.words(*SWEEP, seed=SEEDS), place)
    status, said = finish(process)
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
