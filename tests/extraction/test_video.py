"""The frames of a video: which one is shown when, upright, and how many were left out."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import av.filter
import cv2
import numpy as np
import pytest

from made_videos import reading, write_video
from pamfn.errors import InputError
from pamfn.extraction.container import Seen, chosen_streams, opened
from pamfn.extraction.video import Resizer, in_slots, shown


def read(path: Path, **changed: Any) -> tuple[list[Any], Seen]:
    seen, settings = Seen(), reading(**changed)
    with opened(path) as container:
        stream, _ = chosen_streams(container, settings, seen)
        return list(shown(container, stream, settings, seen)), seen


def in_slots_of(times: Sequence[Fraction], rate: int = 25, max_gap: float = 2.0) -> tuple[list[int], Seen]:
    seen = Seen()
    frames = ((time, number) for number, time in enumerate(times))
    return list(in_slots(frames, Fraction(rate), reading(max_gap=max_gap), seen)), seen


def by_ffmpeg(times: Sequence[int]) -> list[int]:
    """Numbers of the frames that FFmpeg's filter fps=25 shows. times: milliseconds"""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=16, height=16, format=av.VideoFormat("gray"), time_base=Fraction(1, 1000))
    graph.link_nodes(source, graph.add("fps", "fps=25"), graph.add("buffersink")).configure()
    numbers = []
    for number in [*range(len(times)), None]:
        frame = None
        if number is not None:
            frame = av.VideoFrame.from_ndarray(np.full((16, 16), number, np.uint8), format="gray")
            frame.pts, frame.time_base = times[number], Fraction(1, 1000)
        graph.vpush(frame)
        while True:
            try:
                numbers.append(int(graph.vpull().to_ndarray()[0, 0]))
            except (av.error.BlockingIOError, av.error.EOFError):
                break
    return numbers


@pytest.mark.parametrize("seed", range(8))
def test_whatever_the_time_stamps_the_frames_shown_are_those_of_ffmpeg(seed: int):
    random = np.random.default_rng(seed)
    longest = int(random.choice([10, 39, 60, 500]))
    times = [0, *np.cumsum(random.integers(1, longest + 1, 200)).tolist()]
    numbers, seen = in_slots_of([Fraction(time, 1000) for time in times])
    expected = by_ffmpeg(times)
    common = min(len(numbers), len(expected)) - 1  # at the end it does not know how long the last frame is shown
    assert numbers[:common] == expected[:common]
    assert abs(len(numbers) - len(expected)) <= 1
    assert len(set(numbers)) == len(times) - seen.dropped == len(numbers) - seen.repeated
    assert seen.shown == len(numbers)


def test_many_gaps_are_one_sentence():
    times = [Fraction(number * 3, 2) for number in range(9)]
    numbers, seen = in_slots_of(times)
    assert len(numbers) == 12 * 25 + 1
    assert seen.warnings == [
        "no frame between 0.00 and 1.50 s: the one before is repeated; 7 other gaps, 12.00 s in all"
    ]


def test_frames_that_come_too_late_are_left_out_and_told_of():
    times = [Fraction(number, 25) for number in (0, 1, 2, 5, 3, 4, 6, 7)]
    numbers, seen = in_slots_of(times)
    assert numbers == [0, 1, 2, 2, 2, 3, 6, 7]
    assert seen.dropped == 2
    assert seen.warnings == ["2 frames are stamped earlier than the frame before them: they are left out"]


def test_a_clock_that_is_set_back_is_refused_unless_frames_are_taken_as_they_come(tmp_path: Path):
    part = write_video(tmp_path / "a.ts", 80).read_bytes()
    (tmp_path / "twice.ts").write_bytes(part + part)
    with pytest.raises(InputError, match=r"its time stamps go back from 3.16 to .*reading.fps=native takes all frames"):
        read(tmp_path / "twice.ts")
    assert len(read(tmp_path / "twice.ts", fps="native")[0]) == 160


def test_a_jump_by_hours_is_refused_before_anything_is_repeated():
    with pytest.raises(InputError, match=r"no frame between 0.04 and 36000.00 s"):
        in_slots_of([Fraction(0), Fraction(1, 25), Fraction(36_000)])
    with pytest.raises(InputError, match="longer than 12 hours"):
        in_slots_of([Fraction(second) for second in range(12 * 3600 + 2)])


def test_the_last_frame_is_not_repeated_for_longer_than_a_gap_may_last():
    frames = in_slots(iter([(Fraction(0), "frame")]), Fraction(1, 1000), reading(max_gap=2.0), Seen())
    assert len(list(frames)) == 50


def test_a_size_that_changes_is_told_and_all_frames_get_that_of_the_first(tmp_path: Path):
    parts = [write_video(tmp_path / f"{i}.ts", 40, size=size) for i, size in enumerate([(96, 64), (128, 64)])]
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, seen = read(tmp_path / "both.ts", fps="native")
    assert {(frame.width, frame.height) for frame in frames} == {(96, 64), (128, 64)}
    assert "the size of its frames changes: all are resized to that of the first" in seen.warnings
    with opened(tmp_path / "both.ts") as container:
        resizer = Resizer(container.streams.video[0], [32])
        assert {resizer(frame)[32].shape for frame in frames} == {(32, 48, 3)}


def test_interlaced_frames_are_told_of_or_made_one_picture(tmp_path: Path):
    options = {"x264-params": "interlaced=1:tff=1", "preset": "ultrafast"}
    path = write_video(tmp_path / "a.mp4", 40, prepare=lambda video: setattr(video, "options", options))
    plain, seen = read(path)
    assert "interlaced: reading.deinterlace=true makes its fields one picture" in seen.warnings
    smooth, seen = read(path, deinterlace=True)
    assert seen.warnings == ["no sound: silence is taken for it"]
    assert (len(plain), len(smooth), seen.decoded, seen.shown) == (40, 40, 40, 40)
    assert [frame.pts * frame.time_base for frame in smooth] == [frame.pts * frame.time_base for frame in plain]
    one, other = (frames[20].to_ndarray(format="rgb24").astype(int) for frames in (plain, smooth))
    assert 0 < np.abs(one - other).mean() < 5


def test_progressive_frames_pass_the_deinterlacer_as_they_are(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", 40)
    for one, other in zip(read(path)[0], read(path, deinterlace=True)[0], strict=True):
        np.testing.assert_array_equal(one.to_ndarray(format="rgb24"), other.to_ndarray(format="rgb24"))


@pytest.mark.parametrize("angle", [0, 90, 180, -90])
def test_a_video_is_turned_as_opencv_turns_it(tmp_path: Path, angle: int):
    path = write_video(tmp_path / "a.mp4", 3, prepare=lambda video: video.set_display_rotation(angle))
    _, expected = cv2.VideoCapture(str(path)).read()
    with opened(path) as container:
        stream: Any = container.streams.video[0]
        frame = next(container.decode(stream))
        turned = Resizer(stream, [64])(frame)[64]
    np.testing.assert_array_equal(turned, expected[..., ::-1])


def test_frames_far_wider_than_high_are_refused(tmp_path: Path):
    path = write_video(tmp_path / "a.mkv", 3, size=(1024, 16))
    with opened(path) as container:
        stream: Any = container.streams.video[0]
        with pytest.raises(InputError, match="its frames are 1024 x 16: expected 20 times as wide at most"):
            Resizer(stream, [256])(next(container.decode(stream)))


def test_frames_that_would_fill_the_memory_are_not_decoded(tmp_path: Path):
    path = write_video(tmp_path / "a.avi", 3, codec="rawvideo")
    size = (96).to_bytes(4, "little") + (64).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (65_000).to_bytes(4, "little") * 2))
    with pytest.raises(InputError, match="no frame of it can be decoded"):
        read(path)
