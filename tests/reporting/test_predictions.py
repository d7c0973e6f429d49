import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import WIDTHS, RunCli
from finished_runs import trained
from pamfn.config.compose import register
from pamfn.errors import InputError
from pamfn.pipeline.model import load
from pamfn.pipeline.reference import FILE
from pamfn.reporting.predictions import predict, predict_command


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_data) -> Path:
    """The folder of a finished fused network of Fis-V and its branches."""
    register()
    folder = tmp_path_factory.mktemp("predict")
    trained("modalities", "+ablation=full", tiny_data, folder)
    return folder / "runs"


@pytest.fixture
def fused(runs) -> Path:
    (run,) = (runs / "fusion").iterdir()
    return run


@pytest.fixture
def features(tmp_path) -> list[str]:
    """Feature files of two new videos."""
    random, files = np.random.default_rng(5), []
    for (stream, width), extractor in zip(WIDTHS.items(), ("VST", "I3D", "AST"), strict=True):
        arrays = {v: random.normal(size=(t, width)).astype(np.float32) for v, t in (("new", 12), ("<b>new</b>", 15))}
        file = tmp_path / f"NEW_{stream}_{extractor}.npy"
        np.save(file, np.array(arrays, dtype=object), allow_pickle=True)
        files.append(str(file))
    return files


def rows(file: Path) -> dict[str, dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return {row["video"]: row for row in csv.DictReader(lines)}


def test_the_test_videos_score_as_the_run_has_them(fused, tmp_path):
    predict(fused, to=tmp_path)
    with (fused / "predictions.csv").open(newline="") as lines:
        own = {r["video"]: float(r["predicted"]) for r in csv.DictReader(lines) if r["weights"] == "selected"}
    found = rows(tmp_path / "predictions.csv")
    assert found.keys() == own.keys()
    for video, row in found.items():
        assert float(row["points"]) == pytest.approx(own[video], abs=1e-4)


def test_new_videos_get_lines_json_and_pages(fused, features, tmp_path, run_cli: RunCli):
    done = run_cli(["predict", str(fused), *features, "--to", "out", "--json"])
    assert done.returncode == 0, done.stderr
    assert "new: " in done.stdout
    assert "! no interval: there are no held-out predictions (reported: best_on_test)" in done.stdout
    out = tmp_path / "out"
    assert rows(out / "predictions.csv").keys() == {"new", "<b>new</b>"}
    content = json.loads((out / "predictions.json").read_text())
    assert content["task"] == "fisv_tes"
    assert content["runs"][0]["run"] == fused.name
    for video, row in rows(out / "predictions.csv").items():
        assert content["videos"][video]["points"] == pytest.approx(float(row["points"]))
    pages = sorted(out.glob("*.html"))
    assert len(pages) == 2
    for page in pages:
        text = page.read_text()
        assert "<b>new" not in text
        assert "Predicted score" in text
    again = run_cli(["predict", str(fused), *features, "new", "--to", "alone", "--no-pages"])
    assert again.returncode == 0, again.stderr
    assert sorted(file.name for file in (tmp_path / "alone").iterdir()) == ["predictions.csv"]
    assert rows(tmp_path / "alone/predictions.csv")["new"] == rows(out / "predictions.csv")["new"]


def test_videos_that_cannot_be_scored_are_named_at_the_end_and_the_others_are_done(fused, features, tmp_path, run_cli):
    content = np.load(features[0], allow_pickle=True).item()
    np.save(features[0], np.array({**content, "short": content["new"][:2]}, dtype=object), allow_pickle=True)
    done = run_cli(["predict", str(fused), *features, "--to", "out", "--no-pages"])
    assert done.returncode == 1
    assert "short: 2 segments: the network needs 4 or more" in done.stderr
    assert "2 videos scored" in done.stderr
    assert rows(tmp_path / "out/predictions.csv").keys() == {"new", "<b>new</b>"}


def test_a_missing_stream_is_said_loudly(fused, features, run_cli):
    done = run_cli(["predict", str(fused), *features[:2], "--to", "out", "--no-pages"])
    assert done.returncode == 0, done.stderr
    assert "! scored without audio: what that costs was not measured" in done.stdout


def test_several_runs_become_one_under_a_name(runs, features, tmp_path, run_cli):
    branches = sorted(map(str, (runs / "branch").iterdir()))
    saved = run_cli(["predict", str(runs / "branch/*"), "--save", "mean.json"])
    assert saved.returncode == 0, saved.stderr
    assert saved.stdout.endswith("mean.json: 3 runs\n")
    done = run_cli(["predict", "mean.json", *features, "--to", "out", "--no-pages"])
    assert done.returncode == 0, done.stderr
    assert "over 3 networks" in done.stdout
    predictions = predict(branches, features, to=tmp_path / "same")
    assert {v: f"{p.points:.9g}" for v, p in predictions.items()} == {
        v: row["points"] for v, row in rows(tmp_path / "out/predictions.csv").items()
    }
    evaluated = run_cli(["evaluate", "mean.json"])
    assert evaluated.returncode == 0, evaluated.stderr
    assert "fisv_tes, mean of 3 networks (" in evaluated.stdout
    assert "srcc" in evaluated.stdout


def test_a_run_of_an_earlier_version_takes_what_it_lacks_from_its_data(fused, features, tmp_path):
    run = Path(shutil.copytree(fused, tmp_path / "fusion" / fused.name))
    (run / FILE).unlink()
    assert load(run).members[0].reference is not None
    away = load(run, data_dir=str(tmp_path / "gone"))
    assert away.members[0].reference is None
    assert any("nothing is known of the training videos" in note for note in away.notes)
    (predicted,) = predict(run, [*features, "new"], to=tmp_path / "out", data_dir=str(tmp_path / "gone")).values()
    assert predicted.points == predict(fused, [*features, "new"], to=tmp_path / "other")["new"].points


def test_words_that_are_no_run_or_no_video_are_refused(fused, tmp_path, run_cli):
    for words, sentence in (
        (["nothing", "video.mp4"], "nothing is not a finished run"),
        ([str(fused), "video.mp4"], "video.mp4: there is no such file, and no such video in the run's test (1"),
        ([str(fused), "--save", "mean"], "--save mean: name a file that ends in .json"),
        ([str(fused), "runs/branch/nothing*"], "runs/branch/nothing*: no finished run matches"),
    ):
        done = run_cli(["predict", *words])
        assert done.returncode == 1
        assert sentence in done.stderr
    with pytest.raises(InputError, match="holdout: this run's protocol has only"):
        predict(fused, to=tmp_path, split="holdout")


@pytest.mark.parametrize(
    ("words", "changed", "sentence"),
    [
        ([], {"to": "a.npy"}, r"--to .*a.npy: a file, and a folder is needed"),
        ([], {"save": "mean.json", "weights": "last"}, r"--save with --weights last: the file of an ensemble holds no"),
        ([], {"save": "mean.json", "as_json": True, "to": "out"}, r"--to, --json: without effect here, since --save"),
        ([], {"extract": ["device=cuda"]}, r"--extract: without effect here, since no video is given"),
        (["a.npy"], {"split": "train"}, r"--split: without effect here, since the inputs are what is scored"),
    ],
)
def test_options_that_would_be_ignored_are_refused(fused, tmp_path, words, changed, sentence):
    (tmp_path / "a.npy").touch()
    places = {key: tmp_path / changed[key] for key in ("to", "save") if key in changed}
    plain = {"save": None, "to": None, "as_json": False, "split": None, "pages": True, "extract": []}
    others = {"weights": "selected", "data_dir": None, "trust": []}
    with pytest.raises(InputError, match=sentence):
        predict_command([str(fused), *(str(tmp_path / w) for w in words)], **{**plain, **others, **changed, **places})
    assert not (tmp_path / "mean.json").exists()


def test_the_package_predicts_from_its_name(fused, features, tmp_path):
    code = (
        "import sys, pamfn; assert 'torch' not in sys.modules; "
        "done = pamfn.predict(sys.argv[1], sys.argv[3:], to=sys.argv[2]); print(sorted(done))"
    )
    words = [sys.executable, "-c", code, str(fused), str(tmp_path / "out"), *features]
    done = subprocess.run(words, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['<b>new</b>', 'new']\n"
