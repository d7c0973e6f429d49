"""The frames of a video: decoded past damage, at 25 a second by their time stamps, upright and of square pixels."""

from collections.abc import Collection, Iterator
from fractions import Fraction
from itertools import chain
from typing import Any

import av.error
import av.filter
import numpy as np
import torch
import torch.nn.functional as F

from pamfn.config.extract_schema import Reading
from pamfn.errors import InputError
from pamfn.extraction.container import LONGEST, MOST_PIXELS, Seen, packets, pixel_aspect, rate_of, start_of
from pamfn.extraction.extractor import FPS

NOTED_GAP = 0.5
"""Seconds without a frame that are worth a warning."""


def decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the frames of a stream, packet by packet: what is damaged is left out, and the rest goes on."""
    for packet in packets(container, stream):
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue
    try:
        yield from stream.codec_context.decode(None)  # those that the decoder still holds
    except (av.error.FFmpegError, EOFError):
        return


def deinterlaced(frames: Iterator[Any], stream: Any) -> Iterator[Any]:
    """Yield frames whose two fields have been made one picture (FFmpeg's bwdif)."""
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(template=stream),
        graph.add("bwdif", "mode=send_frame:deint=interlaced"),
        graph.add("buffersink"),
    ).configure()
    for frame in chain(frames, [None]):
        graph.vpush(frame)
        while True:
            try:
                yield graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                break


def timed(frames: Iterator[Any], stream: Any) -> Iterator[tuple[Fraction, Any]]:
    """Yield frames with their time since the start of the stream; one without a time stamp follows the one before."""
    start, rate, last = start_of(stream), rate_of(stream), None
    for frame in frames:
        pts = frame.pts if frame.pts is not None else frame.dts
        if pts is None or frame.time_base is None:
            time = Fraction(0) if last is None else last + 1 / rate
        else:
            time = pts * frame.time_base
            start = time if start is None else start
            time -= start
        last = time
        yield time, frame


def shown(container: Any, stream: Any, reading: Reading, seen: Seen) -> Iterator[Any]:
    """Yield the frame that is shown at k / 25 s for every k, or every decoded frame; repeats are the same object.

    A frame at time t goes to slot floor(25 t + 1/2), and slot k shows the last one that is not later: what FFmpeg's
    filter fps=25 does. What was seen is counted.

    Raises:
        InputError: when no frame can be decoded, or a gap is longer than reading.max_gap.
    """
    frames = decoded(container, stream)
    if reading.deinterlace:
        frames = deinterlaced(frames, stream)
    current, slot, last = None, 0, Fraction(0)
    for time, frame in timed(frames, stream):
        if frame.width * frame.height > MOST_PIXELS:
            continue
        seen.decoded += 1
        if seen.decoded == 1:
            seen.rotation = frame.rotation
        if frame.interlaced_frame and not reading.deinterlace:
            seen.warn("interlaced: reading.deinterlace=true makes its fields one picture")
        if reading.fps == "native":
            seen.shown += 1
            yield frame
            continue
        if current is not None:
            refuse_gap(last, time, reading.max_gap, seen)
        here = int(FPS * time + Fraction(1, 2))
        if time < last or here < slot:
            seen.dropped += 1  # too late to be shown
            continue
        if current is not None:
            if here == slot:
                seen.dropped += 1
            for _ in range(slot, here):
                yield current
            seen.repeated += max(here - slot - 1, 0)
        elif here > 0:  # the first frame is shown from the start on
            refuse_gap(Fraction(0), time, reading.max_gap, seen)
            seen.repeated += here
            for _ in range(here):
                yield frame
        current, slot, last = frame, here, time
    if not seen.decoded:
        raise InputError("no frame of it can be decoded")
    if reading.fps == "native":
        return
    end = max(int(FPS * (last + 1 / rate_of(stream)) + Fraction(1, 2)), slot + 1)
    seen.repeated += end - slot - 1
    seen.shown = end
    for _ in range(slot, end):
        yield current


def refuse_gap(before: Fraction, after: Fraction, most: float, seen: Seen) -> None:
    """Notes a time without frames; refuses one that is too long, or is none that a video can have."""
    gap = float(after - before)
    if gap > most or float(after) > LONGEST:
        raise InputError(
            f"no frame between {float(before):.2f} and {float(after):.2f} s: expected {most:g} s without one at most "
            "(reading.max_gap)"
        )
    if gap > NOTED_GAP:
        seen.warn(f"no frame between {float(before):.2f} and {float(after):.2f} s: the one before is repeated")


class Resizer:
    """Makes arrays of frames: upright, square pixels, short side as asked, bilinear with antialiasing as in Pillow.

    All frames of a video get the size of its first one.
    """

    def __init__(self, stream: Any, short_sides: Collection[int]) -> None:
        self.aspect = pixel_aspect(stream)
        self.short_sides = sorted(short_sides)
        self.sizes: dict[int, tuple[int, int]] = {}

    def __call__(self, frame: Any) -> dict[int, np.ndarray]:
        """Return {short side: (h, w, 3) uint8 RGB}."""
        turns = round(frame.rotation / 90)
        picture = np.rot90(frame.to_ndarray(format="rgb24"), turns)
        if not self.sizes:
            height, width = picture.shape[:2]
            aspect = float(1 / self.aspect if turns % 2 else self.aspect)
            self.sizes = {short: target_size(height, width * aspect, short) for short in self.short_sides}
        pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
        return {short: resized(pixels, size) for short, size in self.sizes.items()}


def target_size(height: float, width: float, short: int) -> tuple[int, int]:
    """Return (height, width) in pixels after resizing."""
    if width <= height:
        return max(int(short * height / width), short), short
    return short, max(int(short * width / height), short)


def resized(pixels: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Resize (1, 3, h, w) uint8 to (h', w', 3)."""
    small = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return small[0].permute(1, 2, 0).contiguous().numpy()
