"""The typed schema of the configuration; arguments of `_target_`s are checked in targets.py."""

import os
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Node = dict[str, Any]
"""A `_target_` and its arguments, checked against the target's signature."""

RuleName = Literal["best_on_test", "last", "last10", "holdout", "refit"]
"""Rules by which an epoch is chosen; evaluation/selection.py says what they do."""

ReportedRule = Literal["best_on_test", "last", "holdout", "refit"]
"""The rules that a protocol can report."""

Fraction = Annotated[float, Field(ge=0, lt=1)]

SEEDS = 2**32
"""Numpy's generators take seeds from 0 up to this, exclusive."""

Seed = Annotated[int, Field(ge=0, lt=SEEDS)]


NAME = re.compile(r"\w[\w .+-]{0,99}")
NO_NAME = "expected up to 100 letters, digits, blanks and . _ + - that begin with a letter or digit"


def matching(pattern: re.Pattern[str], otherwise: str) -> AfterValidator:
    """A validator of whole texts; `otherwise` is the error's message."""

    def match(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(otherwise)
        return text

    return AfterValidator(match)


Name = Annotated[str, matching(NAME, NO_NAME)]
"""The name of data, of a stream or of an extractor: it becomes part of paths, columns and plots."""


class Strict(BaseModel):
    """A model that refuses unknown keys and converts nothing silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Paths(Strict):
    """Folders: data_dir is made absolute, so that a run can be scored again from anywhere."""

    data_dir: Annotated[str, AfterValidator(os.path.abspath)]
    output_dir: str


class Stream(Strict):
    """A modality's features: the extractor in their file name, and their width."""

    extractor: Name
    width: int = Field(gt=0, le=2**20)


class StageRecipe(Strict):
    """The training of one stage. clip: largest gradient norm. head_lr_scale: the head's learning rate by the rest's."""

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
    """The training of a compared method. crop: segments of a training crop; None trains on whole videos.

    schedule: `steps` multiplies the rate by `drop_factor` at each of `drops`, in epochs before the end.
    """

    schedule: Literal["cosine", "none", "steps"]  # type: ignore[assignment]
    crop: Annotated[int, Field(gt=0)] | None
    drops: list[int] = []
    drop_factor: float = Field(default=0.1, gt=0, lt=1)


class Readings(Strict):
    """Choices where paper and code differ (docs/paper-vs-code.md); `conf/model` reads them from here."""

    double_negation: bool
    policy_layers: Literal[1, 2]
    decoding: Literal["argmax", "sample", "mean"]
    frozen: Literal["eval", "train"]
    temperature: Literal["positive", "unconstrained"]
    shared_attention: bool


class Recipe(Strict):
    """The training of a job. stages: 2, or 1 to train everything from scratch together with `fusion`.

    baseline: used instead of branch and fusion by a model without branches; None if it is solved, not trained.
    """

    stages: Literal[1, 2]
    branch: StageRecipe
    fusion: StageRecipe
    baseline: BaselineRecipe | None = None
    readings: Readings


class Protocol(Strict):
    """The choice of the reported epoch, and of the test videos.

    select: `test` (best on the test set, as published), `holdout` (best on a part of train) or `last` (no choice).
    holdout: that part; with `last` its residuals still give prediction intervals.
    refit: train again on all of train for the chosen number of epochs, and test that network.
    folds: cross-validation instead of the data's own test videos: a number of folds, or a file of them.
    fold: the one that is tested.
    """

    select: Literal["test", "holdout", "last"]
    holdout: Fraction
    refit: bool
    folds: Annotated[int, Field(ge=2, le=1000)] | str | None = None
    fold: Annotated[int, Field(ge=0)] | None = None


class Logger(Strict):
    """Weights & Biases, beside the curves in the run folder. mode: `auto` is offline without an account."""

    wandb: bool
    project: str
    entity: str | None
    group: str | None
    tags: list[str]
    mode: Literal["auto", "online", "offline"]


class Subsets(Strict):
    """Rows of a table, one for every subset of a data set's streams.

    sizes: of the smallest and largest subset (-1: all streams, -2: all but one). name: of a row, e.g. `PAMFN, {}`.
    ablation: of its network. setting: the network has only these streams (`modalities`), or the others are zeroed at
    test time (`available`).
    """

    name: str
    ablation: str
    setting: Literal["modalities", "available"]
    sizes: Annotated[list[int], Field(min_length=2, max_length=2)]


class Table(Strict):
    """A table of the paper as a sweep over `hydra.sweeper.params`.

    source: its place in the paper.
    reference: file of the paper's figures in experiments/reference.
    row, column: the swept settings.
    rows: {value of the row's setting: its name in the table and in the reference}.
    full: the row that the others are compared with.
    side_by_side: the part of a row's name before the comma becomes a column.
    in_reference: {value of the row's setting: its name in the reference}, where it differs from the table's.
    costs: also show parameters and inference time.
    metric: the default of `pamfn.tables --metric`.
    notes: sentences below the paper's figures.
    streams: replace the rows by RGB, flow and audio for data that do not have three streams.
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
    """One job: both stages, or one branch when a single modality is chosen.

    main, finetune: roles of streams, which the files in `conf/model` read from here; the first runs have none.
    """

    seed: Seed
    table: Table | None
    modalities: list[str] | None
    main: str | None = None
    finetune: list[str] | None = None
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
