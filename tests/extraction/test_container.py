"""Video files opened: which streams are chosen, what headers announce, and what is refused."""

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.stream import Disposition

from made_videos import picture, reading, write_video
from pamfn.errors import InputError
from pamfn.extraction.container import Seen, announced_segments, chosen_streams, inspect, opened, packets


def test_the_headers_of_a_video_say_what_it_is(tmp_path: Path):
    seen = inspect(write_video(tmp_path / "a.mp4", 80, rate=30, sound=2.6, channels=2), reading())
    assert (seen.codec, seen.pixel_format, seen.width, seen.height) == ("h264", "yuv420p", 96, 64)
    assert (seen.rate, seen.duration, seen.pixel_aspect) == ("30", pytest.approx(80 / 30, abs=0.01), "1")
    assert (seen.audio_codec, seen.audio_rate, seen.audio_channels) == ("aac", 44_100, 2)
    assert seen.as_dict()["warnings"] == []
    assert (announced_segments(seen, "25"), announced_segments(seen, "native")) == (66 // 32, 80 // 32)


def test_a_picture_on_the_cover_is_no_video(tmp_path: Path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 400, 400, "yuvj420p", Disposition.attached_pic
        video: Any = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        frame = av.VideoFrame.from_ndarray(picture(0, (400, 400)), format="rgb24")
        frame.pts = 0
        container.mux([*cover.encode(frame), *cover.encode(None)])
        for i in range(40):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    seen = inspect(tmp_path / "a.mp4", reading())
    assert (seen.codec, seen.width) == ("h264", 96)


def test_high_dynamic_range_is_told(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", 5, prepare=lambda video: setattr(video.codec_context, "color_trc", 16))
    assert any("high dynamic range (PQ)" in text for text in inspect(path, reading()).warnings)


def test_sound_longer_than_the_frames_does_not_lengthen_them(tmp_path: Path):
    assert inspect(write_video(tmp_path / "a.mkv", 80, sound=9.0), reading()).duration == pytest.approx(3.2)


def test_a_rate_other_than_25_is_told_where_frames_are_taken_as_they_come(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", 40, rate=Fraction(30_000, 1001))
    assert any("there are 29.97 a second" in text for text in inspect(path, reading(fps="native")).warnings)


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_a_stream_that_is_not_there_is_refused(tmp_path: Path, kind: str):
    path = write_video(tmp_path / "a.mp4", 40, sound=1.6)
    with pytest.raises(InputError, match=f"reading.{kind}_stream: no {kind} stream has the index 2; there are: "):
        inspect(path, reading(**{f"{kind}_stream": 2}))


def test_a_list_of_files_is_refused(tmp_path: Path):
    write_video(tmp_path / "a.ts", 40)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile a.ts\n")
    with pytest.raises(InputError, match="is a list of other files: expected a video"):
        inspect(tmp_path / "list.mp4", reading())


def test_what_is_no_file_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path, said in ((tmp_path, "a folder"), (tmp_path / "pipe.mp4", "a pipe"), (tmp_path / "b.mp4", "No such file")):
        with pytest.raises(InputError, match=said):
            inspect(path, reading())


def test_a_stream_that_appears_in_the_middle_does_not_end_the_others(tmp_path: Path):
    """Both parts have the same streams' numbers; the second one has sound as well."""
    parts = [write_video(tmp_path / "a.ts", 40), write_video(tmp_path / "b.ts", 40, sound=1.6)]
    (tmp_path / "both.ts").write_bytes(parts[0].read_bytes() * 40 + parts[1].read_bytes())
    with opened(tmp_path / "both.ts") as container:
        video, _ = chosen_streams(container, reading(), Seen())
        assert sum(packet.size > 0 for packet in packets(container, video)) == 41 * 40


def test_damage_is_decoded_alike_on_every_machine(tmp_path: Path):
    """How FFmpeg fills what is missing depends on the number of threads."""
    with opened(write_video(tmp_path / "a.mp4", 5)) as container:
        video, _ = chosen_streams(container, reading(), Seen())
        assert video.codec_context.thread_count == 1
