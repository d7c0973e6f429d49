"""The benchmark runs, and counts what it says it counts. How fast anything is, is not tested."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import coverage, extraction, mistakes
from benchmarks.__main__ import main
from benchmarks.counts import Counts, counted
from benchmarks.devices import CPU
from benchmarks.profiles import seconds_by_kind
from benchmarks.timing import compare
from fake_members import MAX_POINTS, member
from made_videos import write_video
from pamfn.data.features import FeatureSet, write_store
from pamfn.extraction.networks.video_swin import VideoSwinTransformer
from pamfn.extraction.networks.vit import AudioSpectrogramTransformer, UnmaskedTeacher
from pamfn.pipeline.model import Model
from pamfn.pipeline.reference import Reference
from pamfn.runs.held_out import HeldOut


def test_operations_of_products_and_bytes_of_everything_else_are_counted():
    a, b, c = torch.randn(8, 4), torch.randn(4, 16), torch.randn(8, 16)
    assert counted(lambda: a @ b) == Counts(2 * 8 * 4 * 16, 0)
    assert counted(lambda: (a @ b).t() + c.t()) == Counts(2 * 8 * 4 * 16, 3 * c.nbytes)
    assert counted(lambda: c.mul_(2)) == Counts(0, 2 * c.nbytes)
    row = torch.randn(1, 16)
    assert counted(lambda: row.expand(8, 16).relu()).moved == row.nbytes + c.nbytes
    scaled = counted(lambda: torch._foreach_mul_([c, a], 2.0))  # type: ignore[attr-defined]
    assert scaled == Counts(0, 2 * (c.nbytes + a.nbytes))


def test_sides_take_turns_and_ratios_are_of_neighbours():
    order: list[str] = []
    row = compare("order", lambda: order.append("reference"), lambda: order.append("ours"), pairs=2)
    assert order == ["reference", "ours", "reference", "ours", "ours", "reference"]
    assert (len(row.reference), len(row.ours)) == (2, 2)
    row.reference, row.ours = [2.0, 3.0], [1.0, 2.0]
    assert row.ratios() == [2.0, 1.5]


def test_a_profile_tells_forward_from_backward():
    x = torch.randn(64, 64, requires_grad=True)
    found = seconds_by_kind(lambda: (x @ x).relu().sum().backward(), CPU, calls=2)
    assert {"products and convolutions", "products and convolutions, backward", "elementwise"} <= found.keys()
    assert all(seconds >= 0 for seconds in found.values())


def test_the_benchmark_runs_a_row_and_refuses_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def bench(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
        main()

    bench("--quick", "--only", "data", "--sizes", "rg", "--json", str(tmp_path / "found.json"))
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [row["title"].split()[0] for row in rows] == ["opening", "opening"]
    shown = capsys.readouterr().out
    assert all(row["title"] in shown for row in rows)
    refused = {
        "--only: no speed; there are step, stage1, test, ": ["--only", "speed"],
        "no such GPU": ["--device=cuda:9"],
        "--device gpu: choose cpu or cuda": ["--device=gpu"],
    }
    for sentence, words in refused.items():
        with pytest.raises(SystemExit):
            bench(*words)
        assert sentence in capsys.readouterr().err


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 segments at 30 frames a second, and 5 frames more."""
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", 83, rate=30, size=(240, 180), sound=2.8)


def test_frames_read_the_plain_way_are_the_same_to_one_level(video: Path):
    ours, plain = extraction.read(video, 120), extraction.plainly_read(video, 120)
    difference = np.stack([picture[120] for picture in ours]).astype(int) - np.stack(plain)
    assert difference.shape == (69, 120, 160, 3)
    assert np.abs(difference).max() <= 1


def test_features_of_the_plain_way_are_the_same(video: Path):
    ours, plain = extraction.described(video), extraction.plainly_described(video)
    assert ours.keys() == plain.keys() == {"rgb", "flow", "audio"}
    for stream in ours:
        assert len(ours[stream]) == 2
        np.testing.assert_allclose(ours[stream], plain[stream], atol=0 if stream == "audio" else 0.03)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (VideoSwinTransformer(width=8, depths=(2, 2), heads=(2, 2)), (3, 20, 60, 64)),
        (AudioSpectrogramTransformer(width=16, depth=2, heads=2), (126, 128)),
        (UnmaskedTeacher(frames=8, width=16, depth=2, heads=2), (3, 8, 224, 224)),
    ],
)
@torch.inference_mode()
def test_explicit_attention_gives_the_same_numbers(network: nn.Module, shape: tuple[int, ...]):
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    plain, x = extraction.explicit(network.eval()), torch.randn(2, *shape)
    kinds = {type(module) for module in plain.modules()}
    assert kinds & {extraction.ExplicitWindowAttention, extraction.ExplicitAttention}
    torch.testing.assert_close(plain(x), network(x), atol=1e-4, rtol=1e-4)


def test_a_repeated_clip_is_read_to_its_end(tmp_path: Path):
    clip = write_video(tmp_path / "clip.mp4", 40, sound=1.6)
    once = extraction.read(clip, 64)
    assert extraction.repeat(clip, tmp_path / "long.mp4", 4.0) == 3
    thrice = extraction.read(tmp_path / "long.mp4", 64)
    assert len(thrice) == 3 * len(once)
    assert all((here[64] == there[64]).all() for here, there in zip(thrice, 3 * once, strict=True))


def test_rows_of_extraction_are_printed_with_what_else_was_found(
    video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    @contextmanager
    def sample() -> Iterator[Path]:
        yield video

    monkeypatch.setattr(extraction, "sample_video", sample)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick", "--only", "extraction-streams"])
    main()
    shown = capsys.readouterr().out
    assert "default streams of a.mp4, against a decode and Pillow for each" in shown
    assert "times real time, 2 segments" in shown


def test_coverage_of_the_archived_runs_is_the_committed_one(capsys: pytest.CaptureFixture[str]):
    coverage.main()
    committed = Path(__file__).parents[1] / "experiments" / "results" / "coverage.md"
    assert committed.read_text().endswith(capsys.readouterr().out)


def test_a_planted_mistake_is_found_where_the_score_gains_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    videos = {"early": np.ones((12, 6), np.float32), "late": np.ones((12, 6), np.float32)}
    videos["early"][2] = videos["late"][9] = -5
    made = {"reading": {"fps": "25"}, "extractor": {"_target_": "pamfn.extraction.HOG"}, "width": 6}
    store, source = tmp_path / "NEW_rgb_HOG.safetensors", tmp_path / "source.npy"
    source.touch()
    write_store(FeatureSet(videos, "0" * 32, source, made), store, extractor="HOG")
    lines = ["name\tmistake\tsecond", f"early\tjerk\t{2.5 * 1.28}", f"late\tlost_beat\t{2.5 * 1.28}"]
    (tmp_path / "MISTAKES.txt").write_text("\n".join(lines) + "\n")
    seen = Reference(None, np.full(30, 12), {"rgb": np.ones((30, 6), np.float32)})
    model = Model([member(extractor="HOG", reference=seen)])
    monkeypatch.setattr(mistakes, "load", lambda run: model)
    monkeypatch.setattr(sys, "argv", ["mistakes", str(store), str(tmp_path / "MISTAKES.txt"), "run"])
    mistakes.main()
    jerk, lost_beat = capsys.readouterr().out.splitlines()
    assert jerk.startswith("run jerk: 1.00 [0.03, 1.00] of 1, at random 0.30")
    assert lost_beat.startswith("run lost_beat: 0.00")


def test_coverage_measures_the_intervals_that_a_model_gives(tmp_path: Path):
    true = np.linspace(2, 24, 30)
    runs, members = [], []
    for i, scale in enumerate((0.8, 1.0)):
        off = np.where(np.arange(30) % 2, 2.0, -2.0)
        held = {"selected": HeldOut(true, scale * true + off / 2), "last": HeldOut(true, scale * true / 2 + off)}
        folder = tmp_path / f"run{i}"
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps({"config": {"data": {"max_score": MAX_POINTS}}}))
        lines = ["weights,split,video,true,predicted"]
        for weights, of in held.items():
            pairs = zip(of.true, of.predicted, strict=True)
            lines += [f"{weights},holdout,{n},{float(a)},{float(b)}" for n, (a, b) in enumerate(pairs)]
        lines += [f"selected,test,{v},{0.5 * MAX_POINTS},{v * MAX_POINTS}" for v in (0.25, 0.5, 1.0)]
        (folder / "predictions.csv").write_text("\n".join(lines) + "\n")
        runs.append(folder)
        members.append(replace(member(f"run{i}"), held_out=held))
    for found, model in (
        (coverage.single(runs[0], 0.9), Model(members[:1])),
        (coverage.together(runs, 0.9), Model(members)),
    ):
        predictions = [model.predict({"rgb": np.full((9, 6), v, np.float32)}) for v in (0.25, 0.5, 1.0)]
        limits = [prediction.intervals[0.9] for prediction in predictions]
        assert found is not None
        assert found[0] == pytest.approx(np.mean([high - low for low, high in limits]))
        assert found[1] == np.mean([low <= 0.5 * MAX_POINTS <= high for low, high in limits])
