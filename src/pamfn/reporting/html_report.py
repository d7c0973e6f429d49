"""Render tables, figures and the runs behind them as one HTML page."""

import base64
import math
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from pamfn.config.compose import home, table_names
from pamfn.errors import InputError
from pamfn.evaluation.selection import RULES
from pamfn.files import file_name
from pamfn.pipeline.explain import explain, has_weights
from pamfn.reporting.build import built
from pamfn.reporting.collect import every_result, finished_jobs, main_of, reported
from pamfn.reporting.forest_plot import draw_forest
from pamfn.reporting.paper_figures import SWEPT, Drawn, draw_decisions, draw_fusionnets, draw_video
from pamfn.reporting.render import Picture, Section, page
from pamfn.reporting.selection_table import protocols
from pamfn.reporting.sweep import Sweep, sweep_of
from pamfn.runs.environment import COMMIT, machine

CAPTIONS = {
    "forest": "Every row with its 95 % interval",
    "decisions": "How often PolicyNet enabled how many FusionNets, stage by stage (Figure 5)",
    "fusionnets": "Spearman's correlation against the number of FusionNets (Figure 6)",
    "attention": "Attention to each modality over time (Figure 7)",
    "policy": "Enabled FusionNets over time (Figure 8)",
    "predictions": "Predicted against true points, or average precision of every test video",
    "curves": "Training",
}
"""{name of its file: what a figure shows}."""


def report(names: Sequence[str], overrides: Sequence[str] = ()) -> str:
    """Render the report as HTML: every named table, figures of its full models, the protocols, the environment.

    Raises:
        InputError: for an unknown table or setting, or a result that cannot be trusted.
    """
    if not names:
        raise InputError(f"which tables? --all, or some of {', '.join(table_names())}.")
    sweeps = [sweep_of(name, overrides) for name in dict.fromkeys(names)]
    with tempfile.TemporaryDirectory() as folder:
        sections = [section(sweep, overrides, Path(folder) / file_name(sweep.table.name)) for sweep in sweeps]
        pictures, left_out = pictures_of(full_models(sections, sweeps), Path(folder))
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return page(
        f"pamfn: report of {date}",
        sections,
        date=date,
        overrides=overrides,
        pictures=pictures,
        left_out=left_out,
        protocols=protocols(every_result(sweeps[0].jobs[0].config.paths.output_dir)),
        rules=RULES,
        here=here(),
        environments=environments(sections),
        place=place,
        main_of=main_of,
        reported=reported,
    )


def section(sweep: Sweep, overrides: Sequence[str], folder: Path) -> Section:
    """A table of the report, with Figure 6 if it sweeps K."""
    drawn = Drawn()
    jobs, problems = finished_jobs(sweep.jobs, sweep.problems)
    if sweep.table.row == SWEPT and jobs:
        drawn.add(folder / "fusionnets.png", lambda path: draw_fusionnets(path, sweep, jobs, problems))
    table = built(sweep, overrides)
    if any(not math.isnan(cell.low) for cell in table.cells.values()):
        drawn.add(folder / "forest.png", lambda path: draw_forest(table, path))
    pictures = [picture(sweep.table.title, path) for path in drawn.files]
    return Section(table, pictures, jobs)


def full_models(sections: Sequence[Section], sweeps: Sequence[Sweep]) -> dict[str, Path]:
    """{data set: folder} of one finished run of the full model, one with weights where there is one."""
    full: dict[str, Path] = {}
    for of_table, sweep in zip(sections, sweeps, strict=True):
        for done in of_table.jobs:
            column, folder = sweep.data[done.job.column], done.run.path
            if done.job.row != sweep.table.full or done.result["kind"] != "fusion":
                continue
            if column not in full or (has_weights(folder) and not has_weights(full[column])):
                full[column] = folder
    return full


def pictures_of(runs: Mapping[str, Path], folder: Path) -> tuple[list[Picture], list[str]]:
    """Figures 5, 7 and 8 of {data set: run} and the plots that the run folders hold; sentences for those left out."""
    drawn = Drawn()
    if runs:
        drawn.add(folder / "decisions.png", lambda path: draw_decisions(path, runs))
    pictures = [picture(", ".join(runs), path) for path in drawn.files]
    for column, run in runs.items():
        of_video = Drawn()
        if has_weights(run):
            try:
                draw_video(of_video, explain(run), folder / file_name(column))
            except InputError as error:  # its data is no longer there
                drawn.left_out += [f"attention and policy of {run.name}: {problem}" for problem in error.problems]
        drawn.left_out += of_video.left_out
        kept = [path for path in (run / "predictions.png", run / "curves.png") if path.exists()]
        pictures += [picture(column, path) for path in (*of_video.files, *kept)]
    return pictures, drawn.left_out


def picture(title: str, path: Path) -> Picture:
    """A figure with its caption and its bytes."""
    return Picture(title, CAPTIONS[path.stem], base64.b64encode(path.read_bytes()).decode())


def here() -> dict[str, str]:
    """The code, versions and machine that made the page."""
    packages = ("pamfn", "torch", "lightning", "numpy", "scipy")
    return {
        "commit": COMMIT or "not a checkout",
        "versions": ", ".join(f"{name} {version(name)}" for name in packages),
        **{key: str(value) for key, value in machine().items() if value is not None},
    }


def environments(sections: Sequence[Section]) -> list[tuple[str, int]]:
    """What finished runs were made on and with, each with the number of these runs; the most frequent first."""
    results = {done.run.path: done.result for section in sections for done in section.jobs}
    return Counter(
        f"{r['machine']['gpu'] or r['machine']['cpu']}, Python {r['machine']['python']}, "
        f"torch {r['versions']['torch']}, commit {(r['commit'] or 'unknown')[:10]}"
        for r in results.values()
    ).most_common()


def place(folder: Path) -> str:
    """A run's folder as the page names it: from where runs are by default, or its last three parts."""
    inside = folder.is_relative_to(home())
    return str(folder.relative_to(home())) if inside else "/".join(folder.parts[-3:])
