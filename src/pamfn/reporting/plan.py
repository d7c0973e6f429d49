"""Say what a sweep would do: which runs are done, and how long the others take."""

from collections.abc import Collection, Sequence
from statistics import median
from typing import Any, NamedTuple

from pamfn.config.schema import Config
from pamfn.errors import InputError
from pamfn.reporting.collect import Result, every_result
from pamfn.reporting.sweep import Job, Sweep
from pamfn.runs.folder import Run
from pamfn.runs.lookup import Kind, finished, locate, wanted


def plan(sweep: Sweep) -> str:
    """List every job in a line: done or not, and its hours by the time that finished runs like it took."""
    known = every_result(sweep.jobs[0].config.paths.output_dir)
    lines, done, needed = [], 0, dict[str, float | None]()
    for job in sweep.jobs:
        name = job.run.path.name
        try:
            begun = job.run.file("resume.ckpt").exists()
            state = "done" if finished(job.config) else "interrupted" if begun else "missing"
        except InputError as error:
            state = f"unreadable: {error}"
        own = dict[str, float | None]()
        if state != "done":
            unfinished = (net for net in nets(job) if not net.run.file("result.json").exists())
            own = {net.run.path.name: hours(net.config, net.kind, net.modalities, known) for net in unfinished}
        time = "" if state == "done" else f"{sum_of(own.values())} h".rjust(8)
        needed |= own
        done += state == "done"
        place = f"seed {job.seed}" + ("" if job.fold is None else f" fold {job.fold}")
        lines.append(f"  {job.row:<28} {sweep.data[job.column]:<12} {place}  {time:<9} {state:<12} {name}")
    lines += [f"  left out: {problem}" for problem in sweep.problems]
    lines.append(f"{done} of {len(sweep.jobs)} done{rest_of(list(needed.values()))}.")
    return "\n".join(lines)


def sum_of(needed: Collection[float | None]) -> str:
    """The hours of the networks that a job trains, branches that other jobs share with it included."""
    return "?" if None in needed else f"{sum(hours or 0 for hours in needed):.2f}"


def rest_of(needed: Sequence[float | None]) -> str:
    """What is said of the networks that are not finished, given the hours of each."""
    known = [hours for hours in needed if hours is not None]
    unknown = len(needed) - len(known)
    parts = [f"about {sum(known):.1f} h of one thread"] if known else []
    parts += [f"{unknown} network{'s' * (unknown > 1)} of unknown cost"] if unknown else []
    return f"; the others need {', and '.join(parts)}" if parts else ""


class Net(NamedTuple):
    """A network that a job needs trained: where its result is, or will be, and what it is."""

    run: Run
    config: Config
    kind: Kind
    modalities: list[str]


def nets(job: Job) -> list[Net]:
    """The networks that a job needs trained: the fused one and those of stage 1, or a method.

    With `protocol.refit` those that choose the number of epochs, too; what is solved at once has no epochs to choose.
    """
    kind, modalities = wanted(job.config)
    trained: Kind = "fusion" if kind == "missing" else kind
    parts: list[tuple[Kind, list[str]]] = [(trained, modalities)]
    if trained == "fusion" and job.config.recipe.stages == 2:
        for modality in modalities:
            parts.append(("branch", [modality]))
    refit = job.config.protocol.refit and getattr(job.config.recipe, trained) is not None
    configs = [job.config, job.config.choosing] if refit else [job.config]
    return [Net(locate(config, *part), config, *part) for config in configs for part in parts]


def hours(config: Config, kind: Kind, modalities: list[str], known: Sequence[Result]) -> float | None:
    """Hours by the median time of an epoch in finished runs of the same network on the same data; None without any.

    What took a GPU or several threads says nothing about one. With `protocol.refit` it is at most as much.
    """
    recipe = getattr(config.recipe, kind)
    epochs = recipe.epochs if recipe else 1  # solved at once
    wanted_epoch = of_epoch(config.model_dump(), kind, modalities)
    like = [
        result["times"]["seconds_per_epoch"]
        for result in known
        if result["kind"] == kind
        and same_data(result["name"], config.data.get("name"))
        and on_one_thread(result)
        and of_epoch(result["config"], kind, result["modalities"]) == wanted_epoch
    ]
    return median(like) * epochs / 3600 if like else None


def same_data(a: str | None, b: str | None) -> bool:
    """Whether two names are of the same videos: features that were made up cost what real ones do."""
    return (a or "").removesuffix("_synthetic") == (b or "").removesuffix("_synthetic")


def on_one_thread(result: Result) -> bool:
    """Whether a run was trained on one thread of a CPU."""
    machine, trainer = result["machine"], result["config"]["trainer"]
    return machine["threads"] == 1 and (machine["gpu"] is None or trainer.get("accelerator") == "cpu")


def of_epoch(settings: dict[str, Any], kind: Kind, modalities: list[str]) -> tuple[Any, ...]:
    """The part of a configuration that decides what an epoch of a network costs on given videos."""
    data, model, protocol = settings["data"], settings["model"], settings["protocol"]
    recipe = settings["recipe"].get(kind) or {}
    return (
        [settings["features"][m]["width"] for m in modalities],
        model["branch"] if kind == "branch" else model,
        (data.get("crop"), data.get("bags")),
        (recipe.get("batch_size"), recipe.get("crop")),
        0 if protocol["refit"] else protocol["holdout"],
        settings["trainer"].get("precision"),
    )
