"""What a number owes to the rule by which its epoch was chosen: every finished run under every rule."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pamfn.evaluation.intervals import spread
from pamfn.evaluation.metrics import METRICS, main_metric
from pamfn.evaluation.selection import INFLATION, RULES
from pamfn.reporting.cells import NAN, Cell, Measured, undefined
from pamfn.reporting.render import BuiltTable, number

Result = Mapping[str, Any]
Settings = dict[str, str]

CHANCE = "random order"
DIFFERENCES = {f"{RULES[chosen].label} - {RULES[honest].label}": (chosen, honest) for chosen, honest in INFLATION}
"""What choosing on the test set adds, run by run."""

SHOWN = {"protocol.select", "protocol.holdout", "protocol.refit", "model._target_", "branch._target_"}
"""Settings that have a column of their own."""


def protocols(runs: Iterable[tuple[object, Result]], metric: str | None = None) -> list[BuiltTable]:
    """Real and synthetic data, scores and highlights are in tables of their own; a row for runs that differ by seed.

    metric: of the runs that have it; by default every run's main one.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for _, result in runs:
        metrics = result["metrics"][result["reported"]]
        shown = metric or main_metric(metrics)
        if shown in metrics:
            groups.setdefault((result["data_source"], shown), []).append(result)
    return [protocol_table(*group, results) for group, results in sorted(groups.items(), key=place)]


def place(group: tuple[tuple[str, str], object]) -> tuple[bool, str]:
    """Scores before highlights, real data before synthetic."""
    (source, metric), _ = group
    return METRICS[metric].predicts == "highlights", source


def protocol_table(source: str, metric: str, results: Sequence[Result]) -> BuiltTable:
    """Rows by data set, network and what differs in its settings."""
    variations: dict[str, list[Result]] = {}
    for result in results:
        variations.setdefault(json.dumps([*network(result), settings_of(result)], sort_keys=True), []).append(result)
    groups = sorted(variations.values(), key=lambda runs: (network(runs[0]), protocol(runs[0])))
    cells: dict[tuple[str, str], Cell] = {}
    lines = []
    for runs in groups:
        like = [settings_of(other[0]) for other in groups if network(other[0]) == network(runs[0])]
        label = [*network(runs[0]), differing(settings_of(runs[0]), like), protocol(runs[0])]
        of_row = row_cells(" | ".join(label), runs, metric)
        cells |= {(cell.row, cell.column): cell for cell in of_row}
        lines.append([*label, str(len(runs)), *chance_of(runs, metric), *(text(metric, cell) for cell in of_row)])
    by_chance = [CHANCE] if METRICS[metric].chance == "stored" else []
    heads = ["data", "network", "modalities", "settings", "protocol", "seeds", *by_chance]
    heads += [*(rule.label for rule in RULES.values()), *DIFFERENCES]
    on_test = " and ".join(rule.label for rule in RULES.values() if rule.best_on == "test")
    notes = [
        *(told for cell in cells.values() if cell.column not in DIFFERENCES for told in warnings_of(metric, cell)),
        f"{metric} on the test set, mean ± standard deviation over seeds; - is not measured under that protocol.",
        f"{on_test} is selection on the test set; the last two columns are differences within the same run.",
        "settings: what differs between the rows of the same network on the same data.",
        *(f"{name}: {metric} of the same clips in random order." for name in by_chance),
    ]
    of_highlights = METRICS[metric].predicts == "highlights"
    title = f"Protocols, {source} data{', highlights' if of_highlights else ''}"
    name = f"protocols_{source}{'_highlights' if of_highlights else ''}"
    return BuiltTable(name, title, metric, cells, pd.DataFrame(lines, columns=heads), notes, [])


def warnings_of(metric: str, cell: Cell) -> list[str]:
    """A sentence for the seeds of a cell that have no number."""
    runs = [Measured(cell.row, cell.column, seed, value) for seed, value in cell.values.items()]
    return undefined(metric, (cell.row, cell.column), runs)


def chance_of(runs: Sequence[Result], metric: str) -> list[str]:
    """The chance level of the runs' test videos, where results have one for the metric."""
    if METRICS[metric].chance != "stored":
        return []
    levels = sorted({number(metric, result["metrics"][result["reported"]]["chance"]) for result in runs})
    return [" to ".join(dict.fromkeys((levels[0], levels[-1])))]


def network(result: Result) -> tuple[str, str, str]:
    """Data set, kind of network, modalities."""
    model = result["config"]["model"]
    modalities = "+".join(result["modalities"])
    if result["kind"] == "branch":
        return result["name"], model["branch"]["_target_"].rpartition(".")[2], modalities
    available = f", at test {'+'.join(result['available'])}" if result["kind"] == "missing" else ""
    return result["name"], model["_target_"].rpartition(".")[2], modalities + available


def settings_of(result: Result) -> Settings:
    """What decides a run's numbers, but for its seed, as flat settings."""
    config = result["config"]
    kept: dict[str, Any] = {name: config[name] for name in ("data", "protocol")}
    kept["features"] = {m: config["features"][m] for m in result["modalities"]}
    kept["precision"] = config["trainer"].get("precision", "32-true")
    if result["kind"] == "branch":
        return flat(kept | {"branch": config["model"]["branch"], "recipe": config["recipe"]["branch"]})
    if result["kind"] == "baseline":
        return flat(kept | {"model": config["model"], "recipe": config["recipe"]["baseline"] or {}})
    recipe = {name: value for name, value in config["recipe"].items() if name not in ("readings", "baseline")}
    return flat(kept | {"model": config["model"], "recipe": recipe})


def flat(settings: Mapping[str, Any], place: str = "") -> Settings:
    """{`recipe.fusion.epochs`: `60`}"""
    found: Settings = {}
    for key, value in settings.items():
        found |= flat(value, f"{place}{key}.") if isinstance(value, Mapping) else {f"{place}{key}": str(value)}
    return found


def differing(settings: Settings, like: Sequence[Settings]) -> str:
    """The settings that are not the same in all of the others."""
    keys = sorted({key for other in like for key in other} - SHOWN)
    return ", ".join(
        f"{key}={settings[key]}" for key in keys if key in settings and any(o.get(key) != settings[key] for o in like)
    )


def protocol(result: Result) -> str:
    """The protocol that the run was trained for: which part of train it saw."""
    settings = result["config"]["protocol"]
    if settings["select"] == "test":
        return "paper"
    return f"holdout {settings['holdout']:g}" + (", refit" if settings["refit"] else "")


def row_cells(row: str, runs: Sequence[Result], metric: str) -> list[Cell]:
    """Every rule's number, and what choosing on the test set adds to it."""
    numbers = {name: {r["seed"]: value_of(r, name, metric) for r in runs if name in r["metrics"]} for name in RULES}
    found = [cell_of(row, rule.label, numbers[name]) for name, rule in RULES.items()]
    for column, (chosen, honest) in DIFFERENCES.items():
        both = numbers[chosen].keys() & numbers[honest].keys()
        found.append(cell_of(row, column, {s: numbers[chosen][s] - numbers[honest][s] for s in sorted(both)}))
    return found


def value_of(result: Result, name: str, metric: str) -> float:
    value = result["metrics"][name][metric]
    return NAN if value is None else float(value)


def cell_of(row: str, column: str, values: Mapping[int, float]) -> Cell:
    known = [value for value in values.values() if not math.isnan(value)]
    return Cell(row, column, values, mean=float(np.mean(known)) if known else NAN, std=spread(known))


def text(metric: str, cell: Cell) -> str:
    """`.920 ± .004`, with a sign for a difference."""
    if not cell.n:
        return "nan" if cell.values else "-"
    mean = number(metric, cell.mean, sign="+" if cell.column in DIFFERENCES else "")
    return mean if math.isnan(cell.std) else f"{mean} ± {number(metric, cell.std)}"
