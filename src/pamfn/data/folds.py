"""Folds for cross-validation: which fold tests which video, by number, by groups or by a file.

Nothing here imports torch. Folds depend on the labels alone, not on the seed: all seeds and methods share them.
"""

import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pamfn.data.score_labels import read_column, read_table
from pamfn.data.video_names import problem_of_name, shown, some
from pamfn.errors import InputError

Folds = int | str
"""Number of folds, or a file below the data folder with a line `video fold` for every video."""


def groups_of(path: Path, *, columns: Sequence[str], groups: str, videos: Sequence[str]) -> dict[str, str]:
    """Return {video: its group}.

    Args:
        path, columns: a label file and the names of its columns.
        groups: one of the columns, or a pattern with a pair of parentheses that finds the group in a video's name.

    Raises InputError when a video has no group.
    """
    if groups in columns[1:]:
        column = read_column(path, columns=columns, column=groups)
        if odd := [shown(column[video]) for video in videos if problem_of_name(column[video])]:
            raise InputError(f"{path}: names of groups (data.groups={groups}) that cannot be shown: {some(odd)}.")
        return {video: column[video] for video in videos}
    try:
        pattern = re.compile(groups)
    except re.error as error:
        raise InputError(f"data.groups: {groups!r} is no pattern ({error}).") from None
    if pattern.groups != 1:
        raise InputError(
            f"data.groups: {groups!r} is neither a column of {path.name} ({', '.join(columns[1:])}) nor a pattern with "
            "one pair of parentheses that finds the group in a video's name, e.g. '(s[0-9]+)_'."
        )
    found = {video: pattern.search(video) for video in videos}
    if without := [video for video, match in found.items() if match is None or match[1] is None]:
        raise InputError(f"data.groups: {groups!r} finds no group in {len(without)} names: {some(without)}.")
    return {video: match[1] for video, match in found.items() if match is not None}


def folds_of(points: Mapping[str, float], groups: Mapping[str, str], folds: Folds, data_dir: Path) -> dict[str, int]:
    """Return {video: the number of the fold that tests it}.

    A number of folds gives each its share of every part of the scores, or, with groups, whole groups to each: as many
    folds as groups leave one group out at a time, in the order of their names.

    Args:
        points: {video: points} of all videos.
        groups: {video: group}; empty without groups.

    Raises InputError when that cannot be done.
    """
    if isinstance(folds, str):
        return folds_in_file(data_dir / folds, list(points))
    if groups:
        return folds_of_groups(groups, folds)
    if folds > len(points) / 2:
        raise InputError(f"protocol.folds: {folds} folds of {len(points)} videos: each needs two, for a correlation.")
    random = np.random.default_rng(0)
    ordered = sorted(points, key=lambda video: (points[video], video))
    fold: dict[str, int] = {}
    for first in range(0, len(ordered), folds):
        layer = ordered[first : first + folds]
        fold |= dict(zip(layer, random.permutation(folds)[: len(layer)].tolist(), strict=True))
    return {video: fold[video] for video in points}


def folds_of_groups(groups: Mapping[str, str], folds: int) -> dict[str, int]:
    sizes = Counter(groups.values())
    if len(sizes) < folds:
        raise InputError(
            f"protocol.folds: {folds} folds, and there are {len(sizes)} groups (data.groups: {some(sorted(sizes))}). "
            f"Choose at most {len(sizes)}."
        )
    if len(sizes) == folds:
        number = {group: i for i, group in enumerate(sorted(sizes))}
    else:
        number, filled = {}, [0] * folds
        for group in sorted(sizes, key=lambda group: (-sizes[group], group)):
            number[group] = filled.index(min(filled))
            filled[number[group]] += sizes[group]
    return {video: number[group] for video, group in groups.items()}


def folds_in_file(path: Path, videos: Sequence[str]) -> dict[str, int]:
    """Read the file of folds, whose numbers may begin anywhere."""
    rows = read_table(path, columns=("video", "fold"))
    problems = []
    for which, names in (("no labels", rows.keys() - set(videos)), ("no fold", set(videos) - rows.keys())):
        if names:
            problems.append(f"{path}: {len(names)} videos have {which}: {some(sorted(names))}.")
    if wrong := [video for video, (fold,) in rows.items() if not re.fullmatch(r"[0-9]{1,4}", fold)]:
        problems.append(f"{path}: the fold of {some(wrong)} is no whole number.")
    if problems:
        raise InputError(problems)
    numbers = {fold: i for i, fold in enumerate(sorted({int(fold) for (fold,) in rows.values()}))}
    if len(numbers) < 2:
        raise InputError(f"{path}: all videos are in one fold, and there would be none to train on.")
    return {video: numbers[int(rows[video][0])] for video in videos}


def leaking(fold: Mapping[str, int], groups: Mapping[str, str]) -> list[str]:
    """Return the groups with videos in several folds."""
    places: dict[str, set[int]] = {}
    for video, group in groups.items():
        places.setdefault(group, set()).add(fold[video])
    return sorted(group for group, numbers in places.items() if len(numbers) > 1)


def held_out_groups(groups: Mapping[str, str], fraction: float, seed: int) -> list[str]:
    """Draw whole groups until they have a fraction of the videos; return these videos.

    Raises InputError when there is no group left to train on.
    """
    sizes = Counter(groups.values())
    if len(sizes) < 2:
        raise InputError(
            f"protocol.holdout: all {len(groups)} videos to train on are of one group ({some(sorted(sizes))}), and "
            "held-out ones must be of another. Choose protocol.select=last protocol.holdout=0."
        )
    names = sorted(sizes)
    which = zlib.crc32("\n".join(names).encode())  # else neighbouring folds would often train on the same groups
    order = np.random.default_rng([seed, 2, which]).permutation(names).tolist()
    drawn: set[str] = set()
    for group in order[:-1]:
        if drawn and sum(sizes[name] for name in drawn) >= fraction * len(groups):
            break
        drawn.add(group)
    return [video for video, group in groups.items() if group in drawn]
