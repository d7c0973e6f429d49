"""How much memory training and testing on Fis-V takes, each side in a process of its own."""

import multiprocessing
import os
import resource
import sys

import torch

from benchmarks import workloads as w


def peak_memory(side: str) -> int:
    """MiB that a fresh process with all of Fis-V in three modalities has held at most, training and testing on it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(held_memory, (side,))


def held_memory(side: str) -> int:
    """Two training steps and a test pass of one side in this process, then its peak in MiB."""
    torch.set_num_threads(1)
    train, test, _ = w.fisv_lengths(os.environ.get("PAMFN_DATA_DIR"))
    videos, tested = w.generated_videos(train), w.generated_videos(test)
    few, size = videos.subset(range(2 * w.BATCH)), w.SIZES["fisv"]
    if side == "ours":
        w.our_epoch(w.our_pamfn(size), few, tested)
    else:
        w.reference_epoch(w.reference_pamfn(size), few, tested)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024**2 if sys.platform == "darwin" else 1024)
