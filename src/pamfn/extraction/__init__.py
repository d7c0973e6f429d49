"""From raw video to features: reading a video once, in step with its sound, and what describes its segments.

The extractors are imported when they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pamfn.extraction.descriptors import HOFMBH, HOG, MFCC
    from pamfn.extraction.efficientnet import EfficientNet
    from pamfn.extraction.pose import BlazePose
    from pamfn.extraction.pretrained import AST, I3D, UNMT, VideoSwin

__all__ = ["AST", "HOFMBH", "HOG", "I3D", "MFCC", "UNMT", "BlazePose", "EfficientNet", "VideoSwin"]

PLACES = {
    "AST": "pretrained",
    "BlazePose": "pose",
    "EfficientNet": "efficientnet",
    "HOG": "descriptors",
    "I3D": "pretrained",
    "HOFMBH": "descriptors",
    "MFCC": "descriptors",
    "UNMT": "pretrained",
    "VideoSwin": "pretrained",
}


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)
