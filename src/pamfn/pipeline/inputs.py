"""The videos that are to be scored: read from videos, folders of extracted features, or feature files.

What the features are is compared with what the network was trained on, by name; nothing else is scored.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from pamfn.config.extract_schema import Reading
from pamfn.data.base_datamodule import TOLERANCE
from pamfn.data.features import FeatureSet, read_features
from pamfn.data.umt_folders import read_array
from pamfn.data.video_names import some
from pamfn.errors import InputError
from pamfn.extraction.extractor import FPS, SEGMENT_FRAMES
from pamfn.extraction.store import SETTINGS, FeatureFolder, differences, read_settings

Settings = dict[str, Any]
"""How `pamfn.extract` made features: its reading, the extractor's class and arguments, width, weights."""

OTHER_NUMBERS = ("reading.missing_audio", "reading.short", "precision")
"""Settings that may differ: they concern videos that lack something, or the last digits."""


@dataclass(frozen=True)
class Stream:
    """The features that a network reads of one stream.

    extraction: how they were made; None where the run does not say
    """

    extractor: str
    width: int
    extraction: Settings | None


@dataclass
class Sample:
    """A video that is to be scored.

    features: {stream: (t, c)} of the streams that are there
    file, reading: the video itself, if it was given, and how it was read
    segment_seconds: None where that is not known
    """

    name: str
    features: dict[str, np.ndarray]
    file: Path | None = None
    segment_seconds: float | None = None
    warnings: list[str] = field(default_factory=list)
    reading: Reading | None = None


def refuse_other_extraction(where: object, stream: str, there: Settings, trained: Settings | None) -> None:
    """Refuse features that were made otherwise than those that a network was trained on."""
    if trained is None:
        return
    apart = [text for text in differences(trained, there, "") if not text.removeprefix(".").startswith(OTHER_NUMBERS)]
    if apart:
        said = "; ".join(text.removeprefix(".").replace(", asked for ", " in training, and here ") for text in apart)
        raise InputError(
            f"{where}: its {stream} features are not what the network was trained on: {said}. "
            "Extract them as those of training were."
        )


def read_inputs(
    words: Sequence[str],
    streams: Mapping[str, Stream],
    *,
    extracted: Path,
    options: Sequence[str],
    say: Callable[[str], None],
) -> tuple[dict[str, Sample], dict[str, str]]:
    """Return {name: sample} of all videos in the inputs, and {name: why} of those that cannot be read.

    words: a video or a folder of videos, a folder of `pamfn.extract`, or a feature file (STREAM=FILE where its name
        does not say the stream); any other word is the name of a video, and only those named are returned
    streams: what the network reads
    extracted: folder for the features of videos
    options: settings of `pamfn.extract` for videos, e.g. "device=cuda"

    Raises:
        InputError: when there is nothing to score, or features do not match.
    """
    files: dict[str, FeatureSet] = {}
    samples: dict[str, Sample] = {}
    failed: dict[str, str] = {}
    videos: list[Path] = []
    named: list[str] = []
    for word in words:
        stream, equals, rest = word.partition("=")
        place = Path(word)
        if equals and stream in streams:
            add_file(files, stream, Path(rest), streams)
        elif equals and not place.exists() and Path(rest).is_file():
            raise InputError(f"{word}: the network reads no stream {stream!r}; it reads {', '.join(streams)}.")
        elif (place / SETTINGS).is_file():
            add_samples(samples, from_folder(place, streams))
        elif unfinished(place):
            raise InputError(f"{word}: a run that is not finished. Leave it out, or finish it by its own command.")
        elif place.is_dir() or (place.is_file() and place.suffix not in (".npy", ".safetensors")):
            videos.append(place)
        elif place.is_file():
            add_file(files, stream_of(place, streams), place, streams)
        elif place.parent != Path() or place.suffix:
            raise InputError(f"{word}: there is no such file or folder.")
        else:
            named.append(word)
    if options and not videos:
        raise InputError(f"--extract {options[0]}: no video is given whose features would be extracted. Leave it out.")
    add_samples(samples, from_files(files))
    if videos:
        seen, failed = from_videos(videos, streams, extracted, options, say)
        add_samples(samples, seen)
    if missing := [name for name in named if name not in samples and name not in failed]:
        inside = f"there are {some(sorted(samples))}" if samples else "give a video, or a folder or file of features"
        raise InputError(f"{', '.join(missing)}: no file, and no video of that name; {inside}.")
    if named:
        samples = {name: samples[name] for name in named if name in samples}
        failed = {name: failed[name] for name in named if name in failed}
    for name, sample in list(samples.items()):
        if problem := problem_of_sample(sample, streams):
            failed[name] = problem
            del samples[name]
    return samples, failed


def unfinished(folder: Path) -> bool:
    """Whether a folder is that of a run that was begun and has no result."""
    return not (folder / "result.json").exists() and any((folder / n).exists() for n in (".lock", "resume.ckpt"))


def add_samples(samples: dict[str, Sample], more: Mapping[str, Sample]) -> None:
    """Add samples to others; refuse two of one name."""
    if twice := sorted(samples.keys() & more.keys()):
        raise InputError(
            f"{some(twice)}: in two of the inputs. Score them one after the other, with another --to each."
        )
    samples |= more


def add_file(files: dict[str, FeatureSet], stream: str, path: Path, streams: Mapping[str, Stream]) -> None:
    """Read a feature file of a stream: many videos, or a plain array of one, which is called by the file's name."""
    if stream in files:
        raise InputError(f"{path}: the {stream} features were already given in {files[stream].path}.")
    features = plain(path, f"_{stream}_{streams[stream].extractor}") if is_plain(path) else read_features(path)
    if features.extraction is not None:
        refuse_other_extraction(path, stream, features.extraction, streams[stream].extraction)
    files[stream] = features


def is_plain(path: Path) -> bool:
    """Whether a `.npy` file holds one array, no pickle."""
    if path.suffix != ".npy" or not path.is_file():
        return False
    with path.open("rb") as file:
        return b"'descr': '<f" in file.read(128)


def plain(path: Path, ending: str) -> FeatureSet:
    """Read the array of one video, which is called by the file's name without its `_stream_EXTRACTOR`."""
    return FeatureSet({path.stem.removesuffix(ending) or path.stem: read_array(path)}, "", path)


def stream_of(path: Path, streams: Mapping[str, Stream]) -> str:
    """Return the stream whose features a file holds, by its name DATASET_stream_EXTRACTOR.

    Raises:
        InputError: when it is of another extractor, or its name does not say.
    """
    if path.with_name(SETTINGS).is_file():
        raise InputError(
            f"{path} is one file of a folder of extracted features: give the folder, and the video's name behind it."
        )
    expected = ", ".join(f"{m} ({spec.extractor})" for m, spec in streams.items())
    for stream, spec in streams.items():
        if path.stem.endswith(f"_{stream}_{spec.extractor}"):
            return stream
        if f"_{stream}_" in path.stem:
            other = path.stem.rpartition("_")[2]
            raise InputError(f"{path}: {stream} features of {other}, and the network was trained on {expected}.")
    raise InputError(
        f"{path}: its name does not say which stream it is. The network reads {expected}: "
        f"call it DATASET_stream_EXTRACTOR{path.suffix}, or write {next(iter(streams))}={path}."
    )


def from_files(files: Mapping[str, FeatureSet]) -> dict[str, Sample]:
    """Return the samples of feature files, one file a stream.

    Videos are matched by their names; where all files are plain arrays, which name none, they are of one video.
    """
    if not files:
        return {}
    single = all(is_plain(features.path) for features in files.values())
    names = list(dict.fromkeys(name for features in files.values() for name in features.arrays))
    if single and len(names) > 1:  # video_rgb.npy, video_flow.npy
        names = names[:1]
    seconds = {segment_seconds(features.extraction) for features in files.values()}
    samples = {}
    for name in names:
        there = {m: next(iter(f.arrays.values())) if single else f.arrays.get(name) for m, f in files.items()}
        kept = {m: array for m, array in there.items() if array is not None}
        samples[name] = Sample(name, kept, None, seconds.pop() if len(seconds) == 1 else None)
        seconds = {samples[name].segment_seconds}
    return samples


def from_folder(folder: Path, streams: Mapping[str, Stream]) -> dict[str, Sample]:
    """Return the samples of a folder of extracted features.

    Raises:
        InputError: when its features are not what the network was trained on.
    """
    settings = read_settings(folder)
    features = FeatureFolder(folder, settings["reading"], settings["streams"])
    keys = {}
    for stream, spec in streams.items():
        key = f"{stream}_{spec.extractor}"
        others = [other for other in settings["streams"] if other.rpartition("_")[0] == stream]
        if key in settings["streams"]:
            made = {"reading": settings["reading"], **settings["streams"][key]}
            refuse_other_extraction(folder, stream, made, spec.extraction)
            keys[stream] = key
        elif others:
            raise InputError(f"{folder}: {', '.join(others)}, and the network was trained on {key}.")
    if not keys:
        raise InputError(f"{folder} has none of the streams that the network reads: {', '.join(streams)}.")
    samples = {}
    for video in features.finished_videos():
        there = {m: features.features_file(video, key) for m, key in keys.items() if features.has(video, key)}
        arrays = {m: load_file(file)["features"] for m, file in there.items()}
        seen = features.seen(video) or {}
        samples[video] = Sample(video, arrays, None, segment_seconds(settings), list(seen.get("warnings", [])))
    if not samples:
        raise InputError(f"{folder} holds no finished video.")
    return samples


def segment_seconds(extraction: Settings | None) -> float | None:
    """Return how long a segment is, if that is recorded and one length for all videos."""
    of_25 = extraction is not None and extraction.get("reading", {}).get("fps") == "25"
    return SEGMENT_FRAMES / FPS if of_25 else None


def from_videos(
    places: Sequence[Path],
    streams: Mapping[str, Stream],
    extracted: Path,
    options: Sequence[str],
    say: Callable[[str], None],
) -> tuple[dict[str, Sample], dict[str, str]]:
    """Extract features of videos as those of training were, and return the samples; {name: why} of those that failed.

    Raises:
        InputError: when it is not recorded how, or the weights are not those of training.
    """
    from pamfn.extraction.job import extract, find_videos, setup_of

    unknown = [stream for stream, spec in streams.items() if spec.extraction is None]
    if unknown:
        names = ", ".join(f"{stream}_{streams[stream].extractor}" for stream in unknown)
        raise InputError(
            f"{places[0]}: the run does not say how its {names} features were extracted (they were not packed by "
            "`python -m pamfn.extract`). Extract the video's with the same settings, and give that folder."
        )
    files = [file for place in places for file in find_videos(str(place)).values()]
    try:
        config = extraction_of(files, streams, extracted, options)
        setup, _ = setup_of(config)
    except InputError as error:
        raise InputError([*error.problems, "Settings of the extraction are given by --extract KEY=VALUE."]) from None
    for key, made in setup.folder.streams.items():
        stream = key.rpartition("_")[0]
        refuse_other_extraction(places[0], stream, dict(made), without_reading(streams[stream].extraction))
    paths = find_videos([str(file) for file in files])
    failed = extract(config, say).failed
    samples = {n: s for n, s in from_folder(extracted, streams).items() if n in paths and n not in failed}
    for name, sample in samples.items():
        sample.file, sample.reading = paths[name], config.reading
    return samples, {name: failed[name] for name in paths if name in failed}


def without_reading(extraction: Settings | None) -> Settings | None:
    return None if extraction is None else {key: value for key, value in extraction.items() if key != "reading"}


def extraction_of(files: Sequence[Path], streams: Mapping[str, Stream], out: Path, options: Sequence[str]) -> Any:
    """Return the configuration that extracts these videos as those of training were.

    A video without sound has no streams of sound, unless they are all that is read.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    from pamfn.config.compose import CONF, let_checked_refuse, register
    from pamfn.config.extract_schema import checked_extraction

    register()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            raw = hydra.compose("extract", let_checked_refuse(list(options)))
    except HydraException as error:
        raise InputError(str(error)) from error
    plain = OmegaConf.to_container(raw, resolve=False)
    assert isinstance(plain, dict)
    made = [spec.extraction for spec in streams.values() if spec.extraction is not None]
    nodes = {}
    for stream, spec in streams.items():
        assert spec.extraction is not None
        option = spec.extractor.partition("-")[0].lower()
        weights = {"weights": f"${{weights.{option}}}"} if "weights" in spec.extraction else {}
        nodes[stream] = {**spec.extraction["extractor"], **weights}
    precision = next((each["precision"] for each in made if "precision" in each), "32")
    skip = "skip" if len(streams) > 1 else made[0]["reading"]["missing_audio"]
    plain |= {
        **{"videos": [str(file) for file in files], "out": str(out), "extractor": nodes, "streams": None},
        **{"reading": {**made[0]["reading"], "missing_audio": skip}, "precision": precision},
    }
    return checked_extraction(OmegaConf.create(plain))


def problem_of_sample(sample: Sample, streams: Mapping[str, Stream]) -> str:
    """Check a sample; streams whose lengths differ a little are cut to the shortest, with a warning."""
    for stream, rows in sample.features.items():
        if rows.ndim != 2 or not len(rows):
            return f"its {stream} features have the shape {rows.shape}: expected (segments, width)"
        if rows.shape[1] != streams[stream].width:
            return f"its {stream} features are {rows.shape[1]} wide, and the network reads {streams[stream].width}"
        if rows.dtype.kind != "f" or not np.isfinite(rows).all():
            return f"its {stream} features hold values that are no finite numbers: extract them again"
    lengths = {stream: len(rows) for stream, rows in sample.features.items()}
    if not lengths:
        return "none of the streams that the network reads is there"
    least, most = min(lengths.values()), max(lengths.values())
    if most - least > TOLERANCE:
        return f"its streams have different numbers of segments: {', '.join(f'{m} {t}' for m, t in lengths.items())}"
    if most > least:
        sample.warnings.append(f"cut to its shortest stream, {least} segments")
        sample.features = {stream: rows[:least] for stream, rows in sample.features.items()}
    return ""
