"""Two jobs of one thread side by side against one: what a sweep gains from a second core."""

import multiprocessing
import os
import statistics
import time
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier

import torch

from benchmarks import workloads as w


@dataclass
class SideBySide:
    """Training steps a second of one job alone, and of two together, round by round."""

    title: str
    one: list[float] = field(default_factory=list)
    two: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        ratios = [two / one for one, two in zip(self.one, self.two, strict=True)]
        middle = statistics.median(ratios)
        spread = f"{min(ratios):.2f}..{max(ratios):.2f}, n = {len(ratios)}"
        return (
            f"{self.title}: two jobs of one thread side by side do {middle:.2f}x the work of one ({spread}; "
            f"wall time, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)"
        )


def side_by_side(size: w.Size, *, rounds: int, steps: int) -> SideBySide:
    """One job and two jobs in turn, `steps` training steps of stage 2 each."""
    found = SideBySide(f"stage-2 steps, {size.title}")
    for _ in range(rounds):
        found.one.append(steps_a_second(1, size, steps))
        found.two.append(steps_a_second(2, size, steps))
    return found


def steps_a_second(jobs: int, size: w.Size, steps: int) -> float:
    """Of so many processes that start together, until the last has finished."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(jobs)
    with context.Pool(jobs, initializer=meet, initargs=(barrier,)) as pool:
        return jobs * steps / max(pool.starmap(trained, [(size, steps)] * jobs, chunksize=1))


def meet(barrier: Barrier) -> None:
    """What a process waits at before its work begins."""
    globals()["barrier"] = barrier


def trained(size: w.Size, steps: int) -> float:
    """Wall seconds of so many steps, after one that is not timed."""
    torch.set_num_threads(1)
    work, batch = w.our_pamfn(size), w.crop_batch(size)
    work.step(*batch)
    globals()["barrier"].wait()
    began = time.perf_counter()
    for _ in range(steps):
        work.step(*batch)
    return time.perf_counter() - began
