"""The stores of a data set, which training reads, from a folder of extracted features."""

from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors.numpy import load_file

from pamfn.data.features import FeatureSet, source_checksum, write_store
from pamfn.data.video_names import some
from pamfn.errors import InputError
from pamfn.extraction.store import FeatureFolder, read_settings, warning_of_names


def pack(
    folder: Path,
    dataset: str,
    data_dir: Path,
    say: Callable[[str], None],
    streams: Sequence[str] | None = None,
) -> None:
    """Write `features/DATASET_stream_EXTRACTOR.safetensors` of every stream of a folder of extracted features.

    A stream without features of any video is left out.
    streams: those that are packed; None for all
    say: called with a line for every store, and with what `features` of the data set's file in `conf/data/` has to say

    Raises:
        InputError: when it is no such folder, a video failed, one lacks a stream that others have, or nothing is there.
    """
    settings = read_settings(folder)
    features = FeatureFolder(folder, settings["reading"], settings["streams"])
    videos = features.finished_videos()
    if failed := features.failed_videos():
        raise InputError(
            f"{folder}: {len(failed)} videos failed: {some(list(failed))}. "
            "Extract them again, or remove their .failed.json to leave them out."
        )
    if not videos:
        raise InputError(f"{folder} holds no finished video.")
    if warning := warning_of_names(videos):
        say(warning)
    lines = []
    for key in keys_of(features, streams):
        stream, (modality, _, extractor) = settings["streams"][key], key.rpartition("_")
        lacking = [video for video in videos if not features.has(video, key)]
        if lacking:
            raise InputError(
                f"{folder}: {len(lacking)} of {len(videos)} videos have no {key} features, e.g. {lacking[0]}. "
                "Extract them too, or pack the streams that all videos have: streams=[STREAM]."
            )
        arrays = {video: load_file(features.features_file(video, key))["features"] for video in videos}
        source = folder / f"*.{key}.safetensors"
        store = data_dir / "features" / f"{dataset}_{key}.safetensors"
        made = {"reading": settings["reading"], **stream}
        write_store(FeatureSet(arrays, source_checksum(source), source, made), store, extractor=extractor)
        say(f"{store}: {len(arrays)} videos, {sum(map(len, arrays.values()))} segments")
        lines.append(f"  {modality}: {{extractor: {extractor}, width: {stream['width']}}}")
    say("\n".join(["In the data set's file in conf/data:", "features:", *lines]))


def keys_of(features: FeatureFolder, streams: Sequence[str] | None) -> list[str]:
    """Return the names of the streams with features, of all or of these streams.

    Raises:
        InputError: when one of these has none, or there are none at all.
    """
    keys = [key for key in features.streams if features.holds(key)]
    there = [key.rpartition("_")[0] for key in keys]
    if not keys:
        raise InputError(f"{features.path} holds no features.")
    if streams is None:
        return keys
    if unknown := [stream for stream in streams if stream not in there]:
        raise InputError(
            f"streams: {features.path} has no features of {', '.join(unknown)}. There are: {', '.join(there)}."
        )
    return [key for key, stream in zip(keys, there, strict=True) if stream in streams]
