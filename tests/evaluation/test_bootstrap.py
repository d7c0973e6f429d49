"""What the resamples of a bootstrap share, and what they are of."""

from dataclasses import replace

import numpy as np
import pytest

from pamfn.evaluation.bootstrap import bootstrap, draws
from pamfn.evaluation.metrics import metrics_of
from scored_videos import one_of, scored


def test_every_resample_has_as_many_videos_and_the_same_ones_each_time():
    names = scored().videos
    counts = draws(names, 50)
    assert counts.shape == (50, 40)
    assert set(counts.sum(axis=1)) == {40}
    draws.cache_clear()
    assert np.array_equal(counts, draws(names, 50))
    assert not np.array_equal(counts, draws(scored(prefix="w").videos, 50))


@pytest.mark.parametrize("metric", metrics_of("score"))
def test_seeds_are_averaged_as_in_the_cell_however_far_apart_they_are(metric: str):
    given_ = scored(seeds=3)
    each = [one_of(metric, replace(given_, predicted=predicted[None])) for predicted in given_.predicted]
    np.testing.assert_allclose(bootstrap(metric, given_), each)
