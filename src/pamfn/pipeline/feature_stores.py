"""The stores of a data set, which training reads, from a folder of extracted features."""

from collections.abc import Callable
from pathlib import Path

from safetensors.numpy import load_file

from pamfn.data.features import FeatureSet, source_checksum, write_store
from pamfn.data.video_names import some
from pamfn.errors import InputError
from pamfn.extraction.store import FeatureFolder, read_settings


def pack(folder: Path, dataset: str, data_dir: Path, say: Callable[[str], None]) -> None:
    """Write `features/DATASET_stream_EXTRACTOR.safetensors` of every stream of a folder of extracted features.

    say: called with a line for every store, and with what `features` of the data set's file in `conf/data/` has to say

    Raises:
        InputError: when it is no such folder, a video failed, or one lacks a stream that others have.
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
    lines = []
    for key, stream in settings["streams"].items():
        modality, _, extractor = key.rpartition("_")
        lacking = [video for video in videos if not features.has(video, key)]
        if lacking:
            raise InputError(
                f"{folder}: {len(lacking)} of {len(videos)} videos have no {key} features, e.g. {lacking[0]}. "
                "Extract them too, or extract the streams that all videos have into another folder."
            )
        arrays = {video: load_file(features.features_file(video, key))["features"] for video in videos}
        source = folder / f"*.{key}.safetensors"
        store = data_dir / "features" / f"{dataset}_{key}.safetensors"
        made = {"reading": settings["reading"], **stream}
        write_store(FeatureSet(arrays, source_checksum(source), source, made), store, extractor=extractor)
        say(f"{store}: {len(arrays)} videos, {sum(map(len, arrays.values()))} segments")
        lines.append(f"  {modality}: {{extractor: {extractor}, width: {stream['width']}}}")
    say("\n".join(["In the data set's file in conf/data:", "features:", *lines]))
