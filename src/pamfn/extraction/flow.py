"""Optical flow between frames, by OpenCV's methods."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import cv2
import numpy as np


@cache
def estimator(method: str) -> Any:
    return METHODS[method]()


def tvl1() -> Any:
    """TV-L1 with OpenCV's defaults: five scales, five warps. Source: Zach, Pock and Bischof, 2007."""
    return cv2.optflow.createOptFlow_DualTVL1()  # type: ignore[attr-defined]


def tvl1_fast() -> Any:
    """TV-L1 with one warp a scale and a coarser end of its iterations."""
    estimator = tvl1()
    estimator.setWarpingsNumber(1)
    estimator.setEpsilon(0.05)
    return estimator


def dis() -> Any:
    """Dense inverse search. Source: Kroeger, Timofte, Dai and Van Gool, 2016."""
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)


def dis_fast() -> Any:
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)


METHODS: dict[str, Callable[[], Any]] = {"tvl1": tvl1, "tvl1_fast": tvl1_fast, "dis": dis, "dis_fast": dis_fast}


def flow_between(frames: np.ndarray, method: str) -> np.ndarray:
    """Return the optical flow from each frame to the next.

    frames: (n + 1, h, w, 3) uint8 RGB
    method: one of `METHODS`
    returns: (n, h, w, 2) float32, horizontal and vertical, in pixels
    """
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    calc = estimator(method).calc
    return np.stack([calc(before, after, None) for before, after in pairwise(gray)])
