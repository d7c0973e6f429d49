"""Features of labelled clips: planted, in a file as for scores, or in a folder of plain arrays. No torch here."""

from collections.abc import Collection, Mapping
from pathlib import Path

from pamfn.data import planted_clips
from pamfn.data.features import FeatureSet, feature_file, read_features, source_checksum
from pamfn.data.highlight_labels import Clips
from pamfn.data.umt_folders import plain_source, read_plain


def clip_feature_name(dataset: str, modality: str, extractor: str) -> str:
    """What these features are called in a run's `data_files`, wherever they were read from."""
    return f"features/{dataset}_{modality}_{extractor}"


def clip_feature_checksum(data_dir: Path, dataset: str, modality: str, extractor: str) -> str:
    """Identity of the features; of planted ones, the version of their rule.

    Raises InputError when there are none.
    """
    if extractor == planted_clips.EXTRACTOR:
        return planted_clips.VERSION
    return source_checksum(_found(data_dir, dataset, modality, extractor))


def read_clip_features(
    data_dir: Path,
    dataset: str,
    modality: str,
    extractor: str,
    *,
    width: int,
    clips: Mapping[str, Clips],
    videos: Collection[str],
) -> FeatureSet:
    """The features of these videos, as far as they are there; `clips` and `width` are what planted ones are made for.

    Raises InputError when there are none, or their files are damaged.
    """
    if extractor == planted_clips.EXTRACTOR:
        arrays = {v: planted_clips.planted(modality, v, clips[v], width) for v in videos}
        return FeatureSet(arrays, planted_clips.VERSION, Path(extractor))
    path = _found(data_dir, dataset, modality, extractor)
    return read_plain(path, videos) if "*" in path.name else read_features(path)


def _found(data_dir: Path, dataset: str, modality: str, extractor: str) -> Path:
    plain = plain_source(data_dir, dataset, modality, extractor)
    instead = "synthetic ones are made of the labels: features=planted_clips"
    return feature_file(data_dir, dataset, modality, extractor, plain=plain, instead=instead)
