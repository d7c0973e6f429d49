"""What a network predicted, as CSV files of its run folder: a line a video, a line a clip."""

import csv
import io
from collections.abc import Mapping

from pamfn.files import write_text
from pamfn.runs.folder import Run
from pamfn.training.tasks import SplitPredictions, Table, Task

Predictions = Mapping[str, Mapping[str, SplitPredictions]]
"""{weights: {split: predictions}}."""


def write_predictions(run: Run, predictions: Predictions, task: Task) -> None:
    """Writes the task's tables."""
    for file, table in task.tables.items():
        write_text(run.file(file), csv_of(table, predictions))


def csv_of(table: Table, predictions: Predictions) -> str:
    """A table of all predictions as CSV, with nine digits; it begins with the weights and the split of each row."""
    columns, rows_of = table
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["weights", "split", *columns])
    for weights, splits in predictions.items():
        for split, predicted in splits.items():
            for row in rows_of(predicted):
                writer.writerow([weights, split, *(f"{x:.9g}" if isinstance(x, float) else x for x in row)])
    return out.getvalue()
