"""The rendered videos: what decides their score, and that it can be measured in their files."""

from pathlib import Path

import numpy as np
import pytest

from pamfn.data.rendered import FPS, RATE, angles, make_rendered, music, pictures, plan, plans, write_clip
from pamfn.data.score_labels import read_scores

COLUMNS = ["name", "extension", "motion", "synchrony", "total", "total_without_synchrony"]


def test_a_clip_depends_on_the_seed_and_its_number_alone():
    few, many = list(plans("train", 2, seed=0)), list(plans("train", 9, seed=0))
    assert [r.points for r in few] == [r.points for r in many[:2]]
    assert few[0].points != next(plans("train", 1, seed=1)).points
    assert few[0].points != next(plans("test", 1, seed=0)).points


def test_the_components_are_independent_and_cover_their_range():
    routines = list(plans("train", 400, seed=0))
    parts = np.array([[r.points[name] for name in COLUMNS[1:4]] for r in routines])
    assert np.abs(np.corrcoef(parts.T) - np.eye(3)).max() < 0.12
    assert parts.min() >= 0
    assert parts.max() <= 1
    assert (parts.std(axis=0) > 0.2).all()
    totals = np.array([[r.points[name] for name in COLUMNS[4:]] for r in routines])
    noise = totals[:, 0] - 25 * parts @ [0.35, 0.35, 0.30]
    assert np.abs(noise).mean() == pytest.approx(0.5 * np.sqrt(2 / np.pi), rel=0.2)


def test_sound_or_movement_alone_says_nothing_of_synchrony():
    routines = list(plans("train", 400, seed=0))
    synchrony = np.array([r.synchrony for r in routines])
    for name in ("drum", "moves"):
        lengths = [np.diff(r.ends, prepend=0) for r in routines]
        share = np.array([(d * getattr(r, name)).sum() / r.seconds for r, d in zip(routines, lengths, strict=True)])
        changes = np.array([np.abs(np.diff(getattr(r, name).astype(int))).mean() for r in routines])
        assert abs(np.corrcoef(share, synchrony)[0, 1]) < 0.15
        assert abs(np.corrcoef(changes, synchrony)[0, 1]) < 0.15


def test_the_score_can_be_measured_in_what_is_seen_and_heard():
    """Straight joints, little tremor, and movement where the drum is: each by a few lines."""
    routines = list(plans("train", 24, seed=3))
    measured = []
    for routine in routines:
        pose, sound = angles(routine), music(routine)
        speed = np.abs(np.diff(pose, axis=0)).mean(axis=1)
        frames = len(speed)
        loud = np.abs(np.diff(sound[: frames * (RATE // FPS)], prepend=0)).reshape(frames, -1).max(axis=1)
        half = [x.reshape(-1, 25).mean(axis=1) for x in (speed[: frames // 25 * 25], loud[: frames // 25 * 25])]
        together = np.corrcoef(*half)[0, 1]
        tremor = np.abs(np.diff(pose, n=3, axis=0)).mean()
        measured.append((-np.abs(pose[:, [2, 4, 6, 8]]).mean(), -tremor, together))
    for i, name in enumerate(COLUMNS[1:4]):
        found = np.corrcoef([m[i] for m in measured], [r.points[name] for r in routines])[0, 1]
        assert found > 0.6, name


def test_a_planted_mistake_changes_what_is_at_its_second_and_nothing_else():
    plain = plan("a", 5)
    for mistake in ("jerk", "lost_beat"):
        routine = plan("a", 5, mistake)
        assert routine.points == plain.points
        changed = np.abs(angles(routine) - angles(plain)).max(axis=1) > 1e-6
        seconds = np.flatnonzero(changed) / FPS
        assert len(seconds)
        assert 3 < routine.at < routine.seconds - 3
        assert seconds.min() > routine.at - 1.6
        assert seconds.max() < routine.at + 1.6


def test_the_same_clip_has_the_same_bytes(tmp_path: Path):
    routine = next(plans("train", 1, seed=0))
    for name in ("a", "b"):
        write_clip(tmp_path / name, routine)
    assert len({(tmp_path / name / "videos/train_000.mp4").read_bytes() for name in ("a", "b")}) == 1


def test_a_data_set_is_labelled_whole_and_goes_on_where_it_stopped(tmp_path: Path):
    videos = make_rendered(tmp_path, train=2, test=1, mistakes=2)
    assert sorted(file.stem for file in videos.iterdir()) == [
        "mistake_000", "mistake_001", "test_000", "train_000", "train_001"
    ]  # fmt: skip
    scores = read_scores(tmp_path / "RENDERED/train.txt", columns=COLUMNS, score="total")
    assert list(scores) == ["train_000", "train_001"]
    lines = (tmp_path / "RENDERED/mistakes.txt").read_text().splitlines()
    assert [line.split("\t")[1] for line in lines[1:]] == ["jerk", "lost_beat"]
    kept = (videos / "train_000.mp4").stat().st_mtime_ns
    (videos / "train_001.mp4").unlink()
    make_rendered(tmp_path, train=2, test=1)
    assert (videos / "train_001.mp4").exists()
    assert (videos / "train_000.mp4").stat().st_mtime_ns == kept


def test_frames_show_the_figure_before_its_background():
    frames = [frame for _, frame in zip(range(3), pictures(plan("a", 1)), strict=False)]
    assert frames[0].shape == (240, 320, 3)
    assert frames[0].dtype == np.uint8
    assert frames[0][:190, :, 0].astype(int).std() > 5
