"""The extraction of a folder of videos: which are to be done, one after the other, and what became of them."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout
from safetensors.numpy import load_file
from tqdm import tqdm

from pamfn.config.extract_schema import ExtractConfig, Weights
from pamfn.config.targets import OLD_NAMES, build
from pamfn.errors import InputError, WriteError
from pamfn.extraction.extractor import Extractor
from pamfn.extraction.store import FeatureFolder
from pamfn.extraction.worker import Setup, UnusableError, Worker

ENDINGS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".3gp")
"""Endings of the files of a folder that are taken for videos."""

NAME = re.compile(r"[A-Za-z0-9-]+")
"""Names of extractors: the names of feature files are split at `_`, and at `.` before their ending."""

AGAIN = "All other videos are done. The same command tries the failed ones again."
NOTHING_DONE = "Nothing was extracted, since this was a dry run. An extraction leaves these videos out."


@dataclass
class Outcome:
    """What became of the videos.

    busy: videos that another process works on
    failed: {video: why}
    closing: what is said below the failures
    """

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    closing: str = AGAIN

    def __str__(self) -> str:
        counts = {"extracted": self.done, "there before": self.skipped, "left to other processes": self.busy}
        return ", ".join(f"{len(videos)} {what}" for what, videos in counts.items() if videos) or "nothing extracted"

    def refuse_failures(self) -> None:
        """Raise InputError when videos failed: each with its reason."""
        if self.failed:
            raise InputError([*(f"{video}: {reason}" for video, reason in self.failed.items()), self.closing])


def find_videos(videos: str | Sequence[str]) -> dict[str, Path]:
    """Return {name: path} of the videos of a folder (with its subfolders), a file, a list of files, or a text file.

    A name is the path below the common folder without its ending, so that equal names in two folders stay apart.

    Raises:
        InputError: when there are none, a file is missing, or two would have one name.
    """
    if isinstance(videos, str):
        place = Path(videos)
        if place.is_dir():
            paths = sorted(file for file in place.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
            if not paths:
                raise InputError(f"videos: no video in {place}: looked for files that end in {', '.join(ENDINGS)}.")
            return named(paths, place)
        if place.suffix == ".txt" and place.is_file():
            lines = place.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            return find_videos([str(place.parent / line) for line in map(str.strip, lines) if line])
        videos = [videos]
    paths = [Path(video).absolute() for video in videos]
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise InputError(f"videos: no such file: {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}.")
    if not paths:
        raise InputError("videos: an empty list.")
    return named(paths, Path(os.path.commonpath([path.parent for path in paths])))


def named(paths: Sequence[Path], folder: Path) -> dict[str, Path]:
    names: dict[str, Path] = {}
    for path in paths:
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in names and names[name] != path:
            raise InputError(f"videos: {names[name]} and {path} would both be called {name}: rename one.")
        names[name] = path
    return names


def part_of(name: str, parts: int) -> int:
    """Return the part that a video belongs to, by its name alone: it stays there when others are added."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8]) % parts


def setup_of(config: ExtractConfig) -> tuple[Setup, dict[str, Extractor]]:
    """Return what the worker needs, and {STREAM_NAME: extractor}, none of them loaded.

    Raises:
        InputError: when weights are missing, or an extractor has a name that no feature file can have.
    """
    extractors, nodes, weights, streams, problems = {}, {}, {}, {}, []
    for stream in config.streams or config.extractor:
        node = {key: value for key, value in config.extractor[stream].items() if key != "weights"}
        file: str | None = config.extractor[stream].get("weights")
        extractor: Extractor = build(node)
        key = f"{stream}_{extractor.name}"
        if not NAME.fullmatch(extractor.name):
            problems.append(
                f"extractor.{stream}: the name of {node['_target_']} is {extractor.name!r}, and names of feature files "
                "need letters A to Z, digits and hyphens only: give the class another `name`."
            )
        elif not extractor.needs_weights:
            extractors[key], nodes[key], weights[key] = extractor, node, None
            streams[key] = {"extractor": as_before(node), "width": extractor.width}
        elif file is None:
            option = f"weights.{extractor.name.partition('-')[0].lower()}"
            if option.partition(".")[2] not in Weights.model_fields:  # an extractor of the user's own
                option = f"extractor.{stream}.weights"
            problems.append(f"extractor.{stream}: {extractor.name} needs its weights: {option}=FILE.")
        elif not Path(file).is_file():
            problems.append(f"extractor.{stream}.weights: no file {file}.")
        else:
            extractors[key], nodes[key], weights[key] = extractor, node, Path(file).absolute()
            streams[key] = {"extractor": as_before(node), "width": extractor.width}
            streams[key] |= {"weights": sha256_of(Path(file)), "precision": config.precision}
    if problems:
        raise InputError(problems)
    folder = FeatureFolder(Path(config.out or ""), config.reading.model_dump(), streams)
    return Setup(
        folder, nodes, weights, device_of(config.device), config.precision, config.batch, config.threads
    ), extractors


def as_before(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return an extractor's settings as they are recorded: with the first name of its class, so that old ones agree."""
    return {**node, "_target_": OLD_NAMES.get(node["_target_"], node["_target_"])}


def sha256_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None


def device_of(name: str) -> str:
    """Return the device itself: `auto` is a GPU if there is one.

    Raises:
        InputError: when there is no such device.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device: {name} cannot be used here ({str(error).splitlines()[0]}).") from None
    return name


def extract(config: ExtractConfig, say: Callable[[str], None]) -> Outcome:
    """Extract what is missing of this job's videos; a video that fails leaves the reason, and the others go on.

    say: called with a line for every video

    Raises:
        InputError: when nothing can be extracted: wrong settings, no videos, a folder of other features, no space.
    """
    videos = videos_of(config)
    setup, extractors = setup_of(config)
    folder, outcome = setup.folder, Outcome()
    folder.claim()
    with Worker(setup, config.time_limit) as worker, Bar(videos) as bar:
        for number, (name, path) in enumerate(videos.items(), 1):
            line = ""
            try:
                with folder.lock(name).acquire(blocking=False):
                    if keys := folder.missing(name, path):
                        seen = worker.ask("extract", name, path, keys, progress=bar.within(path))
                        line = f"{seen['segments']} segments" + "".join(f"; {text}" for text in seen["warnings"])
                        if not outcome.done:
                            line += "".join(beside_published(folder, name, extractors))
                        outcome.done.append(name)
                    else:
                        outcome.skipped.append(name)
            except Timeout:
                outcome.busy.append(name)
            except (WriteError, UnusableError):
                raise
            except InputError as error:
                outcome.failed[name] = " ".join(error.problems)
                folder.write_failure(name, outcome.failed[name])
                line = f"failed: {outcome.failed[name]}"
            bar.finished(path)
            if line:
                bar.clear()
                say(f"[{number}/{len(videos)}] {name}: {line}")
    say(f"{folder.path}: {outcome}")
    return outcome


def videos_of(config: ExtractConfig) -> dict[str, Path]:
    """Return {name: path} of the videos of this job's part."""
    videos = find_videos(config.videos or [])
    return {name: path for name, path in videos.items() if part_of(name, config.parts) == config.part}


def beside_published(folder: FeatureFolder, video: str, extractors: Mapping[str, Extractor]) -> Iterator[str]:
    """Yield a line for every extractor whose features others have published: their statistics beside this video's."""
    for key, extractor in extractors.items():
        file = folder.features_file(video, key)
        if extractor.expected is None or not file.exists():
            continue
        rows = load_file(file)["features"]
        here = (rows.mean(), rows.std(), rows.min(), rows.max(), np.linalg.norm(rows, axis=1).mean())
        for source, figures in (("this video", here), (extractor.expected.source, extractor.expected[1:])):
            mean, std, lowest, highest, length = figures
            yield (
                f"\n  {key} of {source}: mean {mean:.2g}, standard deviation {std:.3f}, range {lowest:.2f} to "
                f"{highest:.2f}, mean length of a row {length:.1f}"
            )


def forecast(config: ExtractConfig, say: Callable[[str], None]) -> Outcome:
    """Open every video without extracting anything, and say what there is and how long it would take here.

    The time is that of the first segments of the first video that can be read, times the number of missing segments.

    Raises:
        InputError: when nothing could be extracted: wrong settings or weights, no videos, a folder of other features.
    """
    videos = videos_of(config)
    setup, _ = setup_of(config)
    setup.folder.refuse_others()
    outcome, total, missing, seconds = Outcome(closing=NOTHING_DONE), 0.0, {}, {}
    with Worker(setup, config.time_limit) as worker:
        for name, path in videos.items():
            try:
                announced = worker.ask("inspect", path)
                if setup.folder.missing(name, path):
                    seconds = seconds or worker.ask("time", path)
                    missing[name] = announced["segments"]
                total += announced["seconds"] or 0.0
            except UnusableError:
                raise
            except InputError as error:
                outcome.failed[name] = " ".join(error.problems)
    said = f"{len(videos)} videos, {duration(total)}; {len(outcome.failed)} cannot be read"
    segments = sum(missing.values())
    say(f"{said}; {len(missing)} are to be extracted, {segments} segments")
    for key, each in seconds.items():
        say(f"  {key}: {each:.3f} s a segment, {duration(each * segments)}")
    if missing:
        say(f"in all about {duration(sum(seconds.values()) * segments)} in one process on {setup.device}")
    return outcome


def duration(seconds: float) -> str:
    """Write a duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Bar:
    """The progress bar on a terminal, in bytes of the videos; nothing elsewhere."""

    def __init__(self, videos: Mapping[str, Path]) -> None:
        self.sizes = {path: path.stat().st_size for path in videos.values()}
        self.before = 0
        self.bar: tqdm[Any] = tqdm(total=sum(self.sizes.values()), unit="B", unit_scale=True, disable=None)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def within(self, path: Path) -> Callable[[int, int], None]:
        """Return what is called with segments done and expected of a video."""

        def show(done: int, expected: int) -> None:
            self.bar.n = self.before + int(self.sizes[path] * min(done / max(expected, 1), 1))
            self.bar.refresh()

        return show

    def clear(self) -> None:
        """Make room for a line of text."""
        self.bar.clear()

    def finished(self, path: Path) -> None:
        self.before += self.sizes[path]
        self.bar.n = self.before
        self.bar.refresh()
