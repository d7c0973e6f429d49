"""The folder of a run: its result, checked as it is read, and its lock."""

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pamfn.errors import InputError
from pamfn.files import TEMPORARY, cannot_write, regular, remove_abandoned, write_text
from pamfn.runs.result import problems_of_result, without_removed

log = logging.getLogger(__name__)

SCHEMA = 1
"""Version of the format of result.json."""

LARGEST_RESULT = 16 * 2**20
"""Largest result.json that is read, in bytes; the largest here has seven thousand."""

NAMED = 3
"""Most problems of one result that an error names."""


def finite(content: Any) -> Any:
    """The same content with null for nan and infinity, so that any reader of JSON can read it."""
    if isinstance(content, dict):
        return {k: finite(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return [finite(v) for v in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def digest(content: Mapping[str, Any]) -> str:
    """A hash of a result without its digest, by which a number changed by hand is noticed."""
    kept = {k: v for k, v in content.items() if k != "digest"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Run:
    """The folder of one network."""

    path: Path

    def file(self, name: str) -> Path:
        return self.path / name

    def result(self) -> dict[str, Any] | None:
        """The run's result.json, or None while it is not finished.

        Raises:
            InputError: when the file is cut short, of another version, changed since it was written, or not a result.
        """
        file = self.file("result.json")
        if not regular(file, most=LARGEST_RESULT).exists():
            return None
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            version = content.get("schema") if isinstance(content, dict) else None
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{file} is damaged ({error}). Remove the folder {self.path} and run it again.") from error
        if version != SCHEMA:
            raise InputError(
                f"{file} has version {version} of the result format, and this code reads {SCHEMA}. "
                f"Read it with the code that wrote it, or remove the folder {self.path} and run it again."
            )
        if content.get("digest") != digest(content):
            raise InputError(
                f"{file} was changed after it was written (its digest does not match). "
                f"Restore it, or remove the folder {self.path} and run it again."
            )
        if isinstance(content.get("config"), dict):
            content["config"] = without_removed(content["config"])
        if problems := problems_of_result(content):
            named = "; ".join(problem.rstrip(".") for problem in problems[:NAMED])
            raise InputError(f"{file} is not the result of a run: {named}. Remove the folder {self.path}.")
        return content

    def finished(self) -> dict[str, Any]:
        """The run's result.

        Raises:
            InputError: when there is none, or `result` refuses it.
        """
        content = self.result()
        if content is None:
            raise InputError(
                f"{self.path} is not a finished run: it has no result.json. Give a folder like runs/fusion/NAME."
            )
        return content

    def write_result(self, content: Mapping[str, Any]) -> None:
        """Writes result.json, marked with the version of its format and a digest of its content."""
        marked = {**finite(content), "schema": SCHEMA}
        marked["digest"] = digest(marked)
        write_text(self.file("result.json"), json.dumps(marked, indent=1) + "\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for one process; a second one waits, then finds it finished.

        Raises:
            InputError: when the folder cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.file(".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.info("%s: another process is at it; waiting", self.path.name)
                lock.acquire()
        except (OSError, NotImplementedError) as error:
            raise cannot_write(self.path, error) from error
        try:
            self.remove_leftovers()
            yield
        finally:
            lock.release()

    def remove_leftovers(self) -> None:
        """Removes what killed processes left: half-written files, and the resume point of a finished run."""
        remove_abandoned(self.path)
        if self.file("result.json").exists():
            with suppress(OSError):  # a folder, which is none of ours
                self.file("resume.ckpt").unlink(missing_ok=True)

    def tidy(self) -> None:
        """`remove_leftovers`, if there are any and no other process holds the run."""
        if any(self.path.glob(f".*{TEMPORARY}")) or self.file("resume.ckpt").exists():
            with suppress(OSError, NotImplementedError, Timeout), FileLock(self.file(".lock"), timeout=0):
                self.remove_leftovers()


def find(output_dir: Path, kind: str, label: str, fingerprint: str) -> Run:
    """The run in `<output_dir>/<kind>/<label>-<fingerprint>`."""
    return Run(output_dir / kind / f"{label}-{fingerprint}")
