"""Segments for tests of extractors: of made pictures, flow and sound, and of the two real videos."""

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from made_videos import reading
from pamfn.extraction.descriptors import FLOW, HOFMBH, HOG, MFCC
from pamfn.extraction.extractor import SEGMENT_FRAMES, SEGMENT_SAMPLES, Segment, Sound
from pamfn.extraction.flow import flow_between
from pamfn.extraction.segments import Video

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
    sound = Sound(samples, 16_000, full)
    return [Segment(i, {}, {}, {"mean": sound}) for i in range(full)]


@lru_cache
def of_video(name: str) -> list[Segment]:
    """The segments of `friday.mp4` or `nasa_13013.mp4`, as the classical descriptors read them."""
    path = Path(SHARED or "") / "data" / "videos" / name
    return list(Video(path, reading(), [HOG(), HOFMBH(), MFCC()]).segments())


def dis_flow(frames: np.ndarray) -> np.ndarray:
    """From each frame (32, h, w, 3) to the next; the last one is repeated."""
    flow = flow_between(frames, FLOW.method)
    return np.concatenate([flow, flow[-1:]])
