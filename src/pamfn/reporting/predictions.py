"""Score new videos and write what was predicted: a CSV file, JSON if asked for, a page a video."""

import csv
import glob
import io
import json
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

from pamfn.data.video_names import some
from pamfn.errors import InputError, WriteError
from pamfn.evaluation.metrics import main_metric
from pamfn.files import file_name, write_text
from pamfn.pipeline.clip_scores import score_clips
from pamfn.pipeline.ensemble import is_run, runs_of, write_ensemble
from pamfn.pipeline.inputs import Sample, read_inputs
from pamfn.pipeline.member import Weights
from pamfn.pipeline.model import Model, load, samples_of_split
from pamfn.pipeline.prediction import LEVELS, Explained, Prediction
from pamfn.reporting.video_page import video_page
from pamfn.runs.folder import Run

FOLDER = "predicted"
"""Folder of predictions in that of the run; of several runs in the current one."""


def predict(
    runs: Path | str | Sequence[Path | str],
    inputs: Path | str | Sequence[Path | str] = (),
    *,
    to: Path | str | None = None,
    split: str = "test",
    weights: Weights = "selected",
    data_dir: str | None = None,
    extract: Sequence[str] = (),
    pages: bool = False,
    as_json: bool = False,
    trust: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Prediction]:
    """Score videos with finished runs; return {video: prediction}.

    runs: folders of runs, patterns, or files of ensembles; of several the mean is the score
    inputs: videos or folders of them, folders of `pamfn.extract`, feature files, and names of videos within these;
        without any, the `split` of the runs' own data
    to: folder for predictions.csv, and for features of videos; default: `predicted` in the run's folder, of several
        runs in the current one
    extract: settings of `pamfn.extract` for videos, e.g. "weights.vst=FILE"
    pages: also write a page a video. as_json: also write predictions.json
    weights, data_dir, trust: see `pamfn.load`. say: called with lines for the user

    Raises:
        InputError: when nothing can be scored; after everything else is done and written, when single videos cannot.
    """
    folders = runs_of([runs] if isinstance(runs, Path | str) else list(runs))
    place = Path(to) if to is not None else Path(FOLDER) if len(folders) > 1 else folders[0] / FOLDER
    refuse_file(place)
    words = [inputs] if isinstance(inputs, Path | str) else list(inputs)
    model = load(folders, weights, data_dir, trust)
    texts = [str(word) for word in words]
    if any(Path(text).exists() or "=" in text for text in texts):
        samples, failed = read_inputs(texts, model.streams, extracted=place / "features", options=extract, say=say)
    else:
        refuse_without_effect({"--extract": bool(extract)}, "no video is given")
        samples, failed = named_in(samples_of_split(model, split), texts, split), {}
    for note in model.notes:
        say(f"! {note}")
    done: dict[str, Explained] = {}
    for name, sample in samples.items():
        try:
            explained = model.explain(sample, parts=pages)
            if pages:
                write_text(place / f"{file_name(name)}.html", page_of(model, explained, sample))
        except WriteError:
            raise
        except InputError as error:
            failed[name] = " ".join(error.problems)
            continue
        done[name] = explained
        say(line_of(explained, model))
    if done:
        write_text(place / "predictions.csv", csv_of(done, model))
        if as_json:
            write_text(place / "predictions.json", json_of(done, failed, model))
        say(f"{place / 'predictions.csv'}: {count(done)}" + (", each with a page (VIDEO.html)" if pages else ""))
    if failed:
        others = f"{count(done)} scored." if done else "No video was scored."
        raise InputError([*(f"{name}: {why}" for name, why in failed.items()), others])
    return {name: explained.prediction for name, explained in done.items()}


def predict_command(
    words: Sequence[str],
    *,
    save: Path | None,
    to: Path | None,
    as_json: bool,
    split: str | None,
    pages: bool,
    extract: Sequence[str],
    **options: Any,
) -> None:
    """Carry out `python -m pamfn.predict`: leading words that name runs are the runs, the others the inputs.

    Raises:
        InputError: as `predict`.
    """
    count = next((i for i, word in enumerate(words) if not is_run(word)), len(words)) or 1
    folders, inputs = runs_of(words[:count]), list(words[count:])
    refuse_patterns(inputs)
    no_pages = {"--json": as_json, "--no-pages": not pages, "--extract": bool(extract)}
    if to is not None:
        refuse_file(to)
    if save is not None:
        if options["weights"] != "selected":
            raise InputError(
                f"--save with --weights {options['weights']}: the file of an ensemble holds no choice of weights. "
                "Leave --weights out here, and give it with every use of the file."
            )
        if not inputs:
            given = {"--to": to is not None, "--split": split is not None, **no_pages}
            refuse_without_effect(given, "--save without an input only writes the file")
        load(folders, options["weights"], options["data_dir"], options["trust"])  # refuses what cannot score together
        write_ensemble(save, folders)
        print(f"{save}: {len(folders)} runs")
        if not inputs:
            return
    of_split = not any(Path(word).exists() or "=" in word for word in inputs)
    if not of_split:
        refuse_without_effect({"--split": split is not None}, "the inputs are what is scored")
    if of_split and len(folders) == 1 and finds_highlights(folders[0]):
        refuse_without_effect(no_pages, "annotated videos of a highlight run get a table and pictures")
        score_clips(folders[0], inputs, split or "test", to=to, **options)
        return
    settings = {"split": split or "test", "pages": pages, "extract": extract, **options}
    predict(folders, inputs, to=to, as_json=as_json, say=print, **settings)


def refuse_file(place: Path) -> None:
    """Refuse to write into what is no folder, before anything is scored."""
    if place.exists() and not place.is_dir():
        raise InputError(f"--to {place}: a file, and a folder is needed. Name another.")


def refuse_without_effect(given: Mapping[str, bool], why: str) -> None:
    """Refuse options that would be ignored. given: {option: whether it was given}"""
    if useless := [option for option, there in given.items() if there]:
        raise InputError(f"{', '.join(useless)}: without effect here, since {why}. Leave it out.")


def refuse_patterns(inputs: Sequence[str]) -> None:
    """Refuse patterns of folders among the inputs: they were meant to name runs."""
    for word in inputs:
        if "=" not in word and "/" in word and glob.has_magic(word) and not Path(word).exists():
            raise InputError(f"{word}: no finished run matches.")


def count(videos: Sized) -> str:
    """Say how many videos there are."""
    return f"{len(videos)} video{'' if len(videos) == 1 else 's'}"


def finds_highlights(folder: Path) -> bool:
    """Whether a run scores clips."""
    result = Run(folder).finished()
    return main_metric(result["metrics"][result["reported"]]) == "map"


def named_in(samples: dict[str, Sample], names: Sequence[str], split: str) -> dict[str, Sample]:
    """Return the samples of these names; all without names."""
    if missing := [name for name in names if name not in samples]:
        raise InputError(
            f"{', '.join(missing)}: there is no such file, and no such video in the run's {split} "
            f"({some(sorted(samples))})."
        )
    return {name: samples[name] for name in names} if names else samples


def line_of(explained: Explained, model: Model) -> str:
    """Say what was predicted of a video, in a line."""
    prediction = explained.prediction
    if prediction.scores is not None:
        highest = int(prediction.scores.argmax()) + 1
        said = f"{len(prediction.scores)} clips, the highest {prediction.points:.3f} at number {highest}"
    else:
        said = f"{prediction.points:.2f} points"
        if prediction.intervals:
            level, (low, high) = max(prediction.intervals.items())
            said += f", {low:.2f} to {high:.2f} at {level:.0%}"
        if len(model.members) > 1:
            said += f", spread {prediction.spread:.2f} over {len(model.members)} networks"
    own = [warning for warning in prediction.warnings if warning not in model.notes]
    return f"{explained.video}: {said}" + "".join(f"\n  ! {warning}" for warning in own)


def csv_of(done: Mapping[str, Explained], model: Model) -> str:
    """Write predictions as CSV: a line a video, or a line a clip."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if model.finds_highlights:
        writer.writerow(["video", "clip", "start", "end", "score", "warnings"])
        for name, explained in done.items():
            seconds, scores = explained.segment_seconds, explained.prediction.scores
            for i, score in enumerate([] if scores is None else scores.tolist()):
                times = ["", ""] if seconds is None else [f"{i * seconds:g}", f"{(i + 1) * seconds:g}"]
                writer.writerow([name, i + 1, *times, f"{score:.9g}", "; ".join(explained.prediction.warnings)])
        return out.getvalue()
    limits = [f"{side}{level * 100:.0f}" for level in LEVELS for side in ("low", "high")]
    writer.writerow(["video", "points", *limits, "spread", "warnings"])
    for name, explained in done.items():
        prediction = explained.prediction
        numbers = [x for level in LEVELS for x in prediction.intervals.get(level, (None, None))]
        texts = ["" if x is None else f"{x:.9g}" for x in (prediction.points, *numbers, prediction.spread)]
        writer.writerow([name, *texts, "; ".join(prediction.warnings)])
    return out.getvalue()


def json_of(done: Mapping[str, Explained], failed: Mapping[str, str], model: Model) -> str:
    """Write predictions as JSON, with the runs they are of and why other videos have none."""
    videos = {
        name: {
            "points": prediction.points,
            "intervals": {f"{level:g}": limits for level, limits in prediction.intervals.items()},
            "spread": prediction.spread,
            "members": dict(prediction.members),
            "scores": None if prediction.scores is None else prediction.scores.tolist(),
            "segments": done[name].segments,
            "segment_seconds": done[name].segment_seconds,
            "warnings": prediction.warnings,
        }
        for name, prediction in ((name, explained.prediction) for name, explained in done.items())
    }
    runs = [
        {"run": member.name, "weights": member.weights, "commit": member.result["commit"]} for member in model.members
    ]
    content = {"task": model.data.task, "source": model.source, "runs": runs, "videos": videos, "failed": dict(failed)}
    return json.dumps(content, indent=1) + "\n"


def page_of(model: Model, explained: Explained, sample: Sample) -> str:
    """Write the page of a video."""
    return video_page(
        explained,
        networks=[member.name for member in model.members],
        unit_range=None if model.finds_highlights else (0.0, model.max_points),
        training_points=model.training_points,
        file=sample.file,
        reading=sample.reading,
        synthetic=model.source == "synthetic",
    )
