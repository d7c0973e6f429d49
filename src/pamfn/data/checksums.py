"""Which data a run was trained on: checksums of what its label and feature files hold. Nothing here imports torch."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pamfn.data.clip_features import clip_feature_checksum, clip_feature_name
from pamfn.data.features import feature_file, file_checksum, source_checksum
from pamfn.data.score_labels import read_scores
from pamfn.errors import InputError


def score_checksum(scores: Mapping[str, float]) -> str:
    """Identity of what was read from a label file."""
    text = "\n".join(f"{v} {points!r}" for v, points in scores.items())
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def feature_name(path: Path) -> str:
    """A feature file's name in a run's `data_files`, the same for a `.npy` and the store made of it."""
    return f"features/{path.stem}"


def present_checksums(
    data_dir: Path, data: Mapping[str, Any], features: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Checksums of the files that are there now, given a data module's arguments; absent files are left out.

    These are a `YouTubeHighlightsDataModule`'s if they name annotations, else a `ScoreDataModule`'s.
    """
    if "annotations" in data:
        return present_clips(data_dir, data, features)
    found: dict[str, str] = {}
    for name in (data["train"], data["test"]):
        with suppress(InputError):
            how = {key: data[key] for key in ("columns", "score", "select") if key in data}
            scores = read_scores(data_dir / name, **how)
            found[name] = score_checksum(scores)
    for modality, spec in features.items():
        with suppress(InputError):
            path = feature_file(data_dir, data["dataset"], modality, str(spec["extractor"]))
            found[feature_name(path)] = source_checksum(path)
    return found


def present_clips(data_dir: Path, data: Mapping[str, Any], features: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """`present_checksums` of labelled clips."""
    files = {name: data_dir / name for name in (data["annotations"], data["split"])}
    found = {name: file_checksum(path) for name, path in files.items() if path.is_file()}
    for modality, spec in features.items():
        extractor = str(spec["extractor"])
        with suppress(InputError):
            checksum = clip_feature_checksum(data_dir, data["dataset"], modality, extractor)
            found[clip_feature_name(data["dataset"], modality, extractor)] = checksum
    return found
