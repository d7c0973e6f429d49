"""Several seeds in one training: the numbers of each alone."""

import shutil
from typing import Literal

import pytest
import torch

from composed import composed, small
from pamfn.config import checked
from pamfn.data.synthetic import write_synthetic
from pamfn.errors import InputError
from pamfn.models.branch import ModalityBranch
from pamfn.models.pamfn import PAMFN
from pamfn.models.several import SeveralNetworks
from pamfn.pipeline import run_job
from pamfn.store import Run
from pamfn.together import Together, run_jobs
from pamfn.training.callbacks import ResumePoint

WIDTHS = {"rgb": 6, "flow": 5, "audio": 4}
SEEDS = [0, 1, 2]
ON_A_GPU = pytest.mark.parametrize("as_one", [False, True], ids=["in turn", "at once"])


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


@ON_A_GPU
def test_networks_side_by_side_learn_what_each_would_learn_alone(as_one, double, monkeypatch):
    """In double precision; dropout, missing modalities, Gumbel noise, BatchNorm statistics are each network's own."""
    monkeypatch.setattr(SeveralNetworks, "as_one", as_one)
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


@ON_A_GPU
@pytest.mark.parametrize("decoding", ["argmax", "sample", "mean"])
@torch.no_grad()
def test_padded_videos_are_scored_as_by_each_alone(as_one, decoding, double, monkeypatch):
    monkeypatch.setattr(SeveralNetworks, "as_one", as_one)
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


def test_a_training_of_several_seeds_leaves_the_runs_of_each(tmp_path):
    settings, other = ("recipe=official",), f"paths.output_dir={tmp_path / 'alone'}"
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
    monkeypatch.setattr(SeveralNetworks, "as_one", True)
    for run, one in zip(run_jobs(small(tmp_path, *settings, "seeds=[0,1,2]")), alone, strict=True):
        assert numbers(run) == pytest.approx(numbers(one), abs=1e-3)


def test_both_stages_of_a_variant_train_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(SeveralNetworks, "as_one", True)
    words = ("seeds=[0,1]", "model.policy=unranked", "recipe.branch.epochs=1", "recipe.fusion.epochs=2")
    runs = run_jobs(small(tmp_path, *words))
    assert len({run.finished()["metrics"]["last"]["mae"] for run in runs}) == 2


def test_what_some_seeds_have_finished_or_begun_alone_is_left_to_them(tmp_path, monkeypatch):
    branch = "modalities=[flow]"
    done = run_job(small(tmp_path, branch, "seed=0"))
    before = done.file("predictions.csv").stat().st_mtime_ns
    runs = run_jobs(small(tmp_path, branch, "seeds=[0,1,2]"))
    assert [run.finished()["together"] for run in runs] == [None, [1, 2], [1, 2]]
    assert done.file("predictions.csv").stat().st_mtime_ns == before
    monkeypatch.setattr("pamfn.together.fit_together", lambda *a: pytest.fail("trained again"))
    assert run_jobs(small(tmp_path, branch, "seeds=[2,1]"))[0].path == runs[2].path


def test_an_interrupted_training_of_several_goes_on_to_the_same_numbers(tmp_path, monkeypatch):
    straight = [numbers(run) for run in run_jobs(small(tmp_path, "seeds=[0,1]"))]
    shutil.rmtree(tmp_path / "runs")

    class StoppedError(Exception):
        pass

    real = ResumePoint.on_train_epoch_end

    def stop_after_one(self, trainer, module):
        real(self, trainer, module)
        if trainer.current_epoch == 0 and "fusion-" in self.run.path.name:
            raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(ResumePoint, "on_train_epoch_end", stop_after_one)
        with pytest.raises(StoppedError):
            run_jobs(small(tmp_path, "seeds=[0,1]", "resume_seconds=0"))
    assert len(list((tmp_path / "runs").glob("together/fusion-*/resume.ckpt"))) == 1
    assert [numbers(run) for run in run_jobs(small(tmp_path, "seeds=[0,1]"))] == straight


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["seeds=[1,1]"], "seeds: some different ones"),
        (["seeds=[]"], "seeds: some different ones"),
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
