"""The sound of a video: one track at 16 kHz on the time line of its frames."""

from collections.abc import Callable, Collection, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.packet import Packet

from pamfn.config.extract_schema import Reading
from pamfn.errors import InputError
from pamfn.extraction.container import LONGEST, Seen, chosen_streams, opened, packets, rate_of, start_of
from pamfn.extraction.extractor import FPS, SAMPLE_RATE, SEGMENT_FRAMES, Sound
from pamfn.extraction.video import frames_of, slot_of

NOTED_GAP = 0.1
"""Seconds by which sound may be missing without a word."""

SILENT = 1e-4
"""Largest amplitude of what is called silent."""

RATES = range(1000, 768_001)
"""Samples a second that sound can have; any other is damage."""

MIXES = {"mean": lambda part: part.mean(axis=0), "left": lambda part: part[0]}
"""Tracks, by what is made of the channels (c, n)."""


TOLD_PACKETS = 1000
"""After how many packets reading sound gives a sign of progress."""


def read_sound(
    path: Path,
    reading: Reading,
    channels: Collection[str],
    seen: Seen,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Sound]:
    """Return tracks, of `MIXES`, in one pass through the file that decodes no picture.

    seen: gets the warnings. progress: called every some packets

    Raises:
        InputError: when the file cannot be read, or reading.max_gap is exceeded.
    """
    samples = {channel: bytearray() for channel in channels}  # they grow in place: 230 MB an hour
    with opened(path) as container:
        video, audio = chosen_streams(container, reading, seen)
        frames, clock = FrameCount(video, reading), Clock(start_of(audio or video), reading)
        heard = frames.others(telling(packets(container, *filter(None, (video, audio))), progress))
        for part in on_time_line(frames_of(heard, audio or video), clock):
            for channel, track in samples.items():
                track += np.nan_to_num(MIXES[channel](part), posinf=0.0, neginf=0.0).tobytes()
        late = round((clock.begins - float(start_of(video) or 0)) * SAMPLE_RATE)
    clock.tell(seen)
    if late > frames.number() / FPS * SAMPLE_RATE:
        seen.warn("its sound starts after its last frame")
        samples, late = {channel: bytearray() for channel in channels}, 0
    segments = max(frames.number() // SEGMENT_FRAMES, 1)
    return {c: Sound(centred(shifted(track, late)), clock.rate, segments) for c, track in samples.items()}


def telling(packets: Iterator[Packet], progress: Callable[[], None]) -> Iterator[Packet]:
    """Yield packets, and call `progress` before every thousandth."""
    for number, packet in enumerate(packets):
        if number % TOLD_PACKETS == 0:
            progress()
        yield packet


def shifted(track: bytearray, late: int) -> np.ndarray:
    """Return float32 samples behind `late` samples of silence, or without the first ones."""
    samples = np.frombuffer(track, np.float32)
    return np.pad(samples, (late, 0)) if late > 0 else samples[-late:]


def centred(track: np.ndarray) -> np.ndarray:
    """Take the mean away, in place."""
    if len(track):
        track -= track.mean(dtype=np.float64).astype(np.float32)
    return track


class FrameCount:
    """The number of frames of a video, counted from its packets: that of the decoded ones, where nothing is damaged."""

    def __init__(self, video: Any, reading: Reading) -> None:
        self.video, self.reading, self.rate = video, reading, rate_of(video)
        self.packets, self.last = 0, Fraction(0)

    def others(self, packets: Iterator[Packet]) -> Iterator[Packet]:
        """Yield the packets that are not of the video."""
        start = start_of(self.video) or 0
        for packet in packets:
            if packet.stream_index != self.video.index:
                yield packet
            elif packet.size and not packet.is_discard:
                stamp = packet.dts if packet.pts is None else packet.pts
                time = self.packets / self.rate if stamp is None else stamp * packet.time_base - start
                self.packets, self.last = self.packets + 1, max(self.last, time)

    def number(self) -> int:
        """Return the number of frames at the rate of extraction."""
        if self.reading.fps == "native":
            return self.packets
        most = Fraction(self.reading.max_gap)
        return slot_of(min(self.last, self.packets * most) + min(1 / self.rate, most))


class Clock:
    """Where on the time line the next samples of a track are, in seconds."""

    def __init__(self, begins: Fraction | None, reading: Reading) -> None:
        self.begins = self.now = float(begins or 0)
        self.stamps_count = reading.fps == "25"
        self.most = max(reading.max_gap, NOTED_GAP)
        self.rate = SAMPLE_RATE
        self.heard, self.silent, self.late, self.late_in_a_row = 0, 0.0, 0.0, 0.0

    def silence_before(self, frame: Any) -> float | None:
        """Return how much silence there is before a frame of samples; None if the frame has no place.

        Raises:
            InputError: when its time stamp is too far off.
        """
        if frame.sample_rate not in RATES:
            return None
        time = None if frame.pts is None else float(frame.pts * frame.time_base)
        if not self.heard:
            self.rate = frame.sample_rate
            self.begins = self.now = self.begins if time is None else time
        self.heard += 1
        seconds = frame.samples / frame.sample_rate
        if time is None or not self.stamps_count:
            time = self.now
        if time < self.now - NOTED_GAP:
            self.late, self.late_in_a_row = self.late + seconds, self.late_in_a_row + seconds
            self.refuse(self.late_in_a_row, f"the time stamps of its sound go back from {self.now:.2f} to {time:.2f} s")
            return None
        self.late_in_a_row = 0.0
        self.refuse(time - self.now, f"no sound between {self.now:.2f} and {time:.2f} s")
        silence = time - self.now if time > self.now + NOTED_GAP else 0.0
        self.silent += silence
        self.now += silence + seconds
        if self.now - self.begins > LONGEST:
            raise InputError(f"longer than {LONGEST // 3600} hours: cut it into parts")
        return silence

    def refuse(self, seconds: float, what: str) -> None:
        if seconds > self.most:
            raise InputError(f"{what}: expected {self.most:g} s of damage at most (reading.max_gap)")

    def tell(self, seen: Seen) -> None:
        """Add what was noted to the warnings."""
        if self.silent:
            seen.warn(f"{self.silent:.2f} s of its sound are missing: silence is taken for them")
        if self.late:
            seen.warn(f"{self.late:.2f} s of its sound are stamped earlier than what is before: they are left out")


def on_time_line(frames: Iterator[Any], clock: Clock) -> Iterator[np.ndarray]:
    """Yield the samples of frames as (c, n) float32 at 16 kHz, with silence in gaps; rate and layout may change."""
    resampler, kind = None, None
    for frame in frames:
        silence = clock.silence_before(frame)
        if silence is None:
            continue
        if kind != kind_of(frame):
            yield from resampled(resampler, None)
            kind = kind_of(frame)
            resampler = av.AudioResampler(format="fltp", layout=frame.layout, rate=SAMPLE_RATE)
        if silence:
            yield np.zeros((1, int(silence * SAMPLE_RATE)), np.float32)
        frame.pts = None
        yield from resampled(resampler, frame)
    yield from resampled(resampler, None)


def kind_of(frame: Any) -> tuple[int, str, str]:
    return frame.sample_rate, frame.layout.name, frame.format.name


def resampled(resampler: av.AudioResampler | None, frame: Any) -> Iterator[np.ndarray]:
    """Yield what comes out of a resampler for a frame; for None, what it still holds."""
    if resampler is not None:
        yield from (part.to_ndarray() for part in resampler.resample(frame))
