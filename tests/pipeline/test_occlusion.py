from collections.abc import Mapping

import numpy as np
import pytest

from pamfn.pipeline.occlusion import MOST_WINDOWS, SHORTEST, occlusion, windows_of

FILL = {"rgb": np.zeros(2, np.float32), "flow": np.ones(1, np.float32)}


def points_of(features: Mapping[str, np.ndarray]) -> float:
    return float(features["rgb"].sum() - features.get("flow", np.zeros((1, 1))).sum())


@pytest.mark.parametrize("segments", [1, 2, 3, 4, 47, 48, 49, 133, 1000])
def test_windows_cover_every_segment_and_are_not_too_many(segments):
    windows = windows_of(segments)
    assert len(windows) <= MOST_WINDOWS + 1
    assert windows.min() == 0
    assert windows.max() == segments
    covered = np.zeros(segments, bool)
    for first, last in windows:
        assert min(SHORTEST, segments) <= last - first <= segments
        covered[first:last] = True
    assert covered.all()


def test_the_loss_is_found_where_the_points_are():
    rgb = np.zeros((12, 2), np.float32)
    rgb[7] = 5.0
    found = occlusion(points_of, {"rgb": rgb, "flow": np.ones((12, 1), np.float32)}, FILL)
    for (first, last), loss in zip(found.windows, found.window_losses, strict=True):
        assert loss == (10.0 if first <= 7 < last else 0.0)
    assert found.stream_losses == {"rgb": 10.0, "flow": 0.0}
    assert rgb[7, 0] == 5.0  # the features themselves stay


def test_a_part_that_costs_points_gains_them_when_it_is_masked():
    flow = np.ones((6, 1), np.float32)
    flow[2] = 4.0
    found = occlusion(points_of, {"rgb": np.zeros((6, 2), np.float32), "flow": flow}, FILL)
    assert found.window_losses.min() == -3.0
    assert found.stream_losses["flow"] == -3.0


def test_of_one_stream_nothing_is_left_out():
    assert occlusion(points_of, {"rgb": np.zeros((6, 2), np.float32)}, FILL).stream_losses == {}
