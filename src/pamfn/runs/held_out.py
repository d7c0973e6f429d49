"""The predictions of a run for the videos that it held out of training. Nothing here imports torch."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pamfn.errors import InputError


@dataclass(frozen=True)
class HeldOut:
    """True and predicted points (n,) of the videos that a run held out."""

    true: np.ndarray
    predicted: np.ndarray


def held_out_of(folder: Path, split: str = "holdout") -> dict[str, HeldOut]:
    """Read {weights: held-out videos} of a run's predictions.csv; {} where there are none, or clips are scored.

    split: `test` for the out-of-fold videos of a run that tests a fold

    Raises:
        InputError: when the file is damaged.
    """
    file = folder / "predictions.csv"
    rows: dict[str, list[tuple[float, float]]] = {}
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                if row["split"] == split and "true" in row:
                    rows.setdefault(row["weights"], []).append((float(row["true"]), float(row["predicted"])))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise InputError(f"cannot read {file} ({error}). Bring it back, or train the run again.") from None
    return {weights: HeldOut(*np.array(pairs).T) for weights, pairs in rows.items()}
