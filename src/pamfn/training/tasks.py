"""Which LightningModule learns what a data module holds."""

from typing import Any

from pamfn.models.network import Network
from pamfn.training.detection import HighlightDetection
from pamfn.training.module import RecipeModule
from pamfn.training.regression import ScoreRegression

TASKS: dict[str, type[RecipeModule]] = {"score": ScoreRegression, "highlights": HighlightDetection}
"""By what a data module `predicts`."""


def task_of(data: Any) -> type[RecipeModule]:
    return TASKS[data.predicts]


def module_for(data: Any, network: Network, **settings: Any) -> RecipeModule:
    """The module that trains or evaluates a network on these data."""
    units = {"max_score": data.max_score} if data.predicts == "score" else {}
    return task_of(data)(network, splits=data.evaluated, **units, **settings)
