"""The comparisons of `python -m benchmarks`, in groups that can be asked for one by one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks import extraction
from benchmarks import workloads as w
from benchmarks.devices import pairs, said
from benchmarks.latency import latencies
from benchmarks.memory import peak_memory
from benchmarks.startup import openings, startups
from benchmarks.timing import Row, compare
from pamfn.data.batches import Videos


@dataclass(frozen=True)
class Choice:
    """What of everything is measured: sizes, device, and whether only to see that it works."""

    sizes: list[w.Size]
    device: torch.device
    quick: bool

    def repeats(self, many: int) -> int:
        """How many pairs of something."""
        return min(many, 2) if self.quick else many

    def videos(self, size: w.Size) -> tuple[list[int], list[int]]:
        """Lengths of the train and test videos; a tenth of them to be quick."""
        train, test, _ = w.lengths_of(size)
        return (train[::10], test[::10]) if self.quick else (train, test)


def steps(choice: Choice) -> Iterator[Row]:
    """Training steps of stage 2."""
    for size in choice.sizes:
        batch = w.crop_batch(size, choice.device)
        for modes in pairs(choice.device):
            title = f"stage-2 step, {size.title}: {w.BATCH} x {size.segments}, K = {size.fusion_nets}, {said(*modes)}"
            works = w.reference_pamfn(size, modes[0]), w.our_pamfn(size, modes[1])
            reference, ours = (partial(work.step, *batch) for work in works)
            yield compare(title, reference, ours, choice.repeats(9), modes=modes, count=True)


def stage1(choice: Choice) -> Iterator[Row]:
    """Training steps of the rgb branch."""
    for size in choice.sizes:
        features, target = w.crop_batch(size, choice.device)
        for modes in pairs(choice.device):
            title = f"stage-1 step, {size.title} rgb: {w.BATCH} x {size.segments}, {said(*modes)}"
            works = w.reference_branch(modes[0]), w.our_branch(mode=modes[1])
            reference, ours = (partial(work.step, {"rgb": features["rgb"]}, target) for work in works)
            yield compare(title, reference, ours, choice.repeats(15), modes=modes, count=True)


def tests(choice: Choice) -> Iterator[Row]:
    """Scores of all test videos of stage 2."""
    for size in choice.sizes:
        videos = w.generated_videos(choice.videos(size)[1])
        there = videos.to(choice.device)
        for modes in pairs(choice.device):
            title = f"test pass, {len(videos)} {size.title} videos, K = {size.fusion_nets}, {said(*modes)}"
            reference = partial(w.reference_test, w.reference_pamfn(size, modes[0]), videos)
            ours = partial(w.our_test, w.our_pamfn(size, modes[1]), there)
            yield compare(title, reference, ours, choice.repeats(5), modes=modes)


def epochs(choice: Choice) -> Iterator[Row]:
    """Epochs of stage 2, each with its test pass."""
    for size in choice.sizes:
        videos = [w.generated_videos(lengths) for lengths in choice.videos(size)]
        there = [split.to(choice.device) for split in videos]
        for modes in pairs(choice.device):
            title = f"stage-2 epoch, {size.title}: {len(videos[0])} videos and the test pass, {said(*modes)}"
            reference = partial(w.reference_epoch, w.reference_pamfn(size, modes[0]), *videos, size.segments)
            ours = partial(w.our_epoch, w.our_pamfn(size, modes[1]), *there, size.segments)
            yield compare(title, reference, ours, choice.repeats(3), modes=modes)


def decisions(choice: Choice, count: int = 10) -> Iterator[Row]:
    """Scores that are means over sampled decisions, against as many test passes; both are the library's."""
    for size in choice.sizes:
        videos = w.generated_videos(choice.videos(size)[1]).to(choice.device)
        for mode in dict.fromkeys(mode for modes in pairs(choice.device) for mode in modes):
            title = f"test pass, {len(videos)} {size.title} videos, {count} decisions: apart, then at once, "
            apart = partial(test_passes, w.our_pamfn(size, mode), videos, count)
            at_once = partial(w.our_test, w.our_pamfn(size, mode, samples=count), videos)
            yield compare(title + said(mode, mode), apart, at_once, choice.repeats(3), modes=(mode, mode))


def test_passes(work: w.Work, videos: Videos, count: int) -> None:
    """One test pass after the other."""
    for _ in range(count):
        w.our_test(work, videos)


def latency(choice: Choice) -> Iterator[Row]:
    """Single videos."""
    for size in choice.sizes:
        yield from latencies(size, choice.device, videos=10 if choice.quick else 50)


def startup(choice: Choice) -> Iterator[Row]:
    """What a command costs before it does anything."""
    yield from startups(choice.repeats(5))


def opening(choice: Choice) -> Iterator[Row]:
    """Reading feature files."""
    yield from openings(choice.repeats(5), videos=50 if choice.quick else 500)


def memory(choice: Choice) -> Iterator[Row]:
    """Peak memory, in the one precision that both sides have everywhere."""
    reference, ours = ([peak_memory(side, choice.device)] for side in ("reference", "ours"))
    yield Row("peak memory, Fis-V in three modalities, float32", reference, ours, unit="MiB")


def reading(choice: Choice) -> Iterator[Row]:
    """Frames for the networks that features come from."""
    yield from extraction.reading(choice.repeats(5))


def streams(choice: Choice) -> Iterator[Row]:
    """Features without weights."""
    yield from extraction.streams(choice.repeats(5))


def flows(choice: Choice) -> Iterator[Row]:
    """Optical flow."""
    yield from extraction.flows(choice.repeats(1))


def networks(choice: Choice) -> Iterator[Row]:
    """The paper's networks that features come from."""
    yield from extraction.networks(extraction.NETWORKS, choice.device, choice.repeats(3))


def unmt(choice: Choice) -> Iterator[Row]:
    """The largest network."""
    yield from extraction.networks(extraction.UNMT, choice.device, choice.repeats(1))


def parts(choice: Choice) -> Iterator[Row]:
    """Extraction by several processes."""
    yield from extraction.parts(choice.repeats(3), clips=2 if choice.quick else 24)


def long_video(choice: Choice) -> Iterator[Row]:
    """Memory of an extraction."""
    yield from extraction.long_video(60 if choice.quick else extraction.HALF_AN_HOUR)


GROUPS: dict[str, Callable[[Choice], Iterator[Row]]] = {
    **{"step": steps, "stage1": stage1, "test": tests, "epoch": epochs},
    **{"decisions": decisions, "latency": latency, "startup": startup, "data": opening, "memory": memory},
    **{"extraction-reading": reading, "extraction-streams": streams, "extraction-flow": flows},
    **{"extraction-networks": networks, "extraction-unmt": unmt},
    **{"extraction-parts": parts, "extraction-memory": long_video},
}
