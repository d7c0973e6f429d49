"""What a command costs before it does anything, and what opening feature files costs."""

import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import workloads as w
from benchmarks.timing import Row, compare, take_turns
from pamfn.data.features import read_features, write_store

PLAIN = ("-c", "import torch, benchmarks.reference")
"""What a plain script pays before its first line: the imports of the reference."""

DEMO = (
    "-m pamfn.train +experiment=demo logger=csv trainer.accelerator=cpu model.branch.d_model=8 model.branch.hidden=8 "
    "model.num_fusion_nets=2 recipe.branch.epochs=1 recipe.fusion.epochs=1"
)


def startups(pairs: int) -> Iterator[Row]:
    """`--help`, and the command of a finished run, each in a fresh process, against the imports of a plain script."""
    with tempfile.TemporaryDirectory() as folder:
        demo = [*DEMO.split(), f"paths.data_dir={folder}/data", f"paths.output_dir={folder}/runs"]
        child_seconds(demo)  # trains it
        commands = {"pamfn.train --help": ["-m", "pamfn.train", "--help"], "reading a finished run": demo}
        for title, command in commands.items():
            child_seconds(command)
            row = Row(f"{title}, against importing torch and the reference")
            take_turns(row, pairs, lambda: child_seconds(PLAIN), lambda command=command: child_seconds(command))
            yield row


def child_seconds(arguments: Sequence[str]) -> float:
    """CPU seconds of a Python process; raises CalledProcessError when it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def openings(pairs: int, videos: int) -> Iterator[Row]:
    """The feature file of one modality in both forms, checksums included, against an ordinary np.load of the `.npy`.

    Everything is read once before, so that the disk plays no part, and packed into one tensor, so that all is touched.
    """
    lengths = [t for split in w.fisv_lengths(None)[:2] for t in split][:videos]
    with tempfile.TemporaryDirectory() as folder:
        npy = Path(folder) / "FISV_rgb_VST.npy"
        write_npy(npy, lengths, w.WIDTHS["rgb"])
        store = npy.with_suffix(".safetensors")
        write_store(read_features(npy), store, extractor="VST")
        for file in (npy, store):
            title = f"opening {npy.stat().st_size / 2**20:.0f} MiB, {file.suffix}, against np.load"
            yield compare(title, partial(plainly_opened, npy), partial(opened, file), pairs)


def write_npy(file: Path, lengths: list[int], width: int) -> None:
    """A feature file as released: a pickled dict of float16 arrays."""
    draw = np.random.default_rng(0)
    arrays = {
        str(i): draw.standard_normal((t, width), dtype=np.float32).astype(np.float16) for i, t in enumerate(lengths)
    }
    np.save(file, np.array(arrays, dtype=object), allow_pickle=True)


def plainly_opened(npy: Path) -> torch.Tensor:
    """All videos in one tensor (n, c), the ordinary way, which runs whatever the file asks for."""
    return packed(np.load(npy, allow_pickle=True).item())


def opened(file: Path) -> torch.Tensor:
    """The same by the library, with its checksum."""
    return packed(read_features(file).arrays)


def packed(arrays: dict[str, np.ndarray]) -> torch.Tensor:
    """All videos in one tensor (n, c)."""
    return torch.from_numpy(np.concatenate(list(arrays.values())))
