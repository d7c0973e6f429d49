"""What `pamfn.check` says of a data set, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest

from conftest import UIPRMD_WIDTHS, RunCli
from pamfn.errors import InputError
from pamfn.pipeline.data_check import check_data

WIDTHS = [f"features.{stream}.width={width}" for stream, width in UIPRMD_WIDTHS.items()]


def check(data: Path, *words: str) -> str:
    return check_data([*words, *WIDTHS, f"paths.data_dir={data}"])


def test_everything_of_a_data_set_is_said(tiny_data: Path):
    said = check(tiny_data, "data=uiprmd")
    assert "videos    train 10, test 6, holdout 2" in said
    assert "of 100 points (max_score)" in said
    assert "methods of one stream read vicon_positions (main)" in said
    assert "stage 2 goes on training the branch of kinect_positions (finetune)" in said
    assert "kinect_angles          zscore, 5 wide, values mean" in said
    assert "! 6 test videos: results depend much on which they are; consider protocol=folds" in said
    assert "! 2 held-out videos: the chosen epoch depends much on them; consider protocol=last" in said
    assert "18 videos shorter than a crop of 64" in said


def test_roles_and_groups_are_those_that_are_set(tiny_data: Path):
    roles = ("main=kinect_angles", "finetune=[vicon_positions]")
    said = check(tiny_data, "+experiment=uiprmd_subjects", "protocol=folds", "protocol.folds=3", *roles)
    assert "methods of one stream read kinect_angles (main)" in said
    assert "the branch of vicon_positions (finetune)" in said
    assert "groups    18, of 1 to 1 videos: s01, s02" in said
    assert "(fold 0 of 3)" in said
    assert "test 6" in said


def test_what_is_seldom_meant_is_named(tiny_data: Path, tmp_path: Path):
    features = tmp_path / "features"
    features.mkdir()
    for file in (tiny_data / "features").glob("UIPRMD_*"):
        content = np.load(file, allow_pickle=True).item()
        if "kinect_angles" in file.name:
            content = {video: np.hstack([x[:, :4] * 1000, np.ones_like(x[:, 4:])]) for video, x in content.items()}
            content["m01_s02_e01"] = content["m01_s14_e01"]
            content = {video: x.astype(np.float32) for video, x in content.items()}
        np.save(features / file.name, np.array(content, dtype=object))
    (tmp_path / "UIPRMD").symlink_to(tiny_data / "UIPRMD")
    said = check(tmp_path, "data=uiprmd", "data.max_score=100000", "modalities=[kinect_angles]")
    assert "no score is above" in said
    assert "kinect_angles: 1 of 5 columns never change" in said
    assert "kinect_angles: its values are large" in said
    assert "m01_s02_e01 (train) = m01_s14_e01 (test)" in said or "m01_s14_e01 (test) = m01_s02_e01 (train)" in said


def test_what_is_wrong_is_refused(tiny_data: Path, run_cli: RunCli):
    with pytest.raises(InputError, match="Choose at most 18"):
        check(tiny_data, "+experiment=uiprmd_subjects", "protocol=folds", "protocol.folds=19")
    done = run_cli(["check", "data=uiprmd", f"paths.data_dir={tiny_data}"])
    assert done.returncode == 1
    assert "width" in done.stderr
    done = run_cli(["check", "+experiment=uiprmd", "main=nose"])
    assert "main: nose not among this data set's streams" in done.stderr
    done = run_cli(["train", "+experiment=synthetic"])
    assert (
        done.stderr
        == "error: +experiment=synthetic: there is no such experiment, but a data set: choose data=synthetic.\n"
    )
