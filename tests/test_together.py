"""Several seeds in one training: the numbers of each alone."""

import logging
import shutil
from contextlib import contextmanager
from typing import Literal

import pytest
import torch

from composed import composed, small
from pamfn.config import checked
from pamfn.data.synthetic import write_synthetic
from pamfn.errors import InputError
from pamfn.models.branch import ModalityBranch
from pamfn.models.layers import SequenceConv
from pamfn.models.pamfn import PAMFN
from pamfn.models.several import SeveralNetworks
from pamfn.pipeline import conclude, run_job
from pamfn.store import Run
from pamfn.together import Together, run_jobs
from pamfn.train import main, refuse_both_seeds
from pamfn.training.callbacks import ResumePoint
from pamfn.training.regression import ScoreRegression

WIDTHS = {"rgb": 6, "flow": 5, "audio": 4}
SEEDS = [0, 1, 2]


class StoppedError(Exception):
    """Stands for whatever interrupts a training."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    write_synthetic(folder, train=24, test=10)
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path, data):
    """The data are there already, and nothing is drawn."""
    shutil.copytree(data, tmp_path / "data")
    monkeypatch.setattr("pamfn.data.synthetic.write_synthetic", lambda data_dir: None)
    for place in ("results.plot_curves", "predictions.plot_predictions"):
        monkeypatch.setattr(f"pamfn.{place}", lambda path, *a, **k: path.touch())


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def at_once(monkeypatch):
    """The networks run as one computation, as on a GPU."""
    monkeypatch.setattr("pamfn.together.runs_at_once", lambda trainer: True)


def network(seed: int, decoding: Literal["argmax", "sample", "mean"] = "mean") -> PAMFN:
    torch.manual_seed(seed)
    branches = {m: ModalityBranch(width=width, d_model=8, hidden=8) for m, width in WIDTHS.items()}
    fused = PAMFN(
        branches=branches, num_fusion_nets=4, decoding=decoding, samples=3, head_dropout=0.2, modality_dropout=0.3
    )
    for name, p in fused.named_parameters():  # away from zero, where rounding decides which units of a ReLU learn
        if name.startswith("stages.0.block.norm"):
            torch.nn.init.normal_(p)
    return fused


def features(videos: int, segments: int) -> dict[str, torch.Tensor]:
    return {m: torch.randn(videos, segments, width) for m, width in WIDTHS.items()}


def test_networks_side_by_side_learn_what_each_would_learn_alone(double):
    """In double precision; dropout, missing modalities, Gumbel noise, BatchNorm statistics are each network's own."""
    alone = [network(seed) for seed in SEEDS]
    several = SeveralNetworks(alone)
    videos, targets = [features(6, 21) for _ in SEEDS], torch.rand(len(SEEDS), 6)
    generators = [torch.Generator().manual_seed(100 + seed) for seed in SEEDS]
    scores = several("forward", [(x, None) for x in videos], generators)
    torch.stack([(s - t).square().mean() for s, t in zip(scores, targets, strict=True)]).sum().backward()
    for i, one in enumerate(alone):
        torch.manual_seed(100 + i)
        score = one(videos[i]).score
        (score - targets[i]).square().mean().backward()
        torch.testing.assert_close(scores[i], score, atol=1e-12, rtol=0)
        for together, p in zip(several.stacked, one.parameters(), strict=True):
            expected = torch.zeros_like(p) if p.grad is None else p.grad
            found = torch.zeros_like(p) if together.grad is None else together.grad[i]
            torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-8)
        state = several.state_of(i)
        assert list(state) == list(one.state_dict())
        for name, expected in one.state_dict().items():
            torch.testing.assert_close(state[name], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("decoding", ["argmax", "sample", "mean"])
@torch.no_grad()
def test_padded_videos_are_scored_as_by_each_alone(decoding, double):
    alone = [network(seed, decoding).eval() for seed in SEEDS]
    several = SeveralNetworks(alone).eval()
    lengths = torch.tensor([21, 12, 9, 8])
    given = [(features(4, 21), lengths, one.test_noise([i, 5, 7, 9], 21)) for i, one in enumerate(alone)]
    for one, inputs, said in zip(alone, given, several("decide", given), strict=True):
        for found, expected in zip(said, one.decide(*inputs), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_every_network_trains_in_its_own_mode():
    frozen = SeveralNetworks([network(0)]).train()
    frozen("forward", [(features(4, 12), None)], [torch.Generator()])
    statistics = {name: x for name, x in frozen.state_of(0).items() if name.endswith("norm1.running_mean")}
    assert all((x == 0).all() for name, x in statistics.items() if "branches.rgb" in name)
    assert any((x != 0).any() for name, x in statistics.items() if "branches.audio" in name)


def numbers(run: Run) -> list[float]:
    rows = run.file("predictions.csv").read_text().splitlines()[1:]
    return [float(value) for row in rows for value in row.split(",")[3:]]


@pytest.mark.parametrize(
    "settings",
    [
        ("recipe=official",),
        # sizes that vector registers do not divide, AdamW, kept maps, clipped gradients
        ("recipe=paper", "modalities=[flow,rgb]", "recipe.branch.epochs=1", "recipe.fusion.clip=0.05"),
    ],
    ids=["official", "paper"],
)
def test_a_training_of_several_seeds_leaves_the_runs_of_each(tmp_path, settings):
    other = f"paths.output_dir={tmp_path / 'alone'}"
    alone = [run_job(small(tmp_path, *settings, f"seed={seed}", other)) for seed in SEEDS]
    runs = run_jobs(small(tmp_path, *settings, "seeds=[0,1,2]"))
    assert [run.path.name for run in runs] == [run.path.name for run in alone]
    for seed, run, one in zip(SEEDS, runs, alone, strict=True):
        assert {p.name for p in run.path.iterdir()} == {p.name for p in one.path.iterdir()}
        assert run.file("predictions.csv").read_text() == one.file("predictions.csv").read_text()
        result, expected = run.finished(), one.finished()
        assert result["together"] == SEEDS
        assert result["config"]["seed"] == seed
        assert result["branches"] == expected["branches"]
        assert result["metrics"] == expected["metrics"]
    assert not list((tmp_path / "runs").glob("together/*"))


@pytest.mark.parametrize("protocol", ["holdout", "paper"])
def test_branches_trained_at_once_agree_with_those_trained_alone(tmp_path, monkeypatch, protocol):
    """In float32 after three epochs, to a thousandth of a point of 25."""
    settings, other = ("modalities=[flow]", f"protocol={protocol}"), f"paths.output_dir={tmp_path / 'alone'}"
    alone = [run_job(small(tmp_path, *settings, f"seed={seed}", other)) for seed in SEEDS]
    monkeypatch.setattr("pamfn.together.runs_at_once", lambda trainer: True)
    for run, one in zip(run_jobs(small(tmp_path, *settings, "seeds=[0,1,2]")), alone, strict=True):
        assert numbers(run) == pytest.approx(numbers(one), abs=1e-3)


@pytest.mark.parametrize("setting", ["model.policy=unranked", "recipe=paper", "trainer.precision=bf16-mixed"])
@pytest.mark.usefixtures("at_once")
def test_both_stages_of_a_variant_train_at_once(tmp_path, setting, caplog):
    caplog.set_level(logging.INFO)
    words = (setting, "seeds=[0,1]", "recipe.branch.epochs=1", "recipe.fusion.epochs=2")
    runs = run_jobs(small(tmp_path, *words))
    assert len({run.finished()["metrics"]["last"]["mae"] for run in runs}) == 2
    assert ("keep_maps_gib is not read" in caplog.text) == (setting == "recipe=paper")


def test_autocast_reaches_convolutions_under_vmap():
    alone = [SequenceConv(6, 4, groups=2) for _ in SEEDS]
    stacked, _ = torch.func.stack_module_state([*alone])
    x = torch.randn(len(SEEDS), 5, 9, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.func.vmap(lambda own, x: torch.func.functional_call(alone[0], own, (x,)))(stacked, x)
        expected = torch.stack([one(own) for one, own in zip(alone, x, strict=True)])
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)


@contextmanager
def stopping(monkeypatch, folder: str = ""):
    """Inside, a training is interrupted after its first epoch, which is saved; `folder`: part of its folder's name."""
    real = ResumePoint.on_train_epoch_end

    def stop_after_one(self, trainer, module):
        real(self, trainer, module)
        if trainer.current_epoch == 0 and folder in self.run.path.name:
            raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(ResumePoint, "on_train_epoch_end", stop_after_one)
        with pytest.raises(StoppedError):
            yield


SAVED = ("modalities=[flow]", "resume_seconds=0")
"""A branch alone, saved after every epoch."""


def test_what_some_seeds_have_finished_or_begun_alone_is_left_to_them(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    done = run_job(small(tmp_path, *SAVED, "seed=0"))
    before = done.file("predictions.csv").stat().st_mtime_ns
    with stopping(monkeypatch):
        run_job(small(tmp_path, *SAVED, "seed=1"))
    runs = run_jobs(small(tmp_path, *SAVED, "seeds=[0,1,2,3]"))
    assert [run.finished()["together"] for run in runs] == [None, None, [2, 3], [2, 3]]
    assert "seed 1: going on from" in caplog.text
    assert done.file("predictions.csv").stat().st_mtime_ns == before
    monkeypatch.setattr("pamfn.together.fit_together", lambda *a: pytest.fail("trained again"))
    assert run_jobs(small(tmp_path, *SAVED, "seeds=[3,2]"))[0].path == runs[3].path


def test_an_interrupted_training_of_several_goes_on_to_the_same_numbers(tmp_path, monkeypatch):
    straight = [numbers(run) for run in run_jobs(small(tmp_path, "seeds=[0,1]"))]
    shutil.rmtree(tmp_path / "runs")
    with stopping(monkeypatch, "fusion-"):
        run_jobs(small(tmp_path, "seeds=[0,1]", "resume_seconds=0"))
    assert len(list((tmp_path / "runs").glob("together/fusion-*/resume.ckpt"))) == 1
    assert [numbers(run) for run in run_jobs(small(tmp_path, "seeds=[1,0]"))] == straight[::-1]


def test_seeds_that_are_scored_when_a_training_is_interrupted_are_not_trained_anew(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    # weights are written after every epoch, also by one that is repeated
    monkeypatch.setattr("pamfn.training.callbacks.best_epoch", lambda curves, split: len(curves) - 1)
    straight = [numbers(run) for run in run_jobs(small(tmp_path, *SAVED, "seeds=[0,1,2]"))]
    shutil.rmtree(tmp_path / "runs")
    scored = []

    def conclude_one(run, *rest):
        if scored:
            raise StoppedError
        scored.append(run)
        conclude(run, *rest)

    with monkeypatch.context() as patched:
        patched.setattr("pamfn.together.conclude", conclude_one)
        with pytest.raises(StoppedError):
            run_jobs(small(tmp_path, *SAVED, "seeds=[0,1,2]"))
    before = {path.name: path.stat().st_mtime_ns for path in scored[0].path.iterdir() if path.name != ".lock"}
    runs = run_jobs(small(tmp_path, *SAVED, "seeds=[0,1,2]"))
    assert "seeds 0 1 2: going on from" in caplog.text
    assert [numbers(run) for run in runs] == straight
    assert [run.finished()["together"] for run in runs] == [SEEDS] * 3
    assert {name: scored[0].file(name).stat().st_mtime_ns for name in before} == before
    assert not list((tmp_path / "runs").glob("together/*"))


def test_an_interrupted_training_of_other_seeds_is_told_of(tmp_path, monkeypatch, caplog):
    with stopping(monkeypatch):
        run_jobs(small(tmp_path, *SAVED, "seeds=[0,1]"))
    with stopping(monkeypatch):
        run_jobs(small(tmp_path, *SAVED, "seeds=[1,2]"))
    (told,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert told.startswith("seed 1: trained from the start")
    assert told.endswith("seeds=[0,1]")
    run_jobs(small(tmp_path, *SAVED, "seeds=[0,1]"))
    assert len(list((tmp_path / "runs").glob("together/*"))) == 1
    run_jobs(small(tmp_path, *SAVED, "seeds=[1,2]"))
    assert not list((tmp_path / "runs").glob("together/*"))


def test_a_seed_that_diverges_is_named(tmp_path, monkeypatch):
    real = ScoreRegression.loss

    def diverging(self, output, batch):
        return real(self, output, batch) * (float("nan") if self.seed == 1 else 1)

    monkeypatch.setattr(ScoreRegression, "loss", diverging)
    with pytest.raises(InputError, match=r"epoch 1 is nan with seed 1\..* train the others without: seeds=\[0,2\]\."):
        run_jobs(small(tmp_path, *SAVED, "seeds=[0,1,2]"))
    assert not list((tmp_path / "runs").glob("together/*"))


@pytest.mark.parametrize("words", [["seeds=[0,1]", "seed=5"], ["-m", "+table=stage_counts", "seed=5", "++seeds=[0]"]])
def test_seed_and_seeds_are_not_both_taken(words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train", *words])
    with pytest.raises(SystemExit):
        main()
    assert "choose one of them" in capsys.readouterr().err
    refuse_both_seeds(["seeds=null", "seed=5"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["seeds=[1,1]"], "seeds: each once, not [1, 1]"),
        (["seeds=[]"], "seeds: at least one"),
        (["seeds=[0,1]", "protocol.refit=true"], "Sweep them instead: -m seed=0,1."),
        (["seeds=[0,1]", "model=gdlt", "modalities=[rgb]"], "compared methods are trained one by one"),
    ],
)
def test_what_seeds_cannot_share_is_refused(tmp_path, words, sentence):
    with pytest.raises(InputError, match=sentence.replace("[", r"\[")):
        checked(composed("data=synthetic", *words))


def test_a_group_is_at_least_two(tmp_path):
    (run,) = Together([small(tmp_path, "seed=0", "modalities=[rgb]")]).run()
    assert run.finished()["together"] is None
