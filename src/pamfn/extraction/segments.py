"""A video read once for all extractors: its segments with frames, flow and sound, one after the other."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pamfn.config.extract_schema import Reading
from pamfn.errors import InputError
from pamfn.extraction.container import Seen, announced_segments, chosen_streams, opened
from pamfn.extraction.extractor import FPS, SAMPLE_RATE, SEGMENT_FRAMES, Extractor, Segment, Sound
from pamfn.extraction.flow import flow_between
from pamfn.extraction.sound import NOTED_GAP, SILENT, read_sound
from pamfn.extraction.video import NOTED_GAP as NOTED_CUT
from pamfn.extraction.video import Resizer, shown


class Video:
    """A video file as its segments; `seen` says what was seen so far.

    extractors: what they read is what the segments hold
    progress: called from time to time while there is no segment yet: reading sound, and frames before the first one
    """

    def __init__(
        self,
        path: Path,
        reading: Reading,
        extractors: Sequence[Extractor],
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.path, self.reading, self.progress = path, reading, progress
        self.flows = {flow for extractor in extractors for flow in extractor.flows}
        self.short_sides = {short for extractor in extractors for short in extractor.short_sides}
        self.short_sides |= {flow.short_side for flow in self.flows}
        self.channels = {channel for extractor in extractors for channel in extractor.channels}
        self.seen = Seen()

    @property
    def announced(self) -> int:
        """The number of segments that the headers announce."""
        return announced_segments(self.seen, self.reading.fps)

    def segments(self, first: int = 0) -> Iterator[Segment]:
        """Yield the segments from number `first` on; those before are decoded, since seeking may miss a frame.

        What is left at the end is dropped. A video shorter than a segment is one that repeats its last frame.

        Raises:
            InputError: when it cannot be read.
        """
        sound = read_sound(self.path, self.reading, self.channels, self.seen, self.progress) if self.channels else {}
        with opened(self.path) as container:
            stream, _ = chosen_streams(container, self.reading, self.seen)
            resizer = Resizer(stream, self.short_sides)
            pictures: list[dict[int, np.ndarray]] = []
            index, before, frame = 0, None, None
            for number, frame in enumerate(shown(container, stream, self.reading, self.seen)):
                index = number // SEGMENT_FRAMES
                if index < first:
                    if number % SEGMENT_FRAMES == 0:
                        self.progress()
                    continue
                pictures.append(pictures[-1] if frame is before and pictures else resizer(frame))
                before = frame
                if len(pictures) > SEGMENT_FRAMES:
                    yield self.segment(index - 1, pictures, sound)
                    pictures = pictures[SEGMENT_FRAMES:]
            self.check_end(sound)
            if len(pictures) == SEGMENT_FRAMES:
                yield self.segment(index, pictures, sound)
            elif index == 0 and first == 0:
                self.warn_short(len(pictures))
                yield self.segment(0, pictures + pictures[-1:] * (SEGMENT_FRAMES - len(pictures)), sound)

    def segment(self, index: int, pictures: list[dict[int, np.ndarray]], sound: dict[str, Sound]) -> Segment:
        """Return the segment of 32 pictures; a 33rd is the first of the next segment, for the last flow."""
        frames = {short: np.stack([picture[short] for picture in pictures]) for short in self.short_sides}
        flow = {settings: flow_between(frames[settings.short_side], settings.method) for settings in self.flows}
        if len(pictures) == SEGMENT_FRAMES:
            flow = {settings: np.concatenate([field, field[-1:]]) for settings, field in flow.items()}
        return Segment(index, {short: stack[:SEGMENT_FRAMES] for short, stack in frames.items()}, flow, sound)

    def warn_short(self, frames: int) -> None:
        said = f"{frames} frames, fewer than the {SEGMENT_FRAMES} of a segment"
        if self.reading.short == "error":
            raise InputError(f"{said} (reading.short=repeat repeats the last one)")
        self.seen.warn(f"{said}: the last one is repeated")

    def check_end(self, sound: dict[str, Sound]) -> None:
        """Notes what is missing at the end, of frames or sound."""
        seen, seconds = self.seen, self.seen.shown / FPS
        track = next((track.whole for track in sound.values()), None) if seen.audio_stream is not None else None
        heard = 0.0 if track is None else len(track) / SAMPLE_RATE
        if self.reading.fps == "25" and (seen.duration or 0.0) - max(seconds, heard) > NOTED_CUT:
            seen.warn(f"cut off: the last frame ends at {seconds:.2f} s, and {seen.duration:.2f} s were announced")
        if track is not None and abs(heard - seconds) > NOTED_GAP:
            what = "silence is taken for the rest" if heard < seconds else "the rest is dropped"
            seen.warn(f"{heard:.2f} s of sound for {seconds:.2f} s of frames: {what}")
        if track is not None and not np.abs(track).max(initial=0.0) > SILENT:
            seen.warn("its sound is silence")
