"""Malicious and damaged run folders: every command that opens one says so in a sentence, and runs nothing of it."""

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from faults.jobs import Place, again, forked, last_line, place_of, reference_of, side_by_side
from faults.outcome import Outcome

MARK = "ran"
"""The file that the code of a run folder would write."""

RESULT = "result.json"


def rewritten(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], object]:
    """Changes what a result says, as whoever wants to harm would: with a digest that matches."""

    def spoil(run: Path) -> None:
        from pamfn.runs.folder import digest

        content = json.loads((run / RESULT).read_text())
        change(content)
        (run / RESULT).write_text(json.dumps({**content, "digest": digest(content)}))

    return spoil


def targeting(place: str, name: str) -> Callable[[Path], object]:
    """Names a class at a place of the configuration, and puts such a module where it could be found."""

    def change(content: dict[str, Any]) -> None:
        node = content["config"]
        for key in place.split("."):
            node = node[key]
        node["_target_"] = name

    def spoil(run: Path) -> None:
        rewritten(change)(run)
        (run.parent / "planted.py").write_text(f"open({str(run.parent / MARK)!r}, 'w').close()\nNet = print\n")

    return spoil


def said(key: str, value: Any) -> Callable[[Path], object]:
    return rewritten(lambda content: content.update({key: value}))


def instead(name: str, content: bytes) -> Callable[[Path], object]:
    """Other bytes in a file of the run."""
    return lambda run: (run / name).write_bytes(content)


def is_no_file(name: str, make: Callable[[Path], Any]) -> Callable[[Path], object]:
    def spoil(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        make(run / name)

    return spoil


def cut(name: str) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:-50])


NAMES = (
    "planted.Net",
    "torch.hub.load",
    "IPython.start_ipython",
    "pamfn.command_line.process.os._exit",
    "torch.nn.Linear",
)
PLACES = ("model", "model.branch", "data", "trainer")
CODE = {f"{name} as {place}": targeting(place, name) for place in PLACES for name in NAMES}
RESULTS: dict[str, Callable[[Path], object]] = {
    "a kind outside": said("kind", "../../x"),
    "a name outside": said("name", "../../x"),
    "a modality that is a path": said("modalities", ["../x"]),
    "branches elsewhere": said("branches", {"rgb": "../../../x"}),
    "no configuration": said("config", None),
    "no metrics": said("metrics", {}),
    "metrics of text": said("metrics", {"last": {"srcc": "high"}}),
    "49 TB": rewritten(lambda content: content["config"]["features"]["rgb"].update(width=10**13)),
    "deep": instead(RESULT, b'{"a":' + b"[" * 1_000_000),
    "deep, closed": instead(RESULT, b"[" * 900 + b"]" * 900),
    "a list": instead(RESULT, b"[]"),
    "empty": instead(RESULT, b""),
    "garbage": instead(RESULT, b"\xff\x00" * 1000),
    "cut": cut(RESULT),
    "a pipe": is_no_file(RESULT, os.mkfifo),
    "a folder": is_no_file(RESULT, os.mkdir),
    "4 TB": is_no_file(RESULT, lambda file: (file.touch(), os.truncate(file, 2**42))),
}
WEIGHTS = "selected.safetensors"
NETWORKS: dict[str, Callable[[Path], object]] = {
    "wider than its weights": rewritten(lambda content: content["config"]["features"]["rgb"].update(width=2**20)),
    "weights cut": cut(WEIGHTS),
    "weights empty": instead(WEIGHTS, b""),
    "weights of garbage": instead(WEIGHTS, b"\xff" * 5000),
    "weights of another network": lambda run: shutil.copy(another(run), run / WEIGHTS),
    "weights that are a pipe": is_no_file(WEIGHTS, os.mkfifo),
    "weights that are a folder": is_no_file(WEIGHTS, os.mkdir),
}
POINT = "resume.ckpt"
POINTS: dict[str, Callable[[Path], object]] = {
    "garbage": instead(POINT, b"garbage"),
    "empty": instead(POINT, b""),
    "pickled code": instead(POINT, b"cos\nsystem\n(S'touch ran'\ntR."),
    "a list": lambda run: torch.save([1, 2], run / POINT),
    "nothing in it": lambda run: torch.save({}, run / POINT),
    "a pipe": is_no_file(POINT, os.mkfifo),
    "a folder": is_no_file(POINT, os.mkdir),
}


def another(run: Path) -> Path:
    """Weights of a branch beside a copy of the fused run."""
    return run.parent / "branch.safetensors"


def opened(folder: Path, command: str, name: str, spoil: Callable[[Path], object]) -> Outcome:
    """One trial: a command on a spoilt copy of the reference's fused run."""
    place = place_of(folder, f"folders/{command}-{name}".replace(" ", "_").replace("/", "_"))
    (run,) = (folder / "reference/runs/fusion").iterdir()
    copy = Path(shutil.copytree(run, place.folder / run.name))
    shutil.copy(next((folder / "reference/runs/branch").glob(f"*/{WEIGHTS}")), another(copy))
    spoil(copy)
    to = {"archive": ["--to", "kept"], "figures": ["--to", "drawn"]}.get(command, [])
    outcome = judged(place, forked([f"pamfn.{command}", str(copy), *to], place))
    shutil.rmtree(place.folder)
    return outcome


def judged(place: Place, ended: Any) -> Outcome:
    """Whether a command was refused in a sentence, ran nothing, and wrote nothing where it should not."""
    wrong = [
        *([f"exit {ended.returncode}: {last_line(ended.stdout + ended.stderr)}"] if ended.returncode != 1 else []),
        *(["a traceback"] if "Traceback" in ended.stdout + ended.stderr else []),
        *([] if ended.stderr.startswith("error") else [f"no sentence: {last_line(ended.stderr)}"]),
        *(["ran code"] if list(place.folder.rglob(MARK)) else []),
        *(["wrote elsewhere"] if list(place.folder.glob("x*")) or (place.folder / "kept").exists() else []),
    ]
    return Outcome(wrong=len(wrong), notes=wrong)


def resumed(folder: Path, name: str, spoil: Callable[[Path], object]) -> Outcome:
    """One trial: a job that finds a spoilt resume point is refused, and goes its way when that is removed."""
    place = place_of(folder, f"folders/resume-{name}".replace(" ", "_"))
    (run,) = (folder / "reference/runs/branch").glob("*-rgb-*")
    begun = place.runs / "branch" / run.name
    begun.mkdir(parents=True)
    spoil(begun)
    outcome = judged(place, forked(place.words(), place))
    point = begun / POINT
    shutil.rmtree(point) if point.is_dir() else point.unlink()
    outcome.add(again(place, reference_of(folder), {}))
    shutil.rmtree(place.folder)
    return outcome


def campaign(folder: Path) -> Outcome:
    """Every spoilt folder under commands that open it."""
    reference_of(folder)
    trials = {
        f"{command}: {name}": partial(opened, folder, command, name, spoil)
        for cases, commands in (
            (CODE, ("evaluate", "predict", "figures")),
            (RESULTS, ("evaluate", "archive")),
            (NETWORKS, ("evaluate", "figures", "export")),
        )
        for name, spoil in cases.items()
        for command in commands
    }
    trials |= {f"train, resume point: {name}": partial(resumed, folder, name, spoil) for name, spoil in POINTS.items()}
    return side_by_side("folders", trials)
