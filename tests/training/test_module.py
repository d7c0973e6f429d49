"""The LightningModules without the pipeline: plain DataLoaders, a plain Trainer, and what compiling changes."""

import copy
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pamfn.data.batches import Batch
from pamfn.models import PAMFN, ModalityBranch
from pamfn.models.baselines.gdlt import GDLT
from pamfn.models.baselines.mini_net import MiniNet
from pamfn.models.network import Network
from pamfn.training import BaselineTraining, HighlightTask, MixedModalityFusion, ScoreTask, UnimodalPretraining
from pamfn.training.callbacks import OwnSigterm
from pamfn.training.module import TrainingModule
from pamfn.training.tasks import Task

Example = tuple[int, dict[str, Tensor], Tensor]
"""A video's number, its features {modality: (t, c)}, and its score, or the labels (t,) of its clips."""


class Examples(Dataset[Example]):
    """The plainest map-style dataset."""

    def __init__(self, examples: list[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


WIDTHS = {"rgb": 5, "flow": 4}
SCORES = ScoreTask(max_score=30.0, score_range=20.0)
SMALL: dict[str, Any] = {"d_model": 8, "hidden": 8}
QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}

pytestmark = pytest.mark.filterwarnings("ignore:::lightning")


def examples(videos: int, modalities: list[str], *, labelled: bool = False, segments: int = 8) -> Examples:
    """Videos whose first feature gives their score away, or the labels of their clips."""
    random = torch.Generator().manual_seed(0)
    found = []
    for i in range(videos):
        features = {m: torch.randn(segments, WIDTHS[m], generator=random) for m in modalities}
        truth = (torch.rand(segments, generator=random) > 0.5).float() if labelled else torch.tensor((i + 1) / videos)
        for x in features.values():
            x[:, 0] = truth
        found.append((i, features, truth))
    return Examples(found)


def collate(rows: list[Example]) -> Batch:
    """What a DataLoader makes of some videos of equal length."""
    numbers, features, truth = zip(*rows, strict=True)
    stacked = {m: torch.stack([x[m] for x in features]) for m in features[0]}
    return Batch(stacked, None, torch.stack(truth), torch.tensor(numbers))


def branch(modality: str = "rgb", **settings: Any) -> ModalityBranch:
    return ModalityBranch(width=WIDTHS[modality], **SMALL, **settings)


def fused(**settings: Any) -> PAMFN:
    branches = {m: branch(m) for m in WIDTHS}
    return PAMFN(branches=branches, num_fusion_nets=3, decoding="mean", samples=2, **settings)


Case = tuple[type[TrainingModule], Network, list[str], Task]
CASES: dict[str, Any] = {
    "branch": (UnimodalPretraining, branch, ["rgb"], SCORES),
    "fusion": (MixedModalityFusion, fused, ["rgb", "flow"], SCORES),
    "baseline": (BaselineTraining, lambda: GDLT(widths={"rgb": 5}), ["rgb"], SCORES),
    "highlights": (UnimodalPretraining, lambda: branch(per_segment=True), ["rgb"], HighlightTask()),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    kind, network, modalities, task = CASES[request.param]
    return kind, network(), modalities, task


@pytest.fixture
def trainer(tmp_path: Path) -> L.Trainer:
    return L.Trainer(accelerator="cpu", max_epochs=2, default_root_dir=tmp_path, log_every_n_steps=1, **QUIET)


def test_a_module_needs_no_more_than_dataloaders(case: Case, trainer: L.Trainer):
    kind, network, modalities, task = case
    videos = examples(10, modalities, labelled=isinstance(task, HighlightTask))
    train = DataLoader(videos, batch_size=4, collate_fn=collate, shuffle=True, drop_last=True)
    test = DataLoader(videos, batch_size=3, collate_fn=collate)
    module = kind(network, task, epochs=2, lr=0.001)

    trainer.fit(module, train, test)
    validated = trainer.callback_metrics
    (tested,) = trainer.test(module, test, verbose=False)
    predicted: Any = trainer.predict(module, test)

    main = "map" if isinstance(task, HighlightTask) else "srcc"
    assert float(validated[f"val/{main}"]) == tested[f"test/{main}"] == pytest.approx(module.metrics[f"test/{main}"])
    whole = module.predictions["test"]
    assert [x for batch in predicted for x in batch.predicted] == whole.predicted
    assert [name for batch in predicted for name in batch.videos] == whole.videos == [str(i) for i in range(10)]
    if main == "srcc":
        assert module.metrics["test/srcc"] == spearmanr(whole.true, whole.predicted)[0]
        assert whole.true == pytest.approx([3.0 * (i + 1) for i in range(10)])


def test_a_checkpoint_holds_the_networks_weights_and_plain_numbers(case: Case, trainer: L.Trainer, tmp_path: Path):
    kind, network, modalities, task = case
    train = DataLoader(
        examples(4, modalities, labelled=isinstance(task, HighlightTask)), batch_size=4, collate_fn=collate
    )
    module = kind(network, task, epochs=2, drops=[1])
    trainer.fit(module, train)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    stored = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert list(stored["state_dict"]) == [f"network.{name}" for name in network.state_dict()]
    assert {type(x) for x in stored["hyper_parameters"].values()} <= {int, float, str, bool, list, tuple}
    other = kind.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True, network=fresh(network), task=task)
    assert all(torch.equal(x, other.network.state_dict()[name]) for name, x in network.state_dict().items())
    assert other.hparams == module.hparams


def fresh(network: Network) -> Network:
    """The same network with other weights."""
    other = copy.deepcopy(network)
    for p in other.parameters():
        p.data.zero_()
    return other


def test_only_branches_to_finetune_learn_and_the_head_has_its_own_rate():
    module = MixedModalityFusion(fused(finetune=["flow"]), SCORES, epochs=2, lr=0.1, head_lr_scale=0.5)
    body, head = module.configure_optimizers()["optimizer"].param_groups
    assert (body["lr"], head["lr"]) == (0.1, 0.05)
    names = {id(p): name for name, p in module.network.named_parameters()}
    learning = {names[id(p)] for p in body["params"]}
    assert {name.split(".")[1] for name in learning if name.startswith("branches.")} == {"flow"}
    assert {names[id(p)].split(".")[0] for p in head["params"]} == {"head"}


def test_a_method_that_learns_from_bags_is_trained_by_its_own_loss(monkeypatch: pytest.MonkeyPatch):
    network = MiniNet(widths=WIDTHS)
    monkeypatch.setattr(network, "bag_loss", lambda output, target: target.sum())
    module = BaselineTraining(network, HighlightTask(), epochs=1)
    assert module.loss(None, Batch({}, None, torch.tensor([1.0, 0.0, 2.0]), torch.arange(3))) == 3


def gradients(step: Any, network: Network) -> list[Tensor]:
    torch.manual_seed(1)
    step({"rgb": torch.randn(8, 12, 5)}, None).score.square().sum().backward()
    return [p.grad for p in network.parameters() if p.grad is not None]


@pytest.mark.slow
def test_a_compiled_step_is_the_same_step():
    """Gradients, BatchNorm statistics and the random numbers that come next; scores of videos are not compiled."""
    try:
        torch.compile(lambda x: x.exp() + 1)(torch.ones(2))
    except Exception as error:
        pytest.skip(f"torch.compile does not work on this machine: {error}")
    torch.manual_seed(0)
    plain = ModalityBranch(width=5, d_model=8, hidden=8, num_stages=1).train()
    other = copy.deepcopy(plain)
    compiled = UnimodalPretraining(other, SCORES, epochs=1, compiled=True).compiled
    found, left = gradients(compiled, other), torch.get_rng_state()
    for gradient, expected in zip(found, gradients(plain, plain), strict=True):
        torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(torch.get_rng_state(), left)
    for (name, buffer), expected in zip(other.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected, msg=lambda told, name=name: f"{name}: {told}")


def test_a_network_that_cannot_be_compiled_is_not_trained_without(monkeypatch: pytest.MonkeyPatch, trainer: L.Trainer):
    def refused(*_: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", lambda *a, **k: refused)
    module = UnimodalPretraining(branch(), SCORES, epochs=1, compiled=True)
    with pytest.raises(RuntimeError, match=r"no C\+\+ compiler"):
        trainer.fit(module, DataLoader(examples(4, ["rgb"]), batch_size=4, collate_fn=collate))


@pytest.mark.parametrize("what", ["test", "predict"])
@pytest.mark.parametrize("handler", [signal.SIG_DFL, lambda number, frame: None])
def test_sigterm_is_not_lightnings_while_a_split_is_scored(what: str, handler: Any, tmp_path: Path):
    """Lightning would let the scoring end as if all were well, or raise after a batch what nobody awaits."""
    before = signal.signal(signal.SIGTERM, handler)
    during = []
    network = branch()
    network.register_forward_hook(lambda *_: during.append(signal.getsignal(signal.SIGTERM)))
    loader = DataLoader(examples(4, ["rgb"]), batch_size=4, collate_fn=collate)
    module = UnimodalPretraining(network, SCORES, epochs=1)
    scoring = L.Trainer(accelerator="cpu", callbacks=[OwnSigterm()], default_root_dir=tmp_path, **QUIET)
    try:
        getattr(scoring, what)(module, loader)
    finally:
        assert signal.signal(signal.SIGTERM, before) is handler
    assert during == [handler]
