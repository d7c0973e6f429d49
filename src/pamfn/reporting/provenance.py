"""What the numbers of a table mix: data, protocol, selection, code, machines, dates. Nothing here imports torch."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pamfn.errors import InputError
from pamfn.evaluation.selection import RULES
from pamfn.reporting.stream_rows import PLACES
from pamfn.runs.folder import Run

Result = Mapping[str, Any]


def provenance(results: Mapping[Path, Result], select: str | None) -> list[str]:
    """Sentences about finished runs {folder: result} and the branches they were built on, with how many of each."""
    runs = list(results.values())
    if not runs:
        return []
    trained = [*runs, *branches(results)]
    dates = sorted(result["times"]["started"][:10] for result in trained)
    stages = "stage 1 included, " if any(result.get("branches") for result in runs) else ""
    period = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    return [
        f"Data: {counted(source(r) for r in runs)}; seeds {seeds(runs)}.",
        *dict.fromkeys(sentence for r in runs for sentence in other_streams(r)),
        f"Selection: {counted(selection(r, select) for r in runs)}.",
        f"Protocol: {counted(protocol(r['config']['protocol']) for r in runs)}; "
        f"precision {counted(str(r['config']['trainer'].get('precision', '32-true')) for r in runs)}.",
        f"Trained {period}, {stages}by commit {counted(commit(r) for r in trained)} "
        f"on {counted(machine(r) for r in trained)}.",
    ]


def branches(results: Mapping[Path, Result]) -> list[Result]:
    """Stage-1 results of fused runs, as far as they can be read beside them; each once."""
    folders = {
        folder.parents[1] / "branch" / name
        for folder, result in results.items()
        for name in result.get("branches", {}).values()  # results of the first runs name none
    }
    found = []
    for folder in sorted(folders - set(results)):
        with suppress(InputError):
            found.append(Run(folder).result())
    return [result for result in found if result is not None]


def counted(things: Iterable[str]) -> str:
    """Each thing once, with how often when there are several."""
    counts = Counter(things)
    return ", ".join(thing if len(counts) == 1 else f"{thing} ({n})" for thing, n in sorted(counts.items()))


def seeds(runs: Iterable[Result]) -> str:
    return ", ".join(map(str, sorted({result["seed"] for result in runs})))


def source(result: Result) -> str:
    return f"{result['data_source']} {result['name']}"


def other_streams(result: Result) -> list[str]:
    """What the paper's modalities stand for where a data set has other streams in their places; which if not three."""
    names = list(result["config"]["features"])
    places = [(place, name) for place, name in zip(PLACES, names, strict=False)]
    stands = ", ".join(f"{place} stands for {name}" for place, name in places)
    told = "" if all(place.casefold() == name for place, name in places) else stands
    if len(names) == len(PLACES):
        return [f"{result['name']}: {told}."] if told else []
    return [f"{result['name']}: its streams are {', '.join(names)}{f'; {told}' if told else ''}."]


def selection(result: Result, select: str | None) -> str:
    name = select or result["reported"]
    return f"{name}, {RULES[name].sentence}"


def protocol(settings: Mapping[str, Any]) -> str:
    """`hold-out 0.2 of train`, `select on test`."""
    if settings["select"] == "test":
        return "trained on all of train, select on test"
    part = f"{settings['holdout']:g} of train held out"
    return f"{part}, then trained on all of it" if settings["refit"] else part


def commit(result: Result) -> str:
    """Ten digits, with `+` for code that was changed or added since."""
    full = result["commit"] or "unknown"
    return full[:10] + ("+" if full.endswith("+") else "")


def machine(result: Result) -> str:
    found = result["machine"]
    return found["gpu"] or f"{found['cpu']} ({found['threads']} thread{'s' * (found['threads'] != 1)})"
