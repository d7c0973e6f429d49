"""Write and draw a highlight network's score of every clip."""

from collections.abc import Sequence
from pathlib import Path

import torch

from pamfn.errors import InputError
from pamfn.evaluation.average_precision import average_precision, chance
from pamfn.evaluation.plots import plot_highlights
from pamfn.files import file_name, write_text
from pamfn.pipeline.build import data_module
from pamfn.pipeline.predictions import csv_of
from pamfn.pipeline.reload import configuration, quiet, refuse_no_split, scored, with_weights
from pamfn.training.tasks import HighlightTask, task_of


def score_clips(
    run: Path,
    videos: Sequence[str],
    split: str,
    weights: str,
    data_dir: str | None,
    to: Path | None,
    trust: Sequence[str] = (),
) -> dict[str, float]:
    """Writes the scores of a split's clips and draws the named videos; the average precision of those that it drew.

    Raises:
        InputError: when the run is not a finished one of highlights, or a video is not in its split.
    """
    settings = configuration(with_weights(run), data_dir, None, None, trust)

    quiet()
    torch.set_num_threads(settings.threads)
    data = data_module(settings)
    if data.predicts != "highlights":
        raise InputError(f"{run} scores whole videos: its predictions.csv has them, `python -m pamfn.evaluate` others.")
    refuse_no_split(data, split)
    task = task_of(data)
    assert isinstance(task, HighlightTask)
    strangers = [video for video in videos if video not in data.splits[split].names]
    if strangers:
        some = ", ".join(data.splits[split].names[:5])
        raise InputError(f"{', '.join(strangers)}: not in {split} of {data.task}, which has {some}, ...")
    predictions = scored(settings, run, weights, data, split)
    to = to or run / "highlights"
    scores = to / f"scores_{split}.csv"
    write_text(scores, csv_of(task.tables["clips.csv"], {weights: {split: predictions}}))
    print(f"{scores}: {len(predictions.predicted)} clips of {len(data.splits[split])} videos")
    drawn = {}
    for name, labels, logits in predictions.by_video():
        if videos and name not in videos:
            continue
        drawn[name] = average_precision(labels, logits)
        precision = f"average precision {drawn[name]:.3f} (chance {chance({name: labels}):.3f})"
        title = f"{data.task}, {name}: {precision}"
        picture = to / f"{file_name(name)}.png"
        plot_highlights(picture, task.grid[name], labels, task.shown(logits), title, unit=task.unit[name])
        counts = f"{int(labels.sum())} highlights in {len(labels)} clips"
        print(f"{picture}: {precision}, {counts}")
    return drawn
