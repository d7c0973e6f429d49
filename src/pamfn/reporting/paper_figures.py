"""Draw the paper's Figures 5 to 8 from finished runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pamfn.errors import InputError
from pamfn.evaluation.plots import plot_attention, plot_decisions, plot_fusionnets, plot_policy, plot_text
from pamfn.pipeline.explain import Explanation, explain, fused, has_weights
from pamfn.reporting.collect import FinishedJob, finished_jobs, reported
from pamfn.reporting.sweep import Sweep, sweep_of

STAGE = 2
"""The stage of the paper's Figures 7 and 8."""


SWEPT = "model.num_fusion_nets"
"""The setting that Figure 6 is drawn over."""


@dataclass
class Drawn:
    """Files that were written, and a sentence for each that could not be."""

    files: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, path: Path, draw: Callable[[Path], None]) -> None:
        """Draw one figure, or note why it cannot be drawn."""
        try:
            draw(path)
            self.files.append(path)
        except InputError as error:
            self.left_out += [f"{path.name}: {problem}" for problem in error.problems]


def draw_runs(
    folders: Sequence[Path],
    to: Path,
    video: str | None = None,
    split: str = "test",
    data_dir: str | None = None,
    trust: Sequence[str] = (),
) -> Drawn:
    """Draw decisions.png with a line a run; attention.png and policy.png for one video of the first run.

    What a network lacks (a decoder, a policy, its weights) is in `left_out`.

    Raises:
        InputError: when a run is not a finished fused one, the video is unknown, or nothing can be drawn.
    """
    if not folders:
        raise InputError("which runs? Give folders of finished fused runs, such as runs/fusion/*, or --table NAME.")
    labels = labelled([fused(folder) for folder in folders], folders)
    drawn = Drawn()
    drawn.add(to / "decisions.png", lambda path: draw_decisions(path, labels, split, data_dir, trust))
    if has_weights(folders[0]):
        draw_video(drawn, explain(folders[0], split, data_dir, trust), to, video)
    else:
        drawn.left_out.append(f"attention.png, policy.png: {folders[0]} has no weights.")
    if not drawn.files:
        raise InputError(drawn.left_out)
    return drawn


def labelled(results: Sequence[dict[str, Any]], folders: Sequence[Path]) -> dict[str, Path]:
    """{label: folder} by the shortest names that tell the runs apart: data set, with its seed, folder, or its path."""
    names = [
        [r["name"] for r in results],
        [f"{r['name']}, seed {r['seed']}" for r in results],
        [folder.name for folder in folders],
        [str(folder) for folder in folders],
    ]
    apart = next((labels for labels in names if len(set(labels)) == len(folders)), names[-1])
    return dict(zip(apart, folders, strict=True))


def draw_decisions(
    path: Path,
    runs: Mapping[str, Path],
    split: str = "test",
    data_dir: str | None = None,
    trust: Sequence[str] = (),
) -> None:
    """Draw Figure 5 of {label: folder of a finished fused run}, from the results where they hold the counts."""
    plot_decisions(path, {label: counts_of(folder, split, data_dir, trust) for label, folder in runs.items()}, split)


def counts_of(folder: Path, split: str, data_dir: str | None, trust: Sequence[str]) -> list[list[int]]:
    """How often a run's network enabled how many FusionNets: [[n_0, ..., n_K] of every stage].

    Raises:
        InputError: when it decides nothing, or has neither counts in its result nor weights.
    """
    result = fused(folder)
    if split == "test" and result.get("decisions"):
        return result["decisions"]
    return explain(folder, split, data_dir, trust).decision_counts()


def draw_video(drawn: Drawn, explanation: Explanation, to: Path, name: str | None = None) -> None:
    """Draw Figures 7 and 8 of one video; without a name, of the one with the highest judges' score.

    Raises:
        InputError: when the split has no such video.
    """
    video, step = explanation.video(name), 2**STAGE
    points = f"judges {video.points:.2f}, predicted {video.predicted:.2f} points"
    title = f"{plot_text(explanation.task)}, seed {explanation.seed}, {plot_text(video.name)}: {points}"

    def attention(path: Path) -> None:
        plot_attention(path, explanation.attention(video, STAGE), step, f"{title}\nattention, stage {STAGE}")

    def policy(path: Path) -> None:
        decision = explanation.decisions(video, STAGE)
        plot_policy(path, decision, explanation.networks, step, f"{title}\nenabled FusionNets, stage {STAGE}")

    drawn.add(to / "attention.png", attention)
    drawn.add(to / "policy.png", policy)


def draw_table(name: str, overrides: Sequence[str], to: Path) -> Drawn:
    """Draw fusionnets.png from those runs of a sweep over K that are finished.

    Raises:
        InputError: when the table does not sweep K, or none of its runs is finished.
    """
    sweep = sweep_of(name, overrides)
    if sweep.table.row != SWEPT:
        raise InputError(f"Figure 6 is drawn over {SWEPT}, and {name} sweeps {sweep.table.row}.")
    jobs, problems = finished_jobs(sweep.jobs, sweep.problems)
    drawn = Drawn()
    drawn.add(to / "fusionnets.png", lambda path: draw_fusionnets(path, sweep, jobs, problems))
    if not drawn.files:
        raise InputError(drawn.left_out)
    missing = len(sweep.jobs) - len(jobs)
    drawn.left_out = [*problems, *([f"{missing} of {len(sweep.jobs)} runs, which are not finished."] * (missing > 0))]
    return drawn


def draw_fusionnets(path: Path, sweep: Sweep, jobs: Sequence[FinishedJob], problems: Sequence[str]) -> None:
    """Draw Figure 6 of a sweep over K: the reported Spearman correlation of its finished runs.

    Raises:
        InputError: when none is finished, with the problems of those that cannot be trusted.
    """
    srcc: dict[str, dict[int, list[float]]] = {}
    for done in jobs:
        value = reported(done.result)["srcc"]
        if value is not None:
            srcc.setdefault(sweep.data[done.job.column], {}).setdefault(int(done.job.row), []).append(value)
    if not srcc:
        how = f"python -m pamfn.tables {sweep.table.name} with the same settings says how to train them"
        raise InputError([*problems, f"none of the {len(sweep.jobs)} runs is finished; {how}."])
    plot_fusionnets(path, srcc, jobs[0].result["reported"])
