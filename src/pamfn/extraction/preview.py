"""What a person sees and hears of a video: a few of its frames, the motion in them, and how loud its sound is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pamfn.config.extract_schema import Reading
from pamfn.extraction.container import Seen, chosen_streams, opened
from pamfn.extraction.descriptors import HOP, QUIETEST, SEGMENT_WINDOWS, WINDOW, WINDOW_RATE, describe_windows
from pamfn.extraction.extractor import FPS
from pamfn.extraction.flow import flow_between
from pamfn.extraction.sound import read_sound
from pamfn.extraction.video import Resizer, shown

READING = Reading(
    fps="25",
    video_stream=None,
    audio_stream=None,
    deinterlace=False,
    missing_audio="silence",
    short="repeat",
    max_gap=2.0,
)
"""How extraction reads videos by default."""

POOLED = 6
"""Windows of the spectrogram that one value of `Heard` stands for."""


@dataclass(frozen=True)
class Moment:
    """A frame (h, w, 3) uint8 RGB, and the flow (h, w, 2) float32 in pixels from it to the next one that differs."""

    frame: np.ndarray
    flow: np.ndarray


@dataclass(frozen=True)
class Heard:
    """The sound of a video as (n,) values, `rate` a second; n is 0 where there is no sound.

    loudness: root mean square in dB, 0 at full scale, -100 in silence
    onset: strength of the strongest onset, 0 or more
    """

    loudness: np.ndarray
    onset: np.ndarray
    rate: float = WINDOW_RATE / POOLED


def look(
    path: Path,
    times: Sequence[float],
    middles: Sequence[float] = (),
    *,
    width: int = 160,
    large: int = 320,
    reading: Reading = READING,
) -> tuple[list[np.ndarray], list[Moment]]:
    """Return thumbnails at `times` and moments at `middles`, all in one pass that keeps no other frame.

    times, middles: seconds on the time line of extraction; behind the end of the video there is its last frame
    width, large: of a thumbnail and of a moment, in pixels; heights follow the video's shape

    Raises:
        InputError: when it cannot be read.
    """
    small_slots, large_slots = ([max(int(FPS * time), 0) for time in group] for group in (times, middles))
    last = max((*small_slots, *large_slots), default=-1)
    thumbnails: dict[int, np.ndarray] = {}
    moments: dict[int, Moment] = {}
    waiting: dict[int, Any] = {}  # frames of moments whose next frame is not there yet
    with opened(path) as container:
        stream, _ = chosen_streams(container, reading, Seen())
        small, big = Pictures(stream, width), Pictures(stream, large)
        frame = None
        for number, frame in enumerate(shown(container, stream, reading, Seen())):
            for slot in [slot for slot, before in waiting.items() if before is not frame]:
                moments[slot] = moment(big(waiting.pop(slot)), big(frame))
            if number in small_slots:
                thumbnails[number] = small(frame)
            if number in large_slots:
                waiting[number] = frame
            if number >= last and not waiting:
                break
        for slot in {*small_slots} - {*thumbnails}:
            thumbnails[slot] = small(frame)
        for slot in {*large_slots} - {*moments}:
            picture = big(waiting.get(slot, frame))
            moments[slot] = moment(picture, picture)
    return [thumbnails[slot] for slot in small_slots], [moments[slot] for slot in large_slots]


class Pictures:
    """Makes arrays (h, width, 3) uint8 RGB of frames: upright, with square pixels."""

    def __init__(self, stream: Any, width: int) -> None:
        self.width, self.resizer = width, Resizer(stream, {width})

    def __call__(self, frame: Any) -> np.ndarray:
        picture = self.resizer(frame)[self.width]  # the short side: at least as wide as asked
        height, width = picture.shape[:2]
        size = (self.width, max(round(height * self.width / width), 1))
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def moment(frame: np.ndarray, following: np.ndarray) -> Moment:
    return Moment(frame, flow_between(np.stack([frame, following]), "dis")[0])


def coloured(flow: np.ndarray, fastest: float) -> np.ndarray:
    """Draw optical flow (h, w, 2) as a picture (h, w, 3) uint8 RGB: the hue is the direction, brightness the speed.

    Right is red, down yellow-green, left cyan, up violet; no motion is black. fastest: pixels that are full brightness
    """
    length, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1], angleInDegrees=True)
    value = np.clip(length / max(fastest, 1e-6), 0, 1) * 255
    hsv = np.stack([angle / 2 % 180, np.full_like(value, 255), value], axis=-1).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def jpeg(picture: np.ndarray, quality: int = 80) -> bytes:
    """Encode a picture (h, w, 3) uint8 RGB as a JPEG file."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()


def listen(path: Path, reading: Reading = READING) -> Heard:
    """Return loudness and onsets of a video's sound, on the time line of its frames.

    Raises:
        InputError: when it cannot be read.
    """
    sound = read_sound(path, reading, {"mean"}, Seen())["mean"]
    if not len(sound.whole):
        return Heard(np.zeros(0), np.zeros(0))
    track = describe_windows(sound)
    power, onset = (values[:-SEGMENT_WINDOWS] for values in (np.square(track.shape[:, -1]), track.onset))
    onset[: WINDOW // HOP // 2] = 0  # windows that reach before the start
    missing = (0, -len(onset) % POOLED)
    power, onset = (np.pad(values, missing, mode="edge").reshape(-1, POOLED) for values in (power, onset))
    return Heard(10 * np.log10(np.maximum(power.mean(axis=1), QUIETEST)), onset.max(axis=1))
