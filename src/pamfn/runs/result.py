"""The format of result.json, checked whole before any of it is used: run folders are passed around."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from pamfn.config.problems import REMOVED
from pamfn.config.schema import Config, Name, Node, ReportedRule, RuleName, Seed, Strict, matching

Kind = Literal["branch", "fusion", "missing", "baseline"]
"""A branch, a fused network, a fused network scored with some modalities missing, or a compared method."""

Folder = Annotated[str, matching(re.compile(r"\w[\w .+-]{0,254}"), "expected the name of a run's folder")]

Number = float | None
"""A measured number; null where it was not finite."""


class Parameters(Strict):
    total: int = Field(ge=0)
    trained: int = Field(ge=0)


class Machine(Strict):
    system: str
    python: str
    cpu: str
    gpu: str | None
    threads: int = Field(gt=0)


class Times(Strict):
    started: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
    training_seconds: float = Field(ge=0)
    seconds_per_epoch: float = Field(ge=0)
    epochs: int = Field(ge=0)


class Result(Strict):
    """The content of a result.json.

    Fields with defaults: the first runs have no `branches`, `left_out`, `labels`, `groups`, `inference_ms` and
    `chosen`; only a network scored with modalities missing has `available` and `network`. groups: {test video: who or
    what several videos are of}.
    """

    model_config = ConfigDict(extra="ignore")

    name: Name
    kind: Kind
    modalities: Annotated[list[Name], Field(min_length=1)]
    seed: Seed
    reported: ReportedRule
    metrics: dict[RuleName, dict[str, Number]]
    branches: dict[Name, Folder] = Field(default={})
    data_source: Literal["real", "synthetic"]
    data_files: dict[str, str]
    videos: dict[str, Annotated[int, Field(ge=0)]]
    left_out: dict[str, Any] = Field(default={})
    labels: dict[str, Any] | None = None
    groups: dict[str, str] | None = None
    score_range: Annotated[float, Field(ge=0)] | None
    decisions: list[list[Annotated[int, Field(ge=0, lt=2**53)]]] | None
    parameters: Parameters
    chosen: dict[str, Any] = Field(default={})
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{7,64}\+?$")] | None
    versions: dict[str, str]
    machine: Machine
    times: Times
    inference_ms: Number = None
    peak_memory_mib: dict[str, float]
    available: list[Name] | None = None
    network: Folder | None = None
    config: Config


def problems_of_result(content: Mapping[str, Any]) -> list[str]:
    """Check a result.json: a sentence for every key that is missing or cannot be right."""
    try:
        result = Result.model_validate(content)
    except ValidationError as error:
        return [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
    config, modalities = result.config, result.modalities
    nodes = {"data": config.data, "model": config.model, "trainer": config.trainer}
    problems = [
        *(f"metrics: no {name}" for name in sorted({result.reported, "last"} - set(result.metrics))),
        *(
            f"metrics.{rule}: neither srcc nor map"
            for rule, of in result.metrics.items()
            if not {"srcc", "map"} & set(of)
        ),
        *(f"modalities: no {name} among config.features" for name in modalities if name not in config.features),
        *(
            f"config.{key}._target_: missing"
            for key, node in nodes.items()
            if not isinstance(node.get("_target_"), str)
        ),
        *(f"{place}: holds {text!a}" for place, text in unprintable(content)),
    ]
    wrong = {
        "modalities: some of them twice": len(set(modalities)) < len(modalities),
        "modalities: a branch has one": result.kind == "branch" and len(modalities) != 1,
        "videos: no test": not result.videos.get("test"),
        f"kind: {result.kind} does not go with its config.model": (result.kind == "baseline") != config.is_baseline,
        "network: missing": result.kind == "missing" and result.network is None,
    }
    return problems + [sentence for sentence, is_wrong in wrong.items() if is_wrong]


def unprintable(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Find texts, keys included, with characters that would act on the terminal that prints them."""
    if isinstance(value, str):
        if not value.isprintable():
            yield place, value[:20]
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from unprintable(key, place)
            yield from unprintable(part, f"{place}.{key}".lstrip(".") if key.isprintable() else place)
    elif isinstance(value, list):
        for part in value:
            yield from unprintable(part, place)


NEUTRAL = {"data.skip_first_line": False, "data.test_crop": "whole"}
"""{a removed setting: its only value that changed no number}; those not listed never changed one."""


def without_removed(config: Node) -> Node:
    """The configuration of an old result without removed settings.

    A setting that changed the numbers stays: such a run can be read, but is refused where it would be scored again.
    """
    kept = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    for place in REMOVED:
        group, _, key = place.rpartition(".")
        node = kept.get(group) if group else kept
        if isinstance(node, dict) and key in node and node[key] == NEUTRAL.get(place, node[key]):
            del node[key]
    return kept
