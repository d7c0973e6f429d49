"""Exceptions that a user sees: mistakes in what was asked or provided, in sentences."""

from collections.abc import Iterable


class InputError(Exception):
    """A mistake in the input: every problem is one sentence that says what was asked, what was found, what to do.

    Commands print it without a traceback and exit with status 1.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class WriteError(InputError):
    """A file cannot be written: no space, no permission."""


class DivergedError(InputError):
    """A training diverged: losses or predictions are not finite, and going on from the resume point would not help."""


class TerminatedError(InputError):
    """The process was asked to end (SIGTERM): a sweep stops too."""
