"""Label files of highlight detection: which clips of a video are highlights, and which videos are in which split."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from reprlib import repr as short
from typing import Any, Literal

import numpy as np

from pamfn.data.video_names import problem_of_name, shown
from pamfn.errors import InputError
from pamfn.files import few, regular

SPLITS = {"train": "train", "test": "val"}
"""{our name: UMT's}; UMT tests on its "val" videos."""
MOST_FRAMES = 1e12
"""No frame is this late, and a number in JSON may be too large for any float."""
MOST_BYTES = 2**26


@dataclass(frozen=True)
class Clips:
    """The n clips of one video.

    topic: the domain of the video, such as "dog"
    labels: (n,) float32, 1 for a highlight, else 0
    grid: (n, 2) start and end, in `unit`
    unit: seconds, or frames where the frame rate is not known
    """

    topic: str
    labels: np.ndarray
    grid: np.ndarray
    unit: Literal["seconds", "frames"]


def read_clips(path: Path) -> dict[str, Clips]:
    """Read the annotated videos of YouTube Highlights, by their ids.

    The file is UMT's (a video is named by its id), or has the original authors' annotations in one file (`topic/id`):
    for every video `domain`, `clip` [[first frame, last frame], ...], `match` [-1, 0 or 1, ...] and perhaps `fps`. A
    clip is a highlight when its match is above 0: borderline clips count as none, as in UMT.

    Raises InputError with every problem of the file.
    """
    clips: dict[str, Clips] = {}
    problems: list[str] = []
    for name, entry in _mapping(path, "annotations").items():
        topic, _, video = name.rpartition("/")
        unnamed = problem_of_name(video) or (problem_of_name(topic) if topic else None)
        wrong = _problem(entry, topic)
        if video in clips:
            wrong = "is there twice, under two topics: keep one of them"
        if unnamed:
            problems.append(f"{path}: the video name '{shown(name)}' {unnamed}.")
        elif wrong:
            problems.append(f"{path}: video {name} {wrong}.")
        else:
            fps = entry.get("fps")
            clips[video] = Clips(
                topic=entry["domain"],
                labels=(np.array(entry["match"]) > 0).astype(np.float32),
                grid=np.array(entry["clip"], dtype=np.float64) / (fps or 1),
                unit="seconds" if fps else "frames",
            )
    if problems:
        raise InputError(few(path, problems))
    return clips


def _problem(entry: Any, topic: str) -> str:
    if not isinstance(entry, dict) or not {"domain", "clip", "match"} <= entry.keys():
        return "has no domain, clip or match: expected all three"
    domain, clip, match, fps = entry["domain"], entry["clip"], entry["match"], entry.get("fps")
    if not isinstance(domain, str) or topic not in ("", domain):
        return f"is of the domain {short(domain)}: expected the topic in its name"
    if problem := problem_of_name(domain):
        return f"is of the domain {short(domain)}, which {problem}"
    if not isinstance(clip, list) or not isinstance(match, list) or not clip or len(clip) != len(match):
        return "needs as many matches as clips, and one clip at least"
    if not all(type(m) is int and m in (-1, 0, 1) for m in match):
        return "has a match other than -1, 0 and 1"
    if not all(isinstance(c, list) and len(c) == 2 and _number(c[0]) and _number(c[1]) and c[0] < c[1] for c in clip):
        return "has a clip that is not [first frame, last frame]"
    if clip[0][0] < 0 or any(one[0] >= two[0] for one, two in pairwise(clip)):
        return "has clips before frame 0 or not in the order of time"
    if fps is not None and not (_number(fps) and fps > 0):
        return f"has a frame rate of {short(fps)}: expected a number above 0, or none"
    return ""


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST_FRAMES


def read_split(path: Path) -> dict[str, dict[str, list[str]]]:
    """Read the ids of the videos by topic and split: {topic: {"train": [...], "test": [...]}}.

    The file is UMT's lists (`datasets/utils/static.py` of its code) as JSON: {topic: {"train": [...], "val": [...]}}.

    Raises InputError with every problem of the file.
    """
    topics: dict[str, dict[str, list[str]]] = {}
    problems: list[str] = []
    for topic, lists in _mapping(path, "list of videos").items():
        if problem := problem_of_name(topic):
            problems.append(f"{path}: the topic '{shown(topic)}' {problem}.")
            continue
        splits = {ours: lists.get(name) for ours, name in SPLITS.items()} if isinstance(lists, dict) else {}
        if not splits or not all(isinstance(names, list) and names for names in splits.values()):
            problems.append(f"{path}: topic {topic} needs two lists of videos, {' and '.join(SPLITS.values())}.")
            continue
        ids = [video for names in splits.values() for video in names or []]
        if not all(isinstance(video, str) for video in ids):
            problems.append(f"{path}: topic {topic} has a video that is not named by text.")
        elif odd := [(video, problem) for video in ids if (problem := problem_of_name(video))]:
            problems += [f"{path}: topic {topic}: the video name '{shown(video)}' {problem}." for video, problem in odd]
        elif len(set(ids)) < len(ids):
            twice = sorted(video for video, count in Counter(ids).items() if count > 1)
            problems.append(f"{path}: topic {topic} has videos more than once: {', '.join(twice[:5])}.")
        else:
            topics[topic] = {ours: list(names or []) for ours, names in splits.items()}
    topics_of: dict[str, list[str]] = {}
    for topic, lists in topics.items():
        for video in (*lists["train"], *lists["test"]):
            topics_of.setdefault(video, []).append(topic)
    problems += [
        f"{path}: video {video} is listed under {' and '.join(of)}: keep one of them, or it may be tested on where it "
        "was trained on."
        for video, of in topics_of.items()
        if len(of) > 1
    ]
    if problems:
        raise InputError(few(path, problems))
    return topics


def _mapping(path: Path, what: str) -> Mapping[str, Any]:
    try:
        text = regular(path, most=MOST_BYTES).read_text(encoding="utf-8")
        content = json.loads(text, object_pairs_hook=_once)
    except FileNotFoundError:
        raise InputError(
            f"no {what}: looked for {path}. Put it there (README, 'Data') or set paths.data_dir."
        ) from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}): copy it again.") from None
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} holds no videos: expected a JSON object with at least one entry.")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object of JSON, and refuse a name that is there twice: JSON would keep the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"'{shown(twice)}' is there twice")
    return content
