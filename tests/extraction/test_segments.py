"""Videos read as segments: every kind of file that users have, made here by PyAV's encoders."""

import json
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from made_videos import picture, reading, tone, write_video
from pamfn.errors import InputError
from pamfn.extraction import sound as sound_of_videos
from pamfn.extraction.container import Seen, inspect, opened
from pamfn.extraction.extractor import SAMPLE_RATE, Extractor, FlowSettings, Segment
from pamfn.extraction.fbank import fbank
from pamfn.extraction.flow import METHODS, estimator, flow_between
from pamfn.extraction.segments import Video
from pamfn.extraction.sound import read_sound
from pamfn.extraction.video import Resizer, decoded, shown

SHARED = os.environ.get("PAMFN_SHARED_DIR")
needs_recorded = pytest.mark.skipif(not SHARED, reason="PAMFN_SHARED_DIR, the folder of the recorded tensors, is unset")
REAL = {"friday": {}, "nasa_13013": {"video_stream": 0, "audio_stream": 1}}
"""The two real videos, and the streams of them that were recorded."""


class Everything(Extractor):
    """Reads frames, flow and sound."""

    width, name = 1, "everything"  # type: ignore[assignment]
    short_sides, channels = (32,), ("mean", "left")
    flows = (FlowSettings("dis_fast", 32),)

    def features(self, segments: Sequence[Segment]) -> np.ndarray:
        return np.zeros((len(segments), 1), np.float32)


def read(path: Path, first: int = 0, **changed: Any) -> tuple[list[Segment], Seen]:
    video = Video(path, reading(**changed), [Everything()])
    return list(video.segments(first)), video.seen


def brightness(segments: Sequence[Segment]) -> np.ndarray:
    """Of every frame, relative to the first."""
    values = np.concatenate([segment.frames[32].mean(axis=(1, 2, 3)) for segment in segments])
    return values - values[0]


def warnings(path: Path, **changed: Any) -> str:
    return "; ".join(read(path, **changed)[1].warnings)


def test_all_streams_of_a_video_are_on_one_time_line(tmp_path: Path):
    segments, seen = read(write_video(tmp_path / "a.mp4", 80, sound=3.2))
    assert [segment.index for segment in segments] == [0, 1]
    assert (seen.decoded, seen.shown, seen.warnings) == (80, 80, [])
    for segment in segments:
        assert segment.frames[32].shape == (32, 32, 48, 3)
        assert segment.flow[FlowSettings("dis_fast", 32)].shape == (32, 32, 48, 2)
        assert {sound.segment(segment.index).shape for sound in segment.sound.values()} == {(20_480,)}
    expected = np.array([picture(i).mean() for i in range(64)])
    np.testing.assert_allclose(brightness(segments), expected - expected[0], atol=2)


def test_the_last_flow_of_a_segment_reaches_into_the_next_and_repeats_at_the_end(tmp_path: Path):
    segments, _ = read(write_video(tmp_path / "a.mp4", 64))
    settings = FlowSettings("dis_fast", 32)
    across = np.stack([segments[0].frames[32][31], segments[1].frames[32][0]])
    np.testing.assert_array_equal(segments[0].flow[settings][31], flow_between(across, "dis_fast")[0])
    np.testing.assert_array_equal(segments[1].flow[settings][31], segments[1].flow[settings][30])


@pytest.mark.parametrize("first", [1, 2, 5])
@pytest.mark.parametrize("times", [None, [int(x) for x in np.cumsum(np.random.default_rng(1).integers(20, 70, 200))]])
def test_going_on_in_the_middle_gives_the_same_bytes(tmp_path: Path, first: int, times: list[int] | None):
    path = write_video(tmp_path / "a.mkv", 200, times=times, sound=8)
    whole, rest = read(path)[0], read(path, first)[0]
    assert len(rest) == max(len(whole) - first, 0)
    for one, other in zip(whole[first:], rest, strict=True):
        assert one.index == other.index
        np.testing.assert_array_equal(one.frames[32], other.frames[32])
        settings = FlowSettings("dis_fast", 32)
        np.testing.assert_array_equal(one.flow[settings], other.flow[settings])


def test_another_rate_is_converted_by_time_or_left_as_it_is(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", 90, rate=30)
    segments, seen = read(path)
    assert (len(segments), seen.shown, seen.dropped) == (2, 75, 15)
    shown_by_rule = [max(i for i in range(90) if int(25 * Fraction(i, 30) + Fraction(1, 2)) <= k) for k in range(64)]
    expected = np.array([picture(i).mean() for i in shown_by_rule])
    np.testing.assert_allclose(brightness(segments), expected - expected[0], atol=2)
    assert read(path, fps="native")[1].shown == 90
    assert "there are 30 a second" in warnings(path, fps="native")


def test_time_stamps_count_and_not_the_announced_rate(tmp_path: Path):
    times = [int(x) for x in np.cumsum(np.random.default_rng(0).integers(20, 70, 80))]
    seen = read(write_video(tmp_path / "a.mkv", 80, times=times))[1]
    assert seen.decoded == 80
    assert seen.shown == seen.decoded + seen.repeated - seen.dropped
    assert abs(seen.shown - times[-1] / 40) < 3
    assert min(seen.repeated, seen.dropped) > 0


def test_a_gap_is_filled_by_the_frame_before_it_and_told_of_or_refused(tmp_path: Path):
    path = write_video(tmp_path / "a.mkv", 80, times=[40 * i + (1200 if i >= 40 else 0) for i in range(80)])
    segments, seen = read(path)
    assert (seen.shown, seen.repeated, len(segments)) == (110, 30, 3)
    assert "no frame between 1.56 and 2.80 s: the one before is repeated" in seen.warnings
    with pytest.raises(InputError, match=r"expected 1 s without one at most \(reading.max_gap\)"):
        read(path, max_gap=1.0)


def test_a_video_without_sound_is_silent_or_refused(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4")
    segments, seen = read(path)
    assert seen.warnings == ["no sound: silence is taken for it"]
    assert not segments[1].sound["mean"].segment(1).any()
    with pytest.raises(InputError, match="has no sound"):
        read(path, missing_audio="error")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"sound": 3.2, "quiet": True}, "its sound is silence"),
        ({"sound": 5.0}, "5.02 s of sound for 3.20 s of frames: the rest is dropped"),
        ({"sound": 2.0}, "of sound for 3.20 s of frames: silence is taken for the rest"),
        ({"frames": 10}, "10 frames, fewer than the 32 of a segment: the last one is repeated"),
    ],
)
def test_what_is_unusual_is_told(tmp_path: Path, made: dict[str, Any], said: str):
    assert said in warnings(write_video(tmp_path / "a.mp4", **{"frames": 80, **made}))


def test_a_video_shorter_than_a_segment_is_one_or_is_refused(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", 10)
    (segment,), _ = read(path)
    np.testing.assert_array_equal(segment.frames[32][9], segment.frames[32][31])
    with pytest.raises(InputError, match="10 frames, fewer than the 32"):
        read(path, short="error")


def test_sound_that_starts_later_than_the_frames_is_heard_later(tmp_path: Path):
    both = [write_video(tmp_path / f"{at}.mkv", 80, sound=2.6, sound_start=at) for at in (0.0, 0.5)]
    early, late = (read_sound(path, reading(), ["mean"], Seen())["mean"].whole for path in both)
    shift = len(late) - len(early)
    assert shift == pytest.approx(0.5 * SAMPLE_RATE, abs=50)
    np.testing.assert_allclose(late[shift:][2000:-2000] - late.mean(), early[2000:-2000] - early.mean(), atol=0.02)


def test_reading_sound_gives_signs_of_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sound_of_videos, "TOLD_PACKETS", 50)
    told: list[int] = []
    path = write_video(tmp_path / "a.mkv", 80, sound=3.2)  # 80 packets of frames, and 138 of sound
    read_sound(path, reading(), ["mean"], Seen(), lambda: told.append(1))
    assert len(told) == 5


def test_channels_are_averaged_or_the_left_one_is_taken(tmp_path: Path):
    sound = read_sound(write_video(tmp_path / "a.mkv", 80, sound=3.2, channels=2), reading(), ["mean", "left"], Seen())
    mean, left = (np.abs(sound[channel].whole[4000:-4000]).max() for channel in ("mean", "left"))
    assert left == pytest.approx(0.3, rel=0.1)
    assert mean == pytest.approx(0.75 * left, rel=0.05)  # the right one is half as loud
    assert sound["mean"].source_rate == 44_100
    assert len(tone(1, 10, 2)) == 2


@pytest.mark.parametrize(
    ("made", "shape"),
    [
        ({"size": (66, 50)}, (32, 42)),
        ({"size": (64, 96)}, (48, 32)),
        ({"prepare": lambda video: video.set_display_rotation(90)}, (48, 32)),
        ({"prepare": lambda video: setattr(video, "sample_aspect_ratio", Fraction(2))}, (32, 96)),
    ],
)
def test_frames_are_upright_with_square_pixels_whatever_their_size(
    tmp_path: Path, made: dict[str, Any], shape: tuple[int, int]
):
    segments, _ = read(write_video(tmp_path / "a.mp4", 40, **made))
    assert segments[0].frames[32].shape == (32, *shape, 3)


def test_a_video_is_turned_as_players_turn_it(tmp_path: Path):
    """The corner at the bottom left is dark; turned by 90 degrees against the clock it is at the bottom right."""
    path = write_video(tmp_path / "a.mp4", 40, prepare=lambda video: video.set_display_rotation(90))
    segments, seen = read(path)
    frame = segments[0].frames[32][0].astype(int)
    assert seen.rotation == 90
    height, width = frame.shape[:2]
    corners = {(y, x): frame[y * (height - 8) :, x * (width - 8) :][:8, :8].mean() for y in (0, 1) for x in (0, 1)}
    assert min(corners, key=lambda corner: corners[corner]) == (1, 1)


def test_more_than_eight_bits_a_colour_are_read(tmp_path: Path):
    ten, _ = read(write_video(tmp_path / "10.mkv", 40, pixel_format="yuv422p10le", codec="ffv1"))
    eight, _ = read(write_video(tmp_path / "8.mkv", 40))
    np.testing.assert_allclose(ten[0].frames[32].mean((1, 2, 3)), eight[0].frames[32].mean((1, 2, 3)), atol=3)


def test_a_video_stream_can_be_chosen(tmp_path: Path):
    import av

    with av.open(str(tmp_path / "two.mp4"), "w") as container:
        streams = []
        for size in ((48, 32), (96, 64)):
            stream: Any = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            streams.append((stream, size))
        for i in range(40):
            for stream, size in streams:
                frame = av.VideoFrame.from_ndarray(picture(i, size), format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream, _ in streams:
            container.mux(stream.encode(None))
    assert [inspect(tmp_path / "two.mp4", reading(video_stream=i)).width for i in (0, 1)] == [48, 96]
    with pytest.raises(InputError, match=r"no video stream has the index 7; there are: 0, 1"):
        inspect(tmp_path / "two.mp4", reading(video_stream=7))


def test_what_is_damaged_in_the_middle_is_left_out_and_the_rest_goes_on(tmp_path: Path):
    path = write_video(tmp_path / "a.mkv", 200, sound=8)
    content = bytearray(path.read_bytes())
    random = np.random.default_rng(0)
    for place in random.integers(len(content) // 3, len(content) // 2, 300):
        content[place] = random.integers(256)
    path.write_bytes(content)
    segments, seen = read(path)
    assert len(segments) == 6
    assert 150 < seen.decoded < 200
    assert seen.shown == 200


def test_a_video_that_is_cut_off_is_read_to_where_it_ends_and_said_to_be(tmp_path: Path):
    path = write_video(tmp_path / "a.mkv", 200)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    segments, seen = read(path)
    assert 1 <= len(segments) < 6
    assert any(text.startswith("cut off: the last frame ends at") for text in seen.warnings)


@pytest.mark.parametrize("content", [b"", b"no video at all" * 50, b"\0" * 5000])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a video"):
        read(tmp_path / "a.mp4")


def test_a_video_without_its_index_and_a_sound_file_are_refused(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", 80, sound=3.2)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot be read as a video"):
        read(path)
    import av

    with av.open(str(tmp_path / "b.m4a"), "w", format="mp4") as container:
        audio: Any = container.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(0.02, 44_100), format="fltp", layout="mono")
        frame.sample_rate = 44_100
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    with pytest.raises(InputError, match="has no video stream"):
        read(tmp_path / "b.m4a")


# ---- recorded tensors


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    return load_file(Path(str(SHARED)) / "golden/extraction/preprocessing.safetensors")


def real(name: str) -> Path:
    return Path(str(SHARED)) / "data/videos" / f"{name}.mp4"


@needs_recorded
@pytest.mark.parametrize("name", REAL)
def test_the_frames_shown_at_25_a_second_are_those_of_ffmpeg(name: str):
    facts = json.loads((Path(str(SHARED)) / "golden/extraction/preprocessing.json").read_text())[name]
    settings = reading(**REAL[name])
    with opened(real(name)) as container:
        stream = container.streams[facts.get("first_video_stream_index", 0)]
        shown_times = [frame.pts for frame in shown(container, stream, settings, Seen())]
    with opened(real(name)) as container:
        times = [frame.pts for frame in decoded(container, container.streams[facts["first_video_stream_index"]])]
    assert [times.index(time) for time in shown_times] == facts["source_index_for_25fps"]


@needs_recorded
def test_the_stream_that_players_choose_is_read_unless_another_is():
    assert (inspect(real("nasa_13013"), reading()).video_stream, inspect(real("friday"), reading()).video_stream) == (
        3,
        1,
    )


@needs_recorded
@pytest.mark.parametrize("name", REAL)
def test_resized_frames_are_those_of_pillow_to_one_level(name: str, recorded: dict[str, np.ndarray]):
    compared = 0
    with opened(real(name)) as container:
        stream = container.streams[0 if name == "nasa_13013" else 1]
        resizer = Resizer(stream, [256])
        for i, frame in enumerate(decoded(container, stream)):
            expected = recorded.get(f"{name}.frame{i}.square_224_every4")
            if expected is not None:
                resized = resizer(frame)[256]
                top, left = (round((size - 224) / 2) for size in resized.shape[:2])
                crop = resized[top : top + 224, left : left + 224][::4, ::4].astype(int)
                assert np.abs(crop - expected).max() <= 1
                compared += 1
    assert compared == 4


@needs_recorded
@pytest.mark.parametrize("name", REAL)
def test_sound_and_filter_banks_are_the_recorded_ones(name: str, recorded: dict[str, np.ndarray]):
    """The recording mixed both channels by FFmpeg's rule, which is louder by the root of two than their mean."""
    sound = read_sound(real(name), reading(**REAL[name]), ["mean"], Seen())["mean"]
    keys = [key for key in recorded if key.startswith(f"{name}.seg") and key.endswith(".wave16k")]
    assert len(keys) == 3
    for key in keys:
        index = int(key.removeprefix(f"{name}.seg").partition(".")[0])
        np.testing.assert_allclose(sound.segment(index) * np.sqrt(2), recorded[key], atol=1e-6)
        expected = recorded[key.replace("wave16k", "fbank")]
        np.testing.assert_allclose(fbank(recorded[key]), expected, atol=1e-3)
    for key in [key for key in recorded if key.startswith(f"{name}.authors") and key.endswith(".fbank")]:
        rate = int(key.partition(".label")[2].partition(".")[0])
        np.testing.assert_allclose(fbank(recorded[f"{name}.authors.seg0.wave16k"], rate), recorded[key], atol=2e-3)


@needs_recorded
@pytest.mark.parametrize("pair", [0, 40, 100])
def test_tvl1_is_the_recorded_one_and_others_are_near_it(pair: int, recorded: dict[str, np.ndarray]):
    before, after = (recorded[f"nasa_13013.flow{pair}.gray{i}"] for i in (0, 1))
    expected = recorded[f"nasa_13013.flow{pair}.tvl1_340x256_every8"]
    flows = {method: estimator(method).calc(before, after, None)[::8, ::8] for method in METHODS}
    np.testing.assert_allclose(flows["tvl1"], expected, atol=1e-5)
    for method, flow in flows.items():
        assert np.abs(flow - expected).mean() < 0.2, method
