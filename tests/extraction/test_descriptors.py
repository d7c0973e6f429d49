"""The classical descriptors: layout, what they answer to, and what they do not."""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamfn.extraction.descriptors import (
    HOFMBH,
    HOG,
    MFCC,
    WINDOW_RATE,
    describe_windows,
    normalised,
    orientation_histograms,
    tempogram,
)
from pamfn.extraction.extractor import FPS, SAMPLE_RATE, SEGMENT_FRAMES, SEGMENT_SAMPLES, Extractor, Segment
from segment_inputs import dis_flow, needs_videos, of_flow, of_frames, of_sound, of_video

EXTRACTORS = [HOG, HOFMBH, MFCC]
H, W = 120, 160
RIGHT, DOWN, LEFT, UP = 0, 2, 4, 6
"""Bins of HOF; y points downwards."""


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def picture(seed: int = 0, height: int = H, width: int = W) -> np.ndarray:
    """Smooth random colours, (height, width, 3)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width][..., None] / H
    a, b, phase = random.uniform(-25, 25, size=(3, 3, 1, 1, 12))
    values = np.sin(a * y + b * x + phase).sum(axis=-1)
    return (127 + 25 * values).clip(40, 215).transpose(1, 2, 0).astype(np.uint8)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise that comes and goes, (n,)."""
    n = int(seconds * SAMPLE_RATE)
    random = np.random.default_rng(seed)
    return 0.1 * random.normal(size=n) * (1 + 0.8 * np.sin(np.arange(n) / SAMPLE_RATE * 9))


def clicks(beats_a_minute: float, seconds: float = 12) -> np.ndarray:
    samples = 1e-3 * np.random.default_rng(0).normal(size=int(seconds * SAMPLE_RATE))
    click = np.exp(-np.arange(800) / 100) * np.sin(np.arange(800))
    for start in np.arange(0, len(samples) - 800, 60 / beats_a_minute * SAMPLE_RATE):
        samples[int(start) : int(start) + 800] += click
    return samples


def hog(frames: np.ndarray) -> np.ndarray:
    return HOG().features([of_frames(frames)])[0]


def motion(flow: np.ndarray) -> np.ndarray:
    return HOFMBH().features([of_flow(flow)])[0]


def music(samples: np.ndarray) -> np.ndarray:
    return MFCC().features(of_sound(samples))


def hof(row: np.ndarray) -> np.ndarray:
    return row[:144].reshape(4, 4, 9)


def moving_patch(u: float | np.ndarray, v: float | np.ndarray) -> np.ndarray:
    """Flow (32, h, w, 2) that is zero but for a patch, which is less than half of the picture; u, v numbers or (32,)"""
    flow = np.zeros((SEGMENT_FRAMES, H, W, 2))
    patch = flow[:, 30:90, 40:120]
    patch[:] = np.stack(np.broadcast_arrays(np.zeros(SEGMENT_FRAMES) + u, v), axis=-1)[:, None, None]
    return flow


def test_widths_streams_and_names():
    described = {(e.name, e.width) for e in (HOG(), HOFMBH(), MFCC())}
    assert described == {("HOG", 336), ("HOFMBH", 416), ("MFCC", 236)}


@pytest.mark.parametrize("size", [(120, 160), (120, 213), (213, 120), (120, 121), (1440, 120)])
def test_every_shape_of_picture_has_the_same_width(size: tuple[int, int]):
    frames = picture(0, *size)
    assert HOG().features([of_frames(frames)] * 2).shape == (2, 336)
    rows = HOFMBH().features([of_flow(np.random.default_rng(0).normal(size=(*size, 2)))])
    assert rows.shape == (1, 416)
    assert np.isfinite(rows).all()


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20), st.floats(1e-3, 1e3))
@settings(max_examples=50, deadline=None)
def test_blocks_keep_signs_and_order_and_are_at_most_one_long(values: list[float], scale: float):
    block = np.array(values)
    result, scaled = normalised(block), normalised(block * scale)
    assert result.dtype == np.float32
    assert np.linalg.norm(result) <= 1 + 1e-6
    assert np.all(np.sign(result) * np.sign(block) >= 0)
    longer, shorter = (scaled, result) if scale >= 1 else (result, scaled)
    assert np.linalg.norm(longer) >= np.linalg.norm(shorter) - 1e-6


@given(st.floats(0, 2 * np.pi), st.floats(0.1, 50), st.sampled_from([(8, 2 * np.pi), (9, np.pi)]))
@settings(max_examples=50, deadline=None)
def test_a_vector_is_shared_by_the_two_directions_beside_it(angle: float, length: float, kind: tuple[int, float]):
    bins, period = kind
    x, y = (np.full((1, 8, 8), length * f(angle), dtype=np.float32) for f in (np.cos, np.sin))
    histograms = orientation_histograms(x, y, bins, period)
    np.testing.assert_allclose(histograms.sum(axis=-1), length, rtol=1e-5)
    position = angle / period * bins
    expected = np.maximum(1 - np.abs((position - np.arange(bins) + bins / 2) % bins - bins / 2), 0)
    np.testing.assert_allclose(histograms[0, 2, 1] / length, expected, atol=0.01)


def test_a_constant_picture_has_no_gradient():
    row = hog(np.full((H, W, 3), 90, dtype=np.uint8))
    assert not row[:288].any()
    assert (row[288:] > 0).sum() == 3


def test_a_still_picture_does_not_change():
    row = hog(picture())
    assert row[:144].all()
    assert row[144:288].max() < 1e-6
    moving = np.stack([np.roll(picture(), 2 * i, axis=1) for i in range(SEGMENT_FRAMES)])
    assert hog(moving)[144:288].all()


@pytest.mark.parametrize("offset", [-40, 40])
def test_brightness_does_not_change_gradients(offset: int):
    brighter = (picture().astype(int) + offset).astype(np.uint8)
    np.testing.assert_allclose(hog(brighter)[:288], hog(picture())[:288], atol=1e-6)
    assert np.abs(hog(brighter)[288:] - hog(picture())[288:]).max() > 0.1


def test_contrast_hardly_changes_gradients():
    flatter = (picture() * 0.5).astype(np.uint8)
    np.testing.assert_allclose(hog(flatter)[:288], hog(picture())[:288], atol=0.01)


def test_stripes_are_seen_in_their_direction():
    y, x = np.mgrid[:H, :W]
    for degrees in (0, 40, 80, 120, 160):
        direction = np.deg2rad(degrees)
        stripes = np.sin(0.5 * (np.cos(direction) * x + np.sin(direction) * y))
        row = hog(np.repeat((127 + 100 * stripes).astype(np.uint8)[..., None], 3, axis=-1))
        assert (row[:144].reshape(4, 4, 9).argmax(axis=-1) == degrees // 20).all()


def test_a_mirrored_picture_has_mirrored_gradients():
    row, mirrored = (hog(frames)[:144].reshape(4, 4, 9) for frames in (picture(), picture()[:, ::-1]))
    np.testing.assert_allclose(mirrored, row[:, ::-1, -np.arange(9)], atol=0.002)


def test_colours_are_counted():
    red = np.zeros((H, W, 3), dtype=np.uint8)
    red[:, : W // 4] = (255, 0, 0)
    hue, saturation, value = hog(red)[288:].reshape(3, 16) ** 2 * 4
    np.testing.assert_allclose(hue[0], 1, atol=1e-5)
    np.testing.assert_allclose(saturation[[0, 15]], [0.75, 0.25], atol=1e-5)
    np.testing.assert_allclose(value[[0, 15]], [0.75, 0.25], atol=1e-5)


def test_no_motion_is_still_everywhere():
    row = motion(np.zeros((H, W, 2)))
    assert not hof(row)[..., :8].any()
    assert (hof(row)[..., 8] > 0).all()
    assert not row[144:].any()


@pytest.mark.parametrize(
    ("u", "v", "direction"), [(3, 0, RIGHT), (0, 3, DOWN), (-3, 0, LEFT), (0, -3, UP), (2, 2, 1), (2, -2, 7)]
)
def test_a_patch_moves_in_its_direction(u: float, v: float, direction: int):
    row = motion(moving_patch(u, v))
    middle = hof(row)[1:3, 1:3, :8]
    assert (middle.argmax(axis=-1) == direction).all()
    assert np.sort(middle, axis=-1)[..., :6].max() < 0.2 * middle.max()
    assert not hof(row)[0, :, :8].any()
    assert np.sign(row[[410, 411]]).tolist() == np.sign([u, v]).tolist()


def test_the_motion_of_the_camera_is_removed():
    still, pan = motion(np.zeros((H, W, 2))), motion(np.full((H, W, 2), (4.0, -1.0)))
    np.testing.assert_allclose(pan[:400], still[:400], atol=1e-6)
    assert pan[412] > 0.5
    alone, with_pan = motion(moving_patch(3, 0)), motion(moving_patch(3, 0) + np.array([4, -1]))
    np.testing.assert_allclose(with_pan[:400], alone[:400], atol=1e-5)


def test_boundaries_of_motion_are_where_it_changes():
    mbh = motion(moving_patch(3, 0))[144:400].reshape(2, 4, 4, 8)
    assert mbh[0, 1, 0, RIGHT] > 0.1
    assert mbh[0, 1, 3, LEFT] > 0.1
    assert mbh[0, 0, 1, DOWN] > 0.1
    assert mbh[0, 3, 1, UP] > 0.1
    assert not mbh[0, 0, 0].any()
    assert not mbh[1].any()


def test_a_translated_picture_moves_as_a_camera_does():
    wide = picture(3, H, W + 2 * SEGMENT_FRAMES)
    pan = np.stack([wide[:, 2 * i : 2 * i + W] for i in range(SEGMENT_FRAMES)])
    row = motion(dis_flow(pan))
    assert hof(row)[..., 8].min() > 0.15
    assert row[412] > 0.6
    assert row[404] < 0.2


def test_a_mirrored_motion_is_mirrored():
    random = np.random.default_rng(0).normal(size=(6, 8, 2))
    flow = np.kron(random, np.ones((H // 6, W // 8, 1)))
    row, mirrored = motion(flow), motion(flow[:, ::-1] * (-1, 1))
    opposite = [4, 3, 2, 1, 0, 7, 6, 5, 8]
    np.testing.assert_allclose(hof(mirrored), hof(row)[:, ::-1, opposite], atol=0.01)
    same = [400, 401, 402, 403, 404, 405, 406, 407, 411, 412]
    np.testing.assert_allclose(mirrored[same], row[same], atol=1e-4)
    changed = [408, 410]
    np.testing.assert_allclose(mirrored[changed], -row[changed], atol=1e-4)


def test_faster_motion_is_larger():
    rows = np.stack([motion(moving_patch(speed, 0)) for speed in (0.5, 1, 2, 4)])
    assert (np.diff(rows[:, 400]) > 0).all()
    assert (np.diff(rows[:, 402]) > 0).all()


@pytest.mark.parametrize(("hertz", "band"), [(1.56, 0), (3.9, 1), (7.8, 2)])
def test_swinging_has_its_energy_at_its_frequency(hertz: float, band: int):
    swing = 2 * np.sin(2 * np.pi * hertz * np.arange(SEGMENT_FRAMES) / FPS)
    energies = motion(moving_patch(swing, 0))[413:416]
    assert energies.argmax() == band
    assert energies[band] > 3 * np.delete(energies, band).max()


def test_zooming_diverges_and_turning_curls():
    y, x = np.mgrid[:H, :W] - np.array([H, W]).reshape(2, 1, 1) / 2
    zoom, turn = motion(0.05 * np.stack([x, y], axis=-1)), motion(0.05 * np.stack([-y, x], axis=-1))
    assert zoom[406] > 3 * abs(zoom[408])
    assert turn[408] > 3 * abs(turn[406])


def test_silence_is_zero():
    assert not music(np.zeros(3 * SEGMENT_SAMPLES)).any()


def test_sound_that_starts_late_or_is_cut_off_is_finite():
    for samples in (np.append(np.zeros(30_000), noise(2)), noise(1.3), noise(30)[: 5 * SEGMENT_SAMPLES + 3]):
        assert np.isfinite(music(samples)).all()


def test_loudness_changes_only_the_rms():
    once, twice = music(noise(6)), music(2 * noise(6))
    loud = [220, 225]
    assert (twice[:, loud] > 1.2 * once[:, loud]).all()
    rest = np.delete(np.arange(236), [*range(216, 226)])
    np.testing.assert_allclose(twice[:, rest], once[:, rest], atol=1e-3)
    np.testing.assert_allclose(twice[:, 216:226], once[:, 216:226], atol=0.2)


@pytest.mark.parametrize("beats", [60, 90, 120, 150, 200])
def test_a_click_track_has_its_tempo(beats: int):
    result = tempogram(describe_windows(of_sound(clicks(beats))[0].sound["mean"]).onset)
    assert 60 / result[8] == pytest.approx(beats, rel=0.04)
    assert result[9] > 0.5
    assert result[:8].max() == pytest.approx(result[9])


def test_clicks_are_the_peaks_of_the_onset_strength():
    track = describe_windows(of_sound(clicks(120))[0].sound["mean"])
    beats = np.flatnonzero(track.peaks) / WINDOW_RATE
    assert len(beats) == 23
    np.testing.assert_allclose(beats, 0.5 + 0.5 * np.arange(23), atol=0.06)


@pytest.mark.parametrize(("hertz", "pitch"), [(440, 9), (261.6, 0), (659.3, 4), (880, 9), (1975.5, 11)])
def test_a_tone_has_its_pitch_class(hertz: float, pitch: int):
    row = music(0.3 * np.sin(2 * np.pi * hertz * np.arange(2 * SEGMENT_SAMPLES) / SAMPLE_RATE))[0]
    assert row[188:200].argmax() == pitch
    assert row[188 + pitch] ** 2 > 0.7 * (row[188:200] ** 2).sum()


def test_a_higher_tone_has_a_higher_centroid_and_more_crossings():
    rows = np.stack(
        [music(0.3 * np.sin(2 * np.pi * f * np.arange(SEGMENT_SAMPLES) / SAMPLE_RATE))[0] for f in (200, 800, 3200)]
    )
    for feature in (216, 217, 219):
        assert (np.diff(rows[:, feature]) > 0).all()


def test_noise_is_flatter_than_a_tone():
    tone = np.sin(2 * np.pi * 440 * np.arange(SEGMENT_SAMPLES) / SAMPLE_RATE)
    assert music(noise(1.28))[0, 218] > 3 * music(0.1 * tone)[0, 218]


def test_sound_moved_by_a_segment_moves_the_rows():
    samples = noise(13)
    later = music(np.append(noise(1.28, seed=1), samples))
    np.testing.assert_allclose(later[2:10, :226], music(samples)[1:9, :226], atol=1e-5)


def test_two_videos_in_one_batch_keep_their_own_sound():
    first, second = of_sound(noise(3)), of_sound(clicks(120, 3))
    mixed = MFCC().features([first[0], second[1], first[1]])
    np.testing.assert_array_equal(mixed[[0, 2]], music(noise(3)))
    np.testing.assert_array_equal(mixed[1], music(clicks(120, 3))[1])


@pytest.mark.parametrize("kind", EXTRACTORS)
@needs_videos
@pytest.mark.parametrize("video", ["friday.mp4", "nasa_13013.mp4"])
def test_real_videos_have_finite_features_that_do_not_depend_on_the_batch(kind: type[Extractor], video: str):
    segments: list[Segment] = of_video(video)[:4]
    rows = kind().features(segments)
    assert rows.shape == (4, kind.width)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    alone = np.concatenate([kind().features([segment]) for segment in reversed(segments)])[::-1]
    np.testing.assert_array_equal(rows, alone)
    assert (rows.std(axis=0) > 0).mean() > 0.8
