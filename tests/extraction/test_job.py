"""An extraction of a folder: what is done, what is kept, what a failure costs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from made_videos import BRIGHTNESS, config, reading, write_video
from pamfn.config.extract_schema import ExtractConfig
from pamfn.errors import InputError, WriteError
from pamfn.extraction import job, worker
from pamfn.extraction.job import extract, find_videos, forecast, part_of, setup_of
from pamfn.extraction.store import FeatureFolder, read_settings
from pamfn.extraction.worker import Tasks

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of 3 and 4 segments, one of them in a folder below, and one that is none."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "more").mkdir()
    write_video(folder / "a.mp4", 100, sound=4)
    write_video(folder / "more/b.mkv", 130)
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("not a video's ending")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if not file.name.startswith(".")}


def run(settings: ExtractConfig) -> tuple[job.Outcome, list[str]]:
    lines: list[str] = []
    return extract(settings, lines.append), lines


def test_every_video_leaves_its_features_and_what_was_seen_and_a_failure_its_reason(videos: Path, tmp_path: Path):
    out = tmp_path / "out"
    outcome, lines = run(config(videos, out))
    assert (outcome.done, [*outcome.failed]) == (["a", "more/b"], ["broken"])
    assert any("[1/3] a: 3 segments" in line for line in lines)
    rows = load_file(out / "a.rgb_Brightness.safetensors")["features"]
    assert (rows.shape, rows.dtype) == ((3, 3), np.float32)
    assert json.loads((out / "a.json").read_text())["audio_codec"] == "aac"
    assert "cannot be read as a video" in json.loads((out / "broken.failed.json").read_text())["reason"]
    with pytest.raises(InputError, match=r"broken: .*\n.*The same command tries the failed ones again"):
        outcome.refuse_failures()
    settings = read_settings(out)["streams"]["rgb_Brightness"]
    assert settings == {"extractor": BRIGHTNESS, "width": 3}
    folder = FeatureFolder(out, read_settings(out)["reading"], read_settings(out)["streams"])
    assert (folder.finished_videos(), [*folder.failed_videos()]) == (["a", "more/b"], ["broken"])

    before = contents(out)
    again, lines = run(config(videos, out))
    assert (again.done, again.skipped, [*again.failed]) == ([], ["a", "more/b"], ["broken"])
    assert contents(out) == before

    shutil.copytree(videos, tmp_path / "mended")
    write_video(tmp_path / "mended/broken.mp4", 40)
    mended, _ = run(config(tmp_path / "mended", out))
    assert (mended.done, mended.failed) == (["broken"], {})
    assert not (out / "broken.failed.json").exists()


def test_a_changed_video_is_extracted_again_and_a_touched_one_is_not(tmp_path: Path):
    (tmp_path / "v").mkdir()
    write_video(tmp_path / "v/a.mp4", 40)
    settings = config(tmp_path / "v", tmp_path / "out")
    assert run(settings)[0].done == ["a"]
    later = time.time() + 100
    os.utime(tmp_path / "v/a.mp4", (later, later))
    assert run(settings)[0].skipped == ["a"]
    write_video(tmp_path / "v/a.mp4", 70)
    os.utime(tmp_path / "v/a.mp4", (later, later))
    assert run(settings)[0].done == ["a"]


def test_a_stream_joins_those_that_are_there_and_other_settings_are_refused(videos: Path, tmp_path: Path):
    one = {"videos": str(videos / "a.mp4"), "out": tmp_path / "out"}
    run(config(**one))
    second = {"rgb": BRIGHTNESS, "other": {"_target_": "odd_extractors.Slow"}}
    before = (tmp_path / "out/a.rgb_Brightness.safetensors").stat().st_mtime_ns
    run(config(**one, extractor=second))
    assert (tmp_path / "out/a.other_Brightness.safetensors").exists()
    assert (tmp_path / "out/a.rgb_Brightness.safetensors").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"reading\.fps is 25, asked for native.*out=FOLDER"):
        run(config(**one, reading=reading(fps="native")))
    with pytest.raises(InputError, match=r"extractor\._target_ is odd_extractors.Brightness, asked for"):
        run(config(**one, extractor={"rgb": {"_target_": "odd_extractors.Slow"}}))


def test_warnings_of_earlier_streams_are_kept_when_a_stream_joins(tmp_path: Path):
    one = {"videos": str(write_video(tmp_path / "a.mp4", 40, sound=2, quiet=True)), "out": tmp_path / "out"}
    sound, both = ({"audio": {"_target_": "pamfn.extraction.MFCC"}} | more for more in ({}, {"rgb": BRIGHTNESS}))
    run(config(**one, extractor=sound))
    before = json.loads((tmp_path / "out/a.json").read_text())["warnings"]
    assert "its sound is silence" in before
    assert run(config(**one, extractor=both))[0].done == ["a"]
    assert json.loads((tmp_path / "out/a.json").read_text())["warnings"] == before


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("crash", "the process that read it ended (SIGSEGV)"),
        ("hang", "no progress for 4 s"),
        ("nan", "features that are not finite"),
        ("wide", "(1, 5) features for 1 segments, and its width is 3"),
    ],
)
def test_a_crash_or_a_hang_costs_one_video(videos: Path, tmp_path: Path, what: str, said: str):
    for name in ("v0", "v2"):
        write_video(tmp_path / f"{name}.mp4", 40)
    shutil.copy(videos / "a.mp4", tmp_path / "v1.mp4")
    odd = {"rgb": {"_target_": "odd_extractors.Odd", "what": what}}
    files = [str(tmp_path / f"v{i}.mp4") for i in range(3)]
    outcome, _ = run(config(files, tmp_path / "out", extractor=odd, time_limit=4.0, batch=1))
    assert outcome.done == ["v0", "v2"]
    assert said in outcome.failed["v1"]


def test_streams_of_sound_can_be_left_out_of_videos_without_sound(videos: Path, tmp_path: Path):
    both = {"rgb": BRIGHTNESS, "audio": {"_target_": "pamfn.extraction.MFCC"}}
    files = [str(videos / "a.mp4"), str(videos / "more/b.mkv")]
    settings = config(files, tmp_path / "out", extractor=both, reading=reading(missing_audio="skip"))
    assert run(settings)[0].done == ["a", "more/b"]
    folder = setup_of(settings)[0].folder
    assert [(folder.seen(video) or {})["left_out"] for video in ("a", "more/b")] == [[], ["audio_MFCC"]]
    assert run(settings)[0].skipped == ["a", "more/b"]


def test_features_of_a_class_that_had_another_name_are_still_those_of_the_class(videos: Path, tmp_path: Path):
    outcomes = []
    for name in ("Music", "MFCC"):
        extractor = {"audio": {"_target_": f"pamfn.extraction.{name}"}}
        settings = config([str(videos / "a.mp4")], tmp_path / "out", extractor=extractor)
        outcomes.append(run(settings)[0])
        assert setup_of(settings)[0].folder.streams["audio_MFCC"]["extractor"] == {"_target_": "pamfn.extraction.Music"}
    assert (outcomes[0].done, outcomes[1].done, outcomes[1].skipped) == (["a"], [], ["a"])


def test_a_stream_that_joins_only_to_be_left_out_keeps_the_number_of_segments(videos: Path, tmp_path: Path):
    both = {"rgb": BRIGHTNESS, "audio": {"_target_": "pamfn.extraction.MFCC"}}
    seen = []
    for streams in ({"rgb": BRIGHTNESS}, both):
        skipping = reading(missing_audio="skip")
        settings = config([str(videos / "more/b.mkv")], tmp_path / "out", extractor=streams, reading=skipping)
        (video,) = run(settings)[0].done
        seen.append(setup_of(settings)[0].folder.seen(video) or {})
    assert seen[1]["left_out"] == ["audio_MFCC"]
    assert seen[1]["segments"] == seen[0]["segments"] > 0


def test_an_interrupted_video_goes_on_where_it_was_saved_and_ends_in_the_same_bytes(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class StoppedError(Exception):
        pass

    def interrupt(done: int, of: int) -> None:
        if done == 4:
            raise StoppedError

    monkeypatch.setattr(worker, "SAVE_SECONDS", -1.0)  # after every batch
    work, keys = ("more/b", videos / "more/b.mkv"), ["rgb_Brightness"]
    read_from: list[int] = []
    for name, progress in (("whole", None), ("parts", interrupt), ("parts", lambda done, of: read_from.append(done))):
        tasks = Tasks(setup_of(config(videos, tmp_path / name))[0], progress or (lambda done, of: None))
        tasks.load()
        if progress is interrupt:
            with pytest.raises(StoppedError):
                tasks.extract(*work, keys)
            assert tasks.setup.folder.part_file("more/b").exists()
        else:
            tasks.extract(*work, keys)
    assert read_from == [2, 2, 4]  # the first two segments are decoded, and not computed again
    assert not tasks.setup.folder.part_file("more/b").exists()
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts")


def test_a_video_may_be_called_as_files_of_the_folder_are(tmp_path: Path):
    names = ["extract", "v", "v.failed", "v.part"]
    (tmp_path / "v").mkdir()
    for name in names:
        write_video(tmp_path / f"v/{name}.mp4", 40)
    settings = config(tmp_path / "v", tmp_path / "out")
    assert sorted(run(settings)[0].done) == names
    assert sorted(run(settings)[0].skipped) == names
    folder = setup_of(settings)[0].folder
    assert read_settings(tmp_path / "out")["streams"].keys() == {"rgb_Brightness"}
    folder.write_failure("v", "it is broken")
    assert (folder.finished_videos(), folder.failed_videos()) == (names, {"v": "it is broken"})


def test_a_full_disk_ends_the_extraction(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any, **__: Any) -> Any:
        raise WriteError("no space left to write it")

    monkeypatch.setattr(worker.Worker, "ask", full)
    with pytest.raises(WriteError):
        run(config(videos, tmp_path / "out"))


def test_a_video_that_another_process_works_on_is_left_to_it(videos: Path, tmp_path: Path):
    settings = config(str(videos / "a.mp4"), tmp_path / "out")
    setup, _ = setup_of(settings)
    setup.folder.claim()
    with setup.folder.lock("a"):
        code = (
            "import sys; from filelock import FileLock, Timeout\n"
            "try: FileLock(sys.argv[1]).acquire(blocking=False)\n"
            "except Timeout: print('busy')"
        )
        lock = str(setup.folder.lock("a").lock_file)
        said = subprocess.run([sys.executable, "-c", code, lock], capture_output=True, text=True, check=True)
        assert said.stdout == "busy\n"


def test_parts_cover_all_videos_once_and_do_not_move():
    names = [f"video {i}" for i in range(500)]
    parts = [part_of(name, 4) for name in names]
    assert {*parts} == {0, 1, 2, 3}
    assert min(parts.count(part) for part in range(4)) > 80
    assert part_of("a", 3) == part_of("a", 3)


def test_videos_are_found_in_folders_lists_and_text_files(videos: Path, tmp_path: Path):
    everything = {"a": videos / "a.mp4", "broken": videos / "broken.mp4", "more/b": videos / "more/b.mkv"}
    assert find_videos(str(videos)) == everything
    assert find_videos(str(videos / "a.mp4")) == {"a": videos / "a.mp4"}
    (tmp_path / "list.txt").write_text(f"{videos}/a.mp4\n\n{videos}/more/b.mkv\n")
    assert find_videos(str(tmp_path / "list.txt")) == {"a": videos / "a.mp4", "more/b": videos / "more/b.mkv"}
    with pytest.raises(InputError, match=r"no such file: .*none.mp4"):
        find_videos(str(videos / "none.mp4"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no video in"):
        find_videos(str(tmp_path / "empty"))
    (tmp_path / "same").mkdir()
    for ending in ("mp4", "mkv"):
        (tmp_path / "same" / f"x.{ending}").write_bytes(b"")
    with pytest.raises(InputError, match="would both be called x"):
        find_videos(str(tmp_path / "same"))


def test_a_forecast_opens_everything_and_extracts_nothing(videos: Path, tmp_path: Path):
    lines: list[str] = []
    outcome = forecast(config(videos, tmp_path / "out"), lines.append)
    assert [*outcome.failed] == ["broken"]
    assert lines[0] == "3 videos, 9 s; 1 cannot be read; 2 are to be extracted, 7 segments"
    assert any(line.startswith("  rgb_Brightness: ") for line in lines)
    assert not (tmp_path / "out").exists()


def test_weights_that_are_missing_are_asked_for_by_name(videos: Path, tmp_path: Path):
    vst = {"rgb": {"_target_": "pamfn.extraction.VideoSwin", "preset": "sound", "weights": None}}
    with pytest.raises(InputError, match=r"extractor.rgb: VST needs its weights: weights.vst=FILE"):
        run(config(videos, tmp_path / "out", extractor=vst))
    vst["rgb"]["weights"] = "none.pth"
    with pytest.raises(InputError, match=r"extractor.rgb.weights: no file none.pth"):
        run(config(videos, tmp_path / "out", extractor=vst))
    (tmp_path / "a.pth").write_bytes(b"<html>")
    vst["rgb"]["weights"] = str(tmp_path / "a.pth")
    with pytest.raises(InputError, match="is a web page"):
        run(config(videos, tmp_path / "out", extractor=vst))
    (tmp_path / "a.pth").write_bytes(b"<!doctype html><html>")
    with pytest.raises(InputError, match="is a web page"):  # and not: made with other settings
        run(config(videos, tmp_path / "out", extractor=vst))


def test_a_forecast_refuses_a_folder_of_other_features(videos: Path, tmp_path: Path):
    one = {"videos": str(videos / "a.mp4"), "out": tmp_path / "out"}
    run(config(**one))
    before = contents(tmp_path / "out")
    with pytest.raises(InputError, match=r"asked for odd_extractors\.Slow"):
        forecast(config(**one, extractor={"rgb": {"_target_": "odd_extractors.Slow"}}), print)
    assert contents(tmp_path / "out") == before


def test_a_forecast_tries_the_next_video_when_one_cannot_be_timed(tmp_path: Path):
    for name, frames in (("a", 100), ("b", 40)):
        write_video(tmp_path / f"{name}.mp4", frames)
    odd = {"rgb": {"_target_": "odd_extractors.Odd", "what": "crash"}}
    lines: list[str] = []
    outcome = forecast(
        config([str(tmp_path / f"{name}.mp4") for name in "ab"], tmp_path / "out", extractor=odd, batch=4), lines.append
    )
    assert "SIGSEGV" in outcome.failed["a"]
    assert lines[0].endswith("1 cannot be read; 1 are to be extracted, 1 segments")
    assert any(line.startswith("in all about") for line in lines)
    with pytest.raises(InputError, match="Nothing was extracted, since this was a dry run"):
        outcome.refuse_failures()


def test_an_extractor_of_ones_own_has_a_fitting_name_and_its_own_setting_for_weights(videos: Path, tmp_path: Path):
    own = {"rgb": {"_target_": "odd_extractors.Named", "called": "MAST"}}
    with pytest.raises(InputError, match=r"MAST needs its weights: extractor\.rgb\.weights=FILE"):
        run(config(videos, tmp_path / "out", extractor=own))
    own["rgb"]["called"] = "My_MAST"
    with pytest.raises(
        InputError, match=r"odd_extractors\.Named is 'My_MAST', and names of feature files need letters"
    ):
        run(config(videos, tmp_path / "out", extractor=own))


@pytest.mark.slow
def test_a_killed_extraction_goes_on_to_the_same_bytes(tmp_path: Path):
    (tmp_path / "v").mkdir()
    for i in range(4):
        write_video(tmp_path / f"v/{i}.mp4", 200 + 40 * i, sound=8)
    words = [sys.executable, "-m", "pamfn.extract", f"videos={tmp_path}/v", "extractor=classical"]
    words += ["extractor.rgb._target_=odd_extractors.Slow", "batch=1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    subprocess.run([*words, f"out={tmp_path}/whole"], check=True, env=environment, capture_output=True)
    for seconds in (3, 4, 5, 6):
        process = subprocess.Popen([*words, f"out={tmp_path}/killed"], env=environment, start_new_session=True)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*words, f"out={tmp_path}/killed"], check=True, env=environment, capture_output=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
