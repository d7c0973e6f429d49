"""Folds and groups: who is tested when, and what is refused."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pamfn.data.folds import folds_of, groups_of, held_out_groups, leaking
from pamfn.errors import InputError

POINTS = {f"v{i}": float(i * 7 % 40) for i in range(40)}
GROUPS = {f"v{i}": f"g{i % 8 if i < 30 else 0}" for i in range(40)}
NOWHERE = Path("nowhere")


def test_every_fold_has_its_share_of_every_part_of_the_scores():
    fold = folds_of(POINTS, {}, 5, NOWHERE)
    assert list(fold) == list(POINTS)
    assert Counter(fold.values()) == dict.fromkeys(range(5), 8)
    for number in range(5):
        own = sorted(POINTS[v] for v, f in fold.items() if f == number)
        assert np.mean(own) == pytest.approx(np.mean(list(POINTS.values())), abs=2)
    assert folds_of(dict(reversed(POINTS.items())), {}, 5, NOWHERE) == fold


def test_whole_groups_are_in_a_fold_and_folds_are_about_equally_large():
    fold = folds_of(POINTS, GROUPS, 3, NOWHERE)
    assert leaking(fold, GROUPS) == []
    assert sorted(Counter(fold.values()).values()) == [12, 14, 14]


def test_as_many_folds_as_groups_leave_one_out_in_the_order_of_their_names():
    fold = folds_of(POINTS, GROUPS, 8, NOWHERE)
    assert all(fold[video] == int(group[1:]) for video, group in GROUPS.items())


def test_folds_come_from_a_file(tmp_path):
    (tmp_path / "folds.txt").write_text("".join(f"{v} {3 + i % 2}\n" for i, v in enumerate(POINTS)))
    fold = folds_of(POINTS, GROUPS, "folds.txt", tmp_path)
    assert all(fold[v] == i % 2 for i, v in enumerate(POINTS))
    assert leaking(fold, GROUPS) == ["g0"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r"no label file|cannot read|looked for"),
        ("v1 0\n", r"39 videos have no fold: v0, v10, v11, v12, v13, \.\.\."),
        ("".join(f"{v} 1\n" for v in [*POINTS, "w"]), "1 videos have no labels: w"),
        ("".join(f"{v} x\n" for v in POINTS), "is no whole number"),
        ("".join(f"{v} 1\n" for v in POINTS), "all videos are in one fold"),
        ("v1 0\nv1 1\n", "folds.txt:2: video v1 is there twice"),
        ("v1 0 0\n", "folds.txt:1: expected 2 columns"),
    ],
)
def test_a_file_of_folds_that_cannot_be_right_is_refused(text, sentence, tmp_path):
    if text is not None:
        (tmp_path / "folds.txt").write_text(text)
    with pytest.raises(InputError, match=sentence):
        folds_of(POINTS, {}, "folds.txt", tmp_path)


def test_more_folds_than_there_are_videos_or_groups_for_are_refused():
    with pytest.raises(InputError, match=r"9 folds, and there are 8 groups \(data.groups: g0, g1"):
        folds_of(POINTS, GROUPS, 9, NOWHERE)
    with pytest.raises(InputError, match="21 folds of 40 videos"):
        folds_of(POINTS, {}, 21, NOWHERE)


def test_groups_are_a_column_or_are_in_the_names(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("a_s01_1 3.5 anna\nb_s02_1 4 ben\n")
    columns, videos = ["name", "score", "subject"], ["a_s01_1", "b_s02_1"]
    found = groups_of(file, columns=columns, groups="subject", videos=videos)
    assert found == {"a_s01_1": "anna", "b_s02_1": "ben"}
    found = groups_of(file, columns=columns, groups="_(s[0-9]+)_", videos=videos)
    assert found == {"a_s01_1": "s01", "b_s02_1": "s02"}


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        ("skater", r"'skater' is neither a column of labels.txt \(score, subject\) nor a pattern"),
        ("_(s0)(1)_", "neither a column"),
        ("_(s[0-9]+", "is no pattern"),
        ("_(s01)_", "finds no group in 1 names: b_s02_1"),
    ],
)
def test_groups_that_cannot_be_found_are_refused(groups, sentence, tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("a_s01_1 3.5 anna\nb_s02_1 4 ben\n")
    with pytest.raises(InputError, match=sentence):
        groups_of(file, columns=["name", "score", "subject"], groups=groups, videos=["a_s01_1", "b_s02_1"])


def test_whole_groups_are_held_out_and_some_are_left():
    drawn = held_out_groups(GROUPS, 0.2, seed=0)
    assert 8 <= len(drawn) < 8 + 13
    held = {GROUPS[v] for v in drawn}
    assert all((GROUPS[v] in held) == (v in drawn) for v in POINTS)
    assert held_out_groups(GROUPS, 0.2, seed=0) == drawn
    assert any(held_out_groups(GROUPS, 0.2, seed=seed) != drawn for seed in range(1, 5))
    assert len({GROUPS[v] for v in held_out_groups(GROUPS, 0.999, seed=0)}) == 7
    with pytest.raises(InputError, match="are of one group"):
        held_out_groups(dict.fromkeys(POINTS, "g"), 0.2, seed=0)
