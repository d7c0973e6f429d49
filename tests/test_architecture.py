"""Which room may know which, what the top level holds, and what no file may do."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "pamfn"
TESTS = Path(__file__).parent

FLOORS = [
    ["errors"],
    ["files", "command_line"],
    ["config"],
    ["data", "models", "evaluation", "extraction"],
    ["runs"],
    ["training"],
    ["pipeline"],
    ["reporting"],
    ["train", "check", "extract", "evaluate", "predict", "export", "convert", "archive", "tables", "figures", "report"],
]
"""From the ground up. What is on one floor knows nothing of what is beside it or above."""

FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
COMMANDS = set(FLOORS[-1])
WITHOUT_FRAMEWORKS = ("models", "data", "evaluation", "extraction", "training")
WITHOUT_TORCH = ("config", "runs")
UNSAFE = ("weights_only=False", "allow_pickle=True", "pickle.load(")


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(file: Path) -> Iterator[list[str]]:
    """Modules and names that a file imports, anywhere in it, as lists of words."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ([*(node.module or "").split("."), alias.name] for alias in node.names)


@pytest.mark.parametrize("room", FLOOR)
def test_a_room_imports_only_from_floors_below_its_own(room: str):
    files = [SOURCE / f"{room}.py"] if (SOURCE / f"{room}.py").exists() else list((SOURCE / room).rglob("*.py"))
    assert files
    for file in files:
        for first, *rest in imported(file):
            if first == "pamfn" and rest[0] not in (room, "__version__"):
                assert FLOOR[rest[0]] < FLOOR[room], f"{file} imports pamfn.{'.'.join(rest)}"


@pytest.mark.parametrize("room", WITHOUT_FRAMEWORKS)
def test_what_science_needs_knows_nothing_of_hydra(room: str):
    known = {first for file in (SOURCE / room).rglob("*.py") for first, *_ in imported(file)}
    assert not known & {"hydra", "omegaconf"}


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_what_is_read_before_a_training_does_not_wait_for_torch(room: str):
    files = [file for file in (SOURCE / room).rglob("*.py") if file.stem != "environment"]  # says which torch it is
    assert [file for file in files for first, *_ in imported(file) if first in ("torch", "lightning")] == []


def test_models_and_metrics_know_nothing_of_lightning():
    files = [*(SOURCE / "models").rglob("*.py"), *(SOURCE / "evaluation").rglob("*.py")]
    assert [file for file in files for first, *_ in imported(file) if first == "lightning"] == []


def test_the_top_level_holds_commands_and_rooms_only():
    files = {file.stem for file in SOURCE.glob("*.py")}
    assert files == COMMANDS | {"errors", "files", "__init__", "__main__"}
    assert {folder.name for folder in SOURCE.iterdir() if (folder / "__init__.py").exists()} == set(FLOOR) - files


def test_tests_are_in_the_rooms_of_the_code():
    rooms = {file.parent.name for file in TESTS.glob("*/test_*.py")}
    assert rooms <= set(FLOOR)


def test_nothing_in_the_package_unpickles_freely():
    code = {file: file.read_text() for file in SOURCE.rglob("*.py")}
    found = [f"{file}: {pattern}" for file, text in code.items() for pattern in UNSAFE if pattern in text]
    assert found == []
