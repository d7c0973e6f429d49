"""The files of an extraction: a safetensors for every video and stream, what was seen, failures, what was asked.

    DIR/extract.json               what the features in this folder are; other settings are refused
    DIR/VIDEO.STREAM_NAME.safetensors   features (segments, width) float32 of one stream, and where they come from
    DIR/VIDEO.json                 what was seen of the video, and all warnings
    DIR/VIDEO.failed.json          why there are no features; gone when there are
    DIR/.VIDEO.part.safetensors    the first segments of a long video while it is being worked on
    DIR/.VIDEO.lock                held by the process that works on it

VIDEO is the video's path below the common folder, made fit for a file name.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from pamfn.errors import InputError
from pamfn.files import file_name, name_with_digest, regular, whole, write_text

VERSION = 1
SETTINGS = "extract.json"

TAKEN = re.compile(r"^extract$|\.(failed|part)$")
"""Names of videos whose files would be the settings of the folder, or the failure or first segments of another."""


def digest_of(settings: Mapping[str, Any]) -> str:
    """Return what identifies settings: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


class FeatureFolder:
    """The folder of one extraction.

    path: the folder
    reading: how videos are read
    streams: {STREAM_NAME: what its features are}: its extractor's class and arguments, width, weights, precision
    """

    def __init__(self, path: Path, reading: Mapping[str, Any], streams: Mapping[str, Mapping[str, Any]]) -> None:
        self.path = path
        self.reading = reading
        self.streams = streams
        self.digests = {key: digest_of({"reading": reading, **settings}) for key, settings in streams.items()}

    def claim(self) -> None:
        """Write what the features in this folder are; further streams may join those of earlier commands.

        Raises:
            InputError: when the folder holds features made with other settings.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"out: cannot make the folder {self.path}: {error.strerror}.") from None
        with FileLock(self.path / ".extract.lock"):
            there = self.refuse_others()
            streams = dict(sorted({**there["streams"], **self.streams}.items())) if there else dict(self.streams)
            asked = {"version": VERSION, "reading": dict(self.reading), "streams": streams}
            if there != asked:
                write_text(self.path / SETTINGS, json.dumps(asked, indent=2) + "\n")

    def refuse_others(self) -> dict[str, Any] | None:
        """Compare settings with those of the features in this folder, and return what is written of them, if anything.

        Streams without any features do not count: their weights may have been the wrong ones.

        Raises:
            InputError: when the folder holds features made with other settings.
        """
        if not (self.path / SETTINGS).exists():
            return None
        there = read_settings(self.path)
        differing = []
        if self.finished_videos() or any(self.holds(key) for key in there["streams"]):
            differing += differences(there["reading"], dict(self.reading), "reading")
        for key in sorted(there["streams"].keys() & self.streams.keys()):
            if self.holds(key):
                differing += differences(there["streams"][key], self.streams[key], key)
        if differing:
            raise InputError(
                f"{self.path} holds features made with other settings: {'; '.join(differing)}. "
                "Extract into another folder: out=FOLDER."
            )
        return there

    def holds(self, key: str) -> bool:
        """Return whether any video has features of a stream."""
        return any(self.path.glob(f"*.{key}.safetensors"))

    def file(self, video: str, ending: str) -> Path:
        return self.path / f"{own_name(video)}.{ending}"

    def features_file(self, video: str, key: str) -> Path:
        return self.file(video, f"{key}.safetensors")

    def part_file(self, video: str) -> Path:
        return self.path / f".{own_name(video)}.part.safetensors"

    def lock(self, video: str) -> FileLock:
        return FileLock(self.path / f".{own_name(video)}.lock")

    def missing(self, video: str, path: Path) -> list[str]:
        """Return the streams of a video that have to be extracted: not there, or of another state of its file.

        The file is read only when it is newer than what was seen of it.
        """
        seen = self.seen(video)
        if seen is None or self.is_other(video, path, seen["source"]):
            return list(self.streams)
        return [key for key in self.streams if key not in seen["left_out"] and not self.has(video, key)]

    def is_other(self, video: str, path: Path, source: Mapping[str, Any]) -> bool:
        try:
            status = regular(path).stat()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}.") from None
        if status.st_size != source.get("bytes"):
            return True
        return status.st_mtime > self.file(video, "json").stat().st_mtime and source_of(path) != source

    def has(self, video: str, key: str) -> bool:
        about = read_about(self.features_file(video, key))
        return about.get("settings") == self.digests[key] and about.get("video") == video

    def finished_videos(self) -> list[str]:
        """Return the names of all videos that have features, in order."""
        names = [read_json(file).get("video") for file in self.path.glob("*.json") if file.name != SETTINGS]
        return sorted({name for name in names if isinstance(name, str) and self.seen(name)})

    def failed_videos(self) -> dict[str, str]:
        """Return {name: why} of the videos that could not be extracted."""
        reports = [read_json(file) for file in sorted(self.path.glob("*.failed.json"))]
        return {report["video"]: report["reason"] for report in reports if {"video", "reason"} <= report.keys()}

    def seen(self, video: str) -> dict[str, Any] | None:
        """Return what was seen of a finished video; None when there is nothing or it cannot be read."""
        seen = read_json(self.file(video, "json"))
        return seen if seen.get("video") == video and {"source", "left_out"} <= seen.keys() else None

    def write(
        self, video: str, features: Mapping[str, np.ndarray], seen: Mapping[str, Any], facts: Mapping[str, str]
    ) -> None:
        """Write the features of a video, then what was seen; the video is finished when both are there.

        facts: further metadata of every stream's file
        """
        for key, rows in features.items():
            made = {"settings": self.digests[key], "reading": self.reading, **self.streams[key], **facts}
            write_tensors(self.features_file(video, key), {"features": rows}, {"video": video, **made})
        write_text(self.file(video, "json"), json.dumps(seen, indent=2) + "\n")
        self.file(video, "failed.json").unlink(missing_ok=True)
        self.part_file(video).unlink(missing_ok=True)

    def write_failure(self, video: str, reason: str) -> None:
        write_text(self.file(video, "failed.json"), json.dumps({"video": video, "reason": reason}, indent=2) + "\n")

    def write_part(self, video: str, rows: Mapping[str, np.ndarray], state: str) -> None:
        """Write the first segments of a video. state: what they depend on; another one's are not continued."""
        write_tensors(self.part_file(video), rows, {"state": state})

    def read_part(self, video: str, keys: list[str], state: str) -> dict[str, np.ndarray]:
        """Return the first segments of a video that an interrupted process left: {} when there are none."""
        if read_about(self.part_file(video)).get("state") != state:
            return {}
        rows = load_file(self.part_file(video))
        return rows if sorted(rows) == sorted(keys) else {}


def warning_of_names(videos: Iterable[str]) -> str | None:
    """Return a sentence about names of videos that cannot be written in a label file, None if all can."""
    odd = [video for video in videos if len(video.split()) != 1 or video != video.strip()]
    if not odd:
        return None
    few = ", ".join(odd[:3]) + (", ..." if len(odd) > 3 else "")
    return (
        f"warning: {len(odd)} names of videos hold white space, which a label file cannot: {few}. "
        "Rename their files, and extract those."
    )


def own_name(video: str) -> str:
    """Return what the files of a video are called: a name with a digest where they would be files of something else."""
    name = file_name(video)
    return name_with_digest(name, video) if TAKEN.search(name) else name


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write a safetensors file, with one text about it: several would be written in an order of chance."""
    with whole(path) as temporary:
        temporary.write_bytes(save(dict(tensors), {"about": json.dumps(about, sort_keys=True)}))


def read_about(path: Path) -> dict[str, Any]:
    """Return what a safetensors file says of itself; {} when it is not there, damaged or none of ours."""
    try:
        with safe_open(regular(path), framework="numpy") as file:
            about = json.loads((file.metadata() or {})["about"])
    except (OSError, SafetensorError, InputError, KeyError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def read_json(file: Path) -> dict[str, Any]:
    """Return what a JSON file says; {} when it is not there, damaged or none of ours."""
    try:
        content = json.loads(regular(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, InputError):
        return {}
    return content if isinstance(content, dict) else {}


def source_of(path: Path) -> dict[str, Any]:
    """Return what tells whether a video's file is still the same: its name, size and BLAKE2b checksum.

    Raises:
        InputError: when it cannot be read.
    """
    try:
        with regular(path).open("rb") as file:
            checksum = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
            return {"name": path.name, "bytes": file.tell(), "checksum": checksum}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None


def read_settings(folder: Path) -> dict[str, Any]:
    """Return what the features in a folder are.

    Raises:
        InputError: when the folder is none that `pamfn.extract` has written.
    """
    file = folder / SETTINGS
    try:
        settings = json.loads(regular(file).read_text(encoding="utf-8"))
        if settings["version"] == VERSION and isinstance(settings["streams"], dict) and settings["reading"]:
            return settings
        reason = f"its version is {settings['version']}, and this is {VERSION}"
    except FileNotFoundError:
        raise InputError(f"{folder} is no folder of extracted features: it has no {SETTINGS}.") from None
    except OSError as error:
        reason = str(error.strerror)
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error)
    raise InputError(f"cannot read {file} ({reason}): extract into another folder.")


def differences(there: Any, asked: Any, place: str) -> list[str]:
    if isinstance(there, Mapping) and isinstance(asked, Mapping):
        keys = dict.fromkeys([*there, *asked])
        return [text for key in keys for text in differences(there.get(key), asked.get(key), f"{place}.{key}")]
    return [] if there == asked else [f"{place} is {there}, asked for {asked}"]
