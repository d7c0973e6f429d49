"""The authors' weights come in whole: the same scores, every name used, and a sentence about what does not fit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks.reference import ReferencePAMFN
from pamfn.errors import InputError
from pamfn.models import PAMFN, ModalityBranch
from pamfn.models.released_weights import UNUSED, Imported, from_authors

WIDTHS = {"rgb": 6, "flow": 5, "audio": 4}


def authors(seed: int = 0, **numbers: Any) -> ReferencePAMFN:
    """The authors' network with weights and BatchNorm statistics that a wrong order of layers would show."""
    torch.manual_seed(seed)
    numbers = {"d_model": 4, "hidden": 8, "num_fusion_nets": 3} | numbers
    network = ReferencePAMFN(widths=WIDTHS, **numbers)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif value.is_floating_point() and value.ndim == 1 and name != "c":
            value.normal_()
    return network.eval()


def branch(**numbers: Any) -> nn.Module:
    return authors(**numbers).get_submodule("model_r")


STATE = authors().state_dict()


def sentence(state: dict[str, Tensor]) -> str:
    with pytest.raises(InputError) as raised:
        from_authors(state)
    return str(raised.value)


@torch.no_grad()
def test_an_imported_branch_gives_the_authors_score_and_maps():
    theirs, x = branch(), torch.randn(3, 9, 6)
    imported = from_authors(theirs.state_dict())
    assert imported.is_branch
    assert imported.settings == {"width": 6, "d_model": 4, "hidden": 8, "num_stages": 3}
    ours = imported.network().eval()
    assert isinstance(ours, ModalityBranch)
    score, maps = theirs(x)
    torch.testing.assert_close(ours(x).score, score)
    for found, expected in zip(ours(x).maps, maps, strict=True):
        torch.testing.assert_close(found, expected.transpose(1, 2))


@settings(deadline=None, max_examples=6)
@given(
    k=st.integers(1, 4), d=st.sampled_from([4, 8]), r=st.sampled_from([1, 2]), heads=st.sampled_from([(1, 1), (2, 4)])
)
@torch.no_grad()
def test_an_imported_network_gives_the_authors_score(k: int, d: int, r: int, heads: tuple[int, int]):
    chosen = {"msfd_heads": heads[0], "cmfd_heads": heads[1]}
    theirs = authors(k, num_fusion_nets=k, d_model=d, head_reduction=r, **chosen)
    imported = from_authors(theirs.state_dict())
    assert (imported.settings["num_fusion_nets"], imported.settings["head_reduction"]) == (k, r)
    ours = imported.network(**chosen).eval()
    features = {name: torch.randn(2, 9, width) for name, width in WIDTHS.items()}
    noise = [torch.randn(2, k, t) for t in (4, 2, 1)]
    found = ours(features, noise=[x.transpose(1, 2) for x in noise])
    torch.testing.assert_close(found.score, theirs(features, noise), atol=1e-5, rtol=0)


def test_an_imported_network_reads_the_text_as_the_released_code_does_unless_told_otherwise():
    imported = from_authors(STATE)
    released, other = imported.network(), imported.network(frozen="eval", double_negation=False)
    assert isinstance(released, PAMFN)
    assert isinstance(other, PAMFN)
    assert (released.branches.frozen, other.branches.frozen) == ("train", "eval")
    assert not released.positive_temperature
    assert [n.stages[0].get_submodule("cmfd").double_negation for n in (released, other)] == [True, False]


def test_what_is_imported_is_a_copy():
    state = {name: value.clone() for name, value in STATE.items()}
    imported = from_authors(state)
    before = {name: value.clone() for name, value in imported.state.items()}
    for value in state.values():
        value.zero_()
    assert all(torch.equal(before[name], value) for name, value in imported.state.items())


def test_what_is_written_is_read_back(tmp_path: Path):
    for imported in (from_authors(STATE), from_authors(branch().state_dict())):
        imported.write(tmp_path / "new folder" / "a.safetensors")
        read = Imported.read(tmp_path / "new folder" / "a.safetensors")
        assert read.settings == imported.settings
        assert read.state.keys() == imported.state.keys()
        assert all(torch.equal(value, imported.state[name]) for name, value in read.state.items())
        assert [p.name for p in (tmp_path / "new folder").iterdir()] == ["a.safetensors"]


def test_tensors_that_the_authors_network_never_uses_need_not_be_there():
    assert from_authors({k: v for k, v in STATE.items() if not UNUSED.fullmatch(k)}).state.keys() == (
        from_authors(STATE).state.keys()
    )
    assert sum(UNUSED.fullmatch(name) is not None for name in STATE) == 13


@settings(deadline=None, max_examples=25)
@given(name=st.sampled_from([name for name in STATE if not UNUSED.fullmatch(name)]))
def test_a_missing_weight_is_named(name: str):
    assert name in sentence({k: v for k, v in STATE.items() if k != name})


@settings(deadline=None, max_examples=25)
@given(name=st.sampled_from([name for name in STATE if not UNUSED.fullmatch(name)]))
def test_a_weight_of_another_shape_is_refused(name: str):
    said = sentence(STATE | {name: torch.zeros(3, 7)})
    assert name in said
    assert "shape" in said


def test_an_unknown_weight_is_named_and_so_are_all_other_problems():
    state = {k: v for k, v in STATE.items() if k != "tau"} | {
        "stage9.conv.0.weight": torch.zeros(1),
        "model_r.fc.1.bias": torch.zeros(2),
    }
    said = sentence(state)
    assert "unknown: stage9.conv.0.weight." in said
    assert "missing: tau." in said
    assert "model_r.fc.1.bias has shape (2,): expected (1,)" in said


def test_many_unknown_weights_are_counted():
    assert "and 12 more" in sentence(STATE | {f"extra.{i}": torch.zeros(1) for i in range(20)})


def test_branches_that_cannot_belong_together_are_refused():
    other = branch(d_model=8).state_dict()
    assert "differ" in sentence(STATE | {f"model_r.{name}": value for name, value in other.items()})


@pytest.mark.parametrize("state", [{}, {"weight": torch.zeros(2)}, {"embedding.x": torch.zeros(2)}])
def test_other_networks_are_refused(state: dict[str, Tensor]):
    assert sentence(state)
