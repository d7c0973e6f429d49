"""Label files, feature files and the data modules made of them; these are imported when they are asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pamfn.data.highlight_datamodule import YouTubeHighlightsDataModule
    from pamfn.data.score_datamodule import ScoreDataModule
    from pamfn.data.synthetic import SyntheticDataModule

__all__ = ["ScoreDataModule", "SyntheticDataModule", "YouTubeHighlightsDataModule"]

PLACES = {
    "ScoreDataModule": "score_datamodule",
    "SyntheticDataModule": "synthetic",
    "YouTubeHighlightsDataModule": "highlight_datamodule",
}


def __getattr__(name: str) -> Any:
    """Import a data module when it is asked for: they need torch, which the rest of this package does without."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)
