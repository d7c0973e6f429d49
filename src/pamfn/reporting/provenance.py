"""Say what the numbers of a table mix: data, protocol, selection, code, machines, dates. Nothing here imports torch."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pamfn.errors import InputError
from pamfn.evaluation.selection import RULES
from pamfn.reporting.collect import Result
from pamfn.reporting.render import span
from pamfn.reporting.sweep import PAPER_STREAMS
from pamfn.runs.folder import Run


def provenance(results: Mapping[Path, Result], select: str | None) -> list[str]:
    """Sentences about finished runs {folder: result} and the branches they were built on, with how many of each.

    select: the rule whose numbers are shown; None for the one that each run reports.
    """
    runs = list(results.values())
    if not runs:
        return []
    trained = [*runs, *branches(results)]
    dates = sorted(result["times"]["started"][:10] for result in trained)
    stages = "stage 1 included, " if any(result.get("branches") for result in runs) else ""
    seeds = sorted({result["seed"] for result in runs})
    rules = [select or result["reported"] for result in runs]
    return [
        f"Data: {counted(' '.join((r['data_source'], r['name'])) for r in runs)}; seeds {', '.join(map(str, seeds))}.",
        *dict.fromkeys(sentence for r in runs for sentence in other_streams(r)),
        f"Selection: {counted(f'{rule}, {RULES[rule].sentence}' for rule in rules)}.",
        f"Protocol: {counted(protocol(r['config']['protocol']) for r in runs)}; "
        f"precision {counted(str(r['config']['trainer'].get('precision', '32-true')) for r in runs)}.",
        f"Trained {span(dates)}, {stages}by commit {counted(commit(r) for r in trained)} "
        f"on {counted(machine(r) for r in trained)}.",
    ]


def branches(results: Mapping[Path, Result]) -> list[Result]:
    """The stage-1 results of fused runs, as far as they can be read beside them; each once."""
    folders = {
        folder.parents[1] / "branch" / name
        for folder, result in results.items()
        for name in result.get("branches", {}).values()  # results of the first runs name none
    }
    of_branches = []
    for folder in sorted(folders - set(results)):
        with suppress(InputError):  # also when there is none
            of_branches.append(Run(folder).finished())
    return of_branches


def counted(things: Iterable[str]) -> str:
    """Each thing once, with how often when there are several."""
    counts = Counter(things)
    return ", ".join(thing if len(counts) == 1 else f"{thing} ({n})" for thing, n in sorted(counts.items()))


def other_streams(result: Result) -> list[str]:
    """A sentence where a data set's streams are not the paper's three: what they are and whose places they have."""
    names = list(result["config"]["features"])
    places = [(place, name) for place, name in zip(PAPER_STREAMS, names, strict=False)]
    stands = ", ".join(f"{place} stands for {name}" for place, name in places)
    parts = [] if len(names) == len(PAPER_STREAMS) else [f"its streams are {', '.join(names)}"]
    parts += [] if all(place.casefold() == name for place, name in places) else [stands]
    return [f"{result['name']}: {'; '.join(parts)}."] if parts else []


def protocol(settings: Mapping[str, Any]) -> str:
    """What a run was tested on and which part of train it saw: `0.2 of train held out`."""
    folds = settings.get("folds")
    tested = "" if folds is None else f"{folds} folds, " if isinstance(folds, int) else f"folds of {folds}, "
    if settings["select"] == "test":
        return f"{tested}trained on all of train, select on test"
    if not settings["holdout"]:
        return f"{tested}trained on all of train"
    part = f"{tested}{settings['holdout']:g} of train held out"
    return f"{part}, then trained on all of it" if settings["refit"] else part


def commit(result: Result) -> str:
    """Ten digits of a run's commit, with `+` for code that was changed or added since."""
    full = result["commit"] or "unknown"
    return full[:10] + ("+" if full.endswith("+") else "")


def machine(result: Result) -> str:
    """The GPU that a run was trained on, or its processor with the number of threads."""
    on = result["machine"]
    return on["gpu"] or f"{on['cpu']} ({on['threads']} thread{'s' * (on['threads'] != 1)})"
