"""What a fault needs inside a fresh interpreter, which reads this file when the folder is on its path.

FAULT_IMPORT=MODULE:SIGNAL sends the signal when the module is about to be imported. FAULT_SIZE=NAME:BYTES limits the
size of files once a file with that name is opened to be written; without a name, from the start.
"""

import os
import resource
import signal
import sys
from collections.abc import Sequence

WRITING = os.O_WRONLY | os.O_RDWR


class Signalling:
    """A finder of modules that finds none; it signals its process when it is asked for one of them, once."""

    def __init__(self, module: str, how: signal.Signals) -> None:
        self.module, self.how, self.done = module, how, False

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> None:
        if name == self.module and not self.done:
            self.done = True
            os.kill(os.getpid(), self.how)


class Limiting:
    """An audit hook: once a file of that name is opened to be written, no file grows beyond the limit."""

    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit = name, limit
        if not name:
            self.strike()

    def strike(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event != "open" or not self.name or not isinstance(arguments[2], int) or not arguments[2] & WRITING:
            return
        if self.name in os.path.basename(str(arguments[0])):  # noqa: PTH119  (in a hook, nothing that opens files)
            self.strike()


# whoever starts the campaign in the background or with nohup passes on "ignore"
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGTERM, signal.SIG_DFL)

if "FAULT_IMPORT" in os.environ:
    asked, _, named = os.environ["FAULT_IMPORT"].partition(":")
    sys.meta_path.insert(0, Signalling(asked, signal.Signals[named]))  # type: ignore[arg-type]
if "FAULT_SIZE" in os.environ:
    asked, _, named = os.environ["FAULT_SIZE"].partition(":")
    sys.addaudithook(Limiting(asked, int(named)))
