"""`python -m pamfn.extract` as a user calls it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from commands import command
from made_videos import write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(3):
        write_video(folder / f"v{i}.mp4", 72 + 32 * i, sound=4)
    return folder


def extract(*words: Any, folder: Path, **places: Any) -> subprocess.CompletedProcess[str]:
    return command(["pamfn.extract", *map(str, words)], folder, os.environ | {k: str(v) for k, v in places.items()})


def test_a_folder_of_videos_becomes_the_stores_of_a_data_set(videos: Path, tmp_path: Path):
    done = extract(f"videos={videos}", "out=features", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "[3/3] v2: 4 segments" in done.stdout
    assert "features: 3 extracted" in done.stdout
    assert json.loads((tmp_path / "features/extract.json").read_text())["streams"].keys() == {
        "rgb_HOG", "flow_HOFMBH", "audio_MFCC"
    }  # fmt: skip
    packed = extract("pack=features", "dataset=MINE", folder=tmp_path, PAMFN_DATA_DIR=tmp_path / "data")
    assert packed.returncode == 0, packed.stderr
    names = sorted(file.name for file in (tmp_path / "data/features").iterdir())
    assert names == [f"MINE_{key}.safetensors" for key in ("audio_MFCC", "flow_HOFMBH", "rgb_HOG")]
    assert "  audio: {extractor: MFCC, width: 236}" in packed.stdout


def test_a_dry_run_warns_of_names_and_writes_nothing(videos: Path, tmp_path: Path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v/my video.mp4").write_bytes((videos / "v0.mp4").read_bytes())
    done = extract("--dry", "videos=v", "out=f", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("1 names of videos hold white space, which a label file cannot: my video") == 1
    assert "in all about" in done.stdout
    assert not (tmp_path / "f").exists()


@pytest.mark.slow
def test_parts_of_a_sweep_do_all_videos_and_a_failure_makes_it_fail(videos: Path, tmp_path: Path):
    (tmp_path / "v").mkdir()
    for file in videos.iterdir():
        (tmp_path / "v" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "v/bad.mp4").write_bytes(b"no video")
    side_by_side = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    words = ("-m", "part=0,1", "parts=2", *side_by_side, "videos=v", "out=features", "streams=[rgb]")
    done = extract(*words, folder=tmp_path)
    assert done.returncode == 1
    assert "bad: cannot be read as a video" in done.stdout + done.stderr
    assert "python -m pamfn.extract -m" in done.stdout + done.stderr
    assert len(list((tmp_path / "features").glob("*.rgb_HOG.safetensors"))) == 3
    (tmp_path / "v/bad.mp4").unlink()
    (tmp_path / "features/bad.failed.json").unlink()
    assert extract(*words, folder=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "videos: missing. Extraction needs videos=FOLDER out=FOLDER"),
        (["videos=none", "out=f"], "videos: no such file"),
        (["videos=v", "out=f", "preste=sound"], "preste: no such setting. Did you mean preset?"),
        (["videos=v", "out=f", "weights.vts=f"], "weights.vts: no such setting. Did you mean vst?"),
        (["videos=v", "out=f", "streams=[pose]"], "streams: pose not among the extractor's: rgb, flow, audio"),
        (["videos=v", "out=f", "part=2", "parts=2"], "part: 2 is none of the 2 parts"),
        (["videos=v", "out=f", "device=cuda:7"], "device: cuda:7 cannot be used here"),
        (["videos=v", "out=f", "extractor/rgb=vst"], "VST needs its weights: weights.vst=FILE"),
        (["videos=v", "out=f", "reading.max_gap=-1"], "reading.max_gap: input should be greater than 0"),
        (["videos=v", "out=f", "extractor.rgb.colour=1"], "extractor.rgb.colour: no such setting"),
        (["videos=v", "out=f", "extractor.rgb._target_=pamfn.models.PAMFN"], "no subclass of pamfn.extraction"),
        (["videos=v", "out=f", "--dry", "render=d"], "render: makes videos, and dry=true makes nothing"),
        (["pack=f", "dataset=A", "out=g"], "pack: writes stores from a folder of features, and out is for extraction"),
        (["pack=f"], "dataset: missing"),
        (["pack=f", "dataset=A_B"], "has an underscore"),
        (["pack=f", "dataset=A"], "f is no folder of extracted features"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_sentence(words: list[str], said: str, tmp_path: Path, videos: Path):
    (tmp_path / "v").symlink_to(videos)
    done = extract(*words, folder=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "f").exists()


def test_help_lists_every_extractor(tmp_path: Path):
    said = extract("--help", folder=tmp_path).stdout
    root = Path(__file__).parents[1] / "conf/extractor"
    for file in root.rglob("*.yaml"):
        group = "/".join(["extractor", *file.relative_to(root).parts[:-1]])
        assert f"{group}={file.stem}" in said
