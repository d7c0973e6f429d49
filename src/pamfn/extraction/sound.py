"""The sound of a video: one track at 16 kHz on the time line of its frames."""

from collections.abc import Collection
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pamfn.config.extract_schema import Reading
from pamfn.errors import InputError
from pamfn.extraction.container import LONGEST, Seen, announced_segments, chosen_streams, opened, start_of
from pamfn.extraction.extractor import SAMPLE_RATE, Sound
from pamfn.extraction.video import decoded

NOTED_GAP = 0.1
"""Seconds by which sound may be missing without a word."""

SILENT = 1e-4
"""Largest amplitude of what is called silent."""

CHANNELS = ("mean", "left")


def read_sound(path: Path, reading: Reading, channels: Collection[str]) -> dict[str, Sound]:
    """Return the track made of all channels ("mean") and that of the first ("left"), as far as they are asked for.

    Raises:
        InputError: when the file cannot be read.
    """
    seen = Seen()
    with opened(path) as container:
        video, audio = chosen_streams(container, reading, seen)
        tracks, rate = np.zeros((1, 0), np.float32), SAMPLE_RATE
        if audio is not None:
            tracks, rate = on_time_line(container, audio, start_of(video) or Fraction(0), reading.max_gap)
    segments = announced_segments(seen, reading.fps)
    mixed = {"mean": lambda: tracks.mean(axis=0), "left": lambda: tracks[0]}
    return {channel: Sound(centred(mixed[channel]()), rate, segments) for channel in channels}


def centred(track: np.ndarray) -> np.ndarray:
    return track - track.mean() if len(track) else track


def kind_of(frame: Any) -> tuple[int, str, str]:
    return frame.sample_rate, frame.layout.name, frame.format.name


def on_time_line(container: Any, audio: Any, start: Fraction, most: float) -> tuple[np.ndarray, int]:
    """Return the channels (c, n) at 16 kHz from `start` on, silence where nothing is recorded, and the file's rate."""
    resampler, parts, rate, kind = None, [], SAMPLE_RATE, None
    begins = position = Fraction(0)
    for frame in decoded(container, audio):
        if resampler is None:
            rate, kind = frame.sample_rate, kind_of(frame)
            resampler = av.AudioResampler(format="fltp", layout=frame.layout, rate=SAMPLE_RATE)
            begins = (start_of(audio) if frame.pts is None else frame.pts * frame.time_base) or Fraction(0)
            position = begins
        elif kind_of(frame) != kind:
            continue  # damage: no stream changes its rate or channels
        if frame.pts is not None:
            missing = frame.pts * frame.time_base - position
            if missing > NOTED_GAP:
                if missing > max(most, NOTED_GAP) or position > LONGEST:
                    raise InputError(
                        f"no sound between {float(position):.2f} and {float(position + missing):.2f} s: expected "
                        f"{most:g} s without any at most (reading.max_gap)"
                    )
                parts.append(np.zeros((parts[-1].shape[0] if parts else 1, int(missing * SAMPLE_RATE)), np.float32))
                position += missing
        frame.pts = None
        parts += [part.to_ndarray() for part in resampler.resample(frame)]
        position += Fraction(frame.samples, rate)
    if resampler is None:
        return np.zeros((1, 0), np.float32), SAMPLE_RATE
    parts += [part.to_ndarray() for part in resampler.resample(None)]
    channels = max(part.shape[0] for part in parts)
    tracks = np.concatenate([part if len(part) == channels else np.repeat(part[:1], channels, 0) for part in parts], 1)
    tracks = np.nan_to_num(tracks.astype(np.float32), posinf=0.0, neginf=0.0)
    late = int((begins - start) * SAMPLE_RATE)
    return (np.pad(tracks, ((0, 0), (late, 0))) if late > 0 else tracks[:, -late:]), rate
