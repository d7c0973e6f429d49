"""Convert the authors' released weights into weights of the networks here."""

from collections.abc import Iterable
from pathlib import Path

from pamfn.errors import InputError


def checkpoint(file: Path, out: Path | None) -> None:
    """Writes the authors' weights under our names and prints what was found.

    Raises:
        InputError: when the file is not such a checkpoint, or the result cannot be written.
    """
    from pamfn.models.released_weights import from_authors
    from pamfn.models.saved_networks import load_module_state

    out = out or file.with_suffix(".safetensors")
    if out.resolve() == file.resolve():
        raise InputError(f"{file} would be written over itself: choose another file with --out.")
    try:
        state = load_module_state(file)
        imported = from_authors(state)
    except InputError as error:
        raise InputError(within(file, error.problems)) from error
    imported.write(out)
    numbers = imported.settings
    if imported.is_branch:
        print(f"branch of {sizes(numbers)}")
    else:
        print("network: " + ", ".join(f"{m} of {sizes(branch)}" for m, branch in numbers["branches"].items()))
        print(f"K = {numbers['num_fusion_nets']}, r = {numbers['head_reduction']}; numbers of heads are not in weights")
    parameters = sum(p.numel() for p in imported.network().parameters())
    print(f"{parameters:,} parameters in use, {len(state)} tensors read\n{out}")


def within(file: Path, problems: Iterable[str]) -> list[str]:
    """Problems that all name their file."""
    return [problem if str(file) in problem else f"{file}: {problem}" for problem in problems]


def sizes(branch: dict[str, int]) -> str:
    """One branch's numbers for people."""
    return (
        f"width {branch['width']} (hidden {branch['hidden']}, d_model {branch['d_model']}, "
        f"{branch['num_stages']} stages)"
    )
