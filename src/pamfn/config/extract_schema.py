"""The typed schema of `conf/extract.yaml`; arguments of the extractors are checked in targets.py."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from omegaconf import DictConfig
from pydantic import Field, ValidationError

from pamfn.config.problems import sentences
from pamfn.config.schema import Name, Node, Strict, matching
from pamfn.config.targets import problems_of_node
from pamfn.config.validation import problems_of_numbers, resolved
from pamfn.errors import InputError

DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


class Reading(Strict):
    """How a video is read; part of what its features are.

    fps: 25 by time stamps, or every frame as decoded (`native`)
    video_stream, audio_stream: indices; None for the streams that players choose
    missing_audio: what a video without sound becomes: silence, an error, or one without streams of sound (`skip`)
    short: what a video shorter than a segment becomes: one segment that repeats its last frame, or an error
    max_gap: seconds of damage in the middle beyond which a video is refused
    """

    fps: Literal["25", "native"]
    video_stream: Annotated[int, Field(ge=0)] | None
    audio_stream: Annotated[int, Field(ge=0)] | None
    deinterlace: bool
    missing_audio: Literal["silence", "error", "skip"]
    short: Literal["repeat", "error"]
    max_gap: float = Field(gt=0)


class Weights(Strict):
    """Files of the networks' weights, as published; the files in `conf/extractor/` read them from here."""

    vst: str | None
    i3d: str | None
    ast: str | None
    unmt: str | None
    blazepose: str | None


class ExtractConfig(Strict):
    """An extraction. videos: a folder, a file, a text file with a path a line, or a list of files.

    extractor: {stream: a `_target_` with its arguments, and `weights`, its file}
    streams: those that are extracted, or packed; None for all
    batch: segments that a network takes at a time
    part, parts: this job takes one part of the videos
    time_limit: seconds without progress after which a video is given up
    render, clips: first make synthetic videos below this folder, so many of train, test, and with a mistake
    pack, dataset: instead of extracting: a folder of features that becomes the stores of a data set
    """

    videos: str | list[str] | None
    out: str | None
    extractor: dict[Name, Node]
    streams: list[str] | None
    preset: Literal["sound", "authors"]
    reading: Reading
    weights: Weights
    device: Annotated[str, matching(DEVICE, "expected auto, cpu, cuda, cuda:1 or mps")]
    precision: Literal["32", "bf16"]
    batch: int = Field(gt=0)
    threads: int = Field(gt=0)
    part: int = Field(ge=0)
    parts: int = Field(gt=0)
    time_limit: float = Field(gt=0)
    render: str | None
    clips: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=3, max_length=3)]
    dry: bool
    pack: str | None
    dataset: Name | None
    data_dir: str


def checked_extraction(raw: DictConfig | Mapping[str, Any]) -> ExtractConfig:
    """Return the typed configuration of an extraction, with everything checked but the videos.

    Raises:
        InputError: with one sentence for every misspelt key, wrong type and impossible choice.
    """
    plain = resolved(raw)
    try:
        config = ExtractConfig.model_validate(plain)
    except ValidationError as error:
        raise InputError(sentences(error, ExtractConfig)) from error
    problems = [*problems_of_numbers(plain), *problems_of_choices(config)]
    for stream in config.streams or config.extractor:
        if node := config.extractor.get(stream):
            arguments = {key: value for key, value in node.items() if key != "weights"}
            problems += problems_of_node(arguments, f"extractor.{stream}")
    if problems:
        raise InputError(problems)
    return config


def problems_of_choices(config: ExtractConfig) -> list[str]:
    """Return a sentence for all settings that are valid one by one but not together."""
    problems = []
    if config.pack is None:
        problems += [
            f"{key}: missing. Extraction needs videos=FOLDER out=FOLDER; `--help` says more."
            for key in ("videos", "out")
            if getattr(config, key) is None
        ]
        if config.dataset:
            problems.append("dataset: names the stores that pack=FOLDER writes; extraction itself needs no name.")
        if config.dry and config.render is not None:
            problems.append("render: makes videos, and dry=true makes nothing: leave one of them out.")
        return problems + problems_of_extraction(config)
    if idle := [key for key in ("videos", "out", "render", "dry") if getattr(config, key)]:
        problems.append(
            f"pack: writes stores from a folder of features, and {', '.join(idle)} {'is' if len(idle) == 1 else 'are'} "
            "for extraction: leave one or the other out."
        )
    if config.streams == []:
        problems.append("streams: choose at least one of those in the folder, or leave it out for all.")
    if config.dataset is None:
        problems.append("dataset: missing. The stores are called features/DATASET_stream_EXTRACTOR: dataset=NAME.")
    elif "_" in config.dataset:
        problems.append(f"dataset: {config.dataset!r} has an underscore, which separates the parts of a file's name.")
    return problems


def problems_of_extraction(config: ExtractConfig) -> list[str]:
    """Return a sentence for all choices of streams and parts that an extraction cannot make."""
    problems = []
    if unknown := [name for name in config.streams or [] if name not in config.extractor]:
        problems.append(f"streams: {', '.join(unknown)} not among the extractor's: {', '.join(config.extractor)}.")
    if config.streams == []:
        problems.append(f"streams: choose at least one of {', '.join(config.extractor)}.")
    if config.part >= config.parts:
        problems.append(f"part: {config.part} is none of the {config.parts} parts, which count from 0.")
    return problems
