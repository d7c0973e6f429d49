"""From video to features against the plainest correct way: a decode for every stream, Pillow for every frame, attention
in explicit steps, one segment at a time.

The video is friday.mp4 (640 x 480, 30 frames a second, 6 s) of the shared data, else a rendered clip (320 x 240).
"""

import copy
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import av
import cv2
import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.devices import Mode, pairs, said, seconds
from benchmarks.timing import Row, compare, take_turns
from pamfn.config.extract_schema import Reading
from pamfn.data.rendered import plans, write_clip
from pamfn.extraction.container import Seen, chosen_streams, opened
from pamfn.extraction.descriptors import FLOW, HOFMBH, HOG, MFCC
from pamfn.extraction.extractor import FPS, SEGMENT_FRAMES, Segment
from pamfn.extraction.fbank import fbank
from pamfn.extraction.flow import flow_between
from pamfn.extraction.job import part_of
from pamfn.extraction.networks.i3d import InflatedInception
from pamfn.extraction.networks.video_swin import Groups, VideoSwinTransformer, WindowAttention, offset_index
from pamfn.extraction.networks.vit import Attention, AudioSpectrogramTransformer, UnmaskedTeacher
from pamfn.extraction.segments import Video
from pamfn.extraction.sound import read_sound
from pamfn.extraction.video import Resizer, shown, target_size

FISV_SEGMENTS = 68_913
"""In the published features of Fis-V's 500 videos."""

NETWORKS_SIDE = 256
"""Short side of the frames that the networks read."""

SEGMENT_SECONDS = SEGMENT_FRAMES / FPS
HALF_AN_HOUR = 1800

READING = Reading(
    fps="25",
    video_stream=None,
    audio_stream=None,
    deinterlace=False,
    missing_audio="silence",
    short="repeat",
    max_gap=2.0,
)


@contextmanager
def sample_video() -> Iterator[Path]:
    """The video that is read."""
    real = Path(os.environ.get("PAMFN_SHARED_DIR", "../shared")) / "data/videos/friday.mp4"
    if real.exists():
        yield real
        return
    with tempfile.TemporaryDirectory() as folder:
        yield rendered(Path(folder), 1)[0]


def rendered(folder: Path, clips: int) -> list[Path]:
    """The first clips of the rendered training set, 12 to 20 s each."""
    routines = list(plans("train", clips, 0))
    for routine in routines:
        write_clip(folder, routine)
    return [folder / "videos" / f"{routine.name}.mp4" for routine in routines]


def read(path: Path, *short_sides: int) -> list[dict[int, np.ndarray]]:
    """The frames of a video in these sizes, by the library; without sizes they are only decoded."""
    with opened(path) as container:
        stream, _ = chosen_streams(container, READING, seen := Seen())
        resizer = Resizer(stream, short_sides)
        return [resizer(frame) if short_sides else {} for frame in shown(container, stream, READING, seen)]


def plainly_read(path: Path, short: int) -> list[np.ndarray]:
    """The same frames: PyAV's decoder, of all frames for one slot the last, and Pillow."""
    slots: dict[int, Any] = {}
    with av.open(str(path)) as container:
        start = container.streams.video[0].start_time or 0
        for frame in container.decode(video=0):
            assert frame.pts is not None
            assert frame.time_base is not None
            slots[int(FPS * (frame.pts - start) * frame.time_base + 0.5)] = frame
    pictures: list[np.ndarray] = []
    for slot in range(max(slots) + 1):
        if slot in slots:
            image = slots[slot].to_image()
            height, width = target_size(image.height, image.width, short)
            pictures.append(np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)))
        else:
            pictures.append(pictures[-1])
    return pictures


def reading(pairs_of: int) -> Iterator[Row]:
    """Decoding and resizing for the networks: for one stream, and for the two that see."""
    with sample_video() as path:
        frames = len(read(path))
        what = f"decoding and resizing {path.name} to {NETWORKS_SIDE}"
        plain, ours = partial(plainly_read, path, NETWORKS_SIDE), partial(read, path, NETWORKS_SIDE)
        row = compare(f"{what}, against Pillow", plain, ours, pairs_of)
        decoding = seconds(partial(read, path))
        here = median(row.ours)
        row.notes.append(f"{1000 * here / frames:.2f} ms a frame, {decoding / here:.0%} of it decoding")
        yield row
        apart = partial(times, 2, ours)
        yield compare(f"{what} for rgb and flow: once for each, here once", apart, ours, pairs_of)
        plain_apart = partial(times, 2, plain)
        yield compare(f"{what} for rgb and flow: once for each with Pillow, here once", plain_apart, ours, pairs_of)


def times(many: int, call: Callable[[], object]) -> None:
    """A call so many times."""
    for _ in range(many):
        call()


def described(path: Path) -> dict[str, np.ndarray]:
    """The default features of a video."""
    extractors = {"rgb": HOG(), "flow": HOFMBH(), "audio": MFCC()}
    segments = Video(path, READING, list(extractors.values())).segments()
    rows = [{stream: each.features([segment])[0] for stream, each in extractors.items()} for segment in segments]
    return {stream: np.stack([row[stream] for row in rows]) for stream in extractors}


def plainly_described(path: Path) -> dict[str, np.ndarray]:
    """The same, each stream by itself, with the same descriptors."""
    rgb = [HOG().features([segment])[0] for segment in plain_segments(path)]
    flow = []
    for segment, after in plain_pairs(path):
        stack = np.concatenate([segment, after])
        field = flow_between(stack, FLOW.method)
        field = np.concatenate([field, field[-1:]])[:SEGMENT_FRAMES]
        flow.append(HOFMBH().features([Segment(0, {}, {FLOW: field}, {})])[0])
    sound, music = read_sound(path, READING, ["mean"], Seen()), MFCC()
    audio = [music.features([Segment(i, {}, {}, sound)])[0] for i in range(len(rgb))]
    return {"rgb": np.stack(rgb), "flow": np.stack(flow), "audio": np.stack(audio)}


def plain_segments(path: Path) -> Iterator[Segment]:
    """The segments of frames."""
    for stack, _ in plain_pairs(path):
        yield Segment(0, {FLOW.short_side: stack}, {}, {})


def plain_pairs(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The frames of every segment, and the first one after it."""
    frames = np.stack(plainly_read(path, FLOW.short_side))
    for first in range(0, len(frames) - SEGMENT_FRAMES + 1, SEGMENT_FRAMES):
        end = first + SEGMENT_FRAMES
        yield frames[first:end], frames[end : end + 1]


def streams(pairs_of: int) -> Iterator[Row]:
    """The default streams of a whole video."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with sample_video() as path:
            title = f"default streams of {path.name}, against a decode and Pillow for each"
            row = compare(title, partial(plainly_described, path), partial(described, path), pairs_of)
            segments = len(described(path)["rgb"])
            each = median(row.ours) / segments
            row.notes.append(f"{SEGMENT_SECONDS / each:.1f} times real time, {segments} segments")
            row.notes.append(fisv("all three", each))
            row.notes.append(shares(path))
        yield row
    finally:
        cv2.setNumThreads(threads)


def shares(path: Path) -> str:
    """What share of the time of the default streams every step has."""
    extractors = HOG(), HOFMBH(), MFCC()
    segments = list(Video(path, READING, extractors).segments())
    decoding, resized = (seconds(partial(read, path, *sides)) for sides in ((), (FLOW.short_side,)))
    steps = {"decoding": decoding, "colours and resizing": resized - decoding}
    frames = [segment.frames[FLOW.short_side] for segment in segments]
    steps["flow"] = seconds(lambda: [flow_between(stack, FLOW.method) for stack in frames])
    steps["reading sound"] = seconds(lambda: read_sound(path, READING, ["mean"], Seen()))
    for extractor in extractors:
        steps[extractor.name] = seconds(lambda extractor=extractor: extractor.features(segments))
    whole = sum(steps.values())
    return ", ".join(f"{step} {took / whole:.0%}" for step, took in steps.items())


def fisv(what: str, each: float) -> str:
    """What a segment's seconds come to for a data set of the size of Fis-V."""
    hours = each * FISV_SEGMENTS / 3600
    return f"{what}: {each:.3f} s a segment, {hours:.1f} h ({hours / 24:.1f} days) for the {FISV_SEGMENTS} of Fis-V"


def flows(pairs_of: int) -> Iterator[Row]:
    """The optical flow of a segment at the networks' size, TV-L1 against the others."""
    with sample_video() as path:
        frames = np.stack([picture[NETWORKS_SIDE] for picture in read(path, NETWORKS_SIDE)[: SEGMENT_FRAMES + 1]])
    for method in ("tvl1_fast", "dis", "dis_fast"):
        plain, ours = (partial(flow_between, frames, name) for name in ("tvl1", method))
        row = compare(f"flow of a segment, short side {NETWORKS_SIDE}: tvl1, here {method}", plain, ours, pairs_of)
        row.notes += [fisv("tvl1", median(row.reference)), fisv(method, median(row.ours))]
        yield row


class ExplicitWindowAttention(nn.Module):
    """Video Swin's attention in the steps of its formula, with one mask for every window."""

    def __init__(self, attention: WindowAttention) -> None:
        super().__init__()
        self.attention = attention
        self.mask: Tensor | None = None

    def forward(self, windows: Tensor, groups: Groups) -> Tensor:
        own, (b, windows_of, n, c) = self.attention, windows.shape
        qkv = own.qkv(windows).view(b * windows_of, n, 3, own.heads, c // own.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = q * (c // own.heads) ** -0.5 @ k.transpose(-2, -1)
        index = offset_index(own.window, windows.device)[:n, :n].reshape(-1)
        scores = scores + own.relative_position_bias_table[index].view(n, n, own.heads).permute(2, 0, 1)
        if any(mask is not None for _, mask in groups):
            if self.mask is None:
                self.mask = torch.zeros(windows_of, 1, n, n, device=windows.device)
                for chosen, mask in groups:
                    self.mask[chosen] += 0 if mask is None else mask
            scores = (scores.unflatten(0, (b, windows_of)) + self.mask).flatten(0, 1)
        return own.proj((scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, windows_of, n, c))


class ExplicitAttention(nn.Module):
    """The attention of vision transformers in the steps of its formula."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        own, (b, n, c) = self.attention, x.shape
        q, k, v = own.qkv(x).view(b, n, 3, own.heads, c // own.heads).permute(2, 0, 3, 1, 4)
        weights = (q * (c // own.heads) ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1)
        return own.proj((weights @ v).transpose(1, 2).reshape(b, n, c))


EXPLICIT = {WindowAttention: ExplicitWindowAttention, Attention: ExplicitAttention}


def explicit(network: nn.Module) -> nn.Module:
    """A copy of a network whose attention goes in explicit steps; others are only copied."""
    plain = copy.deepcopy(network)
    for module in list(plain.modules()):
        for name, child in list(module.named_children()):
            if type(child) in EXPLICIT and type(module) not in EXPLICIT.values():
                setattr(module, name, EXPLICIT[type(child)](child))
    return plain


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Video Swin": (VideoSwinTransformer, (3, 32, 224, 224)),
    "I3D": (InflatedInception, (2, 32, 224, 224)),
    "AST padded": (AudioSpectrogramTransformer, (1024, 128)),
    "AST short": (AudioSpectrogramTransformer, (126, 128)),
}
UNMT: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "UNMT of 8 frames": (partial(UnmaskedTeacher, frames=8), (3, 8, 224, 224)),
    "UNMT of 16 frames": (partial(UnmaskedTeacher, frames=16), (3, 16, 224, 224)),
}
"""What builds each, and its input for one segment."""


def networks(chosen: Mapping[str, Any], device: torch.device, pairs_of: int) -> Iterator[Row]:
    """Networks at full size with random weights, one segment, against explicit attention."""
    took: dict[str, float] = {}
    for name, (build, shape) in chosen.items():
        ours = build().eval().to(device)
        plain = explicit(ours)
        x = torch.randn(1, *shape, device=device)
        how = "both the same" if name == "I3D" else "explicit attention, here fused"
        for modes in pairs(device):
            calls = partial(forward, plain, x, modes[0]), partial(forward, ours, x, modes[1])
            row = compare(f"{name}, a segment: {how}, {said(*modes)}", *calls, pairs_of, modes=modes)
            took[f"{name} {modes[1].precision}"] = median(row.ours)
            row.notes.append(fisv(f"here {modes[1].precision}", median(row.ours)))
            if name == "AST short" and modes == pairs(device)[-1]:  # the last of the paper's
                row.notes += list(reading_beside(took, {mode.precision for both in pairs(device) for mode in both}))
            yield row
        del ours, plain


@torch.inference_mode()
def forward(network: nn.Module, x: Tensor, mode: Mode) -> Tensor:
    """The output for a batch, in a precision."""
    with mode.products(), mode.autocast():
        return network(x)


def reading_beside(took: dict[str, float], precisions: set[str]) -> Iterator[str]:
    """What decoding, resizing and the spectrogram cost beside the networks of the paper; flow is not in it."""
    with sample_video() as path:
        decoded = seconds(partial(read, path, NETWORKS_SIDE)) / len(read(path)) * SEGMENT_FRAMES
        sound = read_sound(path, READING, ["mean"], Seen())["mean"]
        heard = seconds(lambda: fbank(sound.segment(0)))
    for precision in sorted(precisions):
        for window in ("padded", "short"):
            networks_took = sum(took[f"{name} {precision}"] for name in ("Video Swin", "I3D", f"AST {window}"))
            yield (
                f"of {path.name}, decoding, resizing and spectrogram take {decoded + heard:.3f} s a segment, "
                f"{(decoded + heard) / networks_took:.1%} of the {networks_took:.2f} s of Video Swin, I3D and "
                f"AST {window} in {precision}"
            )


def parts(rounds: int, clips: int) -> Iterator[Row]:
    """One command for a folder of rendered clips against two at once, a part each: from start to end, by the clock.

    Both parts have the same clips, under different names.
    """
    with tempfile.TemporaryDirectory() as place:
        folder, videos = Path(place), Path(place) / "both"
        videos.mkdir()
        for clip in rendered(folder, clips // 2):
            for part in (0, 1):
                names = (f"{clip.stem}_{i}" for i in count())
                shutil.copy(clip, videos / f"{next(name for name in names if part_of(name, 2) == part)}.mp4")
        row = Row(f"default streams of {clips} rendered clips: one process, here two", unit="s by the clock")
        used: dict[int, list[float]] = {1: [], 2: []}
        one, two = (partial(extracted, videos, processes, used[processes]) for processes in (1, 2))
        take_turns(row, rounds, one, two)
        alone, together = median(used[1]), median(used[2])
        row.notes.append(
            f"start included; {alone:.1f} CPU s for one process, {together:.1f} for both, so that on two free cores "
            f"they would be {2 * alone / together:.2f} times as fast"
        )
        row.notes.append(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        yield row


def extracted(videos: Path, processes: int, used: list[float]) -> float:
    """Wall seconds until so many processes have extracted a folder together; their CPU seconds are added to `used`."""
    with tempfile.TemporaryDirectory() as out:
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        commands = [[*extraction(videos, Path(out)), f"part={part}", f"parts={processes}"] for part in range(processes)]
        running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
        codes = [process.wait() for process in running]
        took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        found = len(list(Path(out).rglob("*.safetensors")))
    if any(codes) or found != 3 * len(list(videos.iterdir())):
        raise RuntimeError(f"exit statuses {codes}, {found} files of features")
    return took


def extraction(videos: Path, out: Path) -> list[str]:
    """The command that extracts the default streams."""
    return [sys.executable, "-m", "pamfn.extract", f"videos={videos}", f"out={out}", "device=cpu"]


def long_video(long: float) -> Iterator[Row]:
    """Peak memory of the command for a rendered clip, and for the same clip over and over."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        clip = rendered(folder, 1)[0]
        repeated = folder / "long.mp4"
        rounds = repeat(clip, repeated, long)
        short, here = (peak_of(extraction(file, folder / file.stem)) for file in (clip, repeated))
        frames = len(read(clip))
        row = Row(
            f"peak memory, a clip of {frames / FPS:.0f} s, here it {rounds} times", [short[0]], [here[0]], unit="MiB"
        )
        each = here[1] / (rounds * frames // SEGMENT_FRAMES)
        said_of = f"{rounds * frames / FPS / 60:.0f} min, {rounds * frames // SEGMENT_FRAMES} segments"
        row.notes.append(f"{said_of}, {each:.3f} s a segment by the clock; memory is of all its processes together")
        yield row


def repeat(clip: Path, file: Path, long: float) -> int:
    """Write a clip so many times after itself that it is at least that long, and return how often."""
    with av.open(str(clip)) as source, av.open(str(file), "w") as target:
        streams_of = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        video = source.streams.video[0]
        lasts = video.duration * video.time_base  # type: ignore[operator]
        rounds = int(long / lasts) + 1
        for i in range(rounds):
            source.seek(0)
            for packet in source.demux():
                assert packet.time_base is not None
                if packet.pts is None or packet.dts is None or not 0 <= packet.pts * packet.time_base < lasts:
                    continue  # what an encoder writes before the start and beyond the end
                moved = round(i * lasts / packet.time_base)
                packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
                packet.stream = streams_of[packet.stream.index]
                target.mux(packet)
    return rounds


def peak_of(command: list[str]) -> tuple[float, float]:
    """The most MiB that a command and the processes that it started have held, and its wall seconds."""
    began, most = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
        process = psutil.Process(running.pid)
        while running.poll() is None:
            held = 0
            for each in [process, *process.children(recursive=True)]:
                try:
                    held += each.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            most = max(most, held)
            time.sleep(0.05)
    if running.returncode:
        raise RuntimeError(f"exit status {running.returncode}")
    return most / 2**20, time.perf_counter() - began
