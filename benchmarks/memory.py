"""How much memory training and testing on Fis-V takes, each side in a process of its own."""

import multiprocessing

import torch

from benchmarks import workloads as w
from benchmarks.devices import Mode
from pamfn.runs.environment import peak_resident_mib


def peak_memory(side: str, device: torch.device) -> float:
    """MiB that a fresh process with all of Fis-V in three modalities has held at most, training and testing on it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(held_memory, (side, str(device)))


def held_memory(side: str, device: str) -> float:
    """Two training steps and a test pass of one side in this process, then its peak in MiB: the GPU's, if on one."""
    torch.set_num_threads(1)
    size, mode = w.SIZES["fisv"], Mode(torch.device(device), "float32")
    train, test, _ = w.lengths_of(size)
    videos, tested = w.generated_videos(train), w.generated_videos(test)
    if side == "ours":
        videos, tested = videos.to(mode.device), tested.to(mode.device)
        w.our_epoch(w.our_pamfn(size, mode), videos.subset(range(2 * w.BATCH)), tested)
    else:
        w.reference_epoch(w.reference_pamfn(size, mode), videos.subset(range(2 * w.BATCH)), tested)
    if mode.device.type == "cuda":
        return torch.cuda.max_memory_allocated(mode.device) / 2**20
    return peak_resident_mib()
