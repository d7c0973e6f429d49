"""Batches: crops that follow from seed, epoch and video alone; whole videos once each; an honest held-out part."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pamfn.data.batches import Batch, Crops, Videos, WholeVideos, stratified_holdout

LENGTHS = (5, 9, 7, 8, 12, 3, 7, 10, 15)
CROP = 7


def videos(lengths: Sequence[int] = LENGTHS, dtype: torch.dtype = torch.float16) -> Videos:
    """Segment t of video v is [v + 1, t] in `rgb` and [-(v + 1), t, 100 t] in `flow`."""
    length = torch.tensor(lengths)
    v = torch.arange(len(lengths)).repeat_interleave(length) + 1
    t = torch.cat([torch.arange(n) for n in lengths])
    points = torch.linspace(0, 10, len(lengths), dtype=torch.float64)
    return Videos(
        names=[f"video_{i}" for i in range(len(lengths))],
        packed={"rgb": torch.stack([v, t], dim=1).to(dtype), "flow": torch.stack([-v, t, 100 * t], dim=1).to(dtype)},
        start=length.cumsum(0) - length,
        length=length,
        points=points,
        target=(points / 10).float(),
        key=torch.arange(len(lengths)),
    )


def crops(of: Videos, epoch: int = 0, *, batch_size: int = 4, seed: int = 0, segments: int = CROP) -> dict[str, Tensor]:
    """The `rgb` crop (t, c) of every video in an epoch."""
    source = Crops(of, segments=segments, batch_size=batch_size, seed=seed)
    source.set_epoch(epoch)
    return {of.names[int(i)]: x for batch in source for i, x in zip(batch.videos, batch.features["rgb"], strict=True)}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one.keys() & two.keys())


def order(of: Videos, seed: int = 0, epoch: int = 0) -> list[int]:
    source = Crops(of, segments=CROP, batch_size=4, seed=seed)
    source.set_epoch(epoch)
    return [int(i) for batch in source for i in batch.videos]


@pytest.mark.parametrize("epoch", [0, 1, 30])
def test_the_crop_of_a_video_does_not_depend_on_the_batch_size(epoch: int):
    assert same(crops(videos(), epoch), crops(videos(), epoch, batch_size=3))
    assert same(crops(videos(), epoch), crops(videos(), epoch, batch_size=100))


@given(st.permutations(range(len(LENGTHS))), st.integers(2, len(LENGTHS)), st.integers(0, 3))
def test_the_crop_of_a_video_does_not_depend_on_which_others_are_there_or_their_order(
    index: list[int], kept: int, epoch: int
):
    some = crops(videos().subset(index[:kept]), epoch, batch_size=100)
    assert len(some) == kept
    assert same(some, crops(videos(), epoch, batch_size=100))


def test_holding_videos_out_leaves_the_crops_of_the_others_as_they_were():
    held = stratified_holdout(videos().points.tolist(), 0.3, 0)
    kept = videos().subset([i for i in range(len(LENGTHS)) if i not in held])
    assert len(crops(kept)) == len(LENGTHS) - 3
    assert same(crops(kept), crops(videos(), batch_size=100))


def test_crops_and_order_follow_from_seed_and_epoch():
    assert same(crops(videos(), 3, seed=1, batch_size=100), crops(videos(), 3, seed=1, batch_size=100))
    assert not same(crops(videos(), 0, batch_size=100), crops(videos(), 1, batch_size=100))
    assert not same(crops(videos(), 0, batch_size=100), crops(videos(), 0, seed=1, batch_size=100))
    assert order(videos(), epoch=2) == order(videos(), epoch=2)
    assert len({tuple(order(videos(), seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_a_second_pass_without_a_new_epoch_is_the_same():
    source = Crops(videos(), segments=CROP, batch_size=4, seed=0)
    first, second = ([batch.videos.tolist() for batch in source] for _ in range(2))
    assert first == second


def test_all_modalities_of_a_video_are_cropped_at_the_same_start():
    for batch in Crops(videos(), segments=CROP, batch_size=4, seed=0):
        assert torch.equal(batch.features["rgb"][..., 1], batch.features["flow"][..., 1])


def test_a_crop_is_consecutive_segments_of_its_own_video():
    of = videos()
    for name, crop in crops(of, batch_size=100).items():
        v, t = crop.T
        real = min(CROP, int(of.length[of.names.index(name)]))
        assert set(v[:real].tolist()) == {of.names.index(name) + 1}
        assert (t[:real].diff() == 1).all()


def test_short_videos_are_padded_with_zeros_at_the_end():
    crop = crops(videos(), batch_size=100)["video_0"]
    assert crop[:5].tolist() == [[1, t] for t in range(5)]
    assert crop[5:].count_nonzero() == 0


def test_every_start_from_the_first_to_the_last_possible_occurs_equally_often():
    of, epochs = videos(), 1000
    source = Crops(of, segments=CROP, batch_size=4, seed=0)
    starts = []
    for epoch in range(epochs):
        source.set_epoch(epoch)
        starts.append(source.first_segments())
    for video, column in enumerate(torch.stack(starts).T):
        possible = max(LENGTHS[video] - CROP, 0) + 1
        counts = column.bincount(minlength=possible)
        assert len(counts) == possible
        assert counts.min() > 0.7 * epochs / possible


def test_starts_of_different_videos_are_not_the_same_draw():
    source = Crops(videos([107] * 50), segments=CROP, batch_size=4, seed=0)
    assert len(set(source.first_segments().tolist())) > 25


@pytest.mark.parametrize(("count", "sizes"), [(8, [4, 4]), (9, [4, 4]), (10, [4, 4, 2]), (2, [2]), (1, [])])
def test_a_last_batch_is_dropped_only_if_it_is_a_single_video(count: int, sizes: list[int]):
    source = Crops(videos([8] * count), segments=CROP, batch_size=4, seed=0)
    assert [len(batch.videos) for batch in source] == sizes
    assert len(source) == len(sizes)


def test_the_video_left_out_changes_from_epoch_to_epoch():
    assert len({frozenset(range(9)) - frozenset(order(videos(), epoch=epoch)) for epoch in range(20)}) > 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_batches_are_float32_whatever_is_stored(dtype: torch.dtype):
    of = videos(dtype=dtype)
    batches = [*Crops(of, segments=CROP, batch_size=4, seed=0), *WholeVideos(of, batch_size=4)]
    assert {x.dtype for batch in batches for x in (*batch.features.values(), batch.target)} == {torch.float32}


def test_targets_belong_to_their_videos():
    of = videos()
    for batch in (*Crops(of, segments=CROP, batch_size=4, seed=0), *WholeVideos(of, batch_size=4)):
        assert torch.equal(batch.target, of.target[batch.videos])
        assert torch.equal(batch.features["rgb"][:, 0, 0], batch.videos + 1.0)


def test_training_crops_carry_no_lengths():
    assert all(batch.lengths is None for batch in Crops(videos(), segments=CROP, batch_size=4, seed=0))


def real_length(batch: Batch, row: int) -> int:
    return int(batch.lengths[row]) if batch.lengths is not None else batch.features["rgb"].shape[1]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.integers(1, 5))
def test_every_segment_of_every_video_is_tested_once(lengths: list[int], batch_size: int):
    of = videos(lengths)
    source = WholeVideos(of, batch_size=batch_size)
    batches = list(source)
    assert len(source) == len(batches)
    assert sorted(int(i) for batch in batches for i in batch.videos) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch.videos) <= batch_size
        for row, video in enumerate(batch.videos.tolist()):
            x = batch.features["rgb"][row]
            assert real_length(batch, row) == lengths[video]
            assert x[: lengths[video]].tolist() == [[video + 1, t] for t in range(lengths[video])]
            assert x[lengths[video] :].count_nonzero() == 0


def test_videos_of_similar_length_share_a_batch_and_equal_ones_need_no_mask():
    batches = list(WholeVideos(videos([9, 4, 9, 4, 7]), batch_size=2))
    assert [batch.features["rgb"].shape[1] for batch in batches] == [4, 9, 9]
    assert [None if batch.lengths is None else batch.lengths.tolist() for batch in batches] == [None, [7, 9], None]


def test_a_subset_shares_segments_and_keeps_names_points_and_keys():
    of = videos()
    some = of.subset([4, 1])
    assert (some.names, len(some)) == (["video_4", "video_1"], 2)
    assert some.packed["rgb"] is of.packed["rgb"]
    assert some.points.tolist() == [of.points[4], of.points[1]]
    assert some.key.tolist() == [4, 1]
    assert of.modalities(["flow"]).packed.keys() == {"flow"}


@given(
    st.lists(st.integers(0, 20), min_size=2, max_size=60),
    st.floats(0.01, 0.99),
    st.integers(0, 2**31),
)
def test_the_held_out_part_is_one_of_every_stratum_of_the_score(points: list[int], fraction: float, seed: int):
    scores = [float(p) for p in points]
    held = stratified_holdout(scores, fraction, seed)
    count = max(round(len(points) * fraction), 1)
    assert len(set(held)) == len(held) == count
    assert held == sorted(held) == stratified_holdout(scores, fraction, seed)
    strata = np.array_split(np.argsort(scores, kind="stable"), count)
    assert sorted(len(set(stratum.tolist()) & set(held)) for stratum in strata) == [1] * count


def test_the_held_out_part_spans_the_scores_and_differs_between_seeds():
    scores = np.random.default_rng(0).permutation(100).astype(float).tolist()
    held = stratified_holdout(scores, 0.2, 0)
    assert [int(scores[i]) // 5 for i in sorted(held, key=lambda i: scores[i])] == list(range(20))
    assert len({tuple(stratified_holdout(scores, 0.2, seed)) for seed in range(5)}) == 5
