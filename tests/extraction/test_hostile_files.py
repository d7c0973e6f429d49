"""Files that anybody may have made: mutated ones end in features or a sentence, never in a hang or a lost batch."""

from pathlib import Path

import numpy as np
import pytest

from made_videos import config, write_video
from pamfn.extraction.job import extract

MADE = {"a.mp4": {}, "b.mkv": {}, "c.avi": {"codec": "mpeg4"}, "d.ts": {}, "e.mov": {}}
FORESEEN = (
    "cannot be read",
    "no frame",
    "no sound",
    "has no",
    "its video is",
    "its frames are",
    "its time stamps",
    "the time stamps of its sound",
    "longer than",
    "no progress",
    "memory",
)


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """Some bytes changed, near the start, near the end or anywhere; cut off; something put in or taken out."""
    x, kind = bytearray(content), random.integers(6)
    n = len(x)
    first, last = [(0, n), (0, min(3000, n)), (max(n - 4000, 0), n)][min(kind, 2)]
    place = int(random.integers(n))
    if kind <= 2:
        for i in random.integers(first, last, random.integers(1, 50)):
            x[i] = random.integers(256)
    elif kind == 3:
        del x[place:]
    elif kind == 4:
        x[place:place] = random.bytes(int(random.integers(1, 5000)))
    else:
        del x[place : place + int(random.integers(1, 20_000))]
    return bytes(x)


@pytest.mark.slow
def test_every_mutated_file_ends_in_features_or_a_sentence(tmp_path: Path):
    (tmp_path / "v").mkdir()
    random = np.random.default_rng(0)
    for name, made in MADE.items():
        content = write_video(tmp_path / name, 90, sound=3.6, **made).read_bytes()  # type: ignore[arg-type]
        for i in range(12):
            (tmp_path / "v" / f"{i}{name}").write_bytes(mutated(content, random))
    music = {"audio": {"_target_": "pamfn.extraction.MFCC"}, "rgb": {"_target_": "pamfn.extraction.HOG"}}
    outcome = extract(config(tmp_path / "v", tmp_path / "out", extractor=music, time_limit=20.0), print)
    assert len(outcome.done) + len(outcome.failed) == 60
    assert len(outcome.done) > 20
    strange = {video: reason for video, reason in outcome.failed.items() if not reason.startswith(FORESEEN)}
    assert not strange
