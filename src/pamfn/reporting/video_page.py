"""Render what was predicted for one video, and why, as an HTML page that loads nothing."""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jinja2 import StrictUndefined, Template

from pamfn.config.extract_schema import Reading
from pamfn.pipeline.prediction import LEVELS, Explained, FusionSteps, Occlusion, Prediction
from pamfn.reporting.render import UNENCODABLE

TEMPLATE = Path(__file__).with_name("video_page.html.jinja")

THUMBNAILS = 12
"""Thumbnails of a strip; a phone shows every other one."""

SHOWN_WINDOWS = 2
"""Windows that are shown of those whose masking loses most, and as many of those whose masking gains most."""

MOST_VALUES = 1000
"""Values of sound that are drawn; more are joined."""

QUIETEST_SHOWN = -60.0
"""Loudness in dB below which a plot shows nothing."""

BINS = 30
"""Bars of the histogram of training scores."""

MARGIN = 6.0
"""Share of a plot's height, in percent, above the highest and below the lowest value."""


@dataclass(frozen=True)
class Axis:
    """Where values lie, in percent of a plot's width or height, and which of them are written beside it.

    ticks: (percent, text)
    """

    low: float
    high: float
    ticks: Sequence[tuple[float, str]] = ()

    def at(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 3)


@dataclass(frozen=True)
class Bar:
    """A rectangle, in percent of the plot. kind: how it is drawn: `loss`, `gain` or `count`."""

    left: float
    top: float
    width: float
    height: float
    kind: str


@dataclass(frozen=True)
class Mark:
    """A letter above the plot, or below it, with the span that it names, in percent."""

    letter: str
    left: float
    width: float
    below: bool


@dataclass(frozen=True)
class Plot:
    """A plot over time, or over points, all places in percent of its width or height.

    summary: what it shows, in words for who does not see it
    heights: (percent from the top, text) beside it
    lines: {name: points of an SVG polyline}
    rule: height of a dashed line. zero: height of a solid line. at: place of an upright line
    head, rows: the numbers as a table
    """

    title: str
    caption: str
    summary: str
    axis: Axis
    heights: Sequence[tuple[float, str]]
    lines: Mapping[str, str] = field(default_factory=dict)
    bars: Sequence[Bar] = ()
    marks: Sequence[Mark] = ()
    rule: float | None = None
    zero: float | None = None
    at: float | None = None
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    low: bool = False


@dataclass(frozen=True)
class Lane:
    """A line below the histogram: an interval, or the points of several networks, in percent of its width."""

    label: str
    left: float
    width: float
    dots: Sequence[float] = ()


@dataclass(frozen=True)
class Window:
    """A window that matters. loss: points that the score loses when it is masked; frame, flow: JPEG as data URIs."""

    letter: str
    first: int
    last: int
    loss: float
    when: str
    middle: str
    frame: str | None = None
    flow: str | None = None


class Clock:
    """Time in a video: in seconds where it is known how long a segment is, else in segments, counted from 1.

    noun: what a segment is called: `segment` or `clip`
    """

    def __init__(self, segments: int, seconds: float | None, noun: str = "segment") -> None:
        self.scale, self.in_seconds, self.noun = seconds or 1.0, seconds is not None, noun
        self.unit = "seconds" if self.in_seconds else f"{noun}s"
        end = segments * self.scale
        fine = (0.1, 0.2, 0.5) if self.in_seconds else ()
        steps = [*fine, *(base * 10**power for power in range(6) for base in (1, 2, 5))]
        step = next((step for step in steps if end / step <= 6), steps[-1])
        places = [i * step for i in range(int(end / step + 1e-9) + 1)]
        self.axis = Axis(0.0, end, [(round(100 * place / end, 3), f"{place:g}") for place in places])

    def at(self, segment: float) -> float:
        """Percent of the time axis where a segment begins."""
        return self.axis.at(segment * self.scale)

    def span(self, first: int, end: int) -> str:
        """Return `12.8 to 16.6 s`, `segments 11 to 13` or `clip 7`, from the first segment to that before the end."""
        if self.in_seconds:
            return f"{first * self.scale:.1f} to {end * self.scale:.1f} s"
        return f"{self.noun} {end}" if end - first == 1 else f"{self.noun}s {first + 1} to {end}"

    def duration(self, segments: int) -> str:
        if self.in_seconds:
            return f"{segments * self.scale:.1f} s"
        return f"{segments} {self.noun}{'s' * (segments > 1)}"

    def moment(self, segment: float) -> str:
        """Return `12.8 s`, or the segment in which a moment lies."""
        return f"{segment * self.scale:.1f} s" if self.in_seconds else f"{self.noun} {int(segment) + 1}"


def video_page(
    explained: Explained,
    *,
    networks: Sequence[str],
    unit_range: tuple[float, float] | None,
    training_points: np.ndarray | None,
    file: Path | None,
    reading: Reading | None,
    synthetic: bool,
) -> str:
    """Return the self-contained page of one video. Characters that no page can hold are replaced.

    networks: names of the runs that scored it
    unit_range: lowest and highest possible points
    training_points: (n,) the judges' points of the training videos
    file: the video itself, for its frames and sound; they are left out where the length of a segment is not known
    reading: how extraction read it; None as it does by default
    synthetic: whether the network was trained on synthetic data

    Raises:
        InputError: when the video cannot be read.
    """
    prediction = explained.prediction
    clock = Clock(explained.segments, explained.segment_seconds, "segment" if prediction.scores is None else "clip")
    occlusion = finite(explained.occlusion)
    windows = windows_that_matter(occlusion, clock)
    seen = Shown() if file is None or not clock.in_seconds else seen_of(file, reading, windows, explained, clock)
    known = None if training_points is None else training_points[np.isfinite(training_points)]
    known = None if known is None or not len(known) else known
    stages = explained.stages
    plots = [
        attention_plot(chosen([stage for stage in stages if stage.attention]), clock),
        decision_plot(chosen([stage for stage in stages if stage.decision is not None]), clock),
        scores_plot(prediction.scores, clock)
        if prediction.scores is not None
        else occlusion_plot(occlusion, windows, clock),
        *seen.sound,
    ]
    template = Template(
        TEMPLATE.read_text(encoding="utf-8"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = template.render(
        explained=explained,
        prediction=prediction,
        networks=networks,
        unit_range=unit_range,
        synthetic=synthetic,
        clock=clock,
        highest=None if prediction.scores is None else clock.span(*highest_clip(prediction.scores)),
        intervals=intervals_of(prediction),
        rank=None if known is None else rank(prediction.points, known),
        scale=None if prediction.scores is not None else scale_plot(prediction, known, unit_range),
        lanes=[] if prediction.scores is not None else lanes_of(prediction, known, unit_range),
        thumbnails=seen.thumbnails,
        left_out=file is not None and not clock.in_seconds,
        plots=[plot for plot in plots if plot is not None],
        windows=seen.windows or windows,
        occlusion=occlusion,
        streams=[] if occlusion is None else stream_bars(occlusion.stream_losses),
        points=points,
        signed=signed,
    )
    return UNENCODABLE.sub("\N{REPLACEMENT CHARACTER}", text)


# ---- numbers as text


def points(value: float) -> str:
    """`17.24`; with more decimals where two would show nothing."""
    text = f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"
    return text.replace("-", "−")


def signed(value: float) -> str:
    """`+0.31`, `−0.12`, `0.00`."""
    return ("+" if value > 0 else "") + points(value)


def rank(value: float, training: np.ndarray) -> str:
    """Say how a score compares with those of the training videos (n,)."""
    count, below = len(training), int((training < value).sum())
    videos = f"{count} training {'video' if count == 1 else 'videos'}"
    if count == 1:
        return f"{'higher' if below else 'not higher'} than that of the only training video"
    if below in (0, count):
        return f"higher than all {videos}" if below else f"not higher than any of the {videos}"
    percent = math.floor(100 * below / count)
    return f"higher than {percent or 'less than 1'} % of the {videos}"


def table(columns: Mapping[str, Sequence[float]], when: Iterable[str]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of a table of numbers over time."""
    rows = [[time, *map(points, values)] for time, *values in zip(when, *columns.values(), strict=True)]
    return ["time", *columns], rows


# ---- the score among those of training


def intervals_of(prediction: Prediction) -> dict[float, tuple[float, float]]:
    """{level: (low, high)}, the narrowest first."""
    given = dict(prediction.intervals)
    if not given and prediction.low is not None and prediction.high is not None:
        given[LEVELS[-1]] = (prediction.low, prediction.high)
    return {level: given[level] for level in sorted(given)}


def scale_of(
    prediction: Prediction, training: np.ndarray | None, unit_range: tuple[float, float] | None
) -> Axis | None:
    """The axis of points: as wide as everything that is drawn on it; None where there is nothing beside the score."""
    ends = [end for limits in intervals_of(prediction).values() for end in limits]
    shown = [prediction.points, *ends, *prediction.members.values()]
    if training is not None:
        shown += [float(training.min()), float(training.max())]
    elif unit_range is not None:
        shown += unit_range
    low, high = min(shown), max(shown)
    if not high > low:
        return None
    margin = 0.03 * (high - low)
    low, high = low - margin, high + margin
    step = 10.0 ** math.floor(math.log10((high - low) / 6))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    numbers = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    ticks = [(round(100 * (n - low) / (high - low), 3), f"{n:.10g}".replace("-", "−")) for n in numbers]
    return Axis(low, high, ticks)


def scale_plot(
    prediction: Prediction, training: np.ndarray | None, unit_range: tuple[float, float] | None
) -> Plot | None:
    """Plot the score on the scale of the training videos' points, over their histogram where they are known."""
    axis = scale_of(prediction, training, unit_range)
    if axis is None:
        return None
    at, bars, heights, rows = axis.at(prediction.points), [], [], []
    summary = f"{points(prediction.points)} points"
    caption = "The upright line is the score."
    if training is not None:
        low, high = float(training.min()), float(training.max())
        edges = np.linspace(low, high, BINS + 1) if high > low else np.array([axis.low, axis.high])
        counts, _ = np.histogram(training, edges)
        most = int(counts.max())
        tall = 100 - MARGIN
        for left, right, count in zip(edges[:-1], edges[1:], counts.tolist(), strict=True):
            x, height = axis.at(left), round(tall * count / most, 3)
            bars += [Bar(x, 100 - height, axis.at(right) - x, height, "count")] if count else []
        heights = [(MARGIN, str(most))]
        rows = [[f"{points(a)} to {points(b)}", str(n)] for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)]
        summary += f" among {len(training)} training videos of {points(low)} to {points(high)}"
        caption = f"Bars count the {len(training)} training videos by their judges' points. {caption}"
    return Plot(
        "The score among those of training" if training is not None else "The score on its scale",
        caption,
        summary,
        axis,
        heights,
        bars=bars,
        at=at,
        head=["points", "training videos"],
        rows=rows,
        low=training is None,
    )


def lanes_of(prediction: Prediction, training: np.ndarray | None, unit_range: tuple[float, float] | None) -> list[Lane]:
    """The intervals, and every network's points, on the scale of `scale_plot`."""
    axis = scale_of(prediction, training, unit_range)
    if axis is None:
        return []
    lanes = [
        Lane(f"{level * 100:g} %", axis.at(low), axis.at(high) - axis.at(low))
        for level, (low, high) in intervals_of(prediction).items()
    ]
    dots = [axis.at(value) for value in prediction.members.values()]
    return [*lanes, Lane("each", 0.0, 0.0, dots)] if dots else lanes


# ---- over time


def chosen(stages: Sequence[FusionSteps]) -> FusionSteps | None:
    """The last stage that has several steps, else the last one; None of none."""
    several = [stage for stage in stages if steps_in(stage) > 1]
    return next(reversed(several or stages), None)


def steps_in(stage: FusionSteps) -> int:
    rows = stage.decision if stage.decision is not None else next(iter(stage.attention.values()))
    return len(rows)


def spans(stage: FusionSteps, clock: Clock) -> list[str]:
    return [clock.span(i * stage.segments, (i + 1) * stage.segments) for i in range(steps_in(stage))]


def vertical(low: float, high: float) -> tuple[float, float]:
    """Return (a, b) that make a * value + b percent from the top; equal ends are drawn in the middle."""
    a = (2 * MARGIN - 100) / (high - low) if high > low else 0.0
    return a, 100 - MARGIN - a * low if a else 50.0


def polyline(x: Iterable[float], y: Iterable[float]) -> str:
    return " ".join(f"{a:.6g},{b:.6g}" for a, b in zip(x, y, strict=True))


def attention_plot(stage: FusionSteps | None, clock: Clock) -> Plot | None:
    """Plot the attention to each modality over time: the paper's Figure 7."""
    if stage is None:
        return None
    weights = {stream: np.nan_to_num(values) for stream, values in stage.attention.items()}
    uniform, steps = 1 / len(weights), steps_in(stage)
    low = min(uniform, *(float(values.min()) for values in weights.values()))
    high = max(uniform, *(float(values.max()) for values in weights.values()))
    a, b = vertical(low, high)
    ends = [0.0, *((i + 0.5) for i in range(steps)), float(steps)]  # the first and the last value reach the ends
    x = [min(clock.at(end * stage.segments), 100.0) for end in ends]
    lines = {m: polyline(x, a * np.pad(values, 1, mode="edge") + b) for m, values in weights.items()}
    means = ", ".join(f"{stream} {points(values.mean())}" for stream, values in weights.items())
    head, rows = table({m: values.tolist() for m, values in weights.items()}, spans(stage, clock))
    return Plot(
        "Attention to each modality",
        f"Its weight, in steps of {clock.duration(stage.segments)}; the thin grey line is equal attention.",
        f"Attention from {points(low)} to {points(high)}; on average {means}",
        clock.axis,
        [(round(a * high + b, 3), points(high)), (round(a * low + b, 3), points(low))] if a else [(50.0, points(low))],
        lines=lines,
        rule=round(a * uniform + b, 3),
        head=head,
        rows=rows,
    )


def decision_plot(stage: FusionSteps | None, clock: Clock) -> Plot | None:
    """Plot how many FusionNets were enabled over time: the paper's Figure 8."""
    if stage is None or stage.decision is None:
        return None
    decided = stage.decision
    a, b = vertical(0, max(stage.networks, 1))
    x = [min(clock.at(i * stage.segments), 100.0) for i in range(len(decided) + 1)]
    line = polyline(np.repeat(x, 2)[1:-1], np.repeat(a * decided + b, 2))
    rows = [[time, str(int(n))] for time, n in zip(spans(stage, clock), decided, strict=True)]
    return Plot(
        "Enabled FusionNets",
        f"How many of {stage.networks} FusionNets PolicyNet enabled, in steps of {clock.duration(stage.segments)}.",
        f"From {int(decided.min())} to {int(decided.max())} of {stage.networks}, on average {points(decided.mean())}",
        clock.axis,
        [(MARGIN, str(stage.networks)), (100 - MARGIN, "0")],
        lines={"enabled": line},
        head=["time", "enabled"],
        rows=rows,
        low=True,
    )


def occlusion_plot(occlusion: Occlusion | None, windows: Sequence[Window], clock: Clock) -> Plot | None:
    """Plot the score lost when each window is masked, a bar in the middle of every window."""
    if occlusion is None or not len(occlusion.windows):
        return None
    losses = occlusion.window_losses
    low, high = min(float(losses.min()), 0.0), max(float(losses.max()), 0.0)
    a, b = vertical(low, high)
    middles = occlusion.windows.mean(axis=1)
    between = (middles[:-1] + middles[1:]) / 2
    first, last = occlusion.windows[0, 0], occlusion.windows[-1, 1]
    if len(between):
        first, last = max(2 * middles[0] - between[0], first), min(2 * middles[-1] - between[-1], last)
    edges = [first, *between, last]
    bars, zero = [], round(b, 3)
    for left, right, loss in zip(edges[:-1], edges[1:], losses, strict=True):
        gap = 0.12 * (right - left)
        x, y = clock.at(left + gap), round(a * loss + b, 3)
        width = clock.at(right - gap) - x
        bars.append(Bar(x, min(y, zero), width, abs(y - zero), "loss" if loss > 0 else "gain"))
    marks = [Mark(w.letter, clock.at(w.first), clock.at(w.last) - clock.at(w.first), below=w.loss < 0) for w in windows]
    when = [clock.span(first, last) for first, last in occlusion.windows.tolist()]
    wide = max(last - first for first, last in occlusion.windows.tolist())
    ends = [(round(a * end + b, 3), signed(end)) for end in (high, low)]
    heights = [(zero, "0"), *((at, text) for at, text in ends if abs(at - zero) > 2 * MARGIN)]
    said = [f"masking {w.when} {'loses' if w.loss > 0 else 'gains'} {points(abs(w.loss))}" for w in windows]
    return Plot(
        "Points lost when a window is masked",
        "Filled bars above the line: the score loses points. Hollow bars below it: it gains points. Each bar stands in "
        f"the middle of a window of {clock.duration(wide)}; windows overlap.",
        f"{len(losses)} windows; " + ("; ".join(said) or "none changes the score"),
        clock.axis,
        heights,
        bars=bars,
        marks=marks,
        zero=zero,
        head=["window", "points lost"],
        rows=[[time, signed(loss)] for time, loss in zip(when, losses.tolist(), strict=True)],
    )


def scores_plot(scores: np.ndarray, clock: Clock) -> Plot:
    """Plot how likely each clip is a highlight."""
    scores = np.nan_to_num(scores)
    a, b = vertical(0, 1)
    x = [clock.at(i) for i in range(len(scores) + 1)]
    head, rows = table({"score": scores.tolist()}, [clock.span(i, i + 1) for i in range(len(scores))])
    return Plot(
        "Highlight scores",
        "How likely each clip is a highlight, from 0 to 1.",
        f"From {points(scores.min())} to {points(scores.max())}, highest at {clock.span(*highest_clip(scores))}",
        clock.axis,
        [(MARGIN, "1"), (100 - MARGIN, "0")],
        lines={"score": polyline(np.repeat(x, 2)[1:-1], np.repeat(a * scores + b, 2))},
        zero=round(b, 3),
        head=head,
        rows=rows,
    )


def highest_clip(scores: np.ndarray) -> tuple[int, int]:
    first = int(np.nan_to_num(scores).argmax())
    return first, first + 1


# ---- what is masked


def finite(occlusion: Occlusion | None) -> Occlusion | None:
    """Leave out losses that are no numbers."""
    if occlusion is None:
        return None
    known = np.isfinite(occlusion.window_losses)
    streams = {stream: loss for stream, loss in occlusion.stream_losses.items() if math.isfinite(loss)}
    return Occlusion(occlusion.windows[known], occlusion.window_losses[known], streams)


def windows_that_matter(occlusion: Occlusion | None, clock: Clock) -> list[Window]:
    """The windows whose masking loses most, then those whose masking gains most; none overlaps another."""
    found: list[Window] = []
    if occlusion is None:
        return found
    for sign in (1, -1):
        taken = 0
        for i in np.argsort(-sign * occlusion.window_losses, kind="stable"):
            (first, last), loss = occlusion.windows[i].tolist(), float(occlusion.window_losses[i])
            if taken == SHOWN_WINDOWS or sign * loss <= 0:
                break
            if all(last <= other.first or first >= other.last for other in found):
                middle = clock.moment((first + last) / 2)
                found.append(Window("ABCD"[len(found)], first, last, loss, clock.span(first, last), middle))
                taken += 1
    return found


def stream_bars(losses: Mapping[str, float]) -> list[tuple[str, float, Bar]]:
    """Every stream with its loss and a bar from the common zero, the largest loss first."""
    if not losses:
        return []
    low, high = min(*losses.values(), 0.0), max(*losses.values(), 0.0)
    axis = Axis(low, high if high > low else low + 1)
    bars = []
    for stream, loss in sorted(losses.items(), key=lambda pair: -pair[1]):
        left, right = sorted((axis.at(0), axis.at(loss)))
        bars.append((stream, loss, Bar(left, 0, right - left, 100, "loss" if loss > 0 else "gain")))
    return bars


# ---- the video itself


@dataclass(frozen=True)
class Shown:
    """What a page shows of the file. thumbnails: (time, JPEG as data URI); sound: its plots; windows: with pictures."""

    thumbnails: Sequence[tuple[str, str]] = ()
    sound: Sequence[Plot] = ()
    windows: Sequence[Window] = ()


def seen_of(
    file: Path, reading: Reading | None, windows: Sequence[Window], explained: Explained, clock: Clock
) -> Shown:
    """Read frames, motion and sound of a video."""
    from pamfn.extraction import preview  # here, since only videos need its packages

    def uri(picture: np.ndarray) -> str:
        return f"data:image/jpeg;base64,{base64.b64encode(preview.jpeg(picture)).decode()}"

    end = explained.segments * clock.scale
    times = [(i + 0.5) * end / THUMBNAILS for i in range(THUMBNAILS)]
    reading = reading or preview.READING
    middles = [(w.first + w.last) / 2 * clock.scale for w in windows]
    thumbnails, moments = preview.look(file, times, middles, reading=reading)
    speeds = [np.percentile(np.hypot(moment.flow[..., 0], moment.flow[..., 1]), 99.5) for moment in moments]
    fastest = max([1.0, *map(float, speeds)])  # of all windows: they can be compared
    shown = [
        replace(w, frame=uri(moment.frame), flow=uri(preview.coloured(moment.flow, fastest)))
        for w, moment in zip(windows, moments, strict=True)
    ]
    heard = preview.listen(file, reading)
    count = min(len(heard.loudness), math.ceil(end * heard.rate))
    plots = sound_plots(heard.loudness[:count], heard.onset[:count], heard.rate, clock) if count else []
    strip = [(f"{time:.1f} s", uri(picture)) for time, picture in zip(times, thumbnails, strict=True)]
    return Shown(strip, plots, shown)


def sound_plots(loudness: np.ndarray, onset: np.ndarray, rate: float, clock: Clock) -> list[Plot]:
    """Plot loudness in dB and the strength of onsets, (n,) at `rate` values a second."""
    joined = -(-len(loudness) // MOST_VALUES)
    pad = (0, -len(loudness) % joined)
    loudness = np.pad(loudness, pad, mode="edge").reshape(-1, joined).mean(axis=1).clip(QUIETEST_SHOWN)
    onset = np.pad(onset, pad, mode="edge").reshape(-1, joined).max(axis=1)
    seconds = (np.arange(len(loudness)) + 0.5) * joined / rate
    x = [min(clock.axis.at(time), 100.0) for time in seconds.tolist()]
    plots = []
    for title, caption, values, low, unit in (
        ("Loudness", "Root mean square of the sound; 0 dB is full scale.", loudness, float(loudness.min()), " dB"),
        ("Onset strength", "How much louder the sound becomes at once, over all frequencies.", onset, 0.0, ""),
    ):
        high = float(values.max())
        a, b = vertical(low, high)
        text = {value: f"{value:.0f}".replace("-", "−") if unit else f"{value:.1f}" for value in (high, low)}
        plots.append(
            Plot(
                f"{title} (dB)" if unit else title,
                caption,
                f"From {text[low]} to {text[high]}{unit}, highest at {seconds[values.argmax()]:.1f} s",
                clock.axis,
                [(round(a * value + b, 3), shown) for value, shown in text.items()],
                lines={title: polyline(x, a * values + b)},
                low=True,
            )
        )
    return plots
