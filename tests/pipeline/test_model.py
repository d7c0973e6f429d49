from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from fake_members import MAX_POINTS, WIDTHS, member, video
from finished_runs import result_like
from pamfn.data.batches import Videos
from pamfn.errors import InputError
from pamfn.models.branch import ModalityBranch
from pamfn.models.pamfn import PAMFN
from pamfn.pipeline.inputs import Sample
from pamfn.pipeline.member import Member
from pamfn.pipeline.model import Model, samples_of_split
from pamfn.pipeline.onnx_export import test_videos as videos_to_check
from pamfn.pipeline.reference import Reference
from pamfn.reporting.predictions import page_of
from pamfn.runs.folder import Run

TRUE = tuple(np.linspace(2, 22, 41))
OFF = tuple(x + (1.0 if i % 2 else -1.0) * (i % 10) / 4 for i, x in enumerate(TRUE))


def reference(*streams: str) -> Reference:
    random = np.random.default_rng(0)
    means = {m: random.normal(0.5, 0.1, (30, WIDTHS[m])).astype(np.float32) for m in streams}
    return Reference(np.linspace(0, 25, 30), np.full(30, 9), means)


def test_one_run_scores_in_points_with_intervals_of_its_held_out_residuals():
    model = Model([member(true=TRUE, predicted=OFF, reference=reference("rgb"))])
    prediction = model.predict(video(0.5))
    assert prediction.points == 12.5
    assert prediction.intervals == {0.8: pytest.approx((10.5, 14.5)), 0.9: pytest.approx((10.25, 14.75))}
    assert (prediction.low, prediction.high) == prediction.intervals[0.9]
    assert prediction.spread == 0
    assert prediction.warnings == []
    assert prediction.members == {}


def test_an_interval_ends_where_points_do():
    model = Model([member(true=TRUE, predicted=OFF)])
    assert model.predict(video(0.99)).high == MAX_POINTS
    assert model.predict(video(0.01)).low == 0


@pytest.mark.parametrize("value", [-0.3, 0.0, 0.5, 1.0, 1.3])
def test_points_are_never_beyond_the_scale_or_their_interval(value):
    """The second run's scale is half as wide; on the common scale its largest score lies beyond the largest points."""
    half = member("two", true=TRUE, predicted=[x / 2 for x in TRUE])
    for runs in ([member("one", true=TRUE, predicted=TRUE), half], [member("one", true=TRUE, predicted=OFF)]):
        prediction = Model(runs).predict(video(value))
        for low, high in prediction.intervals.values():
            assert 0 <= low <= prediction.points <= high <= MAX_POINTS
    assert prediction.points == MAX_POINTS * min(max(value, 0.0), 1.0)


def test_without_held_out_videos_there_is_no_interval_and_the_reason_is_said():
    prediction = Model([member()]).predict(video(0.5))
    assert prediction.low is None
    assert prediction.intervals == {}
    assert any(
        "no interval: there are no held-out predictions (reported: holdout)" in text for text in prediction.warnings
    )
    few = Model([member(true=TRUE[:6], predicted=OFF[:6])])
    assert few.predict(video(0.5)).intervals.keys() == {0.8}
    assert any(text == "no interval at 90%: 6 held-out videos are too few for it" for text in few.notes)


def test_several_runs_are_averaged_on_one_scale_of_their_own():
    """The second run's scale is half as wide and shifted; alike on their own scales, they agree on the common one."""
    half = [x / 2 + 4 for x in TRUE]
    one = member("one", true=TRUE, predicted=TRUE)
    two = member("two", true=TRUE, predicted=half, score=lambda f: float(f["rgb"].mean()) / 2 + 4 / MAX_POINTS)
    model = Model([one, two])
    centre, wide = np.mean([np.mean(TRUE), np.mean(half)]), np.mean([np.std(TRUE), np.std(half)])
    for value in (0.2, 0.5, 0.8):
        prediction = model.predict(video(value))
        expected = centre + wide * (MAX_POINTS * value - np.mean(TRUE)) / np.std(TRUE)
        assert prediction.points == pytest.approx(expected)
        assert prediction.spread == pytest.approx(0, abs=1e-9)
        assert list(prediction.members.values()) == pytest.approx([expected, expected])


def test_where_few_videos_were_held_out_the_training_videos_tell_the_scale():
    known = Reference(np.array(TRUE), np.full(41, 9), {}, {"selected": np.array(TRUE) / 2, "last": np.array(TRUE) / 2})
    few = member("few", true=TRUE[:2], predicted=TRUE[:2], reference=known)
    assert few.own_scale("selected") == (np.mean(TRUE) / 2, np.std(np.array(TRUE) / 2))


def test_a_video_gets_the_same_score_alone_and_among_others():
    model = Model([member("one", true=TRUE, predicted=OFF), member("two", true=TRUE, predicted=TRUE)])
    alone = model.predict(video(0.3))
    for value in np.linspace(0, 1, 20):
        model.predict(video(value))
    assert model.predict(video(0.3)) == alone


def test_runs_of_different_streams_read_their_own():
    rgb = member("a", streams=["rgb"], true=TRUE, predicted=TRUE)
    audio = member("b", streams=["audio"], true=TRUE, predicted=TRUE)
    model = Model([rgb, audio])
    assert set(model.streams) == {"rgb", "audio"}
    prediction = model.predict({**video(0.4), **video(0.6, ["audio"])})
    assert prediction.points == pytest.approx(12.5)
    assert prediction.spread == pytest.approx(np.std([10, 15], ddof=1))


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        ({"task": "fisv_pcs"}, r"do not predict the same: one fisv_tes, two fisv_pcs"),
        ({"extractor": "UNMT"}, r"two reads rgb features of UNMT, and others of VST"),
        ({"true": TRUE, "predicted": (3.0,) * len(TRUE)}, r"predicts the same for every video. Leave it out"),
        ({"true": TRUE[:9], "predicted": OFF[:9]}, r"has neither 10 held-out predictions nor those of its training"),
    ],
)
def test_runs_that_cannot_score_together_are_refused(others, sentence):
    given = {"true": TRUE, "predicted": OFF} | others
    with pytest.raises(InputError, match=sentence):
        Model([member("one", true=TRUE, predicted=OFF), member("two", **given)])


def test_a_stream_that_is_not_there_counts_as_not_recorded_and_is_said():
    streams = ["rgb", "audio"]
    model = Model([member("fused", streams=streams, true=TRUE, predicted=OFF)])
    prediction = model.predict(video(0.5))
    assert prediction.points == 6.25  # the mean with zeros
    (said,) = [text for text in prediction.warnings if "without audio" in text]
    assert said.startswith("scored without audio: what that costs was not measured (train the same with available=")
    with pytest.raises(InputError, match=r"rgb, audio features are missing|none of the streams"):
        model.predict({})
    with pytest.raises(InputError, match="audio features are missing: method cannot score without them"):
        Model([member("method", streams=streams, kind="baseline")]).predict(video(0.5))


def test_the_measured_cost_of_a_stream_that_is_not_there_is_said(tmp_path):
    one = member("fused", streams=["rgb", "audio"], true=TRUE, predicted=OFF)
    one = replace(one, folder=tmp_path / "fusion" / "fused")
    one.result["metrics"] = {"holdout": {"srcc": 0.91}}
    for network, available, srcc in (("fused", ["rgb"], 0.5), ("fused", ["audio"], 0.4), ("other", ["rgb"], 0.3)):
        run = Run(tmp_path / "missing" / f"{network}-{available[0]}")
        run.path.mkdir(parents=True)
        metrics = {"holdout": {"srcc": srcc}, "last": {"srcc": 0.0}}
        kept = {"network": network, "available": available, "metrics": metrics}
        run.write_result(result_like(kind="missing", reported="holdout", **kept))
    (said,) = [text for text in Model([one]).predict(video(0.5)).warnings if "without audio" in text]
    assert said == "scored without audio: on its test videos that takes srcc from 0.910 to 0.500"


@pytest.mark.parametrize(
    ("features", "sentence"),
    [
        ({"pose": np.zeros((9, 6), np.float32)}, "pose: the network reads rgb"),
        ({"rgb": np.zeros((9, 7), np.float32)}, "its rgb features are 7 wide, and the network reads 6"),
        ({"rgb": np.zeros((9, 2, 6), np.float32)}, r"shape \(9, 2, 6\): expected \(segments, width\)"),
        ({"rgb": np.zeros((3, 6), np.float32)}, "3 segments: the network needs 4 or more"),
        ({"rgb": np.full((9, 6), np.nan, np.float32)}, "no finite numbers"),
        ({"rgb": np.zeros((9, 6), np.int64)}, "rgb: expected floating-point features"),
        ({"rgb": np.full((9, 6), 3e38, np.float32)}, "no finite number: its features are far beyond"),
    ],
)
def test_features_that_are_none_are_refused(features, sentence):
    with pytest.raises(InputError, match=sentence):
        Model([member()]).predict(features)


def test_tensors_and_float64_are_taken():
    model = Model([member()])
    assert model.predict({"rgb": torch.full((9, 6), 0.5)}).points == 12.5
    assert model.predict({"rgb": torch.full((9, 6), 0.5, dtype=torch.bfloat16)}).points == 12.5
    assert model.predict({"rgb": np.full((9, 6), 0.5)}).points == 12.5
    assert model.predict({"rgb": np.full((9, 6), 0.5, np.float16)}).points == 12.5


@pytest.mark.parametrize("features", [np.zeros((9, 6), np.float32), torch.zeros(9, 6), [0.5]])
def test_features_without_the_names_of_their_streams_are_refused(features):
    with pytest.raises(InputError, match=r"features: expected \{'rgb': array\}, not (ndarray|Tensor|list)"):
        Model([member()]).predict(features)


def test_streams_of_almost_one_length_are_cut_and_others_refused():
    model = Model([member("fused", streams=["rgb", "audio"])])
    prediction = model.predict({**video(0.5, segments=9), **video(0.5, ["audio"], segments=10)})
    assert "cut to its shortest stream, 9 segments" in prediction.warnings
    with pytest.raises(InputError, match="different numbers of segments: rgb 9, audio 12"):
        model.predict({**video(0.5, segments=9), **video(0.5, ["audio"], segments=12)})


def test_masking_shows_where_the_points_are():
    model = Model([member(streams=["rgb", "audio"], reference=reference("rgb", "audio"))])
    features = {**video(0.5), **video(0.5, ["audio"])}
    features["rgb"][2] = 3.0
    explained = model.explain(Sample("a video", features))
    assert explained.occlusion is not None
    best = explained.occlusion.windows[explained.occlusion.window_losses.argmax()]
    assert best[0] <= 2 < best[1]
    assert set(explained.occlusion.stream_losses) == {"rgb", "audio"}
    assert model.explain(Sample("a video", features), parts=False).occlusion is None


def test_without_a_reference_nothing_is_masked_and_that_is_said():
    explained = Model([member()]).explain(Sample("a video", video(0.5)))
    assert explained.occlusion is None
    assert any("nothing is known of the training videos" in text for text in explained.prediction.warnings)


def test_a_video_unlike_those_of_training_is_told():
    model = Model([member(reference=reference("rgb"))])
    usual = reference("rgb").means["rgb"][3][None].repeat(9, axis=0)
    assert not [text for text in model.predict({"rgb": usual}).warnings if "unlike" in text]
    assert [text for text in model.predict(video(40.0)).warnings if text.startswith("rgb unlike any training video")]


def with_data(one: Member, names: Sequence[str], segments: int = 5) -> Member:
    """A run whose test videos are here, all of one length."""
    rows, each = len(names) * segments, torch.full((len(names),), segments)
    packed = {m: torch.rand(rows, WIDTHS[m]) for m in one.streams}
    zeros = torch.zeros(len(names))
    videos = Videos(list(names), packed, torch.arange(0, rows, segments), each, zeros.double(), zeros, each)
    data = SimpleNamespace(predicts="score", task="fisv_tes", splits={"test": videos}, setup=lambda: None)
    return replace(one, data=cast("Any", data))


def runs_of_streams(*streams: str) -> list[Member]:
    return [member(f"run {i}", streams=[m], true=TRUE, predicted=OFF) for i, m in enumerate(streams)]


def test_a_split_is_scored_only_where_all_runs_have_the_same_one():
    for streams in (("rgb", "rgb"), ("rgb", "audio", "rgb")):
        runs = [with_data(one, ["a", "b"]) for one in runs_of_streams(*streams)]
        assert list(samples_of_split(Model(runs), "test")) == ["a", "b"]
        for other in (["a", "c"], ["a"]):
            with pytest.raises(InputError, match="the runs have different videos in test: give the features"):
                samples_of_split(Model([*runs[:-1], with_data(runs[-1], other)]), "test")
        with pytest.raises(InputError, match="different videos in test"):
            samples_of_split(Model([*runs[:-1], with_data(runs[-1], ["a", "b"], segments=6)]), "test")


def test_an_export_is_checked_on_all_streams_of_runs_that_read_different_ones():
    runs = [with_data(one, ["a", "b"]) for one in runs_of_streams("rgb", "flow", "audio")]
    videos, what = videos_to_check(Model(runs), WIDTHS)
    assert what == "the 2 test videos"
    assert [{m: x.shape for m, x in each.items()} for each in videos] == [{m: (1, 5, c) for m, c in WIDTHS.items()}] * 2
    videos, what = videos_to_check(Model([runs[0], runs[1], with_data(runs[2], ["c", "d"])]), WIDTHS)
    assert "generated videos, since test videos cannot be read (the runs have different videos in test" in what
    assert videos[0].keys() == WIDTHS.keys()


def test_clips_of_a_fused_network_have_a_page():
    sizes = {"d_model": 8, "hidden": 6, "num_stages": 1, "per_segment": True}
    branches = {m: ModalityBranch(width=WIDTHS[m], **sizes) for m in ("rgb", "audio")}
    network = PAMFN(branches=branches, num_fusion_nets=2).eval()
    one = member("fused", streams=["rgb", "audio"], reference=reference("rgb", "audio"))
    data = SimpleNamespace(predicts="highlights", task="youtube_dog", bags=False)
    one = replace(one, data=cast("Any", data), scale=1.0)
    scorer = ClipScorer(network)
    model = Model([replace(one, scorer=cast("Any", scorer))])
    sample = Sample("clips", {**video(0.5), **video(0.5, ["audio"])})
    explained = model.explain(sample)
    assert explained.prediction.scores is not None
    assert len(explained.prediction.scores) == 9
    assert "is the highest score of 9 clips" in page_of(model, explained, sample)


class ClipScorer:
    """Scores clips by a network."""

    def __init__(self, network: PAMFN) -> None:
        self.network, self.device = network, torch.device("cpu")

    @torch.inference_mode()
    def __call__(self, features: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return self.network(features).score.double(), torch.zeros(1)
