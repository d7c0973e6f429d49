"""Small video files for the tests of extraction, made by PyAV's encoders."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pamfn.config.extract_schema import ExtractConfig, Reading, Weights

SIZE = (96, 64)
BRIGHTNESS = {"_target_": "odd_extractors.Brightness"}


def reading(**changed: Any) -> Reading:
    """How videos are read by default."""
    plain = {"fps": "25", "video_stream": None, "audio_stream": None, "deinterlace": False}
    return Reading(**{**plain, "missing_audio": "silence", "short": "repeat", "max_gap": 2.0, **changed})


def config(videos: Any, out: Path, **changed: Any) -> ExtractConfig:
    """An extraction of these videos by a small extractor of the tests' own."""
    nothing = dict.fromkeys(("render", "pack", "dataset", "streams"))
    plain: dict[str, Any] = {
        **nothing,
        "videos": str(videos) if isinstance(videos, Path) else videos,
        "out": str(out),
        "extractor": {"rgb": BRIGHTNESS},
        "preset": "sound",
        "reading": reading(),
        "weights": Weights(vst=None, i3d=None, ast=None, unmt=None, blazepose=None),
        "device": "cpu",
        "precision": "32",
        "batch": 2,
        "threads": 1,
        "part": 0,
        "parts": 1,
        "time_limit": 60.0,
        "clips": [0, 0, 0],
        "dry": False,
        "data_dir": "data",
    }
    return ExtractConfig(**{**plain, **changed})


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A frame (h, w, 3) whose brightness and slope tell its number."""
    width, height = size
    slope = np.linspace(0, 60, width)[None, :, None] * np.ones((height, 1, 3))
    slope[: height // 2, : width // 2] += 60
    return (20 + (number * 7) % 120 + slope).clip(0, 255).astype(np.uint8)


def tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """Sound (channels, n): a tone whose loudness changes."""
    time = np.arange(int(seconds * rate)) / rate
    one = 0.3 * np.sin(2 * np.pi * 440 * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 1.3 * time))
    return np.stack([one * (1 if c == 0 else 0.5) for c in range(channels)]).astype(np.float32)


def write_video(
    path: Path,
    frames: int = 80,
    *,
    rate: Fraction | int = 25,
    size: tuple[int, int] = SIZE,
    times: Sequence[int] | None = None,
    sound: float | None = None,
    sound_start: float = 0.0,
    channels: int = 1,
    quiet: bool = False,
    pixel_format: str = "yuv420p",
    codec: str = "libx264",
    prepare: Callable[[Any], None] | None = None,
) -> Path:
    """Write a video. times: milliseconds of its frames; sound: its seconds; prepare: is given the video stream."""
    options = {"preset": "ultrafast", "g": "12", "bf": "0"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(codec, rate=rate, options=options)
        video.width, video.height, video.pix_fmt = *size, pixel_format
        if times is not None:
            video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        if prepare:
            prepare(video)
        layout = "stereo" if channels == 2 else "mono"
        audio: Any = container.add_stream("aac", rate=44_100, layout=layout) if sound is not None else None
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(i, size), format="rgb24")
            frame.pts = i if times is None else times[i]
            frame.time_base = Fraction(1) / rate if times is None else Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            samples = tone(sound or 0.0, 44_100, channels) * (0 if quiet else 1)
            shift = int(sound_start * 44_100)
            for start in range(0, samples.shape[1], 1024):
                part = np.ascontiguousarray(samples[:, start : start + 1024])
                heard = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
                heard.sample_rate, heard.pts, heard.time_base = 44_100, start + shift, Fraction(1, 44_100)
                container.mux(audio.encode(heard))
            container.mux(audio.encode(None))
    return path
