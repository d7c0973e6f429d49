"""Highlight detection: the metric, networks that score clips, trainings from labels of clips and of whole videos."""

import copy
import csv
import json
import os
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from composed import composed
from conftest import RunCli
from pamfn.config.validation import checked
from pamfn.data.base_datamodule import VideoDataModule
from pamfn.data.batches import Batch, Videos
from pamfn.errors import InputError
from pamfn.evaluation.average_precision import average_precision, chance, expected_step_precision, step_precision
from pamfn.evaluation.metrics import highlight_metrics
from pamfn.models import PAMFN, LateFusion, ModalityBranch
from pamfn.models.baselines import UMT, JointVA, MiniNet
from pamfn.models.network import BagNetwork, Network, ScoreOutput
from pamfn.pipeline.build import data_module
from pamfn.pipeline.clip_scores import score_clips
from pamfn.pipeline.reload import load_network
from pamfn.pipeline.rescore import rescored
from pamfn.pipeline.two_stage import find_or_train, run_job
from pamfn.reporting import build as building
from pamfn.reporting import selection_table as protocol_tables
from pamfn.runs.folder import Run
from pamfn.training.metrics import SplitMetrics
from pamfn.training.tasks import HighlightTask
from small_clips import FEATURES, file_of, match, save, write_clips

real = pytest.mark.skipif("PAMFN_DATA_DIR" not in os.environ, reason="PAMFN_DATA_DIR does not say where real data is")
WIDTHS = {"rgb": 5, "flow": 4, "audio": 3}
LENGTHS = torch.tensor([9, 5, 2])


@pytest.mark.parametrize(
    ("ranked", "trapezoids", "steps"),
    [([1, 0, 1, 0], 0.7916667, 0.8333333), ([0, 1], 0.25, 0.5), ([1, 1, 0], 1.0, 1.0), ([0, 0], 0.0, 0.0)],
)
def test_average_precision_is_umts_and_beside_it_scikit_learns(ranked: list[int], trapezoids: float, steps: float):
    scores = -np.arange(len(ranked))
    assert average_precision(ranked, scores) == pytest.approx(trapezoids, abs=1e-6)
    assert step_precision(ranked, scores) == pytest.approx(steps, abs=1e-6)


def test_equal_scores_keep_the_order_of_the_clips():
    assert average_precision([1, 0, 0], [0.5, 0.5, 0.5]) == 1
    assert average_precision([0, 0, 1], [0.5, 0.5, 0.5]) < 1


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_have_no_precision(score: float):
    for rule in (average_precision, step_precision):
        assert np.isnan(rule([0, 1, 0], [0.1, score, 0.2]))
        assert np.isnan(rule([0, 0], [score, score]))


def test_a_video_without_highlights_counts_as_zero():
    assert highlight_metrics([[1, 0], [0, 0]], [[0.9, 0.1], [0.3, 0.2]]) == {"map": 0.5, "map_step": 0.5}


def test_the_chance_level_is_that_of_random_orders_whatever_the_order_of_the_videos():
    labels = {"a": [1, 0], "b": [1, 0, 0]}
    expected = np.mean([(1 + 0.25) / 2, (1 + 0.25 + 1 / 6) / 3])
    assert chance(labels, rankings=4000) == pytest.approx(float(expected), abs=0.02)
    assert chance(labels) == chance(dict(reversed(labels.items())))


def test_the_chance_level_of_steps_is_the_mean_over_all_orders():
    for labels in ([1, 0, 0, 1, 0], [1, 1, 1], [1], [0, 0]):
        orders = sorted(set(permutations(labels)))  # equally likely
        mean = np.mean([step_precision(order, list(range(len(labels)))) for order in orders])
        assert expected_step_precision(len(labels), sum(labels)) == pytest.approx(float(mean))


@real
@pytest.mark.parametrize(
    ("topic", "level"),
    [
        ("dog", 0.468),
        ("gymnastics", 0.606),
        ("parkour", 0.527),
        ("skating", 0.355),
        ("skiing", 0.609),
        ("surfing", 0.497),
    ],
)
def test_chance_on_the_real_annotations_is_what_others_measured(topic: str, level: float):
    folder = Path(os.environ["PAMFN_DATA_DIR"]) / "YouTubeHighlights"
    annotations, split = (json.loads((folder / f"{name}.json").read_text()) for name in ("youtube_anno", "umt_splits"))
    labels = {v: [m > 0 for m in annotations[v]["match"]] for v in split[topic]["val"] if v in annotations}
    assert chance(labels) == pytest.approx(level, abs=0.01)


def branches(**arguments: Any) -> dict[str, ModalityBranch]:
    sizes = {"d_model": 8, "hidden": 6, "per_segment": True, **arguments}
    return {m: ModalityBranch(width=width, **sizes) for m, width in WIDTHS.items()}


def network(name: str) -> Network:
    torch.manual_seed(0)
    two = {m: WIDTHS[m] for m in ("rgb", "audio")}
    built = {
        "branch": lambda: branches()["rgb"],
        "pamfn": lambda: PAMFN(branches=branches(), num_fusion_nets=3, finetune=None),
        "umt": lambda: UMT(widths=two, d_model=8, heads=2, feed_forward=8, positions=12, per_segment=True),
        "joint_va": lambda: JointVA(widths=two, d_model=8, hidden=6, attention=4, per_segment=True),
        "mini_net": lambda: MiniNet(widths=two, d_model=8, modules=2, narrow=4),
    }
    return built[name]().double()


NAMES = ("branch", "pamfn", "umt", "joint_va", "mini_net")


def features(name: str) -> dict[str, Tensor]:
    chosen = {"branch": ("rgb",), "pamfn": tuple(WIDTHS)}.get(name, ("rgb", "audio"))
    random = torch.Generator().manual_seed(1)
    return {m: torch.randn(3, 9, WIDTHS[m], generator=random, dtype=torch.float64) for m in chosen}


def without_chance(model: nn.Module) -> nn.Module:
    """The network with every dropout off."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_scores_the_same_alone_and_in_a_batch(name: str):
    model, x = network(name).eval(), features(name)
    together = model(x, LENGTHS).score
    assert together.shape == (3, 9)
    for i, length in enumerate(LENGTHS.tolist()):
        alone = model({m: y[i : i + 1, :length] for m, y in x.items()}).score
        torch.testing.assert_close(together[i : i + 1, :length], alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_what_padding_holds_plays_no_part_in_training(name: str):
    model, x = without_chance(network(name)).train(), features(name)
    if isinstance(model, PAMFN):
        model.samples_decisions = False  # no noise
    valid = torch.arange(9) < LENGTHS[:, None]
    other = {m: torch.where(valid[..., None], y, 100.0) for m, y in x.items()}
    one, two = (copy.deepcopy(model)(y, LENGTHS).score[valid] for y in (x, other))
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("name", ["branch", "pamfn"])
def test_packed_videos_train_as_padded_ones(name: str):
    model, x = without_chance(network(name)).train(), features(name)
    if isinstance(model, PAMFN):
        model.samples_decisions = False
    padded = copy.deepcopy(model)
    valid = torch.arange(9) < LENGTHS[:, None]
    if isinstance(padded, PAMFN):
        levels, masks = padded.branches(x, LENGTHS), padded.valid_levels(9, LENGTHS)
        expected = padded.fused(levels, masks, None).score
    else:
        assert isinstance(padded, ModalityBranch)
        expected = padded.scored(padded.maps(x["rgb"], LENGTHS)).score
    score = model(x, LENGTHS).score
    torch.testing.assert_close(score[valid], expected[valid])
    assert not score[~valid].any()
    for result in (score[valid].sum(), expected[valid].sum()):
        result.backward()
    for one, two in zip(model.parameters(), padded.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)
    for one, two in zip(model.buffers(), padded.buffers(), strict=True):
        torch.testing.assert_close(one, two)  # BatchNorm's statistics


def test_nothing_is_pooled():
    output = network("pamfn").eval()(features("pamfn"))
    assert [stage.mixed.shape for stage in output.stages] == [(3, 9, 24)] * 3
    assert output.stages[2].decision.shape == (3, 9)


def test_a_late_fusion_of_clips_is_refused():
    with pytest.raises(ValueError, match="scores whole videos"):
        LateFusion(branches=branches(), fusion="average")


@pytest.mark.parametrize(
    ("widths", "total"), [({"rgb": 512, "audio": 128}, 238_851), ({"rgb": 2048, "audio": 2048}, 681_219)]
)
def test_mini_net_is_as_large_as_its_authors(widths: dict[str, int], total: int):
    assert sum(p.numel() for p in MiniNet(widths=widths).parameters()) == total


def test_umt_on_clips_is_as_large_as_its_authors():
    model = UMT(widths={"rgb": 2048, "audio": 2048}, per_segment=True)
    assert sum(p.numel() for p in model.parameters()) == 12_191_233


def test_the_loss_of_a_batch_is_the_mean_over_its_videos():
    task = HighlightTask()
    logits, labels = torch.randn(3, 9), (torch.rand(3, 9) > 0.5).float()

    def loss(score: Tensor, target: Tensor, lengths: Tensor | None) -> Tensor:
        return task.loss(ScoreOutput(score), Batch({}, lengths, target, torch.arange(len(score))))

    alone = [loss(logits[i : i + 1, :t], labels[i : i + 1, :t], None) for i, t in enumerate(LENGTHS.tolist())]
    torch.testing.assert_close(loss(logits, labels, LENGTHS), torch.stack(alone).mean())


def test_bags_are_ranked_by_their_best_clips():
    model = network("mini_net")
    assert isinstance(model, BagNetwork)
    score = torch.tensor([[4.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    even = torch.zeros(2, 2, dtype=torch.float64)
    best = score.softmax(dim=1).amax(dim=1)
    loss = model.bag_loss(SimpleNamespace(score=score, bag=even), torch.tensor([1.0, 0.0]))
    assert float(loss) == pytest.approx(np.log(2) + 1 - float(best[0] - best[1]))


SMALL = (
    *("+experiment=youtube_dog", "logger=csv", "trainer.accelerator=cpu", "model.num_fusion_nets=3"),
    *("model.branch.d_model=8", "model.branch.hidden=8", "recipe.branch.epochs=2", "recipe.fusion.epochs=2"),
)
STREAMS = tuple(f"features.{m}.width={spec['width']}" for m, spec in FEATURES.items())


def trained(folder: Path, *words: str, small: Sequence[str] = SMALL) -> Run:
    write_clips(folder)
    places = (f"paths.data_dir={folder}", f"paths.output_dir={folder / 'runs'}")
    return run_job(checked(composed(*small, *STREAMS, *places, *words)))


def content(run: Run) -> dict[str, Any]:
    result = run.result()
    assert result is not None
    return result


@pytest.mark.parametrize(("recipe", "batch"), [("highlights", 1), ("highlights_batched", 8)])
def test_highlights_are_trained_by_the_papers_numbers(recipe: str, batch: int):
    """Section IV-G, and "others are the same": of the text's AQA, sections IV-B and IV-C."""
    stages = checked(composed("+experiment=youtube_dog", f"recipe={recipe}")).recipe
    for stage, head in ((stages.branch, 1.0), (stages.fusion, 0.1)):
        assert (stage.optimizer, stage.lr, stage.epochs, stage.batch_size) == ("adamw", 5e-4, 300, batch)
        assert (stage.schedule, stage.weight_decay, stage.clip, stage.head_lr_scale) == ("cosine", 1e-4, None, head)


@pytest.mark.parametrize("batch", ["recipe=highlights", "recipe=highlights_batched"])
def test_both_stages_leave_the_map_beside_chance_and_every_clips_score(tmp_path: Path, batch: str):
    run = trained(tmp_path, batch, "protocol=paper")
    metrics = content(run)["metrics"]
    assert set(metrics) == {"best_on_test", "last", "last10"}
    assert {"map", "map_step", "chance"} <= set(metrics["best_on_test"])
    lines = run.file("predictions.csv").read_text().splitlines()
    assert lines[0] == "weights,split,video,clips,highlights,map,map_step"
    of_videos = [line.split(",") for line in lines if line.startswith("selected,test")]
    assert np.mean([float(row[5]) for row in of_videos]) == pytest.approx(metrics["best_on_test"]["map"])
    clips = run.file("clips.csv").read_text().splitlines()
    assert clips[0] == "weights,split,video,start,end,unit,label,score,logit"
    assert len(clips) == 1 + 2 * (4 + 6)  # two sets of weights, two test videos
    assert clips[1].split(",")[2:6] == ["d5", "0", "4", "seconds"]  # 100 frames at 25 a second
    assert run.file("predictions.png").exists()


def test_held_out_videos_choose_the_epoch(tmp_path: Path):
    words = ("protocol.holdout=0.5", "recipe.branch.epochs=8", "recipe.branch.lr=0.1", "seed=1")
    run = trained(tmp_path, "modalities=[rgb]", *words)
    result, curves = content(run), curves_of(run)
    assert result["videos"] == {"train": 2, "holdout": 2, "test": 2}
    held_out = [row["holdout/map"] for row in curves]
    assert len(set(held_out)) > 1
    chosen = result["metrics"]["holdout"]
    assert chosen["epoch"] == held_out.index(max(held_out))
    assert chosen["holdout_map"] == pytest.approx(max(held_out))
    assert chosen["map"] == pytest.approx(curves[chosen["epoch"]]["test/map"])


def curves_of(run: Run) -> list[dict[str, float]]:
    with run.file("curves.csv").open(newline="") as lines:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]


def test_a_branch_never_learns_from_what_a_fusion_holds_out_nor_depends_on_which_came_first(tmp_path: Path):
    write_clips(tmp_path)
    file_of(tmp_path, "audio", "d1").unlink()
    words = ("protocol.holdout=0.2", "recipe.branch.epochs=1", "recipe.fusion.epochs=1")

    def job(output: str, *more: str) -> Run:
        places = (f"paths.data_dir={tmp_path}", f"paths.output_dir={tmp_path / output}")
        return run_job(checked(composed(*SMALL, *STREAMS, *words, *places, *more)))

    alone = job("one", "modalities=[rgb]")
    first, second = job("one"), job("two")
    branch = Run(tmp_path / "two" / "branch" / content(second)["branches"]["rgb"])
    assert branch.path.name == alone.path.name == content(first)["branches"]["rgb"]
    assert branch.file("clips.csv").read_bytes() == alone.file("clips.csv").read_bytes()
    assert content(branch)["videos"] == content(alone)["videos"] == {"train": 3, "holdout": 1, "test": 2}
    assert content(first)["metrics"] == content(second)["metrics"]
    lost = {"audio": {"train": {"count": 1, "videos": ["d1"]}}}
    assert content(second)["left_out"]["no_features"] == lost
    branch.write_result({**content(branch), "left_out": content(second)["left_out"]})  # trained on those of the fusion
    settings = checked(content(second)["config"])
    data = data_module(settings)
    data.setup()
    with pytest.raises(InputError, match=f"{branch.path.name} was trained on other videos"):
        find_or_train(settings, "branch", ["rgb"], data)


def test_a_video_of_one_clip_is_refused_before_training(tmp_path: Path):
    """BatchNorm cannot train on it, and a video a step is the paper's recipe."""
    write_clips(tmp_path)
    save(tmp_path, "flow", "d1", np.ones((1, FEATURES["flow"]["width"]), np.float32))  # labels are cut to it
    places = (f"paths.data_dir={tmp_path}", f"paths.output_dir={tmp_path / 'runs'}")
    with pytest.raises(InputError, match="1 videos are shorter than the 2 segments that the network needs: d1"):
        run_job(checked(composed(*SMALL, *STREAMS, *places, "protocol=paper")))


def test_a_diverged_training_says_so(tmp_path: Path):
    with pytest.raises(InputError, match="training diverged: the loss of epoch"):
        trained(tmp_path, "modalities=[rgb]", "protocol=paper", "recipe.branch.lr=1e30", "recipe.branch.epochs=5")


def test_what_is_left_out_is_in_the_result(tmp_path: Path):
    write_clips(tmp_path)
    split = tmp_path / "YouTubeHighlights" / "umt_splits.json"
    lists = json.loads(split.read_text())
    lists["dog"]["train"].append("unknown")
    places = (f"paths.data_dir={tmp_path}", f"paths.output_dir={tmp_path / 'runs'}")
    split.write_text(json.dumps(lists))
    run = run_job(checked(composed(*SMALL, *STREAMS, *places, "modalities=[rgb]", "protocol=paper")))
    assert content(run)["left_out"]["not_annotated"] == {"train": {"count": 1, "videos": ["unknown"]}}
    assert content(run)["labels"]["train"]["videos"] == content(run)["videos"]["train"] == 4


def test_clips_of_training_videos_are_learned_by_heart(tmp_path: Path):
    words = ("modalities=[rgb]", "protocol=paper", "recipe.branch.epochs=80", "recipe.branch.lr=1e-2")
    sizes = (
        "model.branch.d_model=32",
        "model.branch.hidden=32",
        "model.branch.dropout=0",
        "model.branch.head_dropout=0",
    )
    run = trained(tmp_path, *words, *sizes)
    losses = [row["train/loss"] for row in curves_of(run)]
    assert losses[-1] < 0.1 < losses[0]
    assert rescored(checked(content(run)["config"]), run.path, "train", "last")[0]["map"] > 0.95


@pytest.mark.parametrize("size", [1, 2, 16])
def test_every_clip_gets_its_own_logit(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch):
    """d5 and d6 are of different length, and of batches with both the shorter one is padded."""
    monkeypatch.setattr(VideoDataModule, "test_batch_size", size)
    small = ("+experiment=youtube_dog", "logger=csv", "trainer.accelerator=cpu", *SMALL[3:])
    run = trained(tmp_path, "modalities=[rgb]", "protocol=paper", small=small)
    config = checked(content(run)["config"])
    data, network = data_module(config), load_network(config, run.path).eval()
    data.setup()
    with run.file("clips.csv").open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["weights"] == "selected"]
    for video in ("d5", "d6"):
        x = torch.from_numpy(np.load(file_of(tmp_path, "rgb", video)))[None]
        written = [float(row["logit"]) for row in rows if row["video"] == video]
        expected = network({"rgb": x}).score[0]
        assert len({f"{logit:.4f}" for logit in written}) == len(written) == len(expected)
        torch.testing.assert_close(torch.tensor(written), expected.detach(), rtol=1e-4, atol=1e-5)
        assert [int(row["label"]) for row in rows if row["video"] == video] == [m > 0 for m in match(video)]


def test_clips_are_ranked_by_logits_where_their_probabilities_are_equal():
    """float32 has no probability between those of 17 and 18."""
    one = torch.tensor([0])
    points = torch.zeros(1)
    labels, features = torch.tensor([0.0, 0.0, 1.0]), {"rgb": torch.zeros(3, 1)}
    videos = Videos(["v"], features, one, one + 3, points, points, one, labels)
    metric = SplitMetrics(HighlightTask(names={"test": ["v"]}), "test")
    logits = torch.tensor([[17.0, 17.5, 18.0]])
    assert len(logits.sigmoid().unique()) == 1
    metric.update(videos.whole(one), logits, torch.zeros(1, 3))
    assert metric.compute()["map"] == 1
    assert len(set(HighlightTask().shown(np.array(metric.predictions().predicted)).tolist())) == 3


def test_scores_that_only_compare_the_clips_of_a_video_are_shown_between_its_lowest_and_highest():
    logits, shown = np.array([1.0, 3.0, 2.0]), HighlightTask(weak=True).shown
    for constant in (0, 1000):
        assert shown(logits + constant).tolist() == [0, 1, 0.5]
    assert shown(np.ones(2)).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("model", ["umt_clips", "joint_va_clips", "mini_net"])
def test_a_compared_method_finds_highlights(tmp_path: Path, model: str):
    small = ("+experiment=youtube_dog", f"model={model}", "logger=csv", "trainer.accelerator=cpu")
    run = trained(tmp_path, "recipe.baseline.epochs=2", "++recipe.baseline.drops=[]", "protocol=paper", small=small)
    result = content(run)
    assert result["kind"] == "baseline"
    first, last = (row["train/loss"] for row in curves_of(run))
    assert last != first
    with run.file("clips.csv").open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["weights"] == "last"]
    videos = [[(int(row["label"]), float(row["logit"])) for row in rows if row["video"] == v] for v in ("d5", "d6")]
    for name, rule in (("map", average_precision), ("map_step", step_precision)):
        mean = np.mean([rule(*zip(*video, strict=True)) for video in videos])
        assert result["metrics"]["last"][name] == pytest.approx(mean, abs=1e-9)


def test_a_rate_that_would_start_lowered_is_refused_before_data_is_read():
    words = ("data=youtube_dog", "model=mini_net", "protocol=paper", "paths.data_dir=nowhere")
    with pytest.raises(InputError, match=r"not all within 40 epochs.*recipe.baseline.drops=\[20\], or others"):
        run_job(checked(composed(*words, "recipe.baseline.epochs=40")))
    with pytest.raises(InputError, match=r"looked for .*/nowhere/"):
        run_job(checked(composed(*words, "recipe.baseline.epochs=40", "recipe.baseline.drops=[20]")))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["data=youtube_dog"], "model: scores whole videos, and youtube_dog wants its clips scored"),
        (["data=fisv_tes", "model=pamfn_clips"], "model: scores every segment, and fisv_tes has one score a video"),
        (["data=youtube_dog", "model=pamfn_clips", "+data.bags=60"], "data.bags: this model learns from clips"),
        (["data=youtube_dog", "model=mini_net", "data.bags=null"], "data.bags: this model learns from bags"),
        (
            ["data=youtube_dog", "model=umt_clips", "recipe.baseline.crop=9"],
            "recipe.baseline.crop: clips are not cropped",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(words: list[str], sentence: str):
    with pytest.raises(InputError, match=sentence):
        checked(composed(*words))


def test_a_chance_level_that_is_not_that_of_every_row_is_told_of():
    def answer(row: str, chance: float) -> Any:
        result = {"reported": "last", "metrics": {"last": {"chance": chance}}}
        return SimpleNamespace(job=SimpleNamespace(row=row, column="dog"), result=result)

    answers = [answer("full", 0.4), answer("full", 0.4), answer("rgb_only", 0.5)]
    (level,), notes = building.chance_levels(answers[:2], {"dog": "Dog"}, "map")
    assert (level.value, len(notes)) == (0.4, 1)
    (level,), (_, told) = building.chance_levels(answers, {"dog": "Dog"}, "map")
    assert level.value == 0.4
    assert told.endswith("the rows have different test videos, whose levels are 0.400 to 0.500.")


def test_predict_evaluate_and_the_table_read_a_highlight_run(tmp_path: Path, run_cli: RunCli):
    words = ("protocol=paper", "seed=0")
    run = trained(tmp_path, *words)
    predicted = run_cli(["predict", str(run.path), "d5", "--to", str(tmp_path / "drawn")])
    assert predicted.returncode == 0, predicted.stderr
    assert (tmp_path / "drawn" / "d5.png").exists()
    ignored = run_cli(["predict", str(run.path), "--json", "--no-pages"])
    assert ignored.stderr.startswith("error: --json, --no-pages: without effect here, since annotated videos")
    assert len((tmp_path / "drawn" / "scores_test.csv").read_text().splitlines()) == 1 + 4 + 6
    assert f"(chance {chance({'d5': [m > 0 for m in match('d5')]}):.3f})" in predicted.stdout
    of_train = run_cli(["predict", "--split", "train", str(run.path), "--to", str(tmp_path / "drawn"), "d1"])
    assert of_train.returncode == 0, of_train.stderr
    assert {file.name for file in (tmp_path / "drawn").glob("*.csv")} == {"scores_test.csv", "scores_train.csv"}
    dashed = run_cli(["predict", str(run.path), "--split", "test", "d5", "--", "-d9", "--x"])
    assert dashed.stderr == "error: -d9, --x: not in test of youtube_dog, which has d5, d6, ...\n"
    two = run_cli(["predict", str(run.path), str(run.path)])
    assert (two.returncode, two.stderr) == (1, "error: a run is named twice: every network of a mean counts once.\n")
    unknown = run_cli(["predict", str(run.path), "d9"])
    assert (unknown.returncode, unknown.stderr) == (1, "error: d9: not in test of youtube_dog, which has d5, d6, ...\n")
    evaluated = run_cli(["evaluate", str(run.path)])
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
    assert "map" in evaluated.stdout
    small = [word for word in SMALL if "experiment" not in word]
    sweep = [
        "highlight_detection",
        "+experiment=youtube_dog",
        "+ablation=full",
        "--no-wandb",
        "seed=0",
        *small,
        *STREAMS,
    ]
    table = run_cli(["tables", *sweep, f"paths.data_dir={tmp_path}", f"paths.output_dir={tmp_path / 'runs'}"])
    assert table.returncode == 0, table.stderr
    rows = [line for line in table.stdout.splitlines() if line.startswith("| PAMFN ") or "Random order" in line]
    assert f"{content(run)['metrics']['best_on_test']['map']:.3f}"[1:] in rows[0]
    assert "| RRAE" in table.stdout
    assert "| Random order" in table.stdout
    (protocols,) = protocol_tables.protocols([content(run)])
    assert protocols.frame["random order"].tolist() == [f"{content(run)['metrics']['last']['chance']:.3f}"[1:]]
    places = [f"paths.data_dir={tmp_path}", f"paths.output_dir={tmp_path / 'runs'}"]
    by_steps = building.table(sweep[0], *(w for w in sweep[1:] if w != "--no-wandb"), *places, metric="map_step")
    counts = [[m > 0 for m in match(video)] for video in ("d5", "d6")]
    expected = np.mean([expected_step_precision(len(labels), sum(labels)) for labels in counts])
    assert by_steps.cells["Random order", "Dog"].mean == pytest.approx(float(expected))
    run.file("selected.safetensors").unlink()  # as archived
    with pytest.raises(InputError, match="has no weights"):
        score_clips(run.path, [], "test", "selected", None, None)
