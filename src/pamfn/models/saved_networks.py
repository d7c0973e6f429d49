"""Read saved networks without running what is in them.

A checkpoint of `torch.save` is a pickle, which may call anything. torch's reader of plain tensors carries it out, and
an object that only holds attributes replaces the network's classes.
"""

import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pamfn.errors import InputError
from pamfn.files import regular

NETWORK_MODULES = re.compile(r"torch\.nn\.modules\.|(models?|networks?|__main__)\.")
MOST_INSTRUCTIONS = 500_000
"""Of a pickle: a layer takes about a hundred."""
MOST_WALKED = 10_000
"""Of the things in a tuple, and in the tuples in it."""


class _Network:
    """Stands in for every class of a saved network: holds what was stored, runs nothing."""


def load_module_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a saved network by their state-dict names, onto the CPU.

    The file is a `.safetensors` file, or a `.pth` file of `torch.save` that holds a state dict or the whole network,
    as the authors' released branches do; no code of the network's classes is needed or run.

    Raises InputError when the file is none of these, or names anything that a network's tensors do not need.
    """
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
    """Refuse a pickle with a tuple that takes too long, or too deep a stack, to walk through.

    torch may use any tuple as a key, and hashing a tuple walks through it: through the things in it and in the tuples
    in it, again wherever a tuple is used again. That is what is counted here, without building anything.
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


def _flat_state(path: Path, content: object) -> dict[str, Tensor]:
    state = _state_of(content, "") if isinstance(content, _Network) else content
    if not isinstance(state, dict) or not state:
        raise InputError(
            f"{path} holds no tensors but a {type(content).__name__}: expected a network or its state dict."
        )
    others = [f"{name} ({type(value).__name__})" for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise InputError(
            f"{path} holds {', '.join(others[:5])} where tensors were expected: save the network's state dict alone, "
            "torch.save(network.state_dict(), file)."
        )
    return {str(name): value.detach() for name, value in state.items()}


def _state_of(network: _Network, prefix: str) -> dict[str, Any]:
    """Return what `nn.Module.state_dict` would, running none of the network's hooks."""
    stored = vars(network)
    passing = stored.get("_non_persistent_buffers_set", ())
    state = {prefix + name: value for name, value in stored["_parameters"].items() if value is not None}
    state |= {
        prefix + name: value for name, value in stored["_buffers"].items() if value is not None and name not in passing
    }
    for name, part in stored["_modules"].items():
        if part is not None:
            state |= _state_of(part, f"{prefix}{name}.")
    return state
