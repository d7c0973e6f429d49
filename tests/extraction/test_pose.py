"""BlazePose: geometry and features without the networks; and with them, where their file is at hand."""

import importlib.util
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from made_videos import reading
from pamfn.errors import InputError
from pamfn.extraction.extractor import Segment
from pamfn.extraction.pose import (
    ANCHORS,
    LARGEST,
    LOOKED_AT,
    BlazePose,
    Network,
    Pose,
    cropped,
    describe,
    overlaps,
    placed,
    read_models,
    square_around,
)
from pamfn.extraction.segments import Video
from segment_inputs import SHARED, needs_videos

FILE = os.environ.get("PAMFN_BLAZEPOSE")
needs_litert = pytest.mark.skipif(not importlib.util.find_spec("ai_edge_litert"), reason="pamfn[pose] is not installed")
needs_file = pytest.mark.skipif(
    not FILE, reason="PAMFN_BLAZEPOSE names mediapipe's wheel or a .task bundle; it is unset"
)
HEIGHT = 256
SWAPPED = [0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9, *(i + (1 if i % 2 else -1) for i in range(11, 33))]
"""Landmarks of a mirrored body."""


def body(seed: int = 0) -> np.ndarray:
    """Somebody upright, (33, 3) in metres: hips at the height of 0, a torso of .5."""
    landmarks = np.random.default_rng(seed).normal(0, 0.2, (33, 3))
    landmarks[[11, 12, 23, 24]] = [(0.2, -0.5, 0), (-0.2, -0.5, 0), (0.1, 0, 0), (-0.1, 0, 0)]
    return landmarks


def pose(world: np.ndarray, centre: Sequence[float] = (100, 128), presence: float = 1.0) -> Pose:
    return Pose(world[:, :2] * 100 + np.array(centre), world, np.full(33, 0.9), presence)


def turned(world: np.ndarray, radians: float) -> np.ndarray:
    c, s = np.cos(radians), np.sin(radians)
    return world @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def test_nobody_is_zeros():
    row = describe([None] * LOOKED_AT, HEIGHT)
    assert row.shape == (256,)
    assert row.dtype == np.float32
    assert not row.any()


def test_somebody_in_one_frame_does_not_move():
    row = describe([pose(body()), *[None] * 15], HEIGHT)
    assert np.isfinite(row).all()
    assert row[:99].any()
    assert not row[99:222].any()
    assert row[254:] == pytest.approx([1 / 16, 0.9 / 16])


def test_somebody_still_has_a_posture_and_no_motion():
    row = describe([pose(body())] * 16, HEIGHT)
    landmarks = row[:99].reshape(33, 3)
    np.testing.assert_allclose(landmarks, body() / 0.5, atol=1e-5)
    assert np.abs(row[99:222]).max() < 1e-6
    assert np.abs(row[230:246]).max() < 1e-6
    assert row[246] == pytest.approx(0.5)
    assert np.abs(row[247:254]).max() < 1e-6
    assert row[254:] == pytest.approx([1, 0.9])


def test_posture_depends_neither_on_size_nor_on_place_nor_on_facing():
    row = describe([pose(body())] * 16, HEIGHT)
    for other in (1.4 * body(), body() + np.array([3, 1, 2]), turned(body(), 1.0), turned(body(), -2.5)):
        np.testing.assert_allclose(describe([pose(other)] * 16, HEIGHT)[:246], row[:246], atol=1e-5)


def test_mirrored_bodies_have_mirrored_postures():
    row = describe([pose(body(i)) for i in range(16)], HEIGHT)
    mirrored = describe([pose((body(i) * (-1, 1, 1))[SWAPPED]) for i in range(16)], HEIGHT)
    np.testing.assert_allclose(mirrored[:99].reshape(33, 3), (row[:99].reshape(33, 3) * (-1, 1, 1))[SWAPPED], atol=1e-5)
    np.testing.assert_allclose(mirrored[198:210].reshape(6, 2), row[198:210].reshape(6, 2)[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(mirrored[222:230].reshape(4, 2), row[222:230].reshape(4, 2)[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(mirrored[246:], row[246:], atol=1e-5)


def test_turning_and_travelling_are_told_by_the_second():
    poses = [pose(turned(body(), 0.2 * i), (50 + 2 * i, 128)) for i in range(16)]
    row = describe(poses, HEIGHT)
    assert row[250:252] == pytest.approx([0.2 * 12.5] * 2, rel=1e-4)
    assert row[252:254] == pytest.approx([2 * 12.5 / HEIGHT] * 2, abs=0.02)
    assert np.abs(row[198:222]).max() < 1e-4
    gaps = describe([p if i % 3 else None for i, p in enumerate(poses)], HEIGHT)
    assert gaps[250:252] == pytest.approx(row[250:252], rel=1e-4)


def test_a_moving_wrist_has_speed_and_the_others_none():
    def waving(i: int) -> np.ndarray:
        world = body()
        world[15, 1] += 0.04 * i
        return world

    speeds = describe([pose(waving(i)) for i in range(16)], HEIGHT)[198:222].reshape(2, 12)
    np.testing.assert_allclose(speeds[:, 4], 0.04 / 0.5 * 12.5, rtol=1e-4)
    assert np.abs(np.delete(speeds, 4, axis=1)).max() < 1e-4


def test_a_bent_elbow_is_measured():
    world = body()
    world[[11, 13, 15]] = [(0.2, -0.5, 0), (0.5, -0.5, 0), (0.5, -0.8, 0)]
    world[[12, 14, 16]] = [(-0.2, -0.5, 0), (-0.5, -0.5, 0), (-0.8, -0.5, 0)]
    assert describe([pose(world)] * 16, HEIGHT)[222:224] == pytest.approx([np.pi / 2, np.pi], abs=1e-4)


@pytest.mark.parametrize("degrees", [0, 30, -90, 180])
def test_leaning_is_measured_from_the_vertical(degrees: int):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    leaning = body() @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    row = describe([pose(leaning)] * 16, HEIGHT)
    assert row[248] == pytest.approx(np.deg2rad(abs(degrees)), abs=1e-3)


def test_a_square_has_its_person_upright():
    picture = np.zeros((200, 300, 3), np.uint8)
    hips, head = np.array([150, 100]), np.array([210, 100])  # somebody lying, head on the right
    picture[90:110, 200:220] = 255
    square = square_around(hips, head)
    np.testing.assert_allclose(placed(np.array([[0.5, 0.5], [0.5, 0.1]]), square), [hips, head])
    crop = cropped(picture, square, 100)[..., 0]
    assert crop[10, 50] == 255
    assert crop[90, 50] == 0
    outside = cropped(picture + 9, square_around(np.array([0, 0]), np.array([0, -50])), 64)
    assert outside[:30].max() == 0
    assert outside[40:, 40:].min() == 9


def test_boxes_overlap_with_themselves():
    boxes = np.array([[0.5, 0.5, 0.2, 0.2], [0.6, 0.5, 0.2, 0.2], [0.9, 0.9, 0.1, 0.1]])
    np.testing.assert_allclose(overlaps(boxes, boxes[0]), [1, 1 / 3, 0], atol=1e-6)


def test_anchors_are_spread_over_the_picture():
    assert ANCHORS.shape == (2254, 2)
    np.testing.assert_allclose(ANCHORS.mean(axis=0), 0.5)
    np.testing.assert_allclose(
        [ANCHORS[0], ANCHORS[2], ANCHORS[-1]], [(0.5 / 28,) * 2, (1.5 / 28, 0.5 / 28), (6.5 / 7,) * 2]
    )


def archive(path: Path, **contents: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in contents.items():
            file.writestr(f"somewhere/{name}.tflite", content)
    return path


def test_the_two_networks_are_found_in_a_wheel_and_in_a_bundle(tmp_path: Path):
    wheel = archive(tmp_path / "a.whl", pose_detection=b"d", pose_landmark_full=b"l", face_landmark=b"")
    bundle = archive(tmp_path / "b.task", pose_detector=b"d", pose_landmarks_detector=b"l")
    assert read_models(wheel) == read_models(bundle) == {"detector": b"d", "landmarks": b"l"}


def test_other_files_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="holds no BlazePose: expected mediapipe's wheel"):
        read_models(archive(tmp_path / "new.whl", pose_detection=b""))
    (tmp_path / "x.whl").write_bytes(b"no zip")
    with pytest.raises(InputError, match="neither a wheel nor a"):
        read_models(tmp_path / "x.whl")
    with pytest.raises(InputError, match="it is a folder"):
        read_models(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        read_models(tmp_path / "nothing.whl")
    whole = archive(tmp_path / "cut.whl", pose_detection=bytes(5000), pose_landmark_full=bytes(5000))
    damaged = bytearray(whole.read_bytes())
    damaged[100:200] = bytes(range(100))
    whole.write_bytes(damaged)
    with pytest.raises(InputError, match="is damaged"):
        read_models(whole)


def test_a_bomb_is_not_unpacked(tmp_path: Path):
    file = tmp_path / "bomb.whl"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("pose_detection.tflite", bytes(LARGEST + 1))
        opened.writestr("pose_landmark_full.tflite", b"")
    with pytest.raises(InputError, match="announces a network of more than"):
        read_models(file)


def test_the_missing_runtime_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(InputError, match=r'pip install "pamfn\[pose\]"'):
        Network(b"", "detector", Path("x.whl"))


@needs_litert
def test_damaged_networks_are_refused():
    with pytest.raises(InputError, match="is damaged: its pose detector cannot be loaded"):
        Network(b"nothing of this kind", "detector", Path("x.whl"))


@pytest.fixture(scope="module")
def blazepose() -> BlazePose:
    extractor = BlazePose()
    extractor.load(weights=Path(FILE or ""), device="cpu", precision="32")
    return extractor


@pytest.fixture(scope="module")
def friday(blazepose: BlazePose) -> list[Segment]:
    return list(Video(Path(SHARED or "") / "data/videos/friday.mp4", reading(), [blazepose]).segments())


@needs_litert
@needs_file
def test_the_other_network_is_not_taken_for_the_detector():
    with pytest.raises(InputError, match="is not BlazePose: its pose detector maps"):
        Network(read_models(Path(FILE or ""))["landmarks"], "detector", Path("x.whl"))


@needs_litert
@needs_file
@needs_videos
def test_a_person_in_a_real_video_is_followed(blazepose: BlazePose, friday: list[Segment]):
    poses, _ = blazepose.poses(friday[2].frames[256])
    seen = [pose for pose in poses if pose is not None]
    assert len(seen) == 16
    assert np.median([pose.presence for pose in seen]) > 0.9
    noses = np.stack([pose.points[0] for pose in seen])
    assert np.ptp(noses, axis=0).max() < 40  # she hardly moves, right of the middle and in the upper half
    assert ((noses > [190, 30]) & (noses < [270, 110])).all()


@needs_litert
@needs_file
@needs_videos
def test_real_rows_are_finite_and_do_not_depend_on_the_batch(blazepose: BlazePose, friday: list[Segment]):
    rows = blazepose.features(friday)
    assert rows.shape == (len(friday), 256)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    alone = [blazepose.features([segment])[0] for segment in reversed(friday)]
    np.testing.assert_array_equal(rows, alone[::-1])


@needs_litert
@needs_file
@needs_videos
def test_a_mirrored_video_has_a_mirrored_person(blazepose: BlazePose, friday: list[Segment]):
    frames = friday[2].frames[256]
    poses, mirrored = blazepose.poses(frames)[0], blazepose.poses(np.ascontiguousarray(frames[:, :, ::-1]))[0]
    pairs = [(a, b) for a, b in zip(poses, mirrored, strict=True) if a is not None and b is not None]
    assert len(pairs) > 8
    away = [np.abs(a.points[:13] - (b.points[SWAPPED][:13] * (-1, 1) + (frames.shape[2] - 1, 0))) for a, b in pairs]
    assert np.median(away) < 8


@needs_litert
@needs_file
def test_an_empty_picture_has_nobody(blazepose: BlazePose):
    frames = np.full((32, 256, 340, 3), 90, np.uint8)
    assert not blazepose.features([Segment(0, {256: frames}, {}, {})]).any()
