"""Features of labelled clips: planted ones, from a file as for scores, or from a folder of plain arrays."""

from collections.abc import Collection, Mapping
from pathlib import Path

from pamfn.data import planted_clips
from pamfn.data.features import FeatureSet, feature_file, read_features, source_checksum
from pamfn.data.highlight_labels import Clips
from pamfn.data.umt_folders import plain_source, read_plain


def clip_feature_checksum(data_dir: Path, dataset: str, modality: str, extractor: str) -> str:
    """Return the checksum of the features; of planted ones, the version of their rule.

    Raises InputError when there are none.
    """
    if extractor == planted_clips.EXTRACTOR:
        return planted_clips.VERSION
    return source_checksum(_source(data_dir, dataset, modality, extractor))


def read_clip_features(
    data_dir: Path,
    dataset: str,
    modality: str,
    extractor: str,
    width: int,
    *,
    clips: Mapping[str, Clips],
    videos: Collection[str],
) -> FeatureSet:
    """Read the features of these videos as far as they are there; planted ones are made for `clips` and `width`.

    Raises InputError when there are none, or their files are damaged.
    """
    if extractor == planted_clips.EXTRACTOR:
        arrays = {v: planted_clips.planted(modality, v, clips[v], width) for v in videos}
        return FeatureSet(arrays, planted_clips.VERSION, Path(extractor))
    path = _source(data_dir, dataset, modality, extractor)
    return read_plain(path, videos) if "*" in path.name else read_features(path)


def _source(data_dir: Path, dataset: str, modality: str, extractor: str) -> Path:
    plain = plain_source(data_dir, dataset, modality, extractor)
    instead = "synthetic ones are made of the labels: features=planted_clips"
    return feature_file(data_dir, dataset, modality, extractor, plain=plain, instead=instead)
