"""What tests share: one thread each, nothing on the network, a small data set, commands in a process of their own."""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", WANDB_MODE="offline", WANDB_ERROR_REPORTING="false", WANDB_SILENT="true")

import numpy as np
import pytest
import torch

from commands import command

torch.set_num_threads(1)

WIDTHS = {"rgb": 6, "flow": 5, "audio": 4}
UIPRMD_WIDTHS = {"vicon_positions": 6, "kinect_angles": 5, "kinect_positions": 4}
TRAIN, TEST = 12, 6

RunCli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RG (Ball and Ribbon), FISV and UIPRMD in the authors' layout: 12 + 6 videos each, 8 to 20 segments.

    Features of both extractor sets, float16, `WIDTHS` and `UIPRMD_WIDTHS` wide; the rgb stream has two clips a segment.
    Shared by all tests: copy it before changing it.
    """
    data_dir = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    extractors = {"rgb": ("VST", "UNMT"), "flow": ("I3D",), "audio": ("AST", "MAST")}
    routines = [f"{action}_{i:03d}" for i in range(1, TRAIN + TEST + 1) for action in ("Ball", "Ribbon")]
    write_labels(
        data_dir / "RG",
        ["Video_Name\tDifficulty_Score    Execution_Score Total_Score\tPenalty\tVideo_length"],
        [f"{v}\t8.00\t6.30\t{points:.2f}\t0.00\t92" for v, points in scores(random, routines, 25)],
    )
    write_features(data_dir, "RG", random, routines, WIDTHS, extractors)
    skaters = [str(i) for i in range(1, TRAIN + TEST + 1)]
    tes = dict(scores(random, skaters, 45))
    write_labels(data_dir / "FISV", [], [f"{v} {tes[v]:.2f} {pcs:.2f} 0" for v, pcs in scores(random, skaters, 45)])
    write_features(data_dir, "FISV", random, skaters, WIDTHS, extractors)
    squats = [f"m01_s{i:02d}_e01" for i in range(1, TRAIN + TEST + 1)]
    write_labels(data_dir / "UIPRMD", [], [f"{v} {points:.2f}" for v, points in scores(random, squats, 100)])
    write_features(data_dir, "UIPRMD", random, squats, UIPRMD_WIDTHS, dict.fromkeys(UIPRMD_WIDTHS, ("zscore",)))
    return data_dir


def scores(random: np.random.Generator, videos: list[str], most: float) -> list[tuple[str, float]]:
    return [(video, float(points)) for video, points in zip(videos, random.uniform(0, most, len(videos)), strict=True)]


def write_labels(folder: Path, header: list[str], lines: list[str]) -> None:
    """The first two thirds of the lines are train, the rest is test."""
    folder.mkdir()
    first = len(lines) * TRAIN // (TRAIN + TEST)
    for split, part in (("train", lines[:first]), ("test", lines[first:])):
        (folder / f"{split}.txt").write_text("\n".join([*header, *part]) + "\n")


def write_features(
    data_dir: Path,
    dataset: str,
    random: np.random.Generator,
    videos: list[str],
    widths: Mapping[str, int],
    extractors: Mapping[str, Sequence[str]],
) -> None:
    """Pickled dicts as released; every stream of a video has as many segments."""
    (data_dir / "features").mkdir(exist_ok=True)
    segments = {video: int(random.integers(8, 21)) for video in videos}
    for modality, width in widths.items():
        for extractor in extractors[modality]:
            clips = (2,) if modality == "rgb" else ()
            arrays = {v: random.normal(size=(t, *clips, width)).astype(np.float16) for v, t in segments.items()}
            file = data_dir / "features" / f"{dataset}_{modality}_{extractor}.npy"
            np.save(file, np.array(arrays, dtype=object), allow_pickle=True)


@pytest.fixture
def run_cli(tiny_data: Path, tmp_path: Path) -> RunCli:
    """`run_cli(["train", "+experiment=demo"], {"NAME": "value"})`: a command as its user runs it.

    Reads `tiny_data`, writes to `tmp_path / "runs"`, starts in `tmp_path`; `env` adds to or replaces any of it.
    """

    def run(args: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        places = {"PAMFN_DATA_DIR": str(tiny_data), "PAMFN_OUTPUT_DIR": str(tmp_path / "runs")}
        return command([f"pamfn.{args[0]}", *args[1:]], tmp_path, os.environ | places | dict(env or {}))

    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test comes first: at the end, one worker would wait for it."""
    items.sort(key=lambda item: item.path.name != "test_docs.py")
