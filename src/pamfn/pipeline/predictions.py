"""What a network predicted, as files of its run folder: a line a video, a line a clip, a plot."""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from scipy.special import expit

from pamfn.evaluation.average_precision import average_precision, chance
from pamfn.evaluation.metrics import metrics_of, video_metrics
from pamfn.evaluation.plots import plot_predictions, plot_video_precision
from pamfn.files import write_text
from pamfn.runs.folder import Run
from pamfn.training.module import Points

Predictions = dict[str, dict[str, Points]]
"""{weights: {split: points}}."""

SCORES = ("weights", "split", "video", "true", "predicted", "spread")
VIDEOS = ("weights", "split", "video", "clips", "highlights")
"""And a column for every metric of highlights."""
CLIPS = ("weights", "split", "video", "start", "end", "unit", "label", "score", "logit")


def write_predictions(run: Run, predictions: Predictions, data: Any) -> None:
    """predictions.csv: true and predicted points of every video, or the average precision of its highlights.

    Of highlights also clips.csv: label, score (`shown`) and logit of every clip, and when it starts and ends, in
    seconds, or in frames where the frame rate is not known.
    """
    if data.predicts == "score":
        write_text(run.file("predictions.csv"), table(SCORES, score_rows(predictions, data)))
        return
    write_text(run.file("predictions.csv"), table((*VIDEOS, *metrics_of("highlights")), video_rows(predictions, data)))
    write_text(run.file("clips.csv"), table(CLIPS, clip_rows(predictions, data)))


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """CSV with nine digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([f"{x:.9g}" if isinstance(x, float) else x for x in row] for row in rows)
    return out.getvalue()


def score_rows(predictions: Predictions, data: Any) -> Iterator[list[Any]]:
    for weights, splits in predictions.items():
        for split, points in splits.items():
            names = data.splits[split].names
            for name, *values in zip(names, points["true"], points["predicted"], points["spread"], strict=True):
                yield [weights, split, name, *values]


def by_video(points: Points, videos: Any) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Every video's name, with the labels and logits (n,) of its clips."""
    ends = videos.length.cumsum(0)[:-1].tolist()
    columns = (np.split(np.array(points[name]), ends) for name in ("true", "predicted"))
    yield from zip(videos.names, *columns, strict=True)


def video_rows(predictions: Predictions, data: Any) -> Iterator[list[Any]]:
    for weights, splits in predictions.items():
        for split, points in splits.items():
            for name, labels, logits in by_video(points, data.splits[split]):
                metrics = video_metrics(labels, logits)
                yield [weights, split, name, len(labels), int(labels.sum()), *metrics.values()]


def clip_rows(predictions: Predictions, data: Any) -> Iterator[list[Any]]:
    for weights, splits in predictions.items():
        for split, points in splits.items():
            for name, labels, logits in by_video(points, data.splits[split]):
                clips = zip(data.grid[name].tolist(), labels, shown(logits, data), logits, strict=True)
                for (start, end), label, *said in clips:
                    yield [weights, split, name, start, end, data.grid_unit[name], int(label), *map(float, said)]


def shown(logits: np.ndarray, data: Any) -> np.ndarray:
    """What a video's logits (n,) are shown as: the probability of a highlight.

    Of a network that learned from bags, whose logits only compare the clips of one video: where each is between the
    video's lowest and its highest.
    """
    if not data.bags:
        return expit(logits)
    low, high = logits.min(), logits.max()
    return (logits - low) / (high - low) if high > low else np.full_like(logits, 0.5)


def plot_test(run: Run, points: Points, data: Any, title: str) -> None:
    """predictions.png: predicted against true points, or the average precision of every test video."""
    if data.predicts == "score":
        plot_predictions(run.file("predictions.png"), **points, title=title)
        return
    videos = list(by_video(points, data.splits["test"]))
    precision = [average_precision(labels, scores) for _, labels, scores in videos]
    by_chance = [chance({name: labels}) for name, labels, _ in videos]
    plot_video_precision(run.file("predictions.png"), precision, by_chance, title)
