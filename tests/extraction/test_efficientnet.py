"""EfficientNet-Lite0: its network, and its weights where the package that carries them is installed."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from made_videos import reading
from pamfn.errors import InputError
from pamfn.extraction import efficientnet
from pamfn.extraction.efficientnet import PACKAGE, EfficientNet, installed_weights
from pamfn.extraction.extractor import Segment
from pamfn.extraction.networks.efficientnet import Convolution, EfficientNetLite0
from pamfn.extraction.segments import Video
from pamfn.extraction.weights import read_weights
from segment_inputs import SHARED, needs_videos

TELEVISION = 851
"""A class of ImageNet."""


def installed() -> bool:
    try:
        return bool(distribution(PACKAGE))
    except PackageNotFoundError:
        return False


needs_weights = pytest.mark.skipif(not installed(), reason="pamfn[efficientnet] is not installed")


def segment(seed: int = 0) -> Segment:
    frames = np.random.default_rng(seed).integers(0, 256, (32, 256, 340, 3), dtype=np.uint8)
    return Segment(0, {256: frames}, {}, {})


@pytest.fixture(scope="module")
def untrained() -> EfficientNet:
    torch.manual_seed(0)
    extractor = EfficientNet()
    network = EfficientNetLite0()
    for weight in network.parameters():
        if weight.dim() == 4:  # so that something is left of the picture behind fifty layers
            torch.nn.init.kaiming_normal_(weight)
    extractor.use(network, "cpu", "32")
    return extractor


def test_the_network_has_the_published_size():
    head = 1280 * 1000 + 1000
    assert sum(weight.numel() for weight in EfficientNetLite0().parameters()) + head == 4_652_008


@pytest.mark.parametrize(("size", "kernel", "stride"), [(224, 3, 2), (113, 3, 2), (14, 5, 2), (7, 5, 1), (8, 1, 1)])
def test_padding_is_as_in_tensorflow(size: int, kernel: int, stride: int):
    convolution = Convolution(1, 1, kernel, stride)
    torch.nn.init.ones_(convolution.weight)
    result = convolution(torch.ones(1, 1, size, size))[0, 0]
    assert result.shape == (-(-size // stride),) * 2
    before, behind = kernel**2 - result[0, 0], kernel**2 - result[-1, -1]
    assert before <= behind


def test_a_row_does_not_depend_on_the_batch(untrained: EfficientNet):
    rows = untrained.features([segment(i) for i in range(3)])
    assert rows.shape == (3, 1280)
    np.testing.assert_allclose(rows[1], untrained.features([segment(1)])[0], atol=1e-4)
    assert np.abs(rows[0] - rows[1]).max() > 1e-2


def test_four_frames_are_looked_at(untrained: EfficientNet):
    one, other = segment(), segment()
    looked_at = [4, 12, 20, 28]
    other.frames[256][[i for i in range(32) if i not in looked_at]] = 0
    np.testing.assert_array_equal(untrained.features([one]), untrained.features([other]))
    other.frames[256][28] = 0
    assert (untrained.features([one]) != untrained.features([other])).any()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(efficientnet, "distribution", missing)
    with pytest.raises(InputError, match=r'pip install "pamfn\[efficientnet\]"'):
        EfficientNet().load(weights=None, device="cpu", precision="32")


def test_other_weights_are_refused(tmp_path: Path):
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="not the weights of EfficientNetLite0"):
        EfficientNet().load(weights=tmp_path / "other.pth", device="cpu", precision="32")


@needs_weights
@needs_videos
def test_the_packaged_weights_see_a_television_in_an_old_film():
    extractor = EfficientNet()
    extractor.load(weights=None, device="cpu", precision="bf16")
    assert extractor.precision == "32"
    segments = list(Video(Path(SHARED or "") / "data/videos/friday.mp4", reading(), [extractor]).segments())
    rows = torch.from_numpy(extractor.features(segments))
    state = read_weights(installed_weights())
    logits = rows @ state["_fc.weight"].T + state["_fc.bias"]
    assert logits.argmax(dim=1).tolist() == [TELEVISION] * len(segments)
    assert logits.softmax(dim=1)[:, TELEVISION].min() > 0.2
