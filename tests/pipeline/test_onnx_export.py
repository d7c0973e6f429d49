import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from conftest import WIDTHS
from finished_runs import trained
from pamfn.config.compose import register
from pamfn.errors import InputError
from pamfn.models.baselines.gdlt import GDLT
from pamfn.models.baselines.ms_lstm import MSLSTM
from pamfn.models.baselines.msaf import MSAF
from pamfn.models.batchnorm_folding import folded
from pamfn.models.branch import ModalityBranch
from pamfn.models.late_fusion import LateFusion
from pamfn.models.network import Network
from pamfn.models.pamfn import PAMFN
from pamfn.pipeline import onnx_export as module
from pamfn.pipeline.onnx_export import compare, export, exported, fed, notes, session_of

TWO = {"rgb": 6, "audio": 4}


def branches(stages: int = 2, per_segment: bool = False) -> dict[str, ModalityBranch]:
    sizes = {"d_model": 8, "hidden": 6, "num_stages": stages, "per_segment": per_segment}
    return {m: ModalityBranch(width=width, **sizes) for m, width in TWO.items()}


NETWORKS = {
    "branch": lambda: branches()["rgb"],
    "fusion": lambda: PAMFN(branches=branches(), num_fusion_nets=2),
    "as released": lambda: PAMFN(
        branches=branches(), num_fusion_nets=2, double_negation=True, policy_layers=1, shared_attention=True
    ),
    "per segment": lambda: PAMFN(branches=branches(stages=1, per_segment=True), num_fusion_nets=2),
    "free": lambda: PAMFN(branches=branches(), num_fusion_nets=2, policy="free", msfd="weighted", cmfd="weighted"),
    "late": lambda: LateFusion(branches=branches(), fusion="attention"),
    "gdlt": lambda: GDLT(widths={"rgb": 6}, d_model=8, hidden=6, feed_forward=8),
    "msaf": lambda: MSAF(widths=TWO, d_model=8, hidden=6, block=4),
}


def network(name: str) -> Network:
    """In evaluation mode, with norms that do something and scores that differ between videos."""
    torch.manual_seed(0)
    net = NETWORKS[name]()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.get_buffer("running_mean").normal_(std=0.3)
            layer.get_buffer("running_var").uniform_(0.2, 1)
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.bias, std=0.3)
    return net.eval()


def widths(net: Network) -> dict[str, int]:
    return {"rgb": 6} if isinstance(net, GDLT | ModalityBranch) else TWO


def video(widths: Mapping[str, int], length: int) -> dict[str, torch.Tensor]:
    return {m: 3 * torch.randn(1, length, width) for m, width in widths.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folded_network_computes_the_same(name):
    net = network(name).double()
    features = {m: 3 * torch.randn(3, 11, width, dtype=torch.float64) for m, width in widths(net).items()}
    other = folded(net)
    assert not any(isinstance(layer, nn.BatchNorm1d) for layer in other.modules())
    assert any(isinstance(layer, nn.BatchNorm1d) for layer in net.modules())
    for lengths in (None, torch.tensor([11, 7, 4])):
        one, two = net(features, lengths).score, other(features, lengths).score
        assert one.std() > 1e-4
        torch.testing.assert_close(two, one, rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["branch", "as released", "per segment", "gdlt"])
def test_an_exported_network_scores_any_length_and_batch_as_the_network_does(tmp_path, name):
    net = network(name)
    unit = None if net.per_segment else 25.0
    file = tmp_path / "model.onnx"
    exported(net, widths(net), unit).save(file, external_data=False)
    found = compare(file, net, [video(widths(net), t) for t in (4, 5, 6, 7, 18, 33, 60, 11, 5)], unit)
    assert max(found.alone, found.padded) < 1e-5
    graph = onnx.load(file).graph
    assert [x.name for x in graph.input] == [*widths(net), "lengths"]
    shape = [axis.dim_param or axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", "segments", 6]
    assert not any(node.metadata_props or node.op_type == "BatchNormalization" for node in graph.node)


def test_a_network_that_walks_a_video_in_a_loop_is_refused():
    with pytest.raises(InputError, match="MS-LSTM cannot be exported"):
        exported(MSLSTM(widths={"rgb": 6}), {"rgb": 6}, 25.0)


def test_a_network_of_ones_own_that_cannot_be_exported_is_refused_with_its_name():
    class Loop(Network):
        def forward(self, features, lengths=None):
            raise RuntimeError("one step after the other")

    with pytest.raises(InputError, match="cannot export Loop: one step after the other"):
        exported(Loop(), {"rgb": 6}, 25.0)


@pytest.fixture(scope="module")
def branch_run(tmp_path_factory, tiny_data):
    """A finished branch of Fis-V."""
    register()
    folder = tmp_path_factory.mktemp("export")
    trained("modalities", "+ablation=rgb_only", tiny_data, folder)
    (run,) = (folder / "runs/branch").iterdir()
    return run


def copied(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / "run"))


def test_a_finished_run_gets_a_file_that_gives_its_predictions_in_points(tmp_path, branch_run, tiny_data, capsys):
    run = copied(branch_run, tmp_path)
    (run / "model.onnx").write_text("an export before")
    file = export(run, "selected", None, None)
    assert file == run / "model.onnx"
    told = capsys.readouterr().out
    assert "at most over the 6 test videos" in told
    assert "33 ms" in told
    about = {prop.key: prop.value for prop in onnx.load(file).metadata_props}
    assert "for videos of 4 segments or more" in told
    assert about["min_segments"] == "4"
    assert about["modalities"] == "rgb"
    assert about["widths"] == str(WIDTHS["rgb"])
    assert about["max_score"] == "45"
    assert about["score"] == "points"
    result = json.loads((run / "result.json").read_text())
    assert about["commit"] == result["commit"]
    arrays = np.load(tiny_data / "features/FISV_rgb_VST.npy", allow_pickle=True).item()
    lines = [line.split(",") for line in (run / "predictions.csv").read_text().splitlines()]
    columns = {name: i for i, name in enumerate(lines[0])}
    (row,) = (r for r in lines if r[columns["video"]] == "13" and r[columns["weights"]] == "selected")
    x = torch.from_numpy(arrays["13"].astype(np.float32).mean(axis=1))[None]
    (score,) = session_of(file).run(None, fed({"rgb": x}, [x.shape[1]]))
    assert score[0] == pytest.approx(float(row[columns["predicted"]]), abs=1e-3)


def test_without_its_data_a_run_is_checked_on_generated_videos(tmp_path, branch_run, monkeypatch, capsys):
    monkeypatch.setattr(module, "compare", lambda file, network, videos, unit: module.Compared(0, 0, 1, 1))
    export(branch_run, "last", str(tmp_path / "gone"), tmp_path / "other.onnx")
    told = capsys.readouterr().out
    assert "generated videos, since test videos cannot be read" in told
    assert (tmp_path / "other.onnx").exists()


def test_a_file_that_scores_otherwise_is_not_left(tmp_path, branch_run, monkeypatch):
    monkeypatch.setattr(module, "TOLERANCE", -1.0)
    run = copied(branch_run, tmp_path)
    before = sorted(run.iterdir())
    with pytest.raises(InputError, match=r"differs from the trained one by .*nothing was written"):
        export(run, "selected", None, None)
    assert sorted(run.iterdir()) == before


def test_only_an_export_is_replaced(tmp_path, branch_run, monkeypatch):
    monkeypatch.setattr(module, "exported", lambda *_: pytest.fail("was exported"))
    run = copied(branch_run, tmp_path)
    files = {file: file.read_bytes() for file in run.iterdir() if file.is_file()}
    for output, sentence in (
        (run / "selected.safetensors", r"selected.safetensors: name a file that ends in .onnx, so that no other is"),
        (run / "model", r"model: name a file that ends in .onnx"),
        (run, r"run: a folder. Name a file in it, e.g. .*run/model.onnx"),
        (tmp_path / "runz/model.onnx", r"runz/model.onnx: there is no folder .*runz. Make it first"),
    ):
        with pytest.raises(InputError, match=sentence):
            export(run, "selected", None, output)
    assert {file: file.read_bytes() for file in run.iterdir() if file.is_file()} == files
    assert not (tmp_path / "runz").exists()


def test_in_what_the_file_differs_from_how_the_run_was_scored_is_said(branch_run):
    result = json.loads((branch_run / "result.json").read_text())
    assert notes(result) == []
    result["config"]["trainer"]["precision"] = "bf16-mixed"
    (precision,) = notes(result)
    assert precision == "computes in float32, where the run was scored in bf16-mixed"


def test_what_is_missing_is_named(tmp_path, branch_run, monkeypatch):
    with pytest.raises(InputError, match="not a finished run"):
        export(tmp_path, "selected", None, None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime.*pip install 'pamfn\[export\]'"):
        export(branch_run, "selected", None, None)
