import csv
import shutil

import numpy as np
import pytest
import torch

from finished_runs import trained
from pamfn.data.batches import WholeVideos
from pamfn.errors import InputError
from pamfn.pipeline import explain as explain_module
from pamfn.pipeline.build import data_module
from pamfn.pipeline.explain import Explanation, Stage, Video, explain
from pamfn.pipeline.reload import configuration, load_network
from pamfn.runs.folder import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("explained")


@pytest.fixture(scope="module")
def run(tiny_data, folder):
    return trained("fusionnets", "+ablation=full", tiny_data, folder).run


@pytest.fixture(scope="module")
def explanation(run):
    return explain(run.path)


@pytest.fixture
def by_hand():
    """Two videos of a network whose first stage decides everything and whose second is without policy and decoder."""

    def video(name, points, decision):
        weights = np.array([[0.25, 0.75]] * len(decision))
        stages = [Stage(np.array(decision), weights, None), Stage(None, None, None)]
        return Video(name, 2 * len(decision), points, points, stages)

    videos = [video("a", 3.0, [1, 2, 2]), video("b", 5.0, [4, 1])]
    return lambda path: Explanation(path, "by_hand", 0, "test", ["rgb", "audio"], 4, videos)


def test_its_predictions_are_those_of_the_run(run, explanation):
    rows = csv.DictReader(run.file("predictions.csv").read_text().splitlines())
    stored = [row for row in rows if (row["weights"], row["split"]) == ("selected", "test")]
    assert [video.name for video in explanation.videos] == [row["video"] for row in stored]
    for video, row in zip(explanation.videos, stored, strict=True):
        assert video.points == pytest.approx(float(row["true"]))
        assert video.predicted == pytest.approx(float(row["predicted"]), rel=1e-4)


def test_its_decisions_are_counted_as_in_the_result(run, explanation):
    result = run.result()
    assert result["decisions"] == explanation.decision_counts()


def test_a_video_is_explained_alike_alone_and_in_a_batch(run, explanation):
    settings = configuration(run.result(), None, None, None)
    data = data_module(settings)
    data.setup()
    network = load_network(settings, run.path).eval()
    for i, video in enumerate(explanation.videos):
        (batch,) = WholeVideos(data.splits["test"].subset([i]), batch_size=1)
        with torch.no_grad():
            alone = network(batch.features).stages
        for stage, expected in zip(video.stages, alone, strict=True):
            assert stage.decision.tolist() == expected.decision[0].tolist()
            np.testing.assert_allclose(stage.modality_weights, expected.modality_weights[0].mean(dim=1), atol=1e-5)
            np.testing.assert_allclose(stage.fusion_weights, expected.fusion_weights[0].mean(dim=1), atol=1e-5)


def test_stages_have_a_time_step_for_2_4_and_all_segments(explanation):
    for video in explanation.videos:
        steps = [video.segments // 2, video.segments // 4, 1]
        assert [len(stage.decision) for stage in video.stages] == steps
        assert [stage.modality_weights.shape for stage in video.stages] == [(t, 3) for t in steps]
        assert [stage.fusion_weights.shape for stage in video.stages] == [(t, explanation.networks) for t in steps]


def test_weights_are_shares(explanation):
    for stage in (stage for video in explanation.videos for stage in video.stages):
        np.testing.assert_allclose(stage.modality_weights.sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(stage.fusion_weights.sum(axis=1), 1, rtol=1e-5)
        assert ((stage.decision >= 1) & (stage.decision <= explanation.networks)).all()


def test_another_split_can_be_explained(run):
    assert explain(run.path, split="train").videos[0].name == "1"


def test_networks_without_a_part_leave_it_out(tiny_data, folder):
    free = explain(trained("fusionnets", "+ablation=free_fusionnets", tiny_data, folder).run.path)
    assert all(stage.decision is None for stage in free.videos[0].stages)
    with pytest.raises(InputError, match="has no PolicyNet"):
        free.decisions(free.video())
    with pytest.raises(InputError, match="has no PolicyNet"):
        free.decision_counts()
    assert set(free.attention(free.video())) == {"rgb", "flow", "audio"}


def test_a_stage_without_decoder_has_no_attention(by_hand, tmp_path):
    explanation = by_hand(tmp_path)
    with pytest.raises(InputError, match="its stage 2 has no modality-specific feature decoder"):
        explanation.attention(explanation.video())
    with pytest.raises(InputError, match="no stage 3; it has 2"):
        explanation.attention(explanation.video(), stage=3)
    assert explanation.attention(explanation.video("b"), stage=1) == {"rgb": [0.25, 0.25], "audio": [0.75, 0.75]}


def test_decisions_are_counted_over_videos(by_hand, tmp_path):
    assert by_hand(tmp_path).decision_counts() == [[0, 2, 2, 0, 1], [0, 0, 0, 0, 0]]


def test_without_a_name_the_best_video_is_shown(by_hand, tmp_path):
    assert by_hand(tmp_path).video().name == "b"
    assert by_hand(tmp_path).video("a").points == 3.0
    with pytest.raises(InputError, match="no video 'c' among the 2 of by_hand's test: a, b"):
        by_hand(tmp_path).video("c")


def test_a_network_without_stages_is_refused(run, monkeypatch):
    monkeypatch.setattr(explain_module, "load_network", lambda *_: torch.nn.Linear(1, 1))
    with pytest.raises(InputError, match="Linear has no stages"):
        explain(run.path)


def test_what_cannot_be_explained_is_refused(run, folder, tmp_path):
    with pytest.raises(InputError, match="is not a finished run"):
        explain(tmp_path)
    (branch, *_) = sorted((folder / "runs" / "branch").iterdir())
    with pytest.raises(InputError, match="is a single branch"):
        explain(branch)
    method = Run(tmp_path / "gdlt")
    settings = run.result()["config"]
    without = {key: value for key, value in settings["model"].items() if key != "branch"}
    method.write_result({**run.result(), "kind": "baseline", "config": {**settings, "model": without}})
    with pytest.raises(InputError, match=r"gdlt is a compared method, which decides nothing. Give a folder under"):
        explain(method.path)
    with pytest.raises(InputError, match="this run's protocol has only test, train"):
        explain(run.path, split="holdout")
    archived = Run(shutil.copytree(run.path, tmp_path / run.path.name))
    archived.file("selected.safetensors").unlink()
    with pytest.raises(InputError, match="has no weights"):
        explain(archived.path)


def test_data_that_is_gone_is_told(run, tmp_path):
    with pytest.raises(InputError, match="FISV"):
        explain(run.path, data_dir=str(tmp_path))
