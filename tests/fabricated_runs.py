"""Finished runs without a training: predictions that are the true points with noise."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from finished_runs import result_like
from pamfn.config.schema import Config
from pamfn.evaluation.metrics import METRICS
from pamfn.runs.lookup import locate, wanted

srcc = METRICS["srcc"].function

POINTS = {f"test{i}": x for i, x in enumerate(np.random.default_rng(0).uniform(0, 40, 40).tolist())}
HELD_OUT = {f"holdout{i}": x for i, x in enumerate(np.random.default_rng(1).uniform(0, 40, 12).tolist())}


def fabricate(
    config: Config, random: np.random.Generator, test: Mapping[str, float] = POINTS, noise: float = 12, **changes: Any
) -> None:
    """Write the folder of a run that was tested on {video: true points}; its predictions have a scale of their own."""
    kind, modalities = wanted(config)
    run = locate(config, kind, modalities)
    run.path.mkdir(parents=True, exist_ok=True)
    shift, factor = random.normal(0, 5), random.uniform(0.5, 2)
    rows, of_test = ["weights,split,video,true,predicted,spread"], np.zeros(0)
    for split, points in (("holdout", HELD_OUT), ("test", test)):
        true = np.array([*points.values()])
        of_test = shift + factor * (true + random.normal(0, noise, len(true)))
        rows += [
            f"{weights},{split},{video},{y!r},{p!r},0"
            for weights in ("selected", "last")
            for (video, y), p in zip(points.items(), of_test.tolist(), strict=True)
        ]
    run.file("predictions.csv").write_text("\n".join(rows) + "\n")
    value = srcc(np.array([*test.values()]), of_test, 40.0)
    metrics = {"srcc": None if np.isnan(value) else value}
    run.write_result(
        result_like(
            name=config.data["name"],
            kind=kind,
            modalities=modalities,
            seed=config.seed,
            reported="holdout",
            metrics={"holdout": metrics, "last": metrics},
            data_source="real",
            score_range=40.0,
            config=config.model_dump(),
            **changes,
        )
    )
