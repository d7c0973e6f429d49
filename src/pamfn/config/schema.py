"""What can be chosen: the schema of the configuration, but for the arguments of its `_target_`s."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

Node = dict[str, Any]
"""A `_target_` and its arguments, checked against the target's signature."""

RuleName = Literal["best_on_test", "last", "last10", "holdout", "refit"]
"""The rules by which an epoch is chosen; what they do is in evaluation/selection.py."""

ReportedRule = Literal["best_on_test", "holdout", "refit"]
"""The rules of which a protocol reports the number."""

Fraction = Annotated[float, Field(ge=0, lt=1)]

SEEDS = 2**32
"""So many different seeds, from 0 on, do numpy's generators take."""

Seed = Annotated[int, Field(ge=0, lt=SEEDS)]


def problem_of_label(text: str) -> str | None:
    """What keeps a text from being the name of data, of a stream or of an extractor."""
    if re.fullmatch(r"\w[\w .+-]{0,99}", text):
        return None
    return "expected up to 100 letters, digits, blanks and . _ + - that begin with a letter or digit"


def name_of(text: str) -> str:
    if problem := problem_of_label(text):
        raise ValueError(problem)
    return text


def folder_of(text: str) -> str:
    if not re.fullmatch(r"\w[\w .+-]{0,254}", text):
        raise ValueError("expected the name of a run's folder")
    return text


Name = Annotated[str, AfterValidator(name_of)]
"""Of data, of streams and of extractors: they become parts of paths, columns and plots."""

Folder = Annotated[str, AfterValidator(folder_of)]
"""The name of a run's folder."""


CUT = {
    "data.skip_first_line": "A header is found by itself. To leave out a video, delete its line from the label file.",
    "data.test_batch_size": "A video's score does not depend on its batch. Leave it out.",
    "data.test_crop": "Videos are scored whole. Leave it out.",
    "keep_maps_gib": "Every batch is computed anew, as keep_maps_gib=0 did. Leave it out.",
    "trainer.profiler": "Its report was not shown; torch.profiler around a training shows more.",
    "seeds": "Sweep them: -m seed=0,1,2, side by side with hydra/launcher=joblib.",
}
"""Settings that there are no more, and what to use instead. Old results that have them are read."""

NEUTRAL = {"data.skip_first_line": False, "data.test_crop": "whole"}
"""{a setting of `CUT`: the only value that changed no number}; of those not listed none did."""


def without_cut(config: Node) -> Node:
    """The configuration of an old result without the settings of `CUT` that changed no number.

    One that did stays in it: such a run is read, and refused where it would be scored again.
    """
    kept = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    for place in CUT:
        group, _, key = place.rpartition(".")
        node = kept.get(group) if group else kept
        if isinstance(node, dict) and key in node and node[key] == NEUTRAL.get(place, node[key]):
            del node[key]
    return kept


class Strict(BaseModel):
    """No unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Paths(Strict):
    """Where data is read, absolute, so that a run can be scored again from anywhere; where results are written."""

    data_dir: Annotated[str, AfterValidator(os.path.abspath)]
    output_dir: str


class Stream(Strict):
    """One modality: the extractor in its file name and the width of its features."""

    extractor: Name
    width: int = Field(gt=0, le=2**20)


class StageRecipe(Strict):
    """How one stage is trained. `clip`: largest gradient norm. `head_lr_scale`: the head's rate over the others'."""

    optimizer: Literal["sgd", "adamw"]
    lr: float = Field(gt=0)
    lr_min: float = Field(ge=0)
    momentum: Fraction
    weight_decay: float = Field(ge=0)
    schedule: Literal["cosine", "none"]
    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    clip: Annotated[float, Field(gt=0)] | None
    head_lr_scale: float = Field(gt=0)


class BaselineRecipe(StageRecipe):
    """How a compared method is trained. `crop`: segments of a training crop, None where videos are taken whole.

    schedule `steps`: the rate falls by `drop_factor` each of `drops` epochs before the end, all of which must be within
    `epochs`.
    """

    schedule: Literal["cosine", "none", "steps"]  # type: ignore[assignment]
    crop: Annotated[int, Field(gt=0)] | None
    drops: list[int] = []
    drop_factor: float = Field(default=0.1, gt=0, lt=1)


class Readings(Strict):
    """Where text and code differ about the network (docs/paper-vs-code.md); `conf/model` takes them from here."""

    double_negation: bool
    policy_layers: Literal[1, 2]
    decoding: Literal["argmax", "sample", "mean"]
    frozen: Literal["eval", "train"]
    temperature: Literal["positive", "unconstrained"]
    shared_attention: bool


class Recipe(Strict):
    """How both stages are trained. stages: 2, or 1 to train everything from scratch together by `fusion`.

    baseline: instead of these, for a model without branches; None for one that is solved and not trained.
    """

    stages: Literal[1, 2]
    branch: StageRecipe
    fusion: StageRecipe
    baseline: BaselineRecipe | None = None
    readings: Readings


class Protocol(Strict):
    """How the reported epoch is chosen.

    select: `test` (best on the test set, as published) or `holdout` (best on a part of train). holdout: that part.
    refit: train on all of train for the chosen number of epochs, then test that.
    """

    select: Literal["test", "holdout"]
    holdout: Fraction
    refit: bool


class Logger(Strict):
    """Weights & Biases; the curves are always written to the run folder. mode: `auto` is offline without an account."""

    wandb: bool
    project: str
    entity: str | None
    group: str | None
    tags: list[str]
    mode: Literal["auto", "online", "offline"]


class Subsets(Strict):
    """Rows of a table for every subset of a data set's streams, of these sizes (-1: all streams, -2: all but one).

    name: what a row is called, `PAMFN, {}`. ablation: what its network is otherwise. setting: whether it has only these
    streams, or the others are zeroed at test time.
    """

    name: str
    ablation: str
    setting: Literal["modalities", "available"]
    sizes: Annotated[list[int], Field(min_length=2, max_length=2)]


class Table(Strict):
    """A table of the paper as a sweep over `hydra.sweeper.params`.

    source: where in the paper. reference: file of the paper's figures in experiments/reference. row, column: the swept
    settings. rows: {value of the row's setting: its name in the table and in the reference}. full: the row that the
    others are compared with. side_by_side: what stands before the comma in a row's name is shown as a column.
    in_reference: {value of the row's setting: its name in the reference} where that is another. costs: parameters and
    inference time are shown too. metric: what is shown unless another is asked for. notes: what is said below the
    paper's figures. streams: what stands in the place of rows by RGB, flow and audio where there are not three streams.
    """

    name: str
    title: str
    source: str
    reference: str | None
    row: str
    column: str
    rows: dict[str, str]
    full: str | None
    side_by_side: bool = False
    in_reference: dict[str, str] = {}
    costs: bool = False
    metric: Literal["srcc", "map"] = "srcc"
    notes: list[str] = []
    streams: list[Subsets] = []


class Config(Strict):
    """One job: both stages, or one branch when a single modality is chosen."""

    seed: Seed
    table: Table | None
    modalities: list[str] | None
    available: list[str] | None
    threads: Annotated[int, Field(gt=0, le=1024)]
    resume_seconds: float = Field(ge=0)
    compile: bool = False
    paths: Paths
    data: Node
    features: dict[Name, Stream]
    model: Node
    recipe: Recipe
    protocol: Protocol
    trainer: Node
    logger: Logger

    @property
    def choosing(self) -> "Config":
        """The job whose best held-out epoch `protocol.refit` trains for: the same without it."""
        return self.model_copy(update={"protocol": self.protocol.model_copy(update={"refit": False})})

    @property
    def streams(self) -> dict[str, Stream]:
        """The chosen modalities, in the order of the features."""
        return {m: s for m, s in self.features.items() if self.modalities is None or m in self.modalities}

    @property
    def is_baseline(self) -> bool:
        """Whether the model is trained in one piece: it takes feature widths, not branches."""
        return "branch" not in self.model


Number = float | None
"""Of a result: null where it was not finite."""


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
    """What result.json holds, in this version of its format.

    The first runs have no `branches`, `left_out`, `labels`, `inference_ms` and `chosen`. `available` and
    `network` are of a network scored with modalities missing.
    """

    model_config = ConfigDict(extra="ignore")

    name: Name
    kind: Literal["branch", "fusion", "missing", "baseline"]
    modalities: Annotated[list[Name], Field(min_length=1)]
    seed: Seed
    reported: ReportedRule
    metrics: dict[RuleName, dict[str, Number]]
    branches: dict[Name, Folder] = {}
    data_source: Literal["real", "synthetic"]
    data_files: dict[str, str]
    videos: dict[str, Annotated[int, Field(ge=0)]]
    left_out: dict[str, Any] = {}
    labels: dict[str, Any] | None = None
    score_range: Annotated[float, Field(ge=0)] | None
    decisions: list[list[Annotated[int, Field(ge=0, lt=2**53)]]] | None
    parameters: Parameters
    chosen: dict[str, Any] = {}
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
    """What keeps a result.json from being used: a sentence for every key that is missing or cannot be right."""
    try:
        result = Result.model_validate(content)
    except ValidationError as error:
        return [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
    needed = {result.reported, "last"} - set(result.metrics)
    strangers = [m for m in result.modalities if m not in result.config.features]
    problems = [f"metrics: no {name}" for name in sorted(needed)]
    problems += [
        f"metrics.{name}: neither srcc nor map" for name, of in result.metrics.items() if not {"srcc", "map"} & set(of)
    ]
    problems += [f"modalities: no {name} among config.features" for name in strangers]
    problems += ["modalities: some of them twice"] if len(set(result.modalities)) < len(result.modalities) else []
    problems += ["videos: no test"] if not result.videos.get("test") else []
    problems += [
        f"config.{place}._target_: missing"
        for place in ("data", "model", "trainer")
        if not isinstance(getattr(result.config, place).get("_target_"), str)
    ]
    if (result.kind == "baseline") != result.config.is_baseline:
        problems.append(f"kind: {result.kind} does not go with its config.model")
    problems += [f"{place}: holds {text!a}" for place, text in unprintable(content)]
    if result.kind == "missing" and result.network is None:
        problems.append("network: missing")
    if result.kind == "branch" and len(result.modalities) != 1:
        problems.append("modalities: a branch has one")
    return problems


def unprintable(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Texts, names included, with characters that would do something to whoever prints them."""
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
