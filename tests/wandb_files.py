"""What offline W&B runs would upload, as W&B's own reader tells it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from pamfn.runs.folder import Run

Records = dict[str, list[dict[str, Any]]]


def records(run: Run) -> Records:
    """What the only W&B run in a folder recorded, by type, as W&B's own reader tells it."""
    (file,) = run.path.glob("wandb/offline-run-*/*.wandb")
    wandb = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(file)]
    found: Records = {}
    for line in subprocess.run(wandb, capture_output=True, text=True, check=True).stdout.splitlines():
        record = json.loads(line)
        found.setdefault(record["type"], []).append(record[record["type"]])
    return found


def merged(updates: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: value for update in updates for key, value in update["update"].items()}
