"""The environment of a run: commit, machine, peak memory."""

import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from pamfn.config.compose import ROOT
from pamfn.config.schema import Config


def commit() -> str | None:
    """The commit of the code, with `+` when files were changed or added since; None outside a checkout."""
    if ROOT is None:
        return None
    try:
        changed = git("status", "--porcelain", "--", "src", "conf")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def machine(config: Config | None = None) -> dict[str, Any]:
    """Processor, threads, and the GPU, unless there is none or this configuration's jobs do not use it."""
    on_cpu = config is not None and config.trainer.get("accelerator") == "cpu"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpu": names[0] if names else platform.processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() and not on_cpu else None,
        "threads": torch.get_num_threads(),
    }


def peak_memory_mib() -> dict[str, float]:
    """Highest memory (MiB) so far: resident in this process, and allocated on the GPU."""
    peak = {"cpu": peak_resident_mib()}
    if torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated() / 2**20
    return peak


def peak_resident_mib() -> float:
    """Highest resident memory (MiB) of this process so far; without /proc, it includes what started it."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):  # ru_maxrss on Linux begins with what the parent held
            return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


COMMIT = commit()
"""The commit of the running code; asked for on import, since the checkout may change during a long training."""
