"""The frames of a video: decoded past damage, at 25 a second by their time stamps, upright and of square pixels."""

from collections.abc import Collection, Iterator
from fractions import Fraction
from itertools import chain, repeat
from math import floor
from typing import Any

import av.error
import av.filter
import numpy as np
import torch
import torch.nn.functional as F
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.reformatter import VideoReformatter

from pamfn.config.extract_schema import Reading
from pamfn.errors import InputError
from pamfn.extraction.container import LONGEST, MOST_PIXELS, Seen, packets, pixel_aspect, rate_of, start_of
from pamfn.extraction.extractor import FPS

MOST_ASPECT = 20
"""A frame's long side in short sides: resized to a short side, it would be very long."""

NOTED_GAP = 0.5
"""Seconds without a frame that are worth a warning."""


def decoded(container: InputContainer, stream: Stream) -> Iterator[Any]:
    """Yield the frames of a stream, packet by packet: what is damaged is left out, and the rest goes on."""
    return frames_of(packets(container, stream), stream)


def frames_of(packets: Iterator[Packet], stream: Any) -> Iterator[Any]:
    """Yield the frames that packets of a stream decode to."""
    for packet in packets:
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


def shown(container: InputContainer, stream: Stream, reading: Reading, seen: Seen) -> Iterator[Any]:
    """Yield the frame that is shown at k / 25 s for every k, or every decoded frame; repeats are the same object.

    A frame at time t goes to slot floor(25 t + 1/2), and slot k shows the last one that is not later: what FFmpeg's
    filter fps=25 does. What was seen is counted.

    Raises:
        InputError: when no frame can be decoded, or reading.max_gap is exceeded.
    """
    frames = noted(decoded(container, stream), reading, seen)
    if reading.deinterlace:
        frames = deinterlaced(frames, stream)
    if reading.fps == "native":
        for frame in frames:
            seen.shown += 1
            yield frame
    else:
        yield from in_slots(timed(frames, stream), rate_of(stream), reading, seen)
    if not seen.decoded:
        raise InputError(f"no frame of it can be decoded (none of more than {MOST_PIXELS} pixels is)")


def noted(frames: Iterator[Any], reading: Reading, seen: Seen) -> Iterator[Any]:
    """Yield frames, count them, and note what is unusual about them."""
    size = None
    for frame in frames:
        seen.decoded += 1
        if size is None:
            size, seen.rotation = (frame.width, frame.height), frame.rotation
        elif size != (frame.width, frame.height):
            seen.warn("the size of its frames changes: all are resized to that of the first")
        if frame.interlaced_frame and not reading.deinterlace:
            seen.warn("interlaced: reading.deinterlace=true makes its fields one picture")
        yield frame


def in_slots(frames: Iterator[tuple[Fraction, Any]], rate: Fraction, reading: Reading, seen: Seen) -> Iterator[Any]:
    """Yield the frame of every slot, from frames with their times."""
    gaps = Gaps(Fraction(reading.max_gap), rate)
    current, slot, last = None, 0, Fraction(0)  # slot: that of the current frame, which is not yielded yet
    for time, frame in frames:
        if current is not None and time < last:
            gaps.back(last, time)
            seen.dropped += 1
            continue
        gaps.between(last, time)
        here = max(slot_of(time), slot)
        if current is None:
            seen.repeated += here
            yield from repeat(frame, here)  # the first one is shown from the start on
        else:
            seen.dropped += here == slot
            seen.repeated += max(here - slot - 1, 0)
            yield from repeat(current, here - slot)
        current, slot, last = frame, here, time
    if current is None:
        return
    seen.shown = max(slot_of(last + min(1 / rate, gaps.most)), slot + 1)
    seen.repeated += seen.shown - slot - 1
    gaps.tell(seen)
    yield from repeat(current, seen.shown - slot)


def slot_of(time: Fraction) -> int:
    return floor(FPS * time + Fraction(1, 2))


class Gaps:
    """Times without a frame: told of, and refused where one is longer than `most` seconds."""

    def __init__(self, most: Fraction, rate: Fraction) -> None:
        self.most, self.rate = most, rate
        self.before, self.longest = 0.0, 0.0
        self.count, self.seconds = 0, 0.0
        self.late, self.late_in_a_row = 0, 0

    def between(self, before: Fraction, after: Fraction) -> None:
        """Take note of two times that follow one another.

        Raises:
            InputError: when they are too far apart, or too late for any video.
        """
        self.late_in_a_row = 0
        if after - before > self.most:
            raise InputError(
                f"no frame between {float(before):.2f} and {float(after):.2f} s: expected {float(self.most):g} s "
                "without one at most (reading.max_gap)"
            )
        if after > LONGEST:
            raise InputError(f"longer than {LONGEST // 3600} hours: cut it into parts")
        gap = float(after - before)
        if gap > NOTED_GAP:
            self.count, self.seconds = self.count + 1, self.seconds + gap
            if gap > self.longest:
                self.before, self.longest = float(before), gap

    def back(self, last: Fraction, time: Fraction) -> None:
        """Take note of a frame whose time is before that of the frame before it.

        Raises:
            InputError: when this goes on: the clock was set back, and the rest has no place on the time line.
        """
        self.late, self.late_in_a_row = self.late + 1, self.late_in_a_row + 1
        if self.late_in_a_row > self.most * self.rate:
            raise InputError(
                f"its time stamps go back from {float(last):.2f} to {float(time):.2f} s and stay behind for more than "
                f"{float(self.most):g} s (reading.max_gap): reading.fps=native takes all frames as they come"
            )

    def tell(self, seen: Seen) -> None:
        """Add what was noted to the warnings."""
        if self.count:
            after = self.before + self.longest
            rest = f"; {self.count - 1} other gaps, {self.seconds:.2f} s in all" if self.count > 1 else ""
            seen.warn(f"no frame between {self.before:.2f} and {after:.2f} s: the one before is repeated{rest}")
        if self.late:
            seen.warn(f"{self.late} frames are stamped earlier than the frame before them: they are left out")


class Resizer:
    """Makes arrays of frames: upright, square pixels, short side as asked, bilinear with antialiasing as in Pillow.

    All frames of a video get the size of its first one.
    """

    def __init__(self, stream: Any, short_sides: Collection[int]) -> None:
        self.aspect = pixel_aspect(stream)
        self.short_sides = sorted(short_sides)
        self.sizes: dict[int, tuple[int, int]] = {}
        self.to_rgb = VideoReformatter()  # one for all frames: each of their own would be set up anew

    def __call__(self, frame: Any) -> dict[int, np.ndarray]:
        """Return {short side: (h, w, 3) uint8 RGB}.

        Raises:
            InputError: when the frame is too narrow.
        """
        turns = round(frame.rotation / 90)
        picture = np.rot90(self.to_rgb.reformat(frame, format="rgb24").to_ndarray(), turns)
        if not self.sizes:
            height, width = picture.shape[:2]
            width *= float(1 / self.aspect if turns % 2 else self.aspect)
            if max(width / height, height / width) > MOST_ASPECT:
                raise InputError(f"its frames are {width:.0f} x {height}: expected {MOST_ASPECT} times as wide at most")
            self.sizes = {short: target_size(height, width, short) for short in self.short_sides}
        pixels = torch.from_numpy(np.ascontiguousarray(picture)[None])
        return {short: resized(pixels, size)[0] for short, size in self.sizes.items()}


def target_size(height: float, width: float, short: int) -> tuple[int, int]:
    """Return (height, width) in pixels after resizing."""
    if width <= height:
        return max(int(short * height / width), short), short
    return short, max(int(short * width / height), short)


def resized(pixels: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Resize (b, h, w, 3) uint8 to (b, h', w', 3)."""
    small = F.interpolate(pixels.permute(0, 3, 1, 2), size=size, mode="bilinear", antialias=True)  # stays channels-last
    return small.permute(0, 2, 3, 1).contiguous().numpy()
