"""Video files: opened, their streams chosen, and what is seen of them, with every warning."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream

from pamfn.config.extract_schema import Reading
from pamfn.errors import InputError
from pamfn.extraction.extractor import FPS, SEGMENT_FRAMES
from pamfn.files import regular

MOST_PIXELS = 2**26
"""Of a frame: 8192 x 8192."""

LONGEST = 12 * 3600
"""Seconds that a video may last: its sound is in memory, 230 MB an hour."""

MOST_FAILURES = 100
"""Times in a row that a container may fail to give a packet before the rest is given up."""

OPTIONS = {"max_pixels": str(MOST_PIXELS), "protocol_whitelist": "file"}
"""FFmpeg's own limits: a decoder allocates frames before anybody sees their size, and a list may name addresses."""

LISTS = {"concat", "dash", "hls"}
"""Formats that only name other files."""

DURATION = re.compile(r"(\d{1,5}):(\d\d?):(\d\d?\.?\d{0,9})")
"""How Matroska announces when a stream ends."""

HDR = {16: "PQ", 18: "HLG"}
"""Transfer functions, by their number in H.273, that would have to be tone-mapped."""


@dataclass
class Seen:
    """What was seen of a video, ready for JSON; times in seconds.

    width, height: as stored, before rotation. rate: frames a second as announced. duration: as announced
    decoded: frames; shown: frames at the rate of extraction, `repeated` of them repeats; dropped: frames not shown
    """

    codec: str = ""
    pixel_format: str = ""
    width: int = 0
    height: int = 0
    pixel_aspect: str = "1"
    rotation: int = 0
    rate: str | None = None
    duration: float | None = None
    video_stream: int = 0
    audio_stream: int | None = None
    audio_codec: str | None = None
    audio_rate: int | None = None
    audio_channels: int | None = None
    decoded: int = 0
    shown: int = 0
    repeated: int = 0
    dropped: int = 0
    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a media file.

    Raises:
        InputError: when it is none, or cannot be read; whatever FFmpeg says while it is open becomes one as well.
    """
    try:
        with av.open(str(regular(path)), options=OPTIONS, metadata_errors="replace") as container:
            if container.format.name in LISTS:
                raise InputError("is a list of other files: expected a video")
            yield container
    except av.error.FFmpegError as error:
        raise InputError(f"cannot be read as a video: {error.strerror}") from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from None


def packets(container: InputContainer, *streams: Stream) -> Iterator[Packet]:
    """Yield the packets of streams as long as the container gives any: damage between them is skipped."""
    failures = 0
    while failures < MOST_FAILURES:
        try:
            for packet in container.demux(streams):
                failures = 0
                yield packet
            return
        except (av.error.FFmpegError, IndexError):  # IndexError: a packet of a stream that appears in the middle
            failures += 1


def rate_of(stream: Stream) -> Fraction:
    """Return the frames a second of a video stream, 25 where it does not say."""
    rate = getattr(stream, "average_rate", None) or getattr(stream, "guessed_rate", None)
    return rate if rate and 0 < rate <= 1000 else Fraction(FPS)


def start_of(stream: Stream) -> Fraction | None:
    """Return when a stream starts, in seconds."""
    if stream.start_time is None or stream.time_base is None:
        return None
    return stream.start_time * stream.time_base


def choose(container: InputContainer, kind: str, index: int | None) -> Stream | None:
    """Return the video or audio stream with this index, else the one that players choose; None if there is none.

    Raises:
        InputError: when the stream with this index is none of that kind.
    """
    try:
        best = container.streams.best(kind)  # type: ignore[arg-type]
    except IndexError:  # damage: FFmpeg has seen a stream that PyAV has not
        best = None
    streams = [s for s in container.streams if s.type == kind and not s.disposition & Disposition.attached_pic]
    if index is not None:
        chosen = next((s for s in streams if s.index == index), None)
        if chosen is None:
            there = ", ".join(str(s.index) for s in streams) or "none"
            raise InputError(f"reading.{kind}_stream: no {kind} stream has the index {index}; there are: {there}")
        return chosen
    return best if best in streams else next(iter(streams), None)


def chosen_streams(container: InputContainer, reading: Reading, seen: Seen) -> tuple[Any, Any]:
    """Return the video stream and the audio stream or None; what their headers say goes to `seen`.

    Raises:
        InputError: when there is no video, or no sound where that is an error.
    """
    video = choose(container, "video", reading.video_stream)
    if video is None:
        raise InputError("has no video stream")
    audio = choose(container, "audio", reading.audio_stream)
    context: Any = video.codec_context
    if context is None:
        raise InputError("its video is of a codec that FFmpeg does not know")
    context.options = OPTIONS
    context.thread_count = 1  # with more, what is made of damage depends on the machine
    seen.video_stream, seen.codec, seen.pixel_format = video.index, context.name, context.pix_fmt or ""
    seen.width, seen.height = context.width, context.height
    seen.pixel_aspect = str(pixel_aspect(video))
    seen.rate = str(rate_of(video))
    seen.duration = announced_seconds(container, video)
    heard: Any = None if audio is None else audio.codec_context
    if audio is not None and heard is not None:
        seen.audio_stream, seen.audio_codec = audio.index, heard.name
        seen.audio_rate, seen.audio_channels = heard.sample_rate, heard.channels
    else:
        audio = None
        if reading.missing_audio == "error":
            raise InputError("has no sound (reading.missing_audio=silence takes silence for it)")
        what = "streams of sound are left out" if reading.missing_audio == "skip" else "silence is taken for it"
        seen.warn(f"no sound: {what}")
    if context.color_trc in HDR:
        seen.warn(f"high dynamic range ({HDR[context.color_trc]}), which is not tone-mapped: colours are too pale")
    rate = float(rate_of(video))
    if reading.fps == "native" and abs(rate - FPS) > 0.01:
        seen.warn(f"every frame is taken for 1/{FPS} s, and there are {rate:.4g} a second")
    return video, audio


def pixel_aspect(video: Any) -> Fraction:
    """Return width by height of a pixel, 1 where the file says nothing sensible."""
    aspect = video.sample_aspect_ratio or video.codec_context.sample_aspect_ratio
    return aspect if aspect and Fraction(1, 10) < aspect < 10 else Fraction(1)


def announced_seconds(container: InputContainer, video: Stream) -> float | None:
    """Return the duration that the headers announce, None if they say nothing sensible."""
    tag = DURATION.fullmatch(video.metadata.get("DURATION", ""))
    if video.duration and video.time_base:
        seconds = float(video.duration * video.time_base)
    elif tag:
        seconds = 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3])
    else:
        seconds = (container.duration or 0) / av.time_base
    return round(seconds, 3) if 0 < seconds <= LONGEST else None


def announced_segments(seen: Seen, fps: str) -> int:
    """Return the number of segments that the headers announce."""
    rate = float(Fraction(seen.rate or FPS)) if fps == "native" else FPS
    return max(1, int((seen.duration or 0) * rate + 0.5) // SEGMENT_FRAMES)


def inspect(path: Path, reading: Reading) -> Seen:
    """Open a video and return what its headers say; nothing is decoded.

    Raises:
        InputError: when it cannot be read as a video.
    """
    seen = Seen()
    with opened(path) as container:
        chosen_streams(container, reading, seen)
    return seen
