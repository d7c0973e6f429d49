"""The sound of a video: on the time line of its frames, mixed, and bounded whatever the file says."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from made_videos import picture, reading, write_video
from pamfn.errors import InputError
from pamfn.extraction.container import Seen, chosen_streams, opened
from pamfn.extraction.extractor import SAMPLE_RATE, Sound
from pamfn.extraction.sound import read_sound
from pamfn.extraction.video import shown

RATE = 32_000


def write_pcm(
    path: Path, parts: Sequence[tuple[float, float]], *, frames: int = 80, start: float = 0.0, layout: str = "mono"
) -> Path:
    """Write a video with sound as it is. parts: (second, amplitude) of every .1 s; start: second of the first frame.

    Channel c has the amplitude divided by c + 1.
    """
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "bf": "0"})
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        audio: Any = container.add_stream("pcm_f32le", rate=RATE, layout=layout)
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts, frame.time_base = round(1000 * start) + 40 * i, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        channels = audio.codec_context.channels
        for second, amplitude in parts:
            samples = np.repeat(amplitude / (1 + np.arange(channels)), RATE // 10).reshape(channels, -1)
            interleaved = np.ascontiguousarray(samples.T.reshape(1, -1).astype(np.float32))
            heard = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
            heard.sample_rate, heard.pts, heard.time_base = RATE, round(second * RATE), Fraction(1, RATE)
            container.mux(audio.encode(heard))
        container.mux(audio.encode(None))
    return path


def read(path: Path, *channels: str, **changed: Any) -> tuple[Sound, list[str]]:
    seen = Seen()
    sounds = read_sound(path, reading(**changed), channels or ("mean",), seen)
    return next(iter(sounds.values())), seen.warnings


def at(sound: Sound, *seconds: float) -> list[float]:
    """The sound at these seconds, relative to its beginning."""
    return [round(float(sound.whole[int(s * SAMPLE_RATE)] - sound.whole[800]), 2) for s in seconds]


def loud(first: int, last: int, amplitude: float = 0.5) -> list[tuple[float, float]]:
    return [(i / 10, amplitude) for i in range(first, last)]


def test_every_sound_has_its_place_and_the_mean_of_the_track_is_taken_away(tmp_path: Path):
    sound, warnings = read(write_pcm(tmp_path / "a.mkv", [*loud(0, 16, 0.0), *loud(16, 32, 0.5)]))
    assert (len(sound.whole), sound.source_rate, warnings) == (int(3.2 * SAMPLE_RATE), RATE, [])
    assert at(sound, 1.59, 1.61, 3.1) == [0.0, 0.5, 0.5]
    assert abs(sound.whole.mean()) < 1e-6


@pytest.mark.parametrize(("start", "quiet_until"), [(0.0, 1.0), (0.5, 0.5)])
def test_what_counts_is_when_the_frames_start(tmp_path: Path, start: float, quiet_until: float):
    path = write_pcm(tmp_path / "a.mkv", [*loud(0, 10, 0.0), *loud(10, 32, 0.5)], start=start)
    sound, _ = read(path)
    assert len(sound.whole) == pytest.approx((3.2 - start) * SAMPLE_RATE, abs=1)
    assert at(sound, quiet_until - 0.01, quiet_until + 0.01) == [0.0, 0.5]


def test_sound_that_starts_before_or_after_all_frames_is_none(tmp_path: Path):
    sound, warnings = read(write_pcm(tmp_path / "a.mkv", loud(36_000_0, 36_000_5)))  # after ten hours
    assert len(sound.whole) == 0
    assert "its sound starts after its last frame" in warnings
    sound, _ = read(write_pcm(tmp_path / "b.mkv", loud(0, 5), start=36_000.0))
    assert len(sound.whole) == 0


def test_a_gap_is_silence_and_told_or_refused(tmp_path: Path):
    path = write_pcm(tmp_path / "a.mkv", [*loud(0, 10), *loud(20, 32)])
    sound, warnings = read(path)
    assert at(sound, 0.99, 1.01, 1.99, 2.01) == [0.0, -0.5, -0.5, 0.0]
    assert warnings == ["1.00 s of its sound are missing: silence is taken for them"]
    with pytest.raises(InputError, match=r"no sound between 1.00 and 2.00 s: expected 0.5 s of damage at most"):
        read(path, max_gap=0.5)
    assert len(read(path, fps="native", max_gap=0.5)[0].whole) == int(2.2 * SAMPLE_RATE)


def test_sound_that_comes_twice_is_heard_once(tmp_path: Path):
    path = write_video(tmp_path / "a.ts", 80, sound=1.0)
    path.write_bytes(path.read_bytes() + write_video(tmp_path / "b.ts", 80, sound=1.0).read_bytes())
    sound, warnings = read(path)
    assert len(sound.whole) == pytest.approx(1.0 * SAMPLE_RATE, abs=0.15 * SAMPLE_RATE)
    assert any("stamped earlier than what is before: they are left out" in text for text in warnings)
    with pytest.raises(InputError, match="the time stamps of its sound go back from"):
        read(path, max_gap=0.5)
    assert len(read(path, fps="native")[0].whole) == pytest.approx(2.0 * SAMPLE_RATE, abs=0.2 * SAMPLE_RATE)


def test_of_six_channels_the_mean_or_the_first_is_taken(tmp_path: Path):
    path = write_pcm(tmp_path / "a.mkv", [*loud(0, 16, 0.0), *loud(16, 32, 0.6)], layout="5.1")
    mean, left = (at(read(path, channel)[0], 2.0)[0] for channel in ("mean", "left"))
    assert left == pytest.approx(0.6, abs=0.01)
    assert mean == pytest.approx(0.6 * np.mean(1 / np.arange(1, 7)), abs=0.01)


def test_channels_may_change_in_the_middle(tmp_path: Path):
    parts = [write_video(tmp_path / f"{c}.ts", 40, sound=1.6, channels=c) for c in (1, 2)]
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    sound, _ = read(tmp_path / "both.ts", fps="native")
    assert len(sound.whole) == pytest.approx(3.2 * SAMPLE_RATE, abs=0.2 * SAMPLE_RATE)
    halves = [np.abs(half).max() for half in np.array_split(sound.whole, 2)]
    assert halves[1] == pytest.approx(0.75 * halves[0], rel=0.1)  # the right channel is half as loud


def test_values_that_are_no_numbers_are_silence(tmp_path: Path):
    sound, _ = read(write_pcm(tmp_path / "a.mkv", [*loud(0, 10), *loud(10, 20, np.nan), *loud(20, 32, np.inf)]))
    assert np.isfinite(sound.whole).all()


def test_an_impossible_rate_is_taken_for_damage(tmp_path: Path):
    """Resampled from 4 Hz to 16 kHz, a second would become an hour."""
    path = write_pcm(tmp_path / "a.mkv", loud(0, 32))
    stored = np.array([RATE], ">f8").tobytes()
    content = path.read_bytes()
    assert content.count(stored) == 1
    path.write_bytes(content.replace(stored, np.array([4.0], ">f8").tobytes()))
    assert len(read(path)[0].whole) == 0


@pytest.mark.parametrize("fps", ["25", "native"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.mov"])
def test_segments_are_counted_without_decoding(tmp_path: Path, fps: str, name: str):
    """Also where the headers announce more, since the sound is longer."""
    codec = "mpeg4" if name == "a.avi" else "libx264"
    path = write_video(tmp_path / name, 130, rate=30, sound=9.0, codec=codec)
    seen, settings = Seen(), reading(fps=fps)
    with opened(path) as container:
        frames = list(shown(container, chosen_streams(container, settings, seen)[0], settings, seen))
    assert read(path, fps=fps)[0].segments == len(frames) // 32 == {"25": 3, "native": 4}[fps]
