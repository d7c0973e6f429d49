"""Trainings over folds: every video is tested once, by a network that has not seen it or its group."""

import logging
from pathlib import Path
from typing import Any

import pytest

from composed import composed
from conftest import UIPRMD_WIDTHS, RunCli
from pamfn.config.validation import checked
from pamfn.errors import InputError
from pamfn.pipeline.build import data_module
from pamfn.pipeline.member import open_member
from pamfn.pipeline.model import load
from pamfn.pipeline.two_stage import run_job
from pamfn.runs.held_out import held_out_of
from pamfn.runs.summary import summary_of

SMALL = (
    *(f"features.{stream}.width={width}" for stream, width in UIPRMD_WIDTHS.items()),
    *("model.branch.d_model=8", "model.branch.hidden=8", "data.crop=8", "recipe.branch.epochs=1"),
    *("logger=csv", "trainer.accelerator=cpu", "modalities=[kinect_angles]"),
)


def config(tiny_data: Path, tmp_path: Path, *words: str) -> Any:
    places = (f"paths.data_dir={tiny_data}", f"paths.output_dir={tmp_path / 'runs'}")
    return checked(composed(*SMALL, *places, *words))


def folds(tiny_data: Path, tmp_path: Path, fold: int, *words: str, count: int = 3) -> Any:
    of = ("protocol=folds", f"protocol.folds={count}", f"protocol.fold={fold}")
    return config(tiny_data, tmp_path, "+experiment=uiprmd_subjects", *of, *words)


def test_every_video_is_tested_once_and_never_trained_on_where_it_is(tiny_data: Path, tmp_path: Path):
    tested: list[str] = []
    for fold in range(3):
        data = data_module(folds(tiny_data, tmp_path, fold))
        data.setup()
        groups = {split: {data.groups[v] for v in videos.names} for split, videos in data.splits.items()}
        assert set(groups) == {"train", "test", "holdout"}
        assert not groups["train"] & groups["test"]
        assert not groups["train"] & groups["holdout"]
        assert not groups["test"] & groups["holdout"]
        tested += data.splits["test"].names
    assert sorted(tested) == sorted(f"m01_s{i:02d}_e01" for i in range(1, 19))


def test_a_fold_leaves_a_run_of_its_own_that_knows_its_groups(tiny_data: Path, tmp_path: Path):
    runs = [run_job(folds(tiny_data, tmp_path, fold)) for fold in (0, 1)]
    for fold, run in enumerate(runs):
        result = run.finished()
        assert f"-fold{fold}-" in run.path.name
        assert result["groups"] == {video: video.split("_")[1] for video in result["groups"]}
        assert len(result["groups"]) == result["videos"]["test"] == 6
        assert "folds" in result["data_files"]
        out_of_fold = held_out_of(run.path, "test")["last"]
        member = open_member(run.path, "selected", None)
        assert (member.held_out["last"].true == out_of_fold.true).all()
    model = load([run.path for run in runs])
    assert sum(len(residuals) for _, residuals in model.residuals) == 12


def test_other_folds_are_other_runs_and_changed_groups_are_refused(tiny_data: Path, tmp_path: Path):
    names = {
        run_job(folds(tiny_data, tmp_path, 0, *words, count=count)).path.name
        for words, count in (((), 3), ((), 2), (("data.groups=null",), 3))
    }
    assert len(names) == 3
    data = tmp_path / "data"
    for part in ("UIPRMD", "features"):
        (data / part).mkdir(parents=True)
        for file in (tiny_data / part).iterdir():
            (data / part / file.name).symlink_to(file)
    (data / "folds.txt").write_text("".join(f"m01_s{i:02d}_e01 {i % 2}\n" for i in range(1, 19)))
    of_file = ("protocol=folds", "protocol.folds=folds.txt", "protocol.fold=0", "+experiment=uiprmd")
    run_job(config(data, tmp_path, *of_file))
    (data / "folds.txt").write_text("".join(f"m01_s{i:02d}_e01 {i % 3}\n" for i in range(1, 19)))
    with pytest.raises(InputError, match="was trained on other data: folds changed since"):
        run_job(config(data, tmp_path, *of_file))


def test_groups_in_train_and_test_are_named(tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        data_module(
            config(tiny_data, tmp_path, "+experiment=uiprmd", "++data.groups='(m[0-9]+)_'", "protocol=last")
        ).setup()
    assert "1 groups have videos in train and in test, which makes the test easier: m01" in caplog.text


def test_the_last_epoch_can_be_reported_with_and_without_held_out_videos(tiny_data: Path, tmp_path: Path):
    for words, splits in (((), {"train", "test"}), (("protocol.holdout=0.2",), {"train", "test", "holdout"})):
        run = run_job(config(tiny_data, tmp_path, "+experiment=uiprmd", "protocol=last", *words))
        result = run.finished()
        assert result["reported"] == "last"
        assert set(result["videos"]) == splits
        assert run.file("selected.safetensors").read_bytes() == run.file("last.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["protocol=folds"], "protocol.fold: missing. Folds are a sweep: add -m"),
        (["protocol=folds", "protocol.fold=5"], "protocol.fold: 5 is none of the 5 folds, which begin with 0"),
        (["++protocol.fold=1"], "protocol.fold: 1, and there are no folds. Choose protocol=folds"),
        (["protocol=last", "protocol.refit=true"], "protocol.refit: only protocol=holdout"),
        (["protocol=holdout", "protocol.holdout=0"], "protocol.holdout: 0 does not go with"),
    ],
)
def test_protocols_that_make_no_sense_are_refused(words: list[str], sentence: str, tiny_data: Path, tmp_path: Path):
    with pytest.raises(InputError, match=sentence.replace(".", r"\.")):
        config(tiny_data, tmp_path, "+experiment=uiprmd", *words)


def test_one_label_file_is_enough_for_folds_and_for_nothing_else(tiny_data: Path, tmp_path: Path):
    one = ("+experiment=uiprmd", "data.test=null")
    data = data_module(config(tiny_data, tmp_path, *one, "protocol=folds", "protocol.fold=0"))
    data.setup()
    assert sum(map(len, data.splits.values())) == 12
    with pytest.raises(InputError, match=r"data\.test: there are no test videos"):
        data_module(config(tiny_data, tmp_path, *one))


def test_a_sweep_ends_with_what_its_folds_came_to(run_cli: RunCli):
    words = ["-m", "+experiment=uiprmd_subjects", "protocol=folds", "protocol.folds=3", *SMALL]
    done = run_cli(["train", *words])
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    (line,) = [i for i, text in enumerate(said) if text.startswith("uiprmd: 3 folds, 18 videos of 18 groups, srcc")]
    assert said[line + 1].startswith("   all together ")
    assert said[line + 2].startswith("   mean over folds ")


def test_few_held_out_videos_are_mentioned_where_they_chose_the_epoch(tiny_data: Path, tmp_path: Path):
    said = {}
    for protocol in ("holdout", "last"):
        run = run_job(config(tiny_data, tmp_path, "+experiment=uiprmd", f"protocol={protocol}"))
        said[protocol] = summary_of(run, run.finished())
    assert " ! 2 held-out videos chose the epoch, which is few: consider protocol=last." in said["holdout"]
    assert "held-out videos" not in said["last"]
