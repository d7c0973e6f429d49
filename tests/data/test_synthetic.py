"""The synthetic data set keeps its promises: layout, determinism, and fusion that beats every stream."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from pamfn.data.features import feature_file, problems_of, read_features
from pamfn.data.pickles import load_npy_dict
from pamfn.data.score_labels import read_scores
from pamfn.data.synthetic import COLUMNS, DATASET, EXTRACTOR, MAX_POINTS, WIDTHS, write_synthetic


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_synthetic(folder)
    return folder


def scores(data_dir: Path, split: str) -> dict[str, float]:
    return read_scores(data_dir / DATASET / f"{split}.txt", columns=COLUMNS, score="total")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ridge_correlation(data_dir: Path, *modalities: str) -> float:
    """Spearman on test of ridge regression (penalty 10) on standardised features, averaged over segments."""
    means = [
        {video: array.astype(float).mean(axis=0) for video, array in read_features(file).arrays.items()}
        for file in (feature_file(data_dir, DATASET, modality, EXTRACTOR) for modality in modalities)
    ]
    splits = [scores(data_dir, split) for split in ("train", "test")]
    train, test = (np.array([np.concatenate([mean[video] for mean in means]) for video in split]) for split in splits)
    points, wanted = (np.array(list(split.values())) for split in splits)
    centre, spread = train.mean(axis=0), train.std(axis=0)
    train, test = (train - centre) / spread, (test - centre) / spread
    weights = np.linalg.solve(train.T @ train + 10 * np.eye(train.shape[1]), train.T @ (points - points.mean()))
    correlation: Any = spearmanr(test @ weights, wanted)
    return correlation.statistic


def test_fusion_beats_every_stream_and_audio_alone_is_weak(data_dir: Path):
    alone = {modality: ridge_correlation(data_dir, modality) for modality in WIDTHS}
    assert alone["audio"] < 0.5 < min(alone["rgb"], alone["flow"])
    assert ridge_correlation(data_dir, *WIDTHS) > max(alone.values()) + 0.1


def test_train_has_a_header_and_test_has_none(data_dir: Path):
    first = {split: (data_dir / DATASET / f"{split}.txt").read_text().split()[0] for split in ("train", "test")}
    assert first == {"train": "name", "test": "Routine_241"}
    assert (len(scores(data_dir, "train")), len(scores(data_dir, "test"))) == (240, 80)


def test_points_add_up_and_stay_within_the_maximum(data_dir: Path):
    lines = [line.split() for line in (data_dir / DATASET / "test.txt").read_text().splitlines()]
    for difficulty, execution, total, deduction in (map(float, line[1:5]) for line in lines):
        assert total == pytest.approx(difficulty + execution - deduction, abs=0.02)
        assert 0 < total < MAX_POINTS


def test_every_video_has_features_of_equal_length_in_every_stream(data_dir: Path):
    videos = [*scores(data_dir, "train"), *scores(data_dir, "test")]
    lengths = []
    for modality, width in WIDTHS.items():
        read = read_features(feature_file(data_dir, DATASET, modality, EXTRACTOR))
        assert problems_of(read, modality=modality, width=width, videos=videos) == []
        lengths.append([len(read.arrays[video]) for video in videos])
    assert lengths[0] == lengths[1] == lengths[2]
    assert min(lengths[0]) < 20 < 40 < max(lengths[0]) <= 48


def test_rgb_holds_two_clips_per_segment_in_float16(data_dir: Path):
    stored = load_npy_dict(data_dir / "features" / f"{DATASET}_rgb_{EXTRACTOR}.npy")["Routine_001"]
    assert (stored.dtype, stored.shape[1:]) == (np.float16, (2, WIDTHS["rgb"]))


def test_the_same_seed_gives_the_same_files_and_another_seed_others(data_dir: Path, tmp_path: Path):
    write_synthetic(tmp_path)
    assert contents(tmp_path) == contents(data_dir)
    write_synthetic(tmp_path, seed=1)
    assert all(contents(tmp_path)[name] != content for name, content in contents(data_dir).items())


def test_files_that_are_there_are_not_written_again_and_lost_ones_are(tmp_path: Path):
    write_synthetic(tmp_path, train=5, test=3)
    before, times = contents(tmp_path), {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    write_synthetic(tmp_path, train=5, test=3)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times
    (tmp_path / "features" / f"{DATASET}_flow_{EXTRACTOR}.npy").unlink()
    write_synthetic(tmp_path, train=5, test=3)
    assert contents(tmp_path) == before
