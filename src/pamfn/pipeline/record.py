"""What a finished training leaves in its folder: predictions, plots, and result.json with everything about the run."""

import csv
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from pamfn import __version__
from pamfn.config.schema import Config
from pamfn.data.base_datamodule import VideoDataModule
from pamfn.data.features import feature_name
from pamfn.errors import WriteError
from pamfn.evaluation.metrics import METRICS, main_metric
from pamfn.evaluation.plots import plot_curves
from pamfn.evaluation.selection import RULES, metrics_by_rule, reported_rule, weights_by_rule
from pamfn.models.network import Network
from pamfn.pipeline.predictions import Predictions, write_predictions
from pamfn.runs.environment import COMMIT, machine, peak_memory_mib
from pamfn.runs.folder import Run
from pamfn.training.tasks import task_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A training that ended.

    decisions: of the selected weights on the test set (`decision_counts`). started: seconds since the epoch.
    branches: {modality: folder} of stage 1. inference_ms: for one video (`pamfn.training.latency`).
    """

    config: Config
    kind: str
    modalities: list[str]
    network: Network
    curves: list[dict[str, float]]
    predictions: Predictions
    decisions: list[list[int]] | None
    started: float
    branches: dict[str, Path]
    inference_ms: float


def reported_protocol(config: Config) -> str:
    """The name of the number that the protocol reports."""
    return reported_rule(config.protocol.select, refit=config.protocol.refit)


def measured(trained: Trained, data: VideoDataModule) -> dict[str, dict[str, float]]:
    """Test metrics by protocol; those of stored weights are computed from their stored predictions."""
    reported = reported_protocol(trained.config)
    metrics = metrics_by_rule(trained.curves, reported)
    for name, weights in weights_by_rule(reported).items():
        predictions = trained.predictions[weights]["test"]
        metrics[name].update(task_of(data).compute_metrics(predictions))
        metrics[name]["spread"] = sum(predictions.spread) / len(predictions.spread)
    return metrics


def record_result(run: Run, trained: Trained, data: VideoDataModule, logger: WandbLogger | None) -> None:
    """Writes predictions.csv, the plots and result.json, and hands them to W&B."""
    config = trained.config
    title = f"{data.task}, {' + '.join(trained.modalities)}, seed {config.seed}"
    write_predictions(run, trained.predictions, task_of(data))
    metrics = measured(trained, data)
    reported = reported_protocol(config)
    metric = main_metric(metrics[reported])
    title_with_score = f"{title}\n{reported.replace('_', ' ')}: {METRICS[metric].label} {metrics[reported][metric]:.3f}"
    with without_plot(run, "predictions.png"):
        task_of(data).plot(run.file("predictions.png"), trained.predictions["selected"]["test"], title_with_score)
    marked = {name: int(metrics[name]["epoch"]) for name, rule in RULES.items() if rule.best_on and name in metrics}
    with without_plot(run, "curves.png"):
        plot_curves(run.file("curves.png"), trained.curves, marked, title)
    if logger is not None:
        try:
            log_to_wandb(logger, run, metrics, reported)
        except Exception as error:  # whatever it is, the training is done and its result must not be lost
            log.warning("Weights & Biases did not take the results of %s (%r); they are in its folder", run.path, error)
    run.write_result(result_of(trained, data, metrics))


@contextmanager
def without_plot(run: Run, name: str) -> Iterator[None]:
    """Log a warning if a plot cannot be drawn, and go on: the result that it shows is not lost.

    Where it cannot be written, there is no room for the result either: the same command will do both.
    """
    try:
        yield
    except WriteError:
        raise
    except Exception as error:
        log.warning("no %s of %s: it cannot be drawn (%s)", name, run.path, error or type(error).__name__)


def result_of(trained: Trained, data: VideoDataModule, metrics: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The content of result.json."""
    config, seconds = trained.config, [row["seconds"] for row in trained.curves]
    parameters = list(trained.network.parameters())
    return {
        "name": data.task,
        "kind": trained.kind,
        "modalities": trained.modalities,
        "seed": config.seed,
        "reported": reported_protocol(config),
        "metrics": metrics,
        "branches": {m: path.name for m, path in trained.branches.items()},
        "data_source": data.source,
        "data_files": data_files(data, trained.modalities),
        "videos": {split: len(videos) for split, videos in data.splits.items()},
        "left_out": data.left_out,
        "labels": data.described(),
        "groups": {video: data.groups[video] for video in data.splits["test"].names} if data.groups else None,
        "score_range": data.score_range,
        "decisions": trained.decisions,
        "parameters": {
            "total": sum(p.numel() for p in parameters),
            "trained": sum(p.numel() for p in parameters if p.requires_grad),
        },
        "chosen": trained.network.chosen(),
        "commit": COMMIT,
        "versions": {"pamfn": __version__} | {name: version(name) for name in ("torch", "lightning", "numpy", "scipy")},
        "machine": machine(config),
        "times": {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(trained.started)),
            "training_seconds": sum(seconds),
            "seconds_per_epoch": sorted(seconds)[len(seconds) // 2],
            "epochs": len(seconds),
        },
        "inference_ms": trained.inference_ms,
        "peak_memory_mib": peak_memory_mib(),
        "config": config.model_dump(),
    }


def record_missing(
    run: Run,
    config: Config,
    fused: Run,
    predictions: Predictions,
    data: VideoDataModule,
    logger: WandbLogger | None,
) -> None:
    """Write the result of a fused network that was scored with only the `available` modalities."""
    base = fused.result()
    assert base is not None
    metrics = {}
    for name, weights in weights_by_rule(base["reported"]).items():
        scores = task_of(data).compute_metrics(predictions[weights]["test"])
        metrics[name] = {"epoch": base["metrics"][name]["epoch"], **scores}
    write_predictions(run, predictions, task_of(data))
    if logger is not None:
        logger.experiment.summary.update(flat(metrics, base["reported"]))
    described = {"kind": "missing", "available": config.available, "network": fused.path.name}
    measured = {"commit": COMMIT, "machine": machine(config), "config": config.model_dump()}
    run.write_result({**base, **described, **measured, "metrics": metrics, "decisions": None})


def data_files(data: VideoDataModule, modalities: Sequence[str]) -> dict[str, str]:
    """Checksums of the label files and of these modalities' feature files."""
    own = {feature_name(data.dataset, m, str(data.features[m]["extractor"])) for m in modalities}
    return {
        name: checksum for name, checksum in data.checksums.items() if name in own or not name.startswith("features/")
    }


def log_to_wandb(logger: WandbLogger, run: Run, metrics: dict[str, dict[str, float]], reported: str) -> None:
    """Plots, the prediction table and the metrics by protocol."""
    import wandb

    plots = {f"plots/{name}": run.file(f"{name}.png") for name in ("predictions", "curves")}

    with run.file("predictions.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.reader(lines))
    logger.experiment.log(
        {
            "predictions": wandb.Table(
                columns=list[str | int](rows[0]), data=[[*r[:3], *map(float, r[3:])] for r in rows[1:]]
            ),
            **{name: wandb.Image(str(plot)) for name, plot in plots.items() if plot.exists()},
        }
    )
    logger.experiment.summary.update(flat(metrics, reported))


def flat(metrics: dict[str, dict[str, float]], reported: str) -> dict[str, float]:
    """Test metrics under every protocol, and those that are reported; no key is one of the curves'."""
    every = {
        f"protocol/{protocol}/{name}": value for protocol, named in metrics.items() for name, value in named.items()
    }
    return every | {f"reported/{name}": value for name, value in metrics[reported].items()}
