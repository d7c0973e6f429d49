import json
from pathlib import Path

import pytest

from finished_runs import result_like
from pamfn.errors import InputError
from pamfn.pipeline.ensemble import KEPT, is_run, read_ensemble, runs_of, write_ensemble
from pamfn.runs.folder import Run


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    """Two finished runs with files for weights."""
    folders = [tmp_path / "runs/branch" / name for name in ("one", "two")]
    for seed, folder in enumerate(folders):
        folder.mkdir(parents=True)
        Run(folder).write_result(result_like(seed=seed))
        for weights in ("selected", "last"):
            (folder / f"{weights}.safetensors").write_text(f"{weights} {seed}")
        for name in KEPT:
            (folder / name).write_text(f"{name} {seed}")
    return folders


def test_runs_are_named_by_folders_patterns_and_files(tmp_path, runs):
    write_ensemble(tmp_path / "mean.json", runs)
    pattern = str(tmp_path / "runs/branch/*")
    (tmp_path / "runs/branch/unfinished").mkdir()
    assert runs_of(runs) == runs
    assert runs_of([pattern]) == runs
    assert [folder.resolve() for folder in runs_of([tmp_path / "mean.json"])] == runs
    for word in (*map(str, runs), pattern, str(tmp_path / "mean.json")):
        assert is_run(word)
    for word in (str(tmp_path), "video.mp4", str(tmp_path / "nothing*"), str(tmp_path / "runs/branch/unfinished")):
        assert not is_run(word)


def test_the_file_can_be_moved_with_its_runs(tmp_path, runs):
    write_ensemble(tmp_path / "mean.json", runs)
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    tmp_path.rename(moved)
    try:
        assert [folder.name for folder in read_ensemble(moved / "mean.json")] == ["one", "two"]
        assert str(tmp_path) not in (moved / "mean.json").read_text()
    finally:
        moved.rename(tmp_path)


@pytest.mark.parametrize("changed", ["selected.safetensors", "last.safetensors", "result.json", *KEPT])
def test_a_run_that_changed_is_refused(tmp_path, runs, changed):
    write_ensemble(tmp_path / "mean.json", runs)
    if changed == "result.json":
        Run(runs[1]).write_result(result_like(seed=7))
    else:
        (runs[1] / changed).write_text("others")
    with pytest.raises(InputError, match="two has changed since it was listed"):
        read_ensemble(tmp_path / "mean.json")


def test_a_file_of_version_1_is_read_without_what_it_does_not_list(tmp_path, runs):
    write_ensemble(tmp_path / "mean.json", runs)
    content = json.loads((tmp_path / "mean.json").read_text())
    listed = [{key: value for key, value in run.items() if key not in KEPT} for run in content["runs"]]
    (tmp_path / "mean.json").write_text(json.dumps({"version": 1, "runs": listed}))
    (runs[0] / KEPT[0]).write_text("others")
    assert [folder.name for folder in read_ensemble(tmp_path / "mean.json")] == ["one", "two"]
    (runs[0] / "last.safetensors").write_text("others")
    with pytest.raises(InputError, match="one has changed since it was listed"):
        read_ensemble(tmp_path / "mean.json")


def test_what_is_no_ensemble_is_refused(tmp_path, runs):
    file = tmp_path / "mean.json"
    for content in ("", "[]", "{}", json.dumps({"version": 3, "runs": []}), json.dumps({"version": 1, "runs": [3]})):
        file.write_text(content)
        with pytest.raises(InputError, match=r"mean.json is not the file of an ensemble .*write one with --save"):
            read_ensemble(file)
    with pytest.raises(InputError, match=r"name a file that ends in .json"):
        write_ensemble(tmp_path / "mean", runs)
    with pytest.raises(InputError, match="a run is named twice"):
        runs_of([runs[0], str(tmp_path / "runs/branch/*")])
    with pytest.raises(InputError, match=r"nothing\*: no finished run matches"):
        runs_of([str(tmp_path / "nothing*")])
    with pytest.raises(InputError, match="no run: give the folder"):
        runs_of([])
