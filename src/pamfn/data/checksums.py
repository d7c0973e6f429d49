"""Checksums of the label and feature files that a run was trained on. Nothing here imports torch."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pamfn.data.clip_features import clip_feature_checksum
from pamfn.data.features import feature_file, feature_name, file_checksum, source_checksum
from pamfn.data.folds import Folds, folds_of, groups_of
from pamfn.data.score_labels import read_scores
from pamfn.errors import InputError


def score_checksum(scores: Mapping[str, float]) -> str:
    """Return the checksum of what was read from a label file."""
    text = "\n".join(f"{v} {points!r}" for v, points in scores.items())
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def label_files(data: Mapping[str, Any]) -> list[str]:
    """Return the label files that the arguments of a `ScoreDataModule` name."""
    return [name for name in (data["train"], data.get("test")) if name is not None]


FOLDS = "folds"
"""What the folds are called among the checksums of files."""


def folds_checksum(fold: Mapping[str, int]) -> str:
    """Return the checksum of {video: its fold}."""
    text = "\n".join(f"{video} {number}" for video, number in sorted(fold.items()))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def present_folds(data_dir: Path, data: Mapping[str, Any], folds: Folds) -> str:
    """Return the checksum of the folds that there are now.

    Raises:
        InputError: when a file that they depend on is not there.
    """
    points, groups = dict[str, float](), dict[str, str]()
    for name in label_files(data):
        how = {key: data[key] for key in ("columns", "score", "select") if key in data}
        own = read_scores(data_dir / name, **how)
        points |= own
        if data.get("groups") is not None:
            groups |= groups_of(data_dir / name, columns=data["columns"], groups=data["groups"], videos=list(own))
    return folds_checksum(folds_of(points, groups, folds, data_dir))


def present_checksums(
    data_dir: Path, data: Mapping[str, Any], features: Mapping[str, Mapping[str, Any]], folds: Folds | None = None
) -> dict[str, str]:
    """Return checksums of the files that are there now, given a data module's arguments; absent files are left out.

    The arguments are a `YouTubeHighlightsDataModule`'s if they name annotations, else a `ScoreDataModule`'s.
    """
    checksums: dict[str, str] = {}
    labelled_clips = "annotations" in data
    if folds is not None:
        with suppress(InputError):
            checksums[FOLDS] = present_folds(data_dir, data, folds)
    for name in (data["annotations"], data["split"]) if labelled_clips else label_files(data):
        with suppress(InputError):
            if not labelled_clips:
                how = {key: data[key] for key in ("columns", "score", "select") if key in data}
                checksums[name] = score_checksum(read_scores(data_dir / name, **how))
            elif (data_dir / name).is_file():
                checksums[name] = file_checksum(data_dir / name)
    for modality, spec in features.items():
        names = (data["dataset"], modality, str(spec["extractor"]))
        with suppress(InputError):
            checksums[feature_name(*names)] = (
                clip_feature_checksum(data_dir, *names)
                if labelled_clips
                else source_checksum(feature_file(data_dir, *names))
            )
    return checksums
