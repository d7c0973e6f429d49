"""A folder of extracted features as the stores that training reads."""

from pathlib import Path

import numpy as np
import pytest

from pamfn.data.features import feature_file, read_features
from pamfn.errors import InputError
from pamfn.extraction.store import FeatureFolder
from pamfn.pipeline.feature_stores import pack

STREAMS = {"rgb_HOG": {"extractor": {}, "width": 3}, "flow_I3D-dis": {"extractor": {}, "width": 2}}


def extracted(folder: Path, videos: dict[str, int]) -> FeatureFolder:
    """A folder as `extract` leaves it. videos: {name: segments}"""
    features = FeatureFolder(folder, {"fps": "25"}, STREAMS)
    features.claim()
    for i, (video, segments) in enumerate(videos.items()):
        rows = {key: np.full((segments, s["width"]), i, np.float32) for key, s in STREAMS.items()}  # type: ignore[arg-type]
        features.write(video, rows, {"video": video, "source": {}, "left_out": []}, {})
    return features


def test_stores_hold_every_video_and_the_data_file_is_said(tmp_path: Path):
    extracted(tmp_path / "f", {"b": 4, "folder/a": 3})
    lines: list[str] = []
    pack(tmp_path / "f", "MINE", tmp_path / "data", lines.append)
    for modality, extractor, width in (("rgb", "HOG", 3), ("flow", "I3D-dis", 2)):
        arrays = read_features(feature_file(tmp_path / "data", "MINE", modality, extractor)).arrays
        assert {video: array.shape for video, array in arrays.items()} == {"b": (4, width), "folder/a": (3, width)}
        assert (arrays["folder/a"] == 1).all()
    assert "7 segments" in lines[0]
    assert "  flow: {extractor: I3D-dis, width: 2}" in lines[-1]


def test_some_streams_are_packed_and_those_without_features_are_left_out(tmp_path: Path):
    features = extracted(tmp_path / "f", {"a": 4, "b": 3})
    features.features_file("b", "rgb_HOG").unlink()
    FeatureFolder(tmp_path / "f", {"fps": "25"}, {"audio_AST": {"extractor": {}, "width": 2}}).claim()
    lines: list[str] = []
    pack(tmp_path / "f", "MINE", tmp_path / "data", lines.append, ["flow"])
    assert [file.name for file in (tmp_path / "data/features").iterdir()] == ["MINE_flow_I3D-dis.safetensors"]
    with pytest.raises(InputError, match=r"has no features of audio\. There are: flow, rgb"):
        pack(tmp_path / "f", "MINE", tmp_path / "data", print, ["audio"])
    features.features_file("a", "rgb_HOG").unlink()
    pack(tmp_path / "f", "MINE", tmp_path / "data", lines.append)
    assert "audio" not in lines[-1]
    assert "rgb" not in lines[-1]


def test_names_that_no_label_file_can_hold_are_told(tmp_path: Path):
    extracted(tmp_path / "f", {"my video": 4, "b": 3})
    lines: list[str] = []
    pack(tmp_path / "f", "MINE", tmp_path / "data", lines.append)
    assert [line for line in lines if "white space" in line] == lines[:1]
    assert "1 names of videos hold white space, which a label file cannot: my video" in lines[0]


def test_a_folder_with_failures_or_gaps_or_none_is_refused(tmp_path: Path):
    features = extracted(tmp_path / "f", {"a": 4, "b": 3})
    features.features_file("b", "rgb_HOG").unlink()
    with pytest.raises(InputError, match=r"1 of 2 videos have no rgb_HOG features, e\.g\. b"):
        pack(tmp_path / "f", "MINE", tmp_path / "data", print)
    features.write_failure("c", "it is broken")
    with pytest.raises(InputError, match="1 videos failed: c"):
        pack(tmp_path / "f", "MINE", tmp_path / "data", print)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"no folder of extracted features: it has no extract\.json"):
        pack(tmp_path / "none", "MINE", tmp_path / "data", print)
    extracted(tmp_path / "empty", {})
    with pytest.raises(InputError, match="holds no finished video"):
        pack(tmp_path / "empty", "MINE", tmp_path / "data", print)
