"""Read pickled feature files without running what is in them.

A pickle is a program that may call anything. It is carried out here by the few instructions that arrays need, and
nothing it names is ever looked up: stand-ins that check and copy bytes replace numpy's constructors.
"""

import copyreg
import os
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np

from pamfn.data.video_names import problem_of_name, shown
from pamfn.errors import InputError
from pamfn.files import Bounded, few, regular

PLAIN_DTYPE = re.compile(r"[biufcSU][0-9]{1,9}")
MOST_INSTRUCTIONS = 500_000
"""Instructions of a pickle; a video takes about thirty."""
LONGEST_TUPLE = 64
"""Things in a tuple; an array has no more dimensions."""
DEEPEST_TUPLE = 4
"""Tuples in tuples; a type's state holds its unit's name and step in a tuple in a tuple."""
MOST_SHARED = 8
"""Bytes of arrays for a byte of the file: an array may have many names, but not so many that they fill the memory."""


def load_npy_dict(path: Path) -> dict[str, np.ndarray]:
    """Read the dict `video -> array` of a `.npy` file made by `np.save(file, dict)`; its arrays become read-only.

    Raises InputError when the file is not such a file, or names anything that rebuilding arrays does not need.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with regular(path, most=memory).open("rb") as opened:
            file = Bounded(opened)
            _skip_npy_header(path, file)
            content = _Machine(path, file.size).run(file)
        return _named_arrays(path, content, file.size)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"no feature file: looked for {path}.") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    except Exception as error:  # a damaged pickle may raise anything
        raise InputError(
            f"{path} is damaged or cut off ({type(error).__name__}: {shown(str(error))}): copy or extract it again."
        ) from error


def npy_header(file: Bounded) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read shape and type of a `.npy` file, up to its values; ValueError when it has no such header."""
    version: Any = file  # numpy asks for no more than `read`
    read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    major = np.lib.format.read_magic(version)[0]
    if major not in read_header:
        raise ValueError(f"version {major} of the format")
    shape, _, dtype = read_header[major](version)
    return shape, dtype


def _skip_npy_header(path: Path, file: Bounded) -> None:
    if not file.size:
        raise InputError(f"{path} is empty (0 bytes): copy or extract it again.")
    try:
        shape, dtype = npy_header(file)
    except ValueError:
        raise InputError(
            f"{path} is not a numpy .npy file: expected what np.save(file, {{video: array}}) writes."
        ) from None
    if dtype != np.dtype(object) or shape != ():
        raise InputError(
            f"{path} holds one array of {dtype} {shape}: expected a dict, np.save(file, {{video: array (t, c)}})."
        )


def _named_arrays(path: Path, content: object, size: int) -> dict[str, np.ndarray]:
    if isinstance(content, _Array) and isinstance(content.value, list):
        content = content.value[0] if len(content.value) == 1 else content.value
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}: expected a dict of video -> array (t, c).")
    arrays: dict[str, np.ndarray] = {}
    problems = []
    for key, value in content.items():
        video = str(key)
        if wrong := problem_of_name(video):
            problems.append(f"{path}: the video name {short(key)} {wrong}.")
        elif video in arrays:
            problems.append(f"{path}: the video {video} is there twice, as text and as a number.")
        elif not isinstance(value, _Array) or not isinstance(value.value, np.ndarray):
            kind = "an array of Python objects" if isinstance(value, _Array) else f"a {type(value).__name__}"
            problems.append(f"{path}: video {video} is {kind}: expected an array of numbers (t, c).")
        else:
            arrays[video] = value.value
    if problems:
        raise InputError(few(path, problems))
    total = sum(array.nbytes for array in arrays.values())
    if total > MOST_SHARED * size:
        raise ValueError(f"arrays of {total} bytes together in a file of {size}")
    return arrays


class _Dtype:
    """Stands in for numpy.dtype: a name and a byte order."""

    __slots__ = ("name", "order")

    def __init__(self, name: str, align: object = False, copy: object = True) -> None:
        self.name: str = name
        self.order: Any = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if any(part is not None for part in state[2:5]) or type(state[1]) is not str:
            raise ValueError("an array with fields")
        self.order = state[1]

    def resolve(self) -> np.dtype[Any]:
        if not PLAIN_DTYPE.fullmatch(self.name):
            raise ValueError(f"an array of dtype {self.name!r}")
        dtype = np.dtype(self.name)
        return dtype if self.order == "|" else dtype.newbyteorder(self.order)


class _Array:
    """Stands in for numpy.ndarray; `value` is the array, or the list of things in an array of objects."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: np.ndarray | list[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = raw if isinstance(raw, list) else _array(raw, dtype, shape, "F" if fortran else "C")


def _array(raw: bytes, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    kind = dtype.resolve()
    flat = np.frombuffer(raw, kind) if len(raw) else np.empty(0, kind)
    if type(shape) is not tuple or any(type(length) is not int or length < 0 for length in shape):
        raise ValueError(f"an array of shape {short(shape)}")
    array = flat.reshape(shape, order=order)
    array.flags.writeable = False
    return array


def _from_buffer(
    raw: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str, axes: tuple[int, ...] | None = None
) -> _Array:
    made = _Array()
    made.value = _array(raw, dtype, shape, "C" if order == "K" else order)
    if order == "K" and axes is not None:
        made.value = made.value.transpose(axes)
    return made


class _Machine:
    """Carries out a pickle of arrays: the instructions in `run` and `result`, and no others.

    Only text and small numbers are hashed, and nothing is walked through: lists and dicts may hold whatever they
    like, tuples are short and not deep.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.depths: dict[int, int] = {}  # of tuples, by their ids
        self.uncopied = 2 * size  # bytes: the file's once as text, and once as values
        self.stand_ins: dict[str, Callable[..., object] | None] = {
            "numpy.ndarray": None,
            "numpy.dtype": _Dtype,
            "_codecs.encode": self.encode,
            "builtins.bytes": lambda: b"",
            "__builtin__.bytes": lambda: b"",
        }
        for core in ("numpy.core", "numpy._core"):
            self.stand_ins[f"{core}.multiarray._reconstruct"] = lambda subtype, shape, code: _Array()
            self.stand_ins[f"{core}.multiarray.scalar"] = self.scalar
            self.stand_ins[f"{core}.numeric._frombuffer"] = _from_buffer

    def run(self, file: Any) -> object:
        """Return what the pickle leaves.

        Raises InputError for a name that is refused, and whatever a damaged pickle may raise.
        """
        argument: Any
        for count, (instruction, argument, _) in enumerate(pickletools.genops(file)):
            if count == MOST_INSTRUCTIONS:
                raise ValueError(f"more than {MOST_INSTRUCTIONS} instructions")
            match instruction.name:
                case "PROTO" | "FRAME" | "STOP":
                    pass  # `genops` sees to these
                case "MARK":
                    self.marks.append(len(self.stack))
                case "PUT" | "BINPUT" | "LONG_BINPUT":
                    self.memo[argument] = self.stack[-1]
                case name:
                    self.stack.append(self.result(name, argument, self.operands(instruction)))
        return self.stack.pop()

    def operands(self, instruction: pickletools.OpcodeInfo) -> list[Any]:
        """Take an instruction's operands off the stack."""
        before = instruction.stack_before
        if pickletools.markobject in before:
            start = self.marks.pop() - before.index(pickletools.markobject)
        else:
            start = len(self.stack) - len(before)
        if not 0 <= start <= len(self.stack):
            raise ValueError("an instruction without what it is about")
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def result(self, instruction: str, argument: Any, operands: list[Any]) -> object:
        """Return what an instruction puts on the stack."""
        match instruction:
            case "NONE":
                return None
            case "NEWTRUE" | "NEWFALSE":
                return instruction == "NEWTRUE"
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4":
                if argument.bit_length() > 64:
                    raise ValueError(f"a whole number of {argument.bit_length()} bits")
                return argument
            case "FLOAT" | "BINFLOAT" | "UNICODE" | "SHORT_BINUNICODE" | "BINUNICODE" | "BINUNICODE8":
                return argument
            case "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8" | "BYTEARRAY8":
                return argument
            case "STRING" | "SHORT_BINSTRING" | "BINSTRING":  # of Python 2, where bytes were written as text
                return argument.encode("latin1").decode("ascii")
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3" | "TUPLE":
                return self.short_tuple(operands)
            case "EMPTY_LIST" | "LIST":
                return operands
            case "APPEND" | "APPENDS":
                return self.extended(*operands)
            case "EMPTY_DICT" | "DICT":
                return self.filled({}, *operands)
            case "SETITEM" | "SETITEMS":
                return self.filled(*operands)
            case "MEMOIZE":
                self.memo[len(self.memo)] = operands[0]
                return operands[0]
            case "GET" | "BINGET" | "LONG_BINGET":
                return self.memo[argument]
            case "GLOBAL":
                return self.stand_in(*argument.split(" ", 1))
            case "STACK_GLOBAL":
                return self.stand_in(*operands)
            case "INST":
                self.stand_in(*argument.split(" ", 1))
                raise ValueError("an instance of a class")
            case "EXT1" | "EXT2" | "EXT4":
                registered: dict[int, tuple[str, str]] = copyreg._inverted_registry  # type: ignore[attr-defined]
                if argument not in registered:
                    raise ValueError(f"unregistered extension code {argument}")
                return self.stand_in(*registered[argument])
            case "REDUCE":
                function, arguments = operands
                if type(arguments) is not tuple or not callable(function):
                    raise ValueError("a call of what is no function")
                return function(*arguments)
            case "BUILD":
                changed, state = operands
                if not isinstance(changed, _Dtype | _Array) or type(state) is not tuple:
                    raise ValueError("a pickle that alters other things than arrays")
                changed.__setstate__(state)
                return changed
        raise ValueError(f"the instruction {instruction}, which no array needs")

    def short_tuple(self, items: list[Any]) -> tuple[Any, ...]:
        if len(items) > LONGEST_TUPLE:
            raise ValueError(f"a tuple of {len(items)}")
        made = tuple(items)
        depth = 1 + max((self.depths.get(id(item), 0) for item in items if type(item) is tuple), default=0)
        if depth > DEEPEST_TUPLE:
            raise ValueError(f"tuples in tuples, {depth} deep")
        self.depths[id(made)] = depth
        return made

    def extended(self, items: Any, *added: Any) -> list[Any]:
        """Add to a list."""
        if type(items) is not list:
            raise ValueError(f"items of a {type(items).__name__}")
        items.extend(added)
        return items

    def filled(self, values: Any, *added: Any) -> dict[str | int, Any]:
        """Add keys and values, in turn, to a dict."""
        if type(values) is not dict:
            raise ValueError(f"values by name of a {type(values).__name__}")
        for key, value in zip(added[::2], added[1::2], strict=True):
            if type(key) not in (str, int):  # before it is hashed, which may crash or never end
                raise InputError(
                    f"{self.path}: the video name {short(key)} is a {type(key).__name__}: expected text or a whole "
                    "number."
                )
            if key in values:
                raise ValueError(f"{short(key)} is there twice")
            values[key] = value
        return values

    def stand_in(self, module: str, name: str) -> Callable[..., object] | None:
        """Return what replaces a function or class.

        Raises InputError for a name that arrays do not need.
        """
        full_name = f"{module}.{name}"
        if full_name not in self.stand_ins:
            raise InputError(
                f"{self.path} is refused: it tries to load {shown(full_name)}, and a feature file needs arrays only. "
                "Nothing of it was run; do not open it with other tools."
            )
        return self.stand_ins[full_name]

    def scalar(self, dtype: _Dtype, raw: bytes) -> object:
        """Stand in for numpy's constructor of a single value."""
        self.count_copied(len(raw))
        return _array(raw, dtype, (1,), "C")[0].item()

    def encode(self, text: str, encoding: str) -> bytes:
        """Stand in for `codecs.encode`, by which old protocols write bytes as text."""
        if encoding != "latin1":
            raise ValueError(f"bytes written as {short(encoding)}")
        self.count_copied(len(text))
        return text.encode("latin1")

    def count_copied(self, length: int) -> None:
        self.uncopied -= length
        if self.uncopied < 0:
            raise ValueError("the same bytes are used again and again")
