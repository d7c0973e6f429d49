"""Malicious pickles, and the sentence by which a reader refuses a file."""

import struct
from typing import Any

import pytest

from pamfn.errors import InputError


def sentence(call, *arguments: Any) -> str:
    with pytest.raises(InputError) as raised:
        call(*arguments)
    return str(raised.value)


class Runs:
    """Pickles as a call of a function by its full name."""

    def __init__(self, name: str, *arguments: object) -> None:
        self.name, self.arguments = name, arguments


def malicious(runs: Runs, form: str) -> bytes:
    """A pickle that calls `runs.name`, in one of the ways that pickle has for it."""
    module, _, name = runs.name.rpartition(".")
    text = b"".join(b"X" + struct.pack("<I", len(part)) + part for part in (str(a).encode() for a in runs.arguments))
    line = f"{module}\n{name}\n".encode()
    short = b"".join(b"\x8c" + bytes([len(part)]) + part for part in (module.encode(), name.encode()))
    forms = {
        "reduce": b"c" + line + b"(" + text + b"tR",
        "stack_global": b"\x80\x04" + short + b"\x93(" + text + b"tR",
        "inst": b"(" + text + b"i" + line,
        "obj": b"(c" + line + text + b"o",
        "newobj": b"\x80\x02c" + line + b"(" + text + b"t\x81",
        "build": b"c" + line + b"}(U\x0c__setstate__c" + line + b"ub",
        "in a dict": b"}(U\x01ac" + line + b"(" + text + b"tRu",
        "in a key": b"}(c" + line + b"(" + text + b"tRNu",
    }
    return forms[form] + b"."


FORMS = ["reduce", "stack_global", "inst", "obj", "newobj", "build", "in a dict", "in a key"]
GADGETS = {
    "os.system": ("touch {}",),
    "posix.system": ("touch {}",),
    "subprocess.Popen": ("touch {}",),
    "subprocess.getoutput": ("touch {}",),
    "builtins.eval": ("open({!r}, 'w')",),
    "builtins.exec": ("open({!r}, 'w')",),
    "__builtin__.eval": ("open({!r}, 'w')",),
    "builtins.open": ("{}", "w"),
    "builtins.getattr": ("{}", "upper"),
    "io.open": ("{}", "w"),
    "numpy.testing._private.utils.runstring": ("open({!r}, 'w')", "{{}}"),
    "numpy.load": ("{}",),
    "numpy.memmap": ("{}", "uint8", "w+"),
    "numpy.fromfile": ("{}",),
    "torch.load": ("{}",),
    "torch.jit.load": ("{}",),
    "pickle.loads": ("{}",),
    "copyreg.add_extension": ("os", "system", "1"),
    "operator.attrgetter": ("system",),
    "functools.partial": ("{}",),
    "importlib.import_module": ("os",),
    "numpy.ndarray.__class__.__base__": (),
    "numpy.dtype.__init__.__globals__": (),
    "numpy.core.multiarray._reconstruct.__globals__": (),
}
