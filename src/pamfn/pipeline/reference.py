"""What a run remembers of the videos that it was trained on, to judge new ones by: `reference.safetensors`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy.spatial.distance import cdist

from pamfn.data.base_datamodule import VideoDataModule
from pamfn.errors import InputError
from pamfn.files import regular, whole

FILE = "reference.safetensors"
VERSION = 1

UNLIKE = 0.99
"""A video is unlike any training video when it is further from its nearest than this share of them is from theirs."""

LEAST = 20
"""Training videos below which nothing is said of distances."""


@dataclass(frozen=True)
class Reference:
    """What the n training videos of a run were.

    points: (n,) the judges' points; None where clips are labelled
    lengths: (n,) number of segments
    means: {stream: (n, c) mean features of every video}
    predicted: {weights: (n,) what the run predicts for them}; empty where clips are labelled
    extraction: {stream: how `pamfn.extract` made its features}; None where that is not recorded
    """

    points: np.ndarray | None
    lengths: np.ndarray
    means: Mapping[str, np.ndarray]
    predicted: Mapping[str, np.ndarray] = field(default_factory=dict)
    extraction: Mapping[str, dict[str, Any] | None] = field(default_factory=dict)

    @cached_property
    def distances(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """{stream: (c,) standard deviation over videos, infinite where it is 0; (n,) distance to the nearest other}."""
        found = {}
        for stream, means in self.means.items():
            deviation = means.std(axis=0, dtype=np.float64)
            deviation[deviation == 0] = np.inf
            apart = cdist(means / deviation, means / deviation)
            np.fill_diagonal(apart, np.inf)
            found[stream] = (deviation, apart.min(axis=1))
        return found

    def mean_features(self) -> dict[str, np.ndarray]:
        """Return {stream: (c,) mean over the segments of all training videos}."""
        return {m: np.average(x, axis=0, weights=self.lengths).astype(x.dtype) for m, x in self.means.items()}

    def warnings(self, features: Mapping[str, np.ndarray]) -> list[str]:
        """Say in what a video {stream: (t, c)} is unlike every training video.

        The distance between two videos is that of their mean features, every dimension in standard deviations over the
        training videos.
        """
        said = []
        for stream, rows in features.items():
            if stream not in self.means or len(self.lengths) < LEAST:
                continue
            deviation, nearest = self.distances[stream]
            new, seen = rows.mean(axis=0, dtype=np.float64)[None] / deviation, self.means[stream] / deviation
            distance = float(cdist(new, seen).min())
            share = float((nearest < distance).mean())
            if share >= UNLIKE:
                of_them = "all" if share == 1 else f"{share:.0%}"
                said.append(
                    f"{stream} unlike any training video: {distance / float(np.median(nearest)):.1f} times as far from "
                    f"the nearest of them as they are from one another (median), further than {of_them} of them"
                )
        segments, least, most = len(next(iter(features.values()))), int(self.lengths.min()), int(self.lengths.max())
        if not least <= segments <= most:
            what = "shorter" if segments < least else "longer"
            said.append(f"{what} than any training video: {segments} segments, and these have {least} to {most}")
        return said


def reference_of(data: VideoDataModule, predicted: Mapping[str, np.ndarray] | None = None) -> Reference:
    """Return what there is to remember of data that have been read. predicted: see `Reference`."""
    train = data.splits["train"]
    bounds = zip(train.start.tolist(), train.length.tolist(), strict=True)
    rows = [slice(start, start + length) for start, length in bounds]
    means = {
        m: torch.stack([x[row].float().mean(dim=0) for row in rows]).cpu().numpy() for m, x in train.packed.items()
    }
    points = train.points.numpy() if data.predicts == "score" else None
    extraction = {m: data.extraction.get(m) for m in train.packed}
    return Reference(points, train.length.numpy(), means, dict(predicted or {}), extraction)


def write_reference(folder: Path, reference: Reference) -> None:
    """Write a run's reference."""
    tensors = {"lengths": reference.lengths}
    tensors |= {} if reference.points is None else {"points": reference.points}
    tensors |= {f"means.{stream}": rows for stream, rows in reference.means.items()}
    tensors |= {f"predicted.{weights}": points for weights, points in reference.predicted.items()}
    about = json.dumps({"version": VERSION, "extraction": dict(reference.extraction)}, sort_keys=True)
    with whole(folder / FILE) as temporary:
        temporary.write_bytes(save({k: np.ascontiguousarray(x) for k, x in tensors.items()}, {"about": about}))


def read_reference(folder: Path) -> Reference | None:
    """Return a run's reference; None when it has none: runs of earlier versions, archived ones.

    Raises:
        InputError: when the file is damaged.
    """
    file = folder / FILE
    if not regular(file).exists():
        return None
    try:
        with safe_open(file, framework="numpy") as stored:
            about = json.loads((stored.metadata() or {})["about"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        parts: dict[str, dict[str, np.ndarray]] = {"means": {}, "predicted": {}}
        for name, tensor in tensors.items():
            kind, _, of = name.partition(".")
            if of:
                parts[kind][of] = tensor
        if about["version"] != VERSION:
            raise ValueError(f"version {about['version']}, and this code reads {VERSION}")
        lengths, extraction = tensors["lengths"], dict(about["extraction"])
        if any(x.ndim != 2 or len(x) != len(lengths) for x in parts["means"].values()) or not len(lengths):
            raise ValueError("its tensors do not fit together")
        return Reference(tensors.get("points"), lengths, parts["means"], parts["predicted"], extraction)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is damaged ({error}). Remove it, or train the run again.") from None
