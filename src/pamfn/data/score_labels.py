"""Label files: one video per line, its name first, then the numbers that judges gave it."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from pamfn.data.video_names import problem_of_name, shown
from pamfn.errors import InputError
from pamfn.files import few, regular

MOST_BYTES = 2**24
MOST_LINES = 100_000
NUMBER = re.compile(r"[+-]?([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]+)?")
"""A number in plain digits: Python would also read 1_0 as ten, and the digits of any script."""
LIKE_A_NUMBER = re.compile(r"[\W_]*(\d.*|(nan|inf|infinity)[\W_]*)", re.IGNORECASE | re.DOTALL)
"""A field that may have been meant as a number, so that its line is no header."""


def read_scores(path: Path, *, columns: Sequence[str], score: str, select: str = "") -> dict[str, float]:
    """Read the points of every video of a label file, in the order of the file.

    White space separates the columns. A first line is a header and is skipped if nothing after the name starts like a
    number.

    Args:
        columns: the name of every column of the file, the video's name first.
        score: the column to read.
        select: only videos whose name starts with it are kept.

    Raises InputError with every problem of the file, each with its line.
    """
    problems: list[str] = []
    scores = valid_scores(path, columns=columns, score=score, select=select, problems=problems)
    if problems:
        raise InputError(problems)
    return scores


def read_table(path: Path, *, columns: Sequence[str]) -> dict[str, list[str]]:
    """Read {video: its other columns, as text} of a file without a header.

    Raises InputError for the first line that is not one.
    """
    rows: dict[str, list[str]] = {}
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != len(columns):
            raise InputError(
                f"{path}:{number}: expected {len(columns)} columns ({' '.join(columns)}), found {len(fields)}."
            )
        if fields[0] in rows:
            raise InputError(f"{path}:{number}: video {shown(fields[0])} is there twice: keep one of its lines.")
        rows[fields[0]] = fields[1:]
    return rows


def read_column(path: Path, *, columns: Sequence[str], column: str) -> dict[str, str]:
    """Read {video: text} of a column of a label file that `read_scores` has accepted."""
    position = columns.index(column)
    rows = (line.split() for line in _lines(path))
    return {fields[0]: fields[position] for fields in rows if len(fields) == len(columns)}


def valid_scores(
    path: Path, *, columns: Sequence[str], score: str, select: str, problems: list[str]
) -> dict[str, float]:
    """Read a label file as `read_scores` does, without the lines that have a problem; problems are added.

    Raises InputError when there is nothing to read.
    """
    if score not in columns[1:]:
        raise InputError(f"{path} has no column {score!r} to read scores from: choose one of {', '.join(columns[1:])}.")
    rows = [(number, line.split()) for number, line in enumerate(_lines(path), start=1) if line.strip()]
    if not rows:
        raise InputError(f"{path} is empty: expected one video per line ({' '.join(columns)}).")
    if len(rows[0][1]) > 1 and not any(LIKE_A_NUMBER.fullmatch(field) for field in rows[0][1][1:]):  # a header
        rows = rows[1:]
        if not rows:
            raise InputError(f"{path} has a header line and no videos.")

    scores: dict[str, float] = {}
    seen: dict[str, int] = {}
    wrong = []
    for number, fields in rows:
        name = fields[0]
        if problem := problem_of_name(name):
            wrong.append(f"{path}:{number}: the video name '{shown(name)}' {problem}.")
            continue
        if name in seen:
            wrong.append(f"{path}:{number}: video {name} is already on line {seen[name]}: keep one of them.")
            continue
        seen[name] = number
        if len(fields) != len(columns):
            wrong.append(
                f"{path}:{number}: expected {len(columns)} columns ({' '.join(columns)}), found {len(fields)}."
            )
            continue
        field = fields[columns.index(score)]
        points = float(field) if NUMBER.fullmatch(field) else math.nan
        if not math.isfinite(points):
            wrong.append(f"{path}:{number}: the {score} of video {name} is '{shown(field)}': expected a finite number.")
        elif name.startswith(select):
            scores[name] = points

    problems.extend(few(path, wrong))
    if not scores and not wrong:
        raise InputError(f"{path}: none of its {len(rows)} videos has a name that starts with {select!r}.")
    return scores


def _lines(path: Path) -> list[str]:
    try:
        lines = regular(path, most=MOST_BYTES).read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise InputError(
            f"no label file: looked for {path}. Put it there (README, 'Data') or set paths.data_dir."
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: not text in UTF-8 (byte {error.object[error.start]:#04x}).") from None
    except OSError as error:
        raise InputError(f"cannot read the label file {path}: {error.strerror}.") from None
    if len(lines) > MOST_LINES:
        raise InputError(f"{path} has {len(lines)} lines, and a label file {MOST_LINES} at most: is it one?")
    return lines
