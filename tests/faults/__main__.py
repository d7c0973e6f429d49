"""`python -m faults [PART ...]`: every part of the campaign, a line a case, and a table at the end."""

import argparse
import importlib
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from faults.outcome import Outcome

PARTS = ("kills", "sweeps", "signals", "disks", "files", "folders", "slurm")


def main() -> None:
    """Exit status 1 unless nothing was lost, left behind or wrong in any part."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default: all of {', '.join(PARTS)}")
    chosen = parser.parse_args().parts or PARTS
    unknown = sorted(set(chosen) - set(PARTS))
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    os.environ["OMP_NUM_THREADS"] = "1"
    found = {}
    with TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        for part in chosen:
            began = time.monotonic()
            outcome = outcome_of(part, Path(folder).resolve())
            found[part] = (outcome, time.monotonic() - began)
    sys.exit(told(found))


def outcome_of(part: str, folder: Path) -> Outcome:
    """A part's outcome; one that breaks is wrong, and the others go on."""
    try:
        return importlib.import_module(f"faults.{part}").campaign(folder)
    except Exception as error:
        return Outcome(wrong=1, notes=[f"{part}: the part itself failed: {type(error).__name__}: {error}"])


def told(found: dict[str, tuple[Outcome, float]]) -> int:
    """Prints what failed and the table; the exit status."""
    notes = [note for outcome, _ in found.values() for note in outcome.notes]
    print("\n" + "\n".join(notes))
    print(f"\n{'part':8}  {'tried':>5}  {'lost':>5}  {'left behind':>11}  {'wrong':>5}  {'minutes':>7}")
    for part, (outcome, seconds) in found.items():
        counts = f"{outcome.tried:5}  {outcome.lost:5}  {outcome.left_behind:11}  {outcome.wrong:5}"
        print(f"{part:8}  {counts}  {seconds / 60:7.1f}")
    return int(any(o.lost or o.left_behind or o.wrong for o, _ in found.values()))


if __name__ == "__main__":
    main()
