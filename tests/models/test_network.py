"""The contract of networks: every one of the package keeps it, and one of a user's own needs no more than it says."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import pamfn.models
from composed import composed
from pamfn.config.validation import checked
from pamfn.errors import InputError
from pamfn.models import PAMFN, LateFusion, ModalityBranch, Network
from pamfn.models.average import AverageNetwork
from pamfn.models.baselines import GDLT, MSAF, MSLSTM, UMT, ActionNet, JointVA, MiniNet, PooledSVR
from pamfn.pipeline.two_stage import run_job

ONE, TWO = {"rgb": 6}, {"rgb": 6, "audio": 4}


def branches(**chosen: Any) -> dict[str, ModalityBranch]:
    return {m: ModalityBranch(width=width, d_model=8, hidden=6, **chosen) for m, width in TWO.items()}


def average(networks: Mapping[str, Network]) -> AverageNetwork:
    return AverageNetwork([*networks.values()], [[m] for m in networks], [1.0, 0.5], [0.0, 0.1])


class Case(NamedTuple):
    """How a network is built, what it reads, the shortest video that it takes, whether it scores segments."""

    build: Callable[[], Network]
    widths: Mapping[str, int]
    shortest: int
    per_segment: bool = False


CASES = {
    "branch": Case(lambda: branches()["rgb"], ONE, 4),
    "branch of two stages": Case(lambda: branches(num_stages=2)["rgb"], ONE, 2),
    "branch of clips": Case(lambda: branches(per_segment=True)["rgb"], ONE, 2, True),
    "pamfn": Case(lambda: PAMFN(branches=branches(), num_fusion_nets=2), TWO, 4),
    "pamfn, sampling": Case(lambda: PAMFN(branches=branches(), num_fusion_nets=2, decoding="mean"), TWO, 4),
    "pamfn of clips": Case(lambda: PAMFN(branches=branches(per_segment=True), num_fusion_nets=2), TWO, 2, True),
    "late fusion": Case(lambda: LateFusion(branches=branches(num_stages=2), fusion="average"), TWO, 2),
    "average": Case(lambda: average(branches()), TWO, 4),
    "average of clips": Case(lambda: average(branches(per_segment=True)), TWO, 2, True),
    "gdlt": Case(lambda: GDLT(widths=ONE, d_model=8, hidden=6, feed_forward=8), ONE, 1),
    "action_net": Case(lambda: ActionNet(widths=TWO, d_model=8, hidden=6, head_hidden=5), TWO, 1),
    "ms_lstm": Case(lambda: MSLSTM(widths=ONE, embedding=7, hidden=8), ONE, 8),
    "ms_lstm, random": Case(lambda: MSLSTM(widths=ONE, embedding=7, hidden=8, random_start=True), ONE, 8),
    "joint_va": Case(lambda: JointVA(widths=TWO, d_model=8, hidden=6), TWO, 1),
    "joint_va of clips": Case(lambda: JointVA(widths=TWO, d_model=8, hidden=6, per_segment=True), TWO, 1, True),
    "msaf": Case(lambda: MSAF(widths=TWO, d_model=8, hidden=6, block=4), TWO, 4),
    "umt": Case(lambda: UMT(widths=TWO, d_model=8, feed_forward=8), TWO, 1),
    "mini_net": Case(lambda: MiniNet(widths=TWO, d_model=8, modules=2, narrow=4), TWO, 1, True),
    "svr": Case(lambda: PooledSVR(widths=TWO), TWO, 1),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    return CASES[request.param]


def videos(case: Case, segments: int, count: int = 2) -> dict[str, Tensor]:
    return {m: torch.randn(count, segments, width) for m, width in case.widths.items()}


@torch.no_grad()
def test_a_network_keeps_the_contract(case: Case):
    network, x = case.build().eval(), videos(case, 10)
    assert (network.min_segments, network.per_segment) == (case.shortest, case.per_segment)
    output = network(x)
    assert output.score.shape == ((2, 10) if case.per_segment else (2,))
    added = network.added_loss(output)
    assert added is None or (added.shape == () and bool(added.isfinite()))
    head, own = network.head_parameters(), list(network.parameters())
    assert {id(p) for p in head} <= {id(p) for p in own}
    draws = network.draws([3, 5], 10)
    assert draws is None or {len(drawn) for drawn in draws} == {2}
    for drawn in (None, draws):
        score, spread = network.predict_scores(x, None, drawn)
        assert score.shape == spread.shape == output.score.shape
        assert bool((spread >= 0).all())
    assert all(isinstance(value, float) for value in network.chosen().values())


@torch.no_grad()
def test_a_test_score_for_which_nothing_is_drawn_is_that_of_the_forward_pass(case: Case):
    network, x, lengths = case.build().eval(), videos(case, 10), torch.tensor([10, 9])
    if network.draws([3, 5], 10) is None:
        score, spread = network.predict_scores(x, lengths)
        assert torch.equal(score, network(x, lengths).score)
        assert not spread.any()


def test_a_network_takes_a_video_of_its_least_length_alone_and_in_training(case: Case):
    network = case.build()
    with torch.no_grad():
        assert network.eval()(videos(case, case.shortest, count=1)).score.isfinite().all()
    assert network.train()(videos(case, case.shortest)).score.isfinite().all()


def test_every_network_of_the_package_is_held_to_the_contract():
    for module in pkgutil.walk_packages(pamfn.models.__path__, "pamfn.models."):
        importlib.import_module(module.name)
    kinds, built = [Network], {type(case.build()) for case in CASES.values()}
    for kind in kinds:
        kinds += kind.__subclasses__()
    of_package = {kind for kind in kinds if kind.__module__.startswith("pamfn.") and not inspect.isabstract(kind)}
    assert of_package == built


def test_a_network_of_ones_own_needs_a_forward_pass_and_nothing_else(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    places = (f"paths.data_dir={tiny_data}", f"paths.output_dir={tmp_path / 'runs'}", "trainer.accelerator=cpu")
    words = ("+experiment=fisv_tes", "model=gdlt", "recipe.baseline.epochs=1", "features.rgb.width=6", "logger=csv")
    chosen = composed(*words, *places)
    chosen.model = {"_target_": "own.First"}
    chosen.recipe.baseline.crop = 4
    with pytest.raises(InputError, match=r"recipe\.baseline\.crop: the network needs 5 segments or more, not 4\."):
        run_job(checked(chosen))
    chosen.recipe.baseline.crop = 5
    result = run_job(checked(chosen)).result()
    assert result is not None
    assert (result["kind"], result["parameters"]["total"], result["chosen"]) == ("baseline", 7, {})


OWN = """
from typing import NamedTuple
from torch import Tensor, nn
from pamfn.models import Network


class Output(NamedTuple):
    score: Tensor


class First(Network):
    min_segments = 5

    def __init__(self, *, widths):
        super().__init__()
        self.head = nn.Linear(sum(widths.values()), 1)

    def forward(self, features, lengths=None):
        (x,) = features.values()
        return Output(self.head(x[:, 0]).flatten())
"""


def test_a_network_without_a_forward_pass_cannot_be_built():
    class Silent(Network):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(1, 1)

    with pytest.raises(TypeError, match="forward"):
        Silent()  # pyright: ignore[reportAbstractUsage]
