"""The beginning and the end of a command: where it imports from and prints to, what it says when it is stopped."""

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import NoReturn, TextIO

from pamfn.errors import InputError

AGAIN = (
    "Nothing half-written was left. The same command starts again, a training or an extraction where it was last saved."
)
"""What every stopped command says last."""

ENDS = {
    signal.SIGINT: ("interrupted", 130),
    signal.SIGTERM: ("error: terminated", 1),
    signal.SIGHUP: ("error: terminated, since its terminal closed", 1),
}
"""{a signal that asks the process to end: what the command then says, its exit status}."""

PATIENCE = 10
"""Seconds after which a request to end is repeated, since something may have swallowed it."""

PARENT = "PAMFN_PARENT"
"""Environment variable with the process id of the sweep whose jobs this process runs."""

received: list[int] = []
"""Requests to end that arrived."""


def start() -> None:
    """Prepare the process; to be called before anything else of a command is imported."""
    os.environ["PYTHONSAFEPATH"] = "1"  # workers import nothing from the current folder either
    open_closed()
    sys.excepthook = end
    for number in ENDS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):  # nohup ignores SIGHUP
            signal.signal(number, stop)


def open_closed() -> None:
    """Opens closed standard streams on the null device; else a run's file would get their number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


def stop(number: int, frame: FrameType | None) -> None:
    """Ends the process as Ctrl-C does, but at once during an import, which may swallow any exception."""
    if number in ENDS:
        received.append(number)
    while frame is not None:
        if "importlib" in frame.f_code.co_filename:
            with suppress(SystemExit):
                say_end()
            os._exit(ENDS[signal.Signals(received[0])][1])
        frame = frame.f_back
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    raise KeyboardInterrupt


def end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The exception hook: a sentence for a command that was stopped, a traceback for anything else."""
    if issubclass(kind, BrokenPipeError):
        refuse_unread(error)
    if issubclass(kind, KeyboardInterrupt):
        say_end()
    sys.__excepthook__(kind, error, trace)


def say_end() -> NoReturn:
    """Ends the process with the sentence of the first request to end."""
    signal.alarm(0)
    say_last(*ENDS[signal.Signals(received[0]) if received else signal.SIGINT])


def refuse_unread(error: BaseException | None = None) -> NoReturn:
    """Ends a command whose standard output nobody reads."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is still to be printed
    reason = getattr(error, "strerror", None) or "whatever read it has stopped reading"
    say_last(f"error: standard output cannot be written ({reason})", 1)


def say(text: str) -> None:
    """Prints a result; without a reader, the command ends."""
    try:
        print(text, flush=True)
    except OSError as error:
        refuse_unread(error)


def say_last(sentence: str, status: int) -> NoReturn:
    with suppress(OSError):
        print(f"{sentence}. {AGAIN}", file=sys.stderr, flush=True)
    raise SystemExit(status)


class Console(logging.StreamHandler[TextIO]):
    """Log lines on standard output; without a reader, the command ends."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise BrokenPipeError(error.errno, error.strerror) from error
        super().handleError(record)


def end_with_parent() -> None:
    """Make a worker process end when the sweep's own process is gone."""
    threading.Thread(target=watch, args=(int(os.environ[PARENT]),), daemon=True).start()


def watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)  # as if it had been killed, which no run minds


def refuse(error: InputError) -> NoReturn:
    """End the process with the sentences of a mistake."""
    if os.environ.get("PAMFN_TRACEBACK"):
        traceback.print_exception(error)
    else:
        text = f"error: {error}" if len(error.problems) == 1 else "errors:\n  " + "\n  ".join(error.problems)
        print(text, file=sys.stderr)
    raise SystemExit(1)


@contextmanager
def refusing() -> Iterator[None]:
    """As a decorator of a command's `main`: a mistake ends the process with its sentences."""
    try:
        yield
    except InputError as error:
        refuse(error)
