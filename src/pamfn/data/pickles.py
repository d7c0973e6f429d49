"""Pickled files read without running what is in them.

A pickle is a program that may call anything. That of a feature file is carried out here, by the few instructions that
arrays need, and nothing it names is ever looked up: numpy's constructors are replaced by stand-ins that check and copy
bytes. Classes of a saved network are replaced by an object that only holds attributes.
"""

import copyreg
import os
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING, Any

import numpy as np

from pamfn.data.video_names import problem_of_name, shown
from pamfn.errors import InputError
from pamfn.files import Bounded, few, regular

if TYPE_CHECKING:
    import torch

PLAIN_DTYPE = re.compile(r"[biufcSU][0-9]{1,9}")
NETWORK_MODULES = re.compile(r"torch\.nn\.modules\.|(models?|networks?|__main__)\.")
MOST_INSTRUCTIONS = 500_000
"""Of a pickle: a video takes about thirty."""
LONGEST_TUPLE = 64
"""An array has as many dimensions at most."""
DEEPEST_TUPLE = 4
"""A type's state holds its unit's name and step, in a tuple in a tuple."""
MOST_WALKED = 10_000
"""Of the things in a tuple of a network's pickle, and in the tuples in it."""
MOST_SHARED = 8
"""Bytes of arrays for a byte of the file: one array may have many names, but not so many that they fill the memory."""


def load_npy_dict(path: Path) -> dict[str, np.ndarray]:
    """The dict `video -> array` of a `.npy` file made by `np.save(file, dict)`; arrays are read-only, of any shape.

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
    """Shape and type of a `.npy` file, which is then read up to its values; ValueError when it has no such header."""
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
            found = "an array of Python objects" if isinstance(value, _Array) else f"a {type(value).__name__}"
            problems.append(f"{path}: video {video} is {found}: expected an array of numbers (t, c).")
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


class _Copies:
    """The stand-ins that copy what they are given: every byte of the file once as text, and once as a value."""

    def __init__(self, size: int) -> None:
        self.left = 2 * size

    def _count(self, length: int) -> None:
        self.left -= length
        if self.left < 0:
            raise ValueError("the same bytes are used again and again")

    def scalar(self, dtype: _Dtype, raw: bytes) -> object:
        self._count(len(raw))
        return _array(raw, dtype, (1,), "C")[0].item()

    def encode(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise ValueError(f"bytes written as {short(encoding)}")
        self._count(len(text))
        return text.encode("latin1")


def _stand_ins(size: int) -> dict[str, Callable[..., object] | None]:
    copies = _Copies(size)
    calls: dict[str, Callable[..., object] | None] = {
        "numpy.ndarray": None,
        "numpy.dtype": _Dtype,
        "_codecs.encode": copies.encode,
        "builtins.bytes": lambda: b"",
        "__builtin__.bytes": lambda: b"",
    }
    for core in ("numpy.core", "numpy._core"):
        calls[f"{core}.multiarray._reconstruct"] = lambda subtype, shape, code: _Array()
        calls[f"{core}.multiarray.scalar"] = copies.scalar
        calls[f"{core}.numeric._frombuffer"] = _from_buffer
    return calls


class _Machine:
    """Carries out a pickle of arrays: the instructions below, and no others.

    Nothing is hashed but text and small numbers, and nothing is walked through: lists and dicts may hold whatever they
    like, tuples are short and not deep.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._stand_ins = _stand_ins(size)
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._depths: dict[int, int] = {}  # of tuples, by their ids

    def run(self, file: Any) -> object:
        """What the pickle leaves; raises whatever a damaged one may raise, InputError for a name that is refused."""
        for count, (instruction, argument, _) in enumerate(pickletools.genops(file)):
            if count == MOST_INSTRUCTIONS:
                raise ValueError(f"more than {MOST_INSTRUCTIONS} instructions")
            if instruction.name not in INSTRUCTIONS:
                raise ValueError(f"the instruction {instruction.name}, which no array needs")
            INSTRUCTIONS[instruction.name](self, argument)
        return self._stack.pop()

    def marked(self) -> list[Any]:
        """What was put on the stack since the last mark, taken off it."""
        return self.taken(len(self._stack) - self._marks.pop())

    def taken(self, count: int) -> list[Any]:
        """The last things on the stack, taken off it."""
        start = len(self._stack) - count
        if start < 0 or count < 0:
            raise ValueError("an instruction without what it is about")
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def push(self, value: Any) -> None:
        if isinstance(value, int) and value.bit_length() > 64:
            raise ValueError(f"a whole number of {value.bit_length()} bits")
        self._stack.append(value)

    def push_old_text(self, text: str) -> None:
        """Text of Python 2, which may have been bytes."""
        self._stack.append(text.encode("latin1").decode("ascii"))

    def push_tuple(self, items: list[Any]) -> None:
        if len(items) > LONGEST_TUPLE:
            raise ValueError(f"a tuple of {len(items)}")
        made = tuple(items)
        depth = 1 + max((self._depths.get(id(item), 0) for item in items if type(item) is tuple), default=0)
        if depth > DEEPEST_TUPLE:
            raise ValueError(f"tuples in tuples, {depth} deep")
        self._depths[id(made)] = depth
        self._stack.append(made)

    def remember(self, place: int | None) -> None:
        self._memo[len(self._memo) if place is None else place] = self._stack[-1]

    def recall(self, place: int) -> None:
        self._stack.append(self._memo[place])

    def extend(self, items: list[Any]) -> None:
        """Adds to the list on the stack."""
        if type(self._stack[-1]) is not list:
            raise ValueError(f"items of a {type(self._stack[-1]).__name__}")
        self._stack[-1].extend(items)

    def push_dict(self, items: list[Any]) -> None:
        self._stack.append({})
        self.fill(items)

    def fill(self, items: list[Any]) -> None:
        """Adds names and values, in turn, to the dict on the stack."""
        filled = self._stack[-1]
        if type(filled) is not dict:
            raise ValueError(f"values by name of a {type(filled).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):  # before it is hashed, which may crash or never end
                raise InputError(
                    f"{self._path}: the video name {short(key)} is a {type(key).__name__}: expected text or a whole "
                    "number."
                )
            if key in filled:
                raise ValueError(f"{short(key)} is there twice")
            filled[key] = value

    def look_up(self, module: str, name: str) -> None:
        full_name = f"{module}.{name}"
        if full_name not in self._stand_ins:
            raise InputError(
                f"{self._path} is refused: it tries to load {shown(full_name)}, and a feature file needs arrays only. "
                "Nothing of it was run; do not open it with other tools."
            )
        self._stack.append(self._stand_ins[full_name])

    def look_up_extension(self, code: int) -> None:
        if code not in copyreg._inverted_registry:  # type: ignore[attr-defined]
            raise ValueError(f"unregistered extension code {code}")
        self.look_up(*copyreg._inverted_registry[code])  # type: ignore[attr-defined]

    def make_instance(self, full_name: str) -> None:
        self.look_up(*full_name.split(" ", 1))
        raise ValueError("an instance of a class")

    def call(self, function: object, arguments: object) -> None:
        if type(arguments) is not tuple or not callable(function):
            raise ValueError("a call of what is no function")
        self._stack.append(function(*arguments))

    def set_state(self, state: object) -> None:
        changed = self._stack[-1]
        if not isinstance(changed, _Dtype | _Array) or type(state) is not tuple:
            raise ValueError("a pickle that alters other things than arrays")
        changed.__setstate__(state)


INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda machine, _: machine.mark(),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.push_tuple(machine.taken(1)),
    "TUPLE2": lambda machine, _: machine.push_tuple(machine.taken(2)),
    "TUPLE3": lambda machine, _: machine.push_tuple(machine.taken(3)),
    "TUPLE": lambda machine, _: machine.push_tuple(machine.marked()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "LIST": lambda machine, _: machine.push(machine.marked()),
    "APPEND": lambda machine, _: machine.extend(machine.taken(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.marked()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "DICT": lambda machine, _: machine.push_dict(machine.marked()),
    "SETITEM": lambda machine, _: machine.fill(machine.taken(2)),
    "SETITEMS": lambda machine, _: machine.fill(machine.marked()),
    "MEMOIZE": _Machine.remember,
    "GLOBAL": lambda machine, full_name: machine.look_up(*full_name.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.look_up(*machine.taken(2)),
    "INST": _Machine.make_instance,
    "REDUCE": lambda machine, _: machine.call(*machine.taken(2)),
    "BUILD": lambda machine, _: machine.set_state(*machine.taken(1)),
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), _Machine.push),
    **dict.fromkeys(("FLOAT", "BINFLOAT"), _Machine.push),
    **dict.fromkeys(("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _Machine.push),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"), _Machine.push),
    **dict.fromkeys(("STRING", "SHORT_BINSTRING", "BINSTRING"), _Machine.push_old_text),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.recall),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _Machine.look_up_extension),
}
"""What each instruction does, given its argument; `genops` sees to protocol, frames and the end."""


class _Network:
    """Stands in for every class of a saved network: holds what was stored, runs nothing."""


def load_module_state(path: Path) -> dict[str, "torch.Tensor"]:
    """The tensors of a saved network by their state-dict names, on the CPU.

    Reads a `.safetensors` file, or a `.pth` file of `torch.save` that holds a state dict or the whole network, as the
    authors' released branches do; no code of the network's classes is needed or run.

    Raises InputError when the file is none of these, or names anything that a network's tensors do not need.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        regular(path)
        return load_file(path) if path.suffix == ".safetensors" else _flat_state(path, _load_torch(path))
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"no network file: looked for {path}.") from None
    except SafetensorError as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}): copy it again.") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    except Exception as error:  # a damaged pickle may raise anything
        raise InputError(f"{path} could not be read as a network saved with torch.save ({error}).") from error


def _load_torch(path: Path) -> object:
    import zipfile

    import torch

    with path.open("rb") as file:
        zipped = zipfile.is_zipfile(file)
    if not zipped:
        raise InputError(
            f"{path} is damaged, or in the format of torch before 1.6: if you trust it, load it in torch and save its "
            "state again, torch.save(network.state_dict(), file)."
        )
    with zipfile.ZipFile(path) as archive:
        if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
            raise InputError(f"{path} is refused: it is compressed, and torch.save compresses nothing.")
    _refuse_endless(torch._C.PyTorchFileReader(str(path)).get_record("data.pkl"))
    names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    refused = sorted(name for name in names if not NETWORK_MODULES.match(name))
    if refused:
        raise InputError(
            f"{path} is refused: it tries to load {', '.join(refused)}, which a network's tensors do not need. "
            "Nothing of it was run."
        )
    with torch.serialization.safe_globals([(_Network, name) for name in names]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _refuse_endless(pickled: bytes) -> None:
    """Refuses a network's pickle with a tuple that takes too long, or too deep a stack, to walk through.

    torch may use any tuple as a name, and to hash one walks through it. Counted is what is walked through: the things
    in a tuple and in the tuples in it, again wherever one is used again.
    """
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[Any, int] = {}
    for count, (instruction, place, _) in enumerate(pickletools.genops(pickled)):
        if count == MOST_INSTRUCTIONS:
            raise ValueError(f"more than {MOST_INSTRUCTIONS} instructions")
        before, name = instruction.stack_before, instruction.name
        if name == "MARK":
            marks.append(len(stack))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if place is None else place] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[place])
        else:
            marked = pickletools.markobject in before
            start = marks.pop() - before.index(pickletools.markobject) if marked else len(stack) - len(before)
            walked = sum(stack[start:]) + 1
            if name.startswith("TUPLE") and walked > MOST_WALKED:
                raise ValueError(f"a tuple of more than {MOST_WALKED} things")
            del stack[start:]
            stack += [walked if name.startswith("TUPLE") or name in ("DUP", "BUILD") else 1] * len(
                instruction.stack_after
            )


def _flat_state(path: Path, content: object) -> dict[str, "torch.Tensor"]:
    import torch

    found = _stored(content, "") if isinstance(content, _Network) else content
    if not isinstance(found, dict) or not found:
        raise InputError(
            f"{path} holds no tensors but a {type(content).__name__}: expected a network or its state dict."
        )
    others = [
        f"{name} ({type(value).__name__})" for name, value in found.items() if not isinstance(value, torch.Tensor)
    ]
    if others:
        raise InputError(
            f"{path} holds {', '.join(others[:5])} where tensors were expected: save the network's state dict alone, "
            "torch.save(network.state_dict(), file)."
        )
    return {str(name): value.detach() for name, value in found.items()}


def _stored(network: _Network, prefix: str) -> dict[str, Any]:
    stored = vars(network)
    passing = stored.get("_non_persistent_buffers_set", ())
    state = {prefix + name: value for name, value in stored["_parameters"].items() if value is not None}
    state |= {
        prefix + name: value for name, value in stored["_buffers"].items() if value is not None and name not in passing
    }
    for name, part in stored["_modules"].items():
        if part is not None:
            state |= _stored(part, f"{prefix}{name}.")
    return state
