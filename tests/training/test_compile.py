"""Training steps through torch.compile."""

import copy
import logging
from typing import Any

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd

from pamfn.models.branch import ModalityBranch
from pamfn.training.compiled import Compiled


@pytest.fixture
def compiler() -> None:
    """Skips the test where torch.compile works for nothing at all."""
    try:
        torch.compile(lambda x: x.exp() + 1)(torch.ones(2))
    except Exception as error:
        pytest.skip(f"torch.compile does not work on this machine: {error}")


def gradients(call, network: ModalityBranch) -> list[torch.Tensor]:
    torch.manual_seed(1)
    call({"rgb": torch.randn(8, 12, 5)}, None).score.square().sum().backward()
    return [p.grad for p in network.parameters() if p.grad is not None]


def the_same_steps(one: Any, plain: ModalityBranch, other: ModalityBranch) -> None:
    """Gradients, BatchNorm statistics and the random numbers that come next, after a step of each."""
    found, left = gradients(one, other), torch.get_rng_state()
    for gradient, expected in zip(found, gradients(plain, plain), strict=True):
        torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(torch.get_rng_state(), left)
    for (name, buffer), expected in zip(other.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected, msg=lambda told, name=name: f"{name}: {told}")


@pytest.mark.usefixtures("compiler")
def test_a_compiled_step_is_the_same_step():
    torch.manual_seed(0)
    plain = ModalityBranch(width=5, d_model=8, hidden=8, num_stages=1).train()
    other = copy.deepcopy(plain)
    compiled = Compiled(other)
    the_same_steps(compiled, plain, other)
    assert compiled.call is not other, "the network itself went on"


def test_what_cannot_be_compiled_goes_on_without(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def refused(*_):
        raise RuntimeError("no C++ compiler\nand a long story")

    torch.manual_seed(0)
    network = ModalityBranch(width=5, d_model=8, hidden=8).train()
    monkeypatch.setattr(torch, "compile", lambda *a, **k: refused)
    compiled = Compiled(network)
    with caplog.at_level(logging.WARNING):
        assert gradients(compiled, network)
        assert gradients(compiled, network)
    assert [r.message for r in caplog.records] == ["compile: RuntimeError: no C++ compiler. Going on without."]


def test_a_backward_pass_that_cannot_be_compiled_goes_on_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refused(*_):
        raise RuntimeError("no gradient of this")

    backend = aot_autograd(fw_compiler=lambda graph, _: graph, bw_compiler=refused)
    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **_: compile_with(network, backend=backend, dynamic=False))
    torch.manual_seed(0)
    plain = ModalityBranch(width=5, d_model=8, hidden=8, num_stages=1).train()
    other = copy.deepcopy(plain)
    compiled = Compiled(other)
    the_same_steps(compiled, plain, other)
    assert compiled.call is other
    told = [r.message for r in caplog.records if r.name.startswith("pamfn")]  # torch's tracer is a logger too
    assert told == ["compile: RuntimeError: no gradient of this. Going on without."]


def test_wrong_inputs_are_an_error_as_ever(monkeypatch: pytest.MonkeyPatch):
    network = ModalityBranch(width=5, d_model=8, hidden=8)
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    with pytest.raises(RuntimeError):
        Compiled(network)({"rgb": torch.ones(2, 8, 4)}, None)
