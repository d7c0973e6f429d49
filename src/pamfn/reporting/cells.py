"""The cells of a table: our number over seeds, its interval and p-value, and the paper's figure beside it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from pamfn.evaluation.bootstrap import Scored, bootstrap, bootstrap_over_folds
from pamfn.evaluation.intervals import detectable, holm, interval, paired_p, spread
from pamfn.evaluation.metrics import METRICS, Array, average, average_over_folds

COLUMNS = {
    "rg_ball": "Ball",
    "rg_clubs": "Clubs",
    "rg_hoop": "Hoop",
    "rg_ribbon": "Ribbon",
    "fisv_tes": "TES",
    "fisv_pcs": "PCS",
    **{
        f"youtube_{topic.lower()}{suffix}": topic
        for topic in ("Dog", "Gymnastics", "Parkour", "Skating", "Skiing", "Surfing")
        for suffix in ("", "_synthetic")
    },
}
"""Data sets by the paper's name of their column; any other is a column under its own name."""

AVERAGES = {
    "RG_Avg": ("Ball", "Clubs", "Hoop", "Ribbon"),
    "FisV_Avg": ("TES", "PCS"),
    "Avg": ("Dog", "Gymnastics", "Parkour", "Skating", "Skiing", "Surfing"),
}
"""The paper's averages and what they are over."""

SLIP = 0.0015
"""How far rounding can take a printed average from that of the printed figures it is over."""

NAN = float("nan")

MEAN = -1
"""Stands where a seed does for the number of a mean of several networks."""

Place = tuple[str, str]
"""A row's name and a column's."""


@dataclass(frozen=True)
class Measured:
    """One run's number for a cell, or that of the runs of all folds together.

    predicted: {test video: (true, predicted) points}, None where none are stored. groups: {test video: who or what
    several are of}; empty where they are independent. fold: {test video: the fold that tests it}; empty without folds.
    """

    row: str
    column: str
    seed: int
    value: float
    predicted: Mapping[str, tuple[float, float]] | None = None
    score_range: float = 1.0
    groups: Mapping[str, str] = field(default_factory=dict)
    fold: Mapping[str, int] = field(default_factory=dict)

    def of_folds(self, metric: str) -> list[float]:
        """The metric of every fold by itself."""
        videos: dict[int, list[str]] = {}
        for video, number in self.fold.items():
            videos.setdefault(number, []).append(video)
        assert self.predicted is not None
        pairs = [np.array([self.predicted[video] for video in of]).T for of in videos.values()]
        return [METRICS[metric].function(true, predicted, self.score_range) for true, predicted in pairs]


@dataclass(frozen=True)
class Comparison:
    """A row less the full row, over the same test videos and the seeds of both.

    low, high: 95 % interval. p: two-sided. p_holm: corrected for the rows of its column that are compared. seeds:
    those, where one of the rows has more. detectable: the smallest difference that these videos show in four of five
    cases.
    """

    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    seeds: tuple[int, ...]
    detectable: float


@dataclass(frozen=True)
class OverFolds:
    """Mean over seeds of the average over folds, its standard deviation over seeds, its 95 % interval.

    undefined: folds of all seeds that have no number, and are left out
    """

    mean: float
    std: float
    low: float
    high: float
    undefined: int


@dataclass(frozen=True)
class Cell:
    """Our number over seeds, the paper's, and how they compare; nan for what there is not.

    values: {seed: number}; {MEAN: number} of a mean of several networks. mean and std are over the seeds whose number
    is defined, n says how many. low, high: 95 % interval over test videos. to_full: None where the full row cannot be
    compared with. equal_to: other rows with the same numbers. misprint: the paper's average is not that of its own
    figures; what that would be.
    """

    row: str
    column: str
    values: Mapping[int, float] = field(default_factory=dict)
    mean: float = NAN
    std: float = NAN
    low: float = NAN
    high: float = NAN
    to_full: Comparison | None = None
    paper: float = NAN
    misprint: float = NAN
    equal_to: tuple[str, ...] = ()
    over_folds: OverFolds | None = None

    @property
    def n(self) -> int:
        return len(defined(self.values))

    @property
    def difference(self) -> float:
        """Ours less the paper's."""
        return self.mean - self.paper

    @property
    def p(self) -> float:
        """The p of the comparison with the full row; nan without one."""
        return NAN if self.to_full is None else self.to_full.p

    @property
    def comparable(self) -> bool:
        """Whether there is an interval and a figure of the paper."""
        return not (math.isnan(self.low) or math.isnan(self.paper))

    @property
    def outside(self) -> bool:
        """Whether the paper's figure lies outside our interval."""
        return self.comparable and not self.low <= self.paper <= self.high


def ordered(columns: Iterable[str]) -> list[str]:
    """Columns in the paper's order, every average behind its members if all are there, other data sets last."""
    given = dict.fromkeys(columns)
    known: list[str] = []
    for name, members in AVERAGES.items():
        known += [member for member in members if member in given]
        known += [name] if all(member in given for member in members) else []
    return [*known, *(column for column in given if column not in known)]


@dataclass(frozen=True)
class Resampled:
    """A cell's number in every resample of the test videos.

    truth: {test video: true points}. members: {seed: (r,)} of every column that the cell is the average over; of any
    other cell its own. observed: likewise {seed: number} of the test videos themselves.
    """

    metric: str
    truth: Mapping[str, float]
    members: Sequence[Mapping[int, Array]]
    observed: Sequence[Mapping[int, float]]

    @property
    def seeds(self) -> list[int]:
        return list(self.members[0])

    def over(self, seeds: Sequence[int]) -> Array:
        """The mean over these seeds, averaged over the members: (r,)."""
        means = [np.mean([member[seed] for seed in seeds], axis=0) for member in self.members]
        return means[0] if len(means) == 1 else average(self.metric, means)

    def observed_over(self, seeds: Sequence[int]) -> float:
        """The same of the test videos themselves."""
        means = [np.mean([member[seed] for seed in seeds]) for member in self.observed]
        return float(means[0] if len(means) == 1 else average(self.metric, means))


def cells_of(
    metric: str,
    rows: Sequence[str],
    columns: Sequence[str],
    full: str | None,
    measured: Sequence[Measured],
    paper: Mapping[Place, float],
) -> tuple[dict[Place, Cell], list[str]]:
    """Compute every cell of rows x columns (averages behind their members); a sentence for each number left out.

    full: the row that the others are compared with. paper: {(row, column): figure}.
    """
    runs: dict[Place, list[Measured]] = {}
    for one in measured:
        runs.setdefault((one.row, one.column), []).append(one)
    notes = [note for place in runs for note in warnings_of(metric, place, runs[place])]
    notes += [
        f"{', '.join(place)}: its runs were tested on different videos; no interval."
        for place in runs
        if len({frozenset(truth_of(one).items()) for one in runs[place] if one.predicted}) > 1
    ]
    samples = {place: sample for place in runs if (sample := resampled(metric, runs[place])) is not None}
    misprints = misprinted(metric, paper)
    cells: dict[Place, Cell] = {}
    for place in ((row, column) for row in rows for column in columns):
        if place[1] in AVERAGES:
            cell = averaged(metric, place, cells, samples)
        else:
            own = runs.get(place, [])
            cell = cell_of(*place, {one.seed: one.value for one in own})
            cell = replace(cell, over_folds=over_folds(metric, own))
        cells[place] = replace(cell, paper=paper.get(place, NAN), misprint=misprints.get(place, NAN))
    cells = {place: with_interval(cell, samples, full) for place, cell in cells.items()}
    return with_equals(with_holm(cells), runs), notes


def cell_of(row: str, column: str, values: Mapping[int, float]) -> Cell:
    """A cell with the mean and standard deviation of {seed: number}."""
    known = defined(values)
    return Cell(row, column, values, mean=float(np.mean(known)) if known else NAN, std=spread(known))


def over_folds(metric: str, runs: Sequence[Measured]) -> OverFolds | None:
    """The average over folds of a cell's runs; None without folds, or where seeds have different ones."""
    if not runs or not runs[0].fold or any(one.fold != runs[0].fold for one in runs):
        return None
    of_seeds = [one.of_folds(metric) for one in runs]
    undefined = sum(math.isnan(value) for values in of_seeds for value in values)
    means = defined(dict(enumerate(float(average_over_folds(metric, v, np.ones(len(v)))) for v in of_seeds)))
    if not means:
        return None
    scored = scored_of(runs)
    fold = [runs[0].fold[video] for video in scored.videos]
    low, high = interval(bootstrap_over_folds(metric, scored, fold).mean(axis=0))
    return OverFolds(float(np.mean(means)), spread(means), low, high, undefined)


def defined(values: Mapping[int, float]) -> list[float]:
    return [value for value in values.values() if not math.isnan(value)]


def warnings_of(metric: str, place: Place, runs: Sequence[Measured]) -> list[str]:
    """A warning for the runs of a cell whose number is nan, with the reason as their predictions show it."""
    seeds: dict[str, list[int]] = {}
    for one in runs:
        if math.isnan(one.value):
            seeds.setdefault(reason(metric, one), []).append(one.seed)
    return [
        f"WARNING: {', '.join(place)}: no number for seed {', '.join(map(str, alike))}, {why}; left out of the mean."
        for why, alike in seeds.items()
    ]


def reason(metric: str, run: Measured) -> str:
    """Why a run has no number."""
    true, predicted = zip(*run.predicted.values(), strict=True) if run.predicted else ((), ())
    if not METRICS[metric].is_correlation or not np.isfinite(predicted).all():
        return "where a score is not finite"
    if len(set(true)) == 1:
        return "since its test videos all have the same points: correlations are nan"
    if len(set(predicted)) == 1:
        return "which predicted the same score for every test video: its correlations are nan"
    return "whose correlations are nan (constant predictions have no correlation)"


def truth_of(run: Measured) -> dict[str, float]:
    """{test video: true points}; empty where no predictions are stored."""
    return {video: true for video, (true, _) in (run.predicted or {}).items()}


def resampled(metric: str, runs: Sequence[Measured]) -> Resampled | None:
    """The cell's number in every resample of its test videos; None unless all its runs predict the same ones."""
    used = [one for one in runs if not math.isnan(one.value)]
    if not used or not all(one.predicted and truth_of(one) == truth_of(used[0]) for one in used):
        return None
    of_seeds = dict(zip((one.seed for one in used), bootstrap(metric, scored_of(used)), strict=True))
    return Resampled(metric, truth_of(used[0]), [of_seeds], [{one.seed: one.value for one in used}])


def scored_of(runs: Sequence[Measured]) -> Scored:
    """The predictions of runs that were tested on the same videos."""
    first = runs[0]
    truth = truth_of(first)
    videos = tuple(sorted(truth))
    predicted = np.array([[(one.predicted or {})[video][1] for video in videos] for one in runs])
    groups = tuple(first.groups[video] for video in videos) if first.groups else None
    return Scored(videos, np.array([truth[video] for video in videos]), predicted, first.score_range, groups)


def averaged(metric: str, place: Place, cells: Mapping[Place, Cell], samples: dict[Place, Resampled]) -> Cell:
    """The cell of an average, over the seeds that all its members have; its resamples join `samples`."""
    row, column = place
    members = [cells[row, member] for member in AVERAGES[column]]
    common = [seed for seed in members[0].values if all(seed in member.values for member in members)]
    values = {seed: float(average(metric, [member.values[seed] for member in members])) for seed in common}
    seeds = [seed for seed in common if not math.isnan(values[seed])]
    if not seeds:
        return Cell(row, column, values)
    means = [float(np.mean([member.values[seed] for seed in seeds])) for member in members]
    complete = all(member.n == len(seeds) for member in members)
    of = {member.column: samples[row, member.column] for member in members if (row, member.column) in samples}
    if complete and len(of) == len(members):
        truth = {f"{name}/{video}": true for name, sample in of.items() for video, true in sample.truth.items()}
        members, observed = ([getattr(s, part)[0] for s in of.values()] for part in ("members", "observed"))
        samples[place] = Resampled(metric, truth, members, observed)
    return Cell(row, column, values, mean=float(average(metric, means)), std=spread(defined(values)))


def with_interval(cell: Cell, samples: Mapping[Place, Resampled], full: str | None) -> Cell:
    """The cell with its interval, and compared with the full row if that was tested on the same videos."""
    sample = samples.get((cell.row, cell.column))
    if sample is None:
        return cell
    low, high = interval(sample.over(sample.seeds))
    other = samples.get((full, cell.column)) if full is not None and full != cell.row else None
    compared = None if other is None or other.truth != sample.truth else comparison(sample, other)
    return replace(cell, low=low, high=high, to_full=compared)


def comparison(sample: Resampled, full: Resampled) -> Comparison | None:
    """Compare a row with the full one over the seeds of both, a mean of networks with all of its; None without any."""
    is_mean = sample.seeds == [MEAN]
    seeds = sample.seeds if is_mean else [seed for seed in sample.seeds if seed in full.seeds]
    if not seeds:
        return None
    own, others = sample.over(seeds), full.over(full.seeds if is_mean else seeds)
    low, high = interval(own - others)
    p = paired_p(own, others)
    some = () if is_mean or len(seeds) == len(sample.seeds) == len(full.seeds) else tuple(seeds)
    difference = sample.observed_over(seeds) - full.observed_over(full.seeds if is_mean else seeds)
    return Comparison(difference, low, high, p, p, some, detectable(own, others))


def with_holm(cells: Mapping[Place, Cell]) -> dict[Place, Cell]:
    """The cells, their p-values corrected for how many rows a column compares."""
    corrected = dict(cells)
    for column in dict.fromkeys(column for _, column in cells):
        compared = {
            place: cell.to_full
            for place, cell in cells.items()
            if place[1] == column and cell.to_full is not None and not math.isnan(cell.to_full.p)
        }
        if not compared:
            continue
        for (place, one), p in zip(compared.items(), holm([one.p for one in compared.values()]), strict=True):
            corrected[place] = replace(cells[place], to_full=replace(one, p_holm=p))
    return corrected


def misprinted(metric: str, paper: Mapping[Place, float]) -> dict[Place, float]:
    """{place: what it would be} of the paper's averages that are not those of its own figures."""
    misprints = {}
    for (row, column), printed in paper.items():
        members = [paper[row, member] for member in AVERAGES.get(column, ()) if (row, member) in paper]
        if members and len(members) == len(AVERAGES[column]):
            computed = float(average(metric, members))
            if abs(computed - printed) > SLIP:
                misprints[row, column] = computed
    return misprints


def with_equals(cells: Mapping[Place, Cell], runs: Mapping[Place, Sequence[Measured]]) -> dict[Place, Cell]:
    """The cells, each with the other rows of its column that came out the same."""
    equal: dict[Place, list[str]] = {}
    for one, other in combinations(runs, 2):
        if one[1] == other[1] and same(runs[one], runs[other]):
            equal.setdefault(one, []).append(other[0])
            equal.setdefault(other, []).append(one[0])
    return {place: replace(cell, equal_to=tuple(equal.get(place, ()))) for place, cell in cells.items()}


def same(runs: Sequence[Measured], others: Sequence[Measured]) -> bool:
    """Whether all seeds that both have gave the same number to six digits, and the same predictions if they are stored.

    Ranks of few videos often agree by chance; predictions do not.
    """
    of = {other.seed: other for other in others}
    pairs = [(one, of[one.seed]) for one in runs if one.seed in of]
    return bool(pairs) and all(
        f"{one.value:.6g}" == f"{other.value:.6g}" and rounded(one, other) == rounded(other, one)
        for one, other in pairs
    )


def rounded(run: Measured, other: Measured) -> dict[str, str] | None:
    """Predictions to six digits, if both runs have some."""
    if not run.predicted or not other.predicted:
        return None
    return {video: f"{predicted:.6g}" for video, (_, predicted) in run.predicted.items()}
