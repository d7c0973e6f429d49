"""The process that reads videos and computes features, apart from the one that hands them out.

Decoders parse files that anybody may have made: a crash or a hang there costs one video, not the batch.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np

from pamfn.command_line.process import PARENT, end_with_parent
from pamfn.config.extract_schema import Reading
from pamfn.config.targets import build
from pamfn.errors import InputError
from pamfn.extraction.container import announced_segments, inspect
from pamfn.extraction.extractor import Extractor, Segment
from pamfn.extraction.segments import Video
from pamfn.extraction.store import FeatureFolder, digest_of, source_of

SAVE_SECONDS = 60.0
"""How often the finished segments of a long video are saved."""

START_SECONDS = 300.0
"""How long loading the networks may take, beside the limit for a video."""

PACKAGES = ("pamfn", "av", "numpy", "opencv-contrib-python-headless", "torch")


@dataclass(frozen=True)
class Setup:
    """What a worker needs to know once.

    folder: where features go
    nodes: {STREAM_NAME: an extractor's `_target_` and arguments}
    weights: {STREAM_NAME: its file, if it needs one}
    """

    folder: FeatureFolder
    nodes: Mapping[str, Mapping[str, Any]]
    weights: Mapping[str, Path | None]
    device: str
    precision: str
    batch: int
    threads: int


class UnusableError(InputError):
    """The worker cannot start: what keeps it from that keeps it from every video."""


class Worker:
    """The handle of the process: it is started when there is something to do, and again after a crash.

    limit: seconds without a sign of progress after which a video is given up
    """

    def __init__(self, setup: Setup, limit: float) -> None:
        self.setup = setup
        self.limit = limit
        self.process: SpawnProcess | None = None
        self.connection: Any = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def ask(self, task: str, *words: Any, progress: Callable[[int, int], None] = lambda done, of: None) -> Any:
        """Let the process do a task, and return its answer. progress: called with segments done and expected.

        Raises:
            InputError: whatever kept the task from being done; a WriteError or an error in the settings ends all.
        """
        connection = self.started()
        try:
            connection.send((task, words))
            while connection.poll(self.limit + (START_SECONDS if task == "load" else 0)):
                kind, value = connection.recv()
                if kind == "progress":
                    progress(*value)
                elif kind == "answer":
                    return value
                else:
                    raise value
        except (EOFError, ConnectionError):
            code = self.kill(wait=5)
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            if task == "load":
                raise InputError(f"the process that reads videos ended at its start ({how})") from None
            raise InputError(
                f"the process that read it ended ({how}): the file is damaged, or memory ran out"
            ) from None
        self.kill()
        raise InputError(f"no progress for {self.limit:g} s: the file is damaged, or time_limit is too short") from None

    def started(self) -> "Connection[Any, Any]":
        if self.connection is None:
            os.environ[PARENT] = str(os.getpid())
            forget_unknown_start_method()
            context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
            ours, theirs = context.Pipe()
            self.connection = ours
            self.process = context.Process(target=serve, args=(theirs, self.setup))
            self.process.start()
            theirs.close()
            try:
                self.ask("load")
            except InputError as error:
                raise UnusableError(error.problems) from error
        assert self.connection is not None
        return self.connection

    def kill(self, wait: float = 0) -> int:
        """End the process, after seconds in which it may end by itself, and return its exit status."""
        code = 0
        if self.process is not None and self.connection is not None:
            self.process.join(wait)
            self.process.kill()
            self.process.join()
            code = self.process.exitcode or 0
            self.connection.close()
        self.process = self.connection = None
        return code


def forget_unknown_start_method() -> None:
    """Replace the start method that joblib gives its processes: a new process is told of it, and does not know it."""
    if multiprocessing.get_start_method(allow_none=True) not in (None, *multiprocessing.get_all_start_methods()):
        multiprocessing.set_start_method("spawn", force=True)


def serve(connection: "Connection[Any, Any]", setup: Setup) -> None:
    """Answer tasks until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process says what happens
    end_with_parent()
    tasks = Tasks(setup, lambda done, of: connection.send(("progress", (done, of))))
    while True:
        try:
            task, words = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = ("answer", getattr(tasks, task)(*words))
        except InputError as error:
            answer = ("error", type(error)(error.problems))
        except MemoryError:
            answer = ("error", InputError("memory ran out"))
        except Exception as error:  # whatever a file does to a decoder, the others go on
            answer = ("error", InputError(f"{type(error).__name__}: {error}"))
        connection.send(answer)


class Tasks:
    """What a worker can be asked for."""

    def __init__(self, setup: Setup, progress: Callable[[int, int], None]) -> None:
        self.setup = setup
        self.progress = progress
        self.reading = Reading(**setup.folder.reading)
        self.extractors: dict[str, Extractor] = {}

    def load(self) -> None:
        """Build the extractors and load their weights."""
        import torch

        torch.set_num_threads(self.setup.threads)
        for key, node in self.setup.nodes.items():
            extractor: Extractor = build(node)
            extractor.load(weights=self.setup.weights[key], device=self.setup.device, precision=self.setup.precision)
            self.extractors[key] = extractor

    def inspect(self, path: Path) -> dict[str, Any]:
        """Open a video, and return the seconds and segments that its headers announce."""
        seen = inspect(path, self.reading)
        return {"seconds": seen.duration, "segments": announced_segments(seen, self.reading.fps)}

    def time(self, path: Path) -> dict[str, float]:
        """Return seconds a segment for reading and for every extractor, measured on the start of a video."""
        return self.features_of(path, list(self.extractors), {}, at_most=self.setup.batch)[2]

    def extract(self, video: str, path: Path, keys: list[str]) -> dict[str, Any]:
        """Write the features of a video, and return what was seen."""
        folder, source = self.setup.folder, source_of(path)
        state = digest_of({"source": source, "streams": {key: folder.digests[key] for key in keys}})
        part = folder.read_part(video, keys, state)

        def save(rows: Mapping[str, np.ndarray]) -> None:
            folder.write_part(video, rows, state)

        features, seen, _ = self.features_of(path, keys, part, save=save)
        before = folder.seen(video) or {}
        if before.get("source") != source:
            before = {}
        report = {
            "video": video,
            "source": source,
            "segments": len(next(iter(features.values()))) if features else before.get("segments", 0),
            "left_out": sorted({*before.get("left_out", []), *keys} - features.keys()),
            **seen,
            "warnings": list(dict.fromkeys([*before.get("warnings", []), *seen["warnings"]])),
        }
        facts = {"source": source["checksum"], "device": self.setup.device}
        facts |= {"versions": " ".join(f"{name}={version(name)}" for name in PACKAGES)}
        folder.write(video, features, report, facts)
        return report

    def features_of(
        self,
        path: Path,
        keys: Sequence[str],
        part: Mapping[str, np.ndarray],
        *,
        save: Callable[[Mapping[str, np.ndarray]], None] = lambda rows: None,
        at_most: int | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, float]]:
        """Return features {STREAM_NAME: (s, width)}, what was seen, and seconds a segment.

        part: the rows of the first segments, from an earlier process
        at_most: stop after this many segments
        """
        wanted = {key: self.extractors[key] for key in keys}
        done = first = len(next(iter(part.values()))) if part else 0
        video = Video(path, self.reading, list(wanted.values()), lambda: self.progress(done, video.announced))
        if self.reading.missing_audio == "skip" and inspect(path, self.reading).audio_stream is None:
            wanted = {key: extractor for key, extractor in wanted.items() if not extractor.channels}
        rows = {key: [part[key]] if key in part else [] for key in wanted}
        seconds, saved = dict.fromkeys(["reading", *wanted], 0.0), time.monotonic()
        for batch in timed(batches(video.segments(first), self.setup.batch), seconds, "reading"):
            for key, extractor in wanted.items():
                start = time.monotonic()
                rows[key].append(checked(extractor.features(batch), extractor, len(batch)))
                seconds[key] += time.monotonic() - start
            done += len(batch)
            self.progress(done, video.announced)
            if done == at_most:
                break
            if time.monotonic() - saved > SAVE_SECONDS:
                rows = {key: [np.concatenate(parts)] for key, parts in rows.items()}
                save({key: parts[0] for key, parts in rows.items()})
                saved = time.monotonic()
        features = {key: np.concatenate(parts) for key, parts in rows.items()}
        return features, video.seen.as_dict(), {key: s / max(done - first, 1) for key, s in seconds.items()}


def batches(segments: Iterator[Segment], size: int) -> Iterator[list[Segment]]:
    while batch := list(islice(segments, size)):
        yield batch


def timed(batches: Iterator[list[Segment]], seconds: dict[str, float], key: str) -> Iterator[list[Segment]]:
    """Yield what an iterator yields, and add the time that it takes."""
    while True:
        start = time.monotonic()
        batch = next(batches, None)
        seconds[key] += time.monotonic() - start
        if batch is None:
            return
        yield batch


def checked(rows: np.ndarray, extractor: Extractor, count: int) -> np.ndarray:
    """Return the features of a batch as float32.

    Raises:
        InputError: when an extractor does not keep its contract.
    """
    if rows.shape != (count, extractor.width):
        raise InputError(
            f"{extractor.name}: {rows.shape} features for {count} segments, and its width is {extractor.width}"
        )
    if not np.isfinite(rows).all():
        raise InputError(f"{extractor.name}: features that are not finite")
    return np.asarray(rows, np.float32)
