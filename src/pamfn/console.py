"""How a command begins and ends: where it imports from, where it prints to, what it says when it is stopped."""

import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType, TracebackType
from typing import NoReturn, TextIO

AGAIN = "Nothing half-written was left; the same command again goes on from where a training was last saved."
"""What is said of every command that is stopped."""

ENDS = {signal.SIGTERM: "terminated", signal.SIGHUP: "terminated, since its terminal closed"}
"""Requests to end besides Ctrl-C, as they are told."""

PARENT = "PAMFN_PARENT"
"""Environment variable with the process whose jobs others work at."""

received: list[int] = []
"""Requests to end that came."""


def start() -> None:
    """Before anything else of a command is imported."""
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder: what lies there may bear the name of any module
    open_closed()
    sys.excepthook = end
    for number in ENDS:
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP, and means it
            signal.signal(number, stop)


def open_closed() -> None:
    """Gives standard streams that are closed somewhere to go; else a run's file would get their number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


def stop(number: int, frame: FrameType | None) -> None:
    """Ends the process as Ctrl-C does."""
    received.append(number)
    raise KeyboardInterrupt


def end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Says in a sentence why a command was stopped; anything else keeps its traceback."""
    if issubclass(kind, BrokenPipeError):
        refuse_unread()
    if issubclass(kind, KeyboardInterrupt):
        say_last(*((f"error: {ENDS[signal.Signals(received[0])]}", 1) if received else ("interrupted", 130)))
    sys.__excepthook__(kind, error, trace)


def refuse_unread() -> NoReturn:
    """Ends a command that nobody listens to."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is still to be printed
    say_last("error: whatever read the output has stopped reading", 1)


def say_last(told: str, status: int) -> NoReturn:
    with suppress(OSError):
        print(f"{told}. {AGAIN}", file=sys.stderr, flush=True)
    raise SystemExit(status)


class Console(logging.StreamHandler[TextIO]):
    """Log lines on standard output; without a reader, the command ends."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            raise
        super().handleError(record)


def end_with_parent() -> None:
    """In a process that works at a sweep's jobs, first of all: ends it when the sweep's own is gone."""
    threading.Thread(target=watch, args=(int(os.environ[PARENT]),), daemon=True).start()


def watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)  # as if it had been killed, which no run minds
