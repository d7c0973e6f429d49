"""What a score rests on: how many points it loses when a window of the video, or a whole stream, is masked."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from pamfn.pipeline.prediction import Occlusion

MOST_WINDOWS = 48
"""Windows that a video is looked at through; a longer video has wider steps."""

SHORTEST = 3
"""Segments of a window: about four seconds. A single segment is too little for most networks to notice."""


def windows_of(segments: int) -> np.ndarray:
    """Return (w, 2): first segment of every window, and the one behind it; neighbours overlap."""
    step = max(1, -(-segments // MOST_WINDOWS))
    width = min(segments, max(SHORTEST, 2 * step))
    starts = list(range(0, segments - width + 1, step))
    if starts[-1] != segments - width:
        starts.append(segments - width)
    return np.array([(start, start + width) for start in starts])


def occlusion(
    points_of: Callable[[Mapping[str, np.ndarray]], float],
    features: Mapping[str, np.ndarray],
    fill: Mapping[str, np.ndarray],
) -> Occlusion:
    """Score a video again and again, a part of it masked.

    points_of: scores features {stream: (t, c)}
    fill: {stream: (c,)} what masked segments become, the mean over the training videos
    """
    whole = points_of(features)
    segments = len(next(iter(features.values())))
    windows = windows_of(segments)

    def lost(streams: Iterable[str], first: int, last: int) -> float:
        masked = {m: masked_rows(features[m], fill[m], first, last) for m in streams}
        return whole - points_of({**features, **masked})

    losses = np.array([lost(features, first, last) for first, last in windows.tolist()])
    return Occlusion(windows, losses, {m: lost([m], 0, segments) for m in features} if len(features) > 1 else {})


def masked_rows(rows: np.ndarray, fill: np.ndarray, first: int, last: int) -> np.ndarray:
    """Return (t, c) with the rows from `first` to before `last` replaced."""
    changed = rows.copy()
    changed[first:last] = fill
    return changed
