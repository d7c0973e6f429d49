"""Training steps through torch.compile."""

import copy
import logging

import pytest
import torch

from pamfn.models.branch import ModalityBranch
from pamfn.training.compiled import Compiled


def gradients(call, network: ModalityBranch) -> list[torch.Tensor]:
    torch.manual_seed(1)
    call({"rgb": torch.randn(8, 12, 5)}, None).score.square().sum().backward()
    return [p.grad for p in network.parameters() if p.grad is not None]


def test_a_compiled_step_is_the_same_step():
    torch.manual_seed(0)
    plain = ModalityBranch(width=5, d_model=8, hidden=8, num_stages=1).train()
    other = copy.deepcopy(plain)
    for found, expected in zip(gradients(Compiled(other), other), gradients(plain, plain), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


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


def test_wrong_inputs_are_an_error_as_ever(monkeypatch: pytest.MonkeyPatch):
    network = ModalityBranch(width=5, d_model=8, hidden=8)
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    with pytest.raises(RuntimeError):
        Compiled(network)({"rgb": torch.ones(2, 8, 4)}, None)
