"""Which part may know which, and what no part may do."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "pamfn"
SHARED = {"errors", "files", "store"}
MAY_IMPORT = {
    "models": {"models", *SHARED},
    "data": {"data", *SHARED},
    "evaluation": {"evaluation", *SHARED},
    "training": {"training", "models", "data", "evaluation", "schema", *SHARED},
}
UNSAFE = ("weights_only=False", "allow_pickle=True", "pickle.load(")


def imported(file: Path) -> Iterator[list[str]]:
    """Modules and names that a file imports, anywhere in it, as lists of words."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ([*(node.module or "").split("."), alias.name] for alias in node.names)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_it_may_know(package: str):
    for file in (SOURCE / package).rglob("*.py"):
        for first, *rest in imported(file):
            assert first not in ("hydra", "omegaconf"), f"{file} knows of {first}"
            assert first != "pamfn" or rest[0] in MAY_IMPORT[package], f"{file} imports pamfn.{rest[0]}"


def test_nothing_in_the_package_unpickles_freely():
    code = {file: file.read_text() for file in SOURCE.rglob("*.py")}
    found = [f"{file}: {pattern}" for file, text in code.items() for pattern in UNSAFE if pattern in text]
    assert found == []
