"""Pickled files read without running what is in them.

A pickle is a program that may call anything. Here nothing it names is ever looked up: numpy's constructors are replaced
by stand-ins that check and copy bytes, classes of a saved network by an object that only holds attributes.
"""

import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from pamfn.errors import InputError

if TYPE_CHECKING:
    import torch

PLAIN_DTYPE = re.compile(r"[biufcSU]\d+")
NETWORK_MODULES = re.compile(r"torch\.nn\.modules\.|(models?|networks?|__main__)\.")


def load_npy_dict(path: Path) -> dict[str, np.ndarray]:
    """The dict `video -> array` of a `.npy` file made by `np.save(file, dict)`; arrays are read-only, of any shape.

    Raises InputError when the file is not such a file, or names anything that rebuilding arrays does not need.
    """
    try:
        with path.open("rb") as file:
            _skip_npy_header(path, file)
            start = file.tell()
            _check_instructions(file, path.stat().st_size)
            file.seek(start)
            content = _ArrayUnpickler(file, path).load()
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"no feature file: looked for {path}.") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    except Exception as error:  # a damaged pickle may raise anything
        raise InputError(
            f"{path} is damaged or cut off ({type(error).__name__}: {error}): copy or extract it again."
        ) from error
    return _named_arrays(path, content)


def _skip_npy_header(path: Path, file: BinaryIO) -> None:
    if not path.stat().st_size:
        raise InputError(f"{path} is empty (0 bytes): copy or extract it again.")
    try:
        version = np.lib.format.read_magic(file)
        read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
        shape, _, dtype = read_header(file)
    except (ValueError, KeyError):
        raise InputError(
            f"{path} is not a numpy .npy file: expected what np.save(file, {{video: array}}) writes."
        ) from None
    if dtype != np.dtype(object) or shape != ():
        raise InputError(
            f"{path} holds one array of {dtype} {shape}: expected a dict, np.save(file, {{video: array (t, c)}})."
        )


def _check_instructions(file: BinaryIO, size: int) -> None:
    """Refuses a cut-off pickle, and one whose memo index would make the unpickler fill the memory."""
    for instruction, argument, _ in pickletools.genops(file):
        if instruction.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > size:
            raise ValueError(f"memo index {argument} in a file of {size} bytes")


def _named_arrays(path: Path, content: object) -> dict[str, np.ndarray]:
    if isinstance(content, _Array) and isinstance(content.value, list):
        content = content.value[0] if len(content.value) == 1 else content.value
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}: expected a dict of video -> array (t, c).")
    arrays: dict[str, np.ndarray] = {}
    problems = []
    for key, value in content.items():
        if type(key) not in (str, int):
            problems.append(
                f"{path}: the video name {key!r} is a {type(key).__name__}: expected text or a whole number."
            )
        elif str(key) in arrays:
            problems.append(f"{path}: the video {key} is there twice, as text and as a number.")
        elif not isinstance(value, _Array) or not isinstance(value.value, np.ndarray):
            found = "an array of Python objects" if isinstance(value, _Array) else f"a {type(value).__name__}"
            problems.append(f"{path}: video {key} is {found}: expected an array of numbers (t, c).")
        else:
            arrays[str(key)] = value.value
    if problems:
        raise InputError(problems)
    return arrays


class _Dtype:
    """Stands in for numpy.dtype: a name and a byte order."""

    __slots__ = ("name", "order")

    def __init__(self, name: str, align: object = False, copy: object = True) -> None:
        self.name: str = name
        self.order: Any = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if any(part is not None for part in state[2:5]):
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
    if any(length < 0 for length in shape):
        raise ValueError(f"an array of shape {shape}")
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


def _scalar(dtype: _Dtype, raw: bytes) -> object:
    return _array(raw, dtype, (1,), "C")[0].item()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"bytes written as {encoding!r}")
    return text.encode("latin1")


class _Call:
    """A function that a pickle may call and not alter."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> object:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise ValueError("a pickle that alters a function")


def _stand_ins() -> dict[str, object]:
    calls: dict[str, object] = {
        "numpy.ndarray": None,
        "numpy.dtype": _Call(_Dtype),
        "_codecs.encode": _Call(_encode),
        "builtins.bytes": _Call(lambda: b""),
        "__builtin__.bytes": _Call(lambda: b""),
    }
    for core in ("numpy.core", "numpy._core"):
        calls[f"{core}.multiarray._reconstruct"] = _Call(lambda subtype, shape, code: _Array())
        calls[f"{core}.multiarray.scalar"] = _Call(_scalar)
        calls[f"{core}.numeric._frombuffer"] = _Call(_from_buffer)
    return calls


class _ArrayUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file)
        self._path = path
        self._stand_ins = _stand_ins()

    def find_class(self, module: str, name: str, /) -> Any:
        full_name = f"{module}.{name}"
        if full_name not in self._stand_ins:
            raise InputError(
                f"{self._path} is refused: it tries to load {full_name}, and a feature file needs arrays only. "
                "Nothing of it was run; do not open it with other tools."
            )
        return self._stand_ins[full_name]


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
    names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    refused = sorted(name for name in names if not NETWORK_MODULES.match(name))
    if refused:
        raise InputError(
            f"{path} is refused: it tries to load {', '.join(refused)}, which a network's tensors do not need. "
            "Nothing of it was run."
        )
    with torch.serialization.safe_globals([(_Network, name) for name in names]):
        return torch.load(path, map_location="cpu", weights_only=True)


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
