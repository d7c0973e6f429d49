"""Compare each finished run's metrics under every epoch-selection rule."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from pamfn.evaluation.metrics import METRICS
from pamfn.evaluation.selection import INFLATION, RULES
from pamfn.reporting.cells import NAN, Cell, Measured, cell_of, warnings_of
from pamfn.reporting.collect import Result, main_of, reported
from pamfn.reporting.render import BuiltTable, mean_and_std, number, span

Settings = dict[str, str]

CHANCE = "random order"
DIFFERENCES = {f"{RULES[chosen].label} - {RULES[honest].label}": (chosen, honest) for chosen, honest in INFLATION}
"""Columns for what choosing on the test set adds, run by run: {head: (that rule, the honest rule)}."""

SHOWN = {"protocol.select", "protocol.holdout", "protocol.refit", "model._target_", "branch._target_"}
"""Settings that have a column of their own."""


def protocols(results: Iterable[Result], metric: str | None = None) -> list[BuiltTable]:
    """Tables with a row for runs that differ by seed: scores before highlights, real data before synthetic.

    Runs that test one fold are left out. metric: of the runs that have it; by default every run's main one.
    """
    groups: dict[tuple[bool, str, str], list[Result]] = {}
    for result in results:
        shown = metric or main_of(result)
        if shown in reported(result) and result["config"]["protocol"].get("fold") is None:
            group = METRICS[shown].predicts == "highlights", result["data_source"], shown
            groups.setdefault(group, []).append(result)
    return [protocol_table(*group[1:], groups[group]) for group in sorted(groups)]


def protocol_table(source: str, metric: str, results: Sequence[Result]) -> BuiltTable:
    """A table whose rows are data set, network and what differs in its settings."""
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
        *(note for cell in cells.values() if cell.column not in DIFFERENCES for note in warnings(metric, cell)),
        f"{metric} on the test set, mean ± standard deviation over seeds; - is not measured under that protocol.",
        f"{on_test} is selection on the test set; the last two columns are differences within the same run.",
        "settings: what differs between the rows of the same network on the same data.",
        *(f"{name}: {metric} of the same clips in random order." for name in by_chance),
    ]
    of_highlights = METRICS[metric].predicts == "highlights"
    title = f"Protocols, {source} data{', highlights' * of_highlights}"
    name = f"protocols_{source}{'_highlights' * of_highlights}"
    return BuiltTable(name, title, metric, cells, pd.DataFrame(lines, columns=heads), notes)


def warnings(metric: str, cell: Cell) -> list[str]:
    """A sentence for the seeds of a cell that have no number."""
    runs = [Measured(cell.row, cell.column, seed, value) for seed, value in cell.values.items()]
    return warnings_of(metric, (cell.row, cell.column), runs)


def chance_of(runs: Sequence[Result], metric: str) -> list[str]:
    """The chance level of the runs' test videos, where results have one for the metric."""
    if METRICS[metric].chance != "stored":
        return []
    return [span(sorted(number(metric, reported(result)["chance"]) for result in runs))]


def network(result: Result) -> tuple[str, str, str]:
    """Data set, kind of network, modalities."""
    model = result["config"]["model"]
    target = model["branch"]["_target_"] if result["kind"] == "branch" else model["_target_"]
    available = f", at test {'+'.join(result['available'])}" if result["kind"] == "missing" else ""
    return result["name"], target.rpartition(".")[2], "+".join(result["modalities"]) + available


def settings_of(result: Result) -> Settings:
    """The settings that decide a run's numbers, but for its seed, flat."""
    config = result["config"]
    kept: dict[str, Any] = {name: config[name] for name in ("data", "protocol")}
    kept["features"] = {m: config["features"][m] for m in result["modalities"]}
    kept["precision"] = config["trainer"].get("precision", "32-true")
    kept["threads"] = config.get("threads", 1)
    if result["kind"] == "branch":
        return flat(kept | {"branch": config["model"]["branch"], "recipe": config["recipe"]["branch"]})
    if result["kind"] == "baseline":
        return flat(kept | {"model": config["model"], "recipe": config["recipe"]["baseline"] or {}})
    recipe = {name: value for name, value in config["recipe"].items() if name not in ("readings", "baseline")}
    return flat(kept | {"model": config["model"], "recipe": recipe})


def flat(settings: Mapping[str, Any], place: str = "") -> Settings:
    """{`recipe.fusion.epochs`: `60`}"""
    leaves: Settings = {}
    for key, value in settings.items():
        leaves |= flat(value, f"{place}{key}.") if isinstance(value, Mapping) else {f"{place}{key}": str(value)}
    return leaves


def differing(settings: Settings, like: Sequence[Settings]) -> str:
    """The settings that are not the same in all of the others."""
    keys = sorted({key for other in like for key in other} - SHOWN)
    return ", ".join(
        f"{key}={settings[key]}" for key in keys if key in settings and any(o.get(key) != settings[key] for o in like)
    )


def protocol(result: Result) -> str:
    """The protocol that a run was trained for: which part of train it saw."""
    settings = result["config"]["protocol"]
    if settings["select"] == "test":
        return "paper"
    return f"holdout {settings['holdout']:g}" + (", refit" if settings["refit"] else "")


def row_cells(row: str, runs: Sequence[Result], metric: str) -> list[Cell]:
    """Every rule's number, and what choosing on the test set adds to it."""
    numbers = {name: {r["seed"]: value_of(r, name, metric) for r in runs if name in r["metrics"]} for name in RULES}
    cells = [cell_of(row, rule.label, numbers[name]) for name, rule in RULES.items()]
    for column, (chosen, honest) in DIFFERENCES.items():
        both = numbers[chosen].keys() & numbers[honest].keys()
        cells.append(cell_of(row, column, {s: numbers[chosen][s] - numbers[honest][s] for s in sorted(both)}))
    return cells


def value_of(result: Result, name: str, metric: str) -> float:
    value = result["metrics"][name][metric]
    return NAN if value is None else float(value)


def text(metric: str, cell: Cell) -> str:
    """`.920 ± .004`, with a sign before a difference."""
    if not cell.n:
        return "nan" if cell.values else "-"
    return mean_and_std(metric, cell, sign="+" if cell.column in DIFFERENCES else "")
