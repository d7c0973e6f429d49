"""Files appear whole or not at all, and a run is trained by one process at a time."""

import errno
import json
import math
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from finished_runs import result_like
from pamfn import files
from pamfn.config.problems import REMOVED
from pamfn.config.validation import checked
from pamfn.errors import InputError
from pamfn.files import cannot_write, whole, write_text
from pamfn.runs.folder import Run, digest, find


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_half(file: Path, failure: BaseException) -> None:
    with whole(file) as temporary:
        temporary.write_text("half")
        raise failure


def test_a_file_appears_whole_in_a_folder_made_for_it(tmp_path: Path):
    file = tmp_path / "new" / "folder" / "text"
    with whole(file) as temporary:
        temporary.write_text("half")
        assert not file.exists()
        temporary.write_text("whole")
    assert (file.read_text(), left(file.parent)) == ("whole", ["text"])


def test_a_file_that_is_there_is_replaced_in_one_step(tmp_path: Path):
    file = tmp_path / "text"
    file.write_text("before")
    reader = file.open()
    with whole(file) as temporary:
        temporary.write_text("after")
        assert file.read_text() == "before"
    assert (reader.read(), file.read_text(), left(tmp_path)) == ("before", "after", ["text"])
    reader.close()


@pytest.mark.parametrize("reason", [ValueError, KeyboardInterrupt, SystemExit, RuntimeError])
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path, reason: type[BaseException]):
    file = tmp_path / "text"
    file.write_text("before")
    with pytest.raises(reason):
        write_half(file, reason())
    assert (file.read_text(), left(tmp_path)) == ("before", ["text"])


def test_a_file_may_be_read_by_whoever_may_read_any_other(tmp_path: Path):
    (tmp_path / "plain").touch()
    write_text(tmp_path / "text", "")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "text")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("place", ["file/text", "folder"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, place: str):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=rf"cannot write {tmp_path / place}: .*Choose a folder that can be written"):
        write_text(tmp_path / place, "text")
    assert left(tmp_path) == ["file", "folder"]


def test_a_full_disk_is_told_with_what_happens_next(tmp_path: Path):
    with pytest.raises(InputError, match=r"no space left to write .*text; nothing half-written was left") as refusal:
        write_half(tmp_path / "text", OSError(errno.ENOSPC, "No space left on device"))
    assert "run the same command again" in str(refusal.value)
    assert left(tmp_path) == []


def test_torchs_own_error_on_a_full_disk_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "full", lambda folder: True)
    with pytest.raises(InputError, match="no space left"), whole(tmp_path / "text"):
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")


def test_permissions_are_told_in_the_words_of_the_system(tmp_path: Path):
    refusal = cannot_write(tmp_path, PermissionError(errno.EACCES, "Permission denied"))
    assert str(refusal).startswith(f"cannot write {tmp_path}: Permission denied.")


def test_json_has_null_where_there_is_no_number(tmp_path: Path):
    content = {"a": math.nan, "b": [1.5, math.nan, {"c": (math.inf, -math.inf)}], "d": "nan", "e": None, "f": 3}
    run = Run(tmp_path)
    run.write_result(result_like(**content))

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    read = json.loads(run.file("result.json").read_text(), parse_constant=refuse)
    assert read == run.result()
    assert {k: read[k] for k in content} == {
        "a": None,
        "b": [1.5, None, {"c": [None, None]}],
        "d": "nan",
        "e": None,
        "f": 3,
    }


def test_a_run_has_a_result_once_it_is_finished(tmp_path: Path):
    run = find(tmp_path, "branch", "fisv_tes-rgb-seed0", "0123456789")
    assert run.path == tmp_path / "branch" / "fisv_tes-rgb-seed0-0123456789"
    assert run.result() is None
    run.write_result(result_like(seed=3))
    written = result_like(seed=3) | {"schema": 1}
    assert run.result() == {**written, "digest": digest(written)}


def test_an_old_result_is_read_without_settings_that_there_are_no_more(tmp_path: Path):
    config = {key: value for key, value in result_like()["config"].items() if key not in REMOVED}
    data, trainer = config["data"], config["trainer"] | {"profiler": "simple"}
    cut = {"test_crop": "whole", "skip_first_line": False, "test_batch_size": 4}
    old = config | {"keep_maps_gib": 2.0, "seeds": None, "trainer": trainer, "data": data | cut}
    Run(tmp_path).write_result(result_like(config=old))
    assert Run(tmp_path).finished()["config"] == config


@pytest.mark.parametrize(("setting", "value"), [("test_crop", "centre"), ("skip_first_line", True)])
def test_an_old_result_whose_numbers_they_changed_keeps_them_and_is_not_scored_again(
    setting: str, value: Any, tmp_path: Path
):
    config = result_like()["config"]
    Run(tmp_path).write_result(result_like(config=config | {"data": config["data"] | {setting: value}}))
    read = Run(tmp_path).finished()["config"]
    assert read["data"] == config["data"] | {setting: value}
    with pytest.raises(InputError, match=rf"^data\.{setting}: there is no such setting any more"):
        checked(read)


def test_a_result_that_was_changed_by_hand_is_refused(tmp_path: Path):
    run = Run(tmp_path)
    run.write_result({"metrics": {"last": {"srcc": 0.7}}})
    file = run.file("result.json")
    file.write_text(file.read_text().replace("0.7", "0.8"))
    with pytest.raises(InputError, match=r"was changed after it was written .* Restore it, or remove the folder"):
        run.result()


@pytest.mark.parametrize("schema", [None, 0, 2])
def test_a_result_of_another_version_is_refused(tmp_path: Path, schema: int | None):
    run = Run(tmp_path)
    run.file("result.json").write_text(json.dumps({"metrics": {}, "schema": schema}))
    with pytest.raises(InputError, match=f"has version {schema} of the result format, and this code reads 1"):
        run.result()


@pytest.mark.parametrize("content", [b"", b'{"metrics": {"las', b"\xff\xfe\x00"])
def test_a_damaged_result_is_refused_with_what_to_do(tmp_path: Path, content: bytes):
    run = Run(tmp_path)
    run.file("result.json").write_bytes(content)
    with pytest.raises(InputError, match=r"result\.json is damaged .*Remove the folder .* and run it again"):
        run.result()


def test_a_second_thread_waits_until_the_first_is_done(tmp_path: Path):
    run, order = Run(tmp_path / "run"), []
    waiting = threading.Event()

    def second() -> None:
        waiting.set()
        with Run(tmp_path / "run").locked():
            order.append("second")

    thread = threading.Thread(target=second)
    with run.locked():
        thread.start()
        waiting.wait()
        thread.join(0.2)
        assert order == []
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_another_process_waits_and_a_dead_one_holds_nothing(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from pamfn.runs.folder import Run\n"
        "with Run(Path(sys.argv[1])).locked(): print('locked', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    entered = threading.Event()

    def enter() -> None:
        with Run(tmp_path).locked():
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    assert not entered.wait(0.2)
    process.kill()
    assert entered.wait(10)
    thread.join()
    process.communicate()


def test_a_lock_is_given_back_when_the_training_fails(tmp_path: Path):
    for _ in range(2):
        with pytest.raises(ValueError, match="training"), Run(tmp_path).locked():
            raise ValueError("training")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*run"), Run(tmp_path / "file" / "run").locked():
        pass
