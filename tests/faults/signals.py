"""SIGINT, SIGTERM and SIGHUP in every phase of a command; then the same command again."""

import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from faults.jobs import (
    Place,
    again,
    finish,
    forked,
    fresh,
    last_line,
    names,
    place_of,
    reference_of,
    results,
    side_by_side,
    strays,
    until,
)
from faults.outcome import Outcome

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 15.0
"""Seconds in which a process has to end."""

IMPORTS = ("hydra", "torch", "lightning")
"""Modules whose import is interrupted, in the order of a training."""

PHASES = {"stage 1": ("branch", "epoch 1/3"), "stage 2": ("fusion", "epoch 1/3"), "scoring": ("fusion", "epoch 3/3")}
"""A training's phases by what is in the line after which the signal comes."""

OTHERS = {
    "evaluate": ("numpy", "torch"),
    "tables": ("hydra", "pandas"),
    "convert": ("numpy", "safetensors.numpy"),
}
"""Modules whose import is interrupted in other commands."""


def judged(status: int | None, said: str, how: signal.Signals, seconds: float) -> Outcome:
    """The end of an interrupted process."""
    outcome, problems = Outcome(), []
    if status is None:
        problems.append(f"it does not end within {PATIENCE:g} s")
    elif status == 0:
        problems.append("exit 0")
    elif seconds > PATIENCE:
        problems.append(f"it took {seconds:.0f} s to end")
    if not said.strip():
        problems.append(f"nothing on stderr (exit {status})")
    elif "Traceback" in said:
        problems.append(f"a traceback: {last_line(said)}")
    elif not {
        signal.SIGINT: any(line.startswith("interrupted") for line in said.splitlines()),
        signal.SIGTERM: "terminated" in said,
    }.get(how, True):
        problems.append(f"not the sentence for {how.name}: {last_line(said)}")
    if problems:
        outcome.wrong = 1
        outcome.notes = problems
    return outcome


def in_imports(folder: Path, how: signal.Signals, module: str) -> Outcome:
    """A training that is signalled when it imports the module."""
    place = place_of(folder, f"signals/{how.name}-{module}")
    process = fresh(place.words(), place, {"FAULT_IMPORT": f"{module}:{how.name}"})
    status, said = finish(process)
    return afterwards(folder, place, judged(status, said, how, 0))


def in_phase(folder: Path, how: signal.Signals, phase: str) -> Outcome:
    """A training that is signalled in a phase."""
    place = place_of(folder, f"signals/{how.name}-{phase}".replace(" ", ""))
    process = fresh(place.words(), place)
    if not until(process, *PHASES[phase]):
        finish(process)
        return Outcome(wrong=1, notes=["the job did not get there"])
    process.send_signal(how)
    began = time.monotonic()
    status, said = finish(process, PATIENCE)
    return afterwards(folder, place, judged(status, said, how, time.monotonic() - began))


def afterwards(folder: Path, place: Place, outcome: Outcome) -> Outcome:
    """What an interrupted training left, and the same command again; the trial's folder goes."""
    reference = reference_of(folder)
    left = strays(place, reference, resumable=True)
    if left:
        outcome.left_behind = 1
        outcome.notes.append(f"left behind by the signal: {', '.join(left)}")
    outcome.add(again(place, reference, results(place.runs)))
    shutil.rmtree(place.folder)
    return outcome


def other_words(name: str, place: Place) -> list[str]:
    """A command on finished runs, or on data."""
    if name == "evaluate":
        (run,) = (place.runs / "fusion").iterdir()
        return ["pamfn.evaluate", str(run)]
    if name == "tables":
        return ["pamfn.tables", "protocols", "--runs", str(place.runs), "--no-wandb"]
    return ["pamfn.convert", "features", "--data-dir", str(place.folder / "data")]


def in_other(folder: Path, name: str, module: str, how: signal.Signals = signal.SIGINT) -> Outcome:
    """Another command that is signalled when it imports the module, then again; it must write what it would have."""
    reference_of(folder)
    undisturbed, place = (place_of(folder, f"signals/{name}-{module}-{which}") for which in ("whole", "struck"))
    for one in (undisturbed, place):
        shutil.copytree(folder / "reference" / "runs", one.runs)
        shutil.copytree(folder / "data", one.folder / "data")
    whole = forked(other_words(name, undisturbed), undisturbed)
    process = fresh(other_words(name, place), place, {"FAULT_IMPORT": f"{module}:{how.name}"})
    status, said = finish(process)
    outcome = judged(status, said, how, 0)
    ended = forked(other_words(name, place), place)
    if (ended.returncode, whole.returncode) != (0, 0):
        outcome.lost = 1
        outcome.notes.append(
            f"again: exit {ended.returncode}, undisturbed: {whole.returncode}: {last_line(ended.stderr)}"
        )
    elif ended.stdout.replace(str(place.folder), "") != whole.stdout.replace(str(undisturbed.folder), ""):
        outcome.wrong = 1
        outcome.notes.append("again: it says something else than undisturbed")
    left = sorted(names(place.folder) - names(undisturbed.folder))
    if left:
        outcome.left_behind = 1
        outcome.notes.append(f"left behind: {', '.join(left)}")
    for one in (undisturbed, place):
        shutil.rmtree(one.folder)
    return outcome


def campaign(folder: Path) -> Outcome:
    """Every signal in every phase of a training, and SIGINT in the imports of other commands."""
    reference_of(folder)
    trials: dict[str, Callable[[], Outcome]] = {}
    for how in SIGNALS:
        for module in IMPORTS:
            trials[f"{how.name} at the import of {module}"] = partial(in_imports, folder, how, module)
        for phase in PHASES:
            trials[f"{how.name} in {phase}"] = partial(in_phase, folder, how, phase)
    for name, modules in OTHERS.items():
        for module in modules:
            trials[f"SIGINT to {name} at the import of {module}"] = partial(in_other, folder, name, module)
    return side_by_side("signals", trials)
