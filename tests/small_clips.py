"""YouTube Highlights in small: annotations, split and features of nine videos in UMT's layout."""

import json
from pathlib import Path
from typing import Any

import numpy as np

DATASET = "YouTubeHighlights"
COUNTS = {"d1": 3, "d2": 5, "d3": 4, "d4": 7, "d5": 4, "d6": 6, "s1": 2, "s2": 9, "s3": 3}
SPLIT = {
    "dog": {"train": ["d4", "d1", "d2", "d3"], "val": ["d5", "d6"]},
    "skiing": {"train": ["s1", "s2"], "val": ["s3"]},
}
FEATURES = {
    "rgb": {"extractor": "I3D", "width": 4},
    "flow": {"extractor": "I3D", "width": 3},
    "audio": {"extractor": "PANN", "width": 2},
}
PLACES = {"rgb": "video_features/{}_rgb.npy", "flow": "video_features/{}_opt.npy", "audio": "audio_features/{}.npy"}


def match(video: str) -> list[int]:
    return [(i + len(video) + int(video[1])) % 3 - 1 for i in range(COUNTS[video])]


def annotation(video: str) -> dict[str, Any]:
    clip = [[50.0 * i, 50.0 * i + 100] for i in range(COUNTS[video])]
    domain = "dog" if video[0] == "d" else "skiing"
    return {"fps": 25.0, "frames": "500", "domain": domain, "info": [], "clip": clip, "match": match(video)}


def write_clips(folder: Path) -> Path:
    """Two topics: 4 + 2 videos of dogs, 2 + 1 of skiing; one feature row a clip, float32."""
    write(folder, "youtube_anno.json", {video: annotation(video) for video in COUNTS})
    write(folder, "umt_splits.json", SPLIT)
    random = np.random.default_rng(0)
    for modality, spec in FEATURES.items():
        for video, clips in COUNTS.items():
            save(folder, modality, video, random.normal(size=(clips, spec["width"])).astype(np.float32))
    return folder


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / DATASET / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def file_of(folder: Path, modality: str, video: str) -> Path:
    return folder / DATASET / PLACES[modality].format(video)


def save(folder: Path, modality: str, video: str, array: np.ndarray) -> None:
    path = file_of(folder, modality, video)
    path.parent.mkdir(exist_ok=True)
    np.save(path, array)
