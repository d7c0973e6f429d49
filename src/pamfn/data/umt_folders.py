"""Features in UMT's layout for YouTube Highlights: folders of plain arrays, one `.npy` file a video, no pickle."""

import math
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from pamfn.data.features import FeatureSet, files_of, segments_of, source_checksum
from pamfn.data.pickles import npy_header
from pamfn.data.video_names import problem_of_name, shown
from pamfn.errors import InputError
from pamfn.files import Bounded, regular

LAYOUT = {
    ("rgb", "I3D"): "video_features/*_rgb.npy",
    ("flow", "I3D"): "video_features/*_opt.npy",
    ("audio", "PANN"): "audio_features/*.npy",
}
"""{(modality, extractor): files below the data set's folder, `*` being the video's name}."""


def plain_source(data_dir: Path, dataset: str, modality: str, extractor: str) -> Path | None:
    """Return where these features are as plain arrays; None when UMT has none by this extractor."""
    files = LAYOUT.get((modality, extractor))
    return data_dir / dataset / files if files else None


def plain_sources(data_dir: Path) -> Iterator[tuple[str, Path]]:
    """Find the folders that are there: the name of their store (DATASET_modality_EXTRACTOR), and their path."""
    for dataset in sorted(folder.name for folder in data_dir.glob("*/")):
        for modality, extractor in LAYOUT:
            source = plain_source(data_dir, dataset, modality, extractor)
            if source and files_of(source):
                yield f"{dataset}_{modality}_{extractor}", source


def read_plain(source: Path, videos: Collection[str] | None = None) -> FeatureSet:
    """Read the features in a folder, float64 as float32; with `videos`, only those of these videos.

    Raises InputError with every file that is not an array (clips, width) of floating-point numbers.
    """
    arrays: dict[str, np.ndarray] = {}
    problems = []
    ending = source.name.removeprefix("*")
    for file in files_of(source):
        video = file.name.removesuffix(ending)
        if videos is None or video in videos:
            if problem := problem_of_name(video):
                problems.append(f"{source}: the video name '{shown(video)}' {problem}.")
                continue
            try:
                arrays[video] = segments_of(read_array(file))
            except InputError as error:
                problems += error.problems
    if problems:
        raise InputError(problems)
    return FeatureSet(arrays, source_checksum(source), source)


def read_array(path: Path) -> np.ndarray:
    try:
        with regular(path).open("rb") as opened:
            file = Bounded(opened)
            shape, dtype = npy_header(file)
            if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > file.size:
                # numpy would set its memory aside before it reads
                raise ValueError(f"an array of shape {shape} in a file of {file.size} bytes")
            opened.seek(0)
            array = np.lib.format.read_array(opened, allow_pickle=False)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    except Exception as error:  # a damaged header may raise anything
        raise InputError(
            f"{path} is refused ({shown(str(error))}): expected one plain array (clips, width), np.save(file, array)."
        ) from None
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(
            f"{path} holds {array.dtype} {array.shape}: expected (clips, width), float16, float32 or float64."
        )
    return array
