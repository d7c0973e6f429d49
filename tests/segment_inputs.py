"""Segments for tests of extractors: of made pictures, flow and sound, and of the two real videos."""

import os
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from pamfn.extraction.descriptors import FLOW
from pamfn.extraction.extractor import FPS, SEGMENT_FRAMES, SEGMENT_SAMPLES, Segment, Sound

SHARED = os.environ.get("PAMFN_SHARED_DIR")
needs_videos = pytest.mark.skipif(not SHARED, reason="reads the real videos: PAMFN_SHARED_DIR names their folder")


def of_frames(frames: np.ndarray, short_side: int = 120) -> Segment:
    """frames (h, w, 3) or (32, h, w, 3)"""
    frames = np.broadcast_to(frames, (SEGMENT_FRAMES, *frames.shape[-3:]))
    return Segment(0, {short_side: frames}, {}, {})


def of_flow(flow: np.ndarray) -> Segment:
    """flow (h, w, 2) or (32, h, w, 2)"""
    return Segment(0, {}, {FLOW: np.broadcast_to(flow, (SEGMENT_FRAMES, *flow.shape[-3:])).astype(np.float32)}, {})


def of_sound(samples: np.ndarray) -> list[Segment]:
    """Every full segment of a sound (n,)."""
    samples = samples.astype(np.float32)
    full = len(samples) // SEGMENT_SAMPLES
    sound = Sound(samples[: full * SEGMENT_SAMPLES], samples, 16_000)
    return [Segment(i, {}, {}, {"mean": sound}) for i in range(full)]


@lru_cache
def of_video(name: str, *short_sides: int) -> list[Segment]:
    """The segments of `friday.mp4` or `nasa_13013.mp4`, read in the plainest way."""
    path = Path(SHARED or "") / "data" / "videos" / name
    with av.open(path) as container:
        shown = {int(FPS * f.time + 0.5): f.to_ndarray(format="rgb24") for f in container.decode(video=0)}
    full = max(shown) // SEGMENT_FRAMES
    slots = [max(k for k in shown if k <= i) for i in range(full * SEGMENT_FRAMES)]
    frames = {side: np.stack([resized(shown[k], side) for k in slots]) for side in short_sides}
    with av.open(path) as container:
        resampler = av.AudioResampler("flt", "mono", 16_000)
        parts = [part.to_ndarray()[0] for f in container.decode(audio=0) for part in resampler.resample(f)]
    whole = np.concatenate(parts) - np.concatenate(parts).mean()
    samples = np.pad(whole, (0, full * SEGMENT_SAMPLES))[: full * SEGMENT_SAMPLES]
    sound = {"mean": Sound(samples, whole, 16_000)}
    segments = []
    for i in range(full):
        part = slice(i * SEGMENT_FRAMES, (i + 1) * SEGMENT_FRAMES)
        flow = {FLOW: dis_flow(frames[120][part])} if 120 in frames else {}
        segments.append(Segment(i, {side: x[part] for side, x in frames.items()}, flow, sound))
    return segments


def resized(frame: np.ndarray, short_side: int) -> np.ndarray:
    h, w, _ = frame.shape
    size = (int(w * short_side / min(h, w)), int(h * short_side / min(h, w)))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def dis_flow(frames: np.ndarray) -> np.ndarray:
    """From each frame (32, h, w, 3) to the next; the last one is repeated."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    flow = [dis.calc(a, b, None) for a, b in pairwise(grey)]  # pyright: ignore
    return np.stack([*flow, flow[-1]])
