"""What is shown of a video: the right frames in one pass, motion as colour, and how loud it is."""

from fractions import Fraction

import numpy as np
import pytest

from made_videos import write_video
from pamfn.errors import InputError
from pamfn.extraction import preview
from pamfn.extraction.preview import coloured, jpeg, listen, look


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("preview") / "v.mp4", 80, sound=3.2)


def test_thumbnails_have_the_width_asked_for_and_the_shape_of_the_video(video):
    thumbnails, moments = look(video, [0.0, 1.0], [2.0], width=48, large=120)
    assert [picture.shape for picture in thumbnails] == [(32, 48, 3)] * 2
    assert moments[0].frame.shape == (80, 120, 3)
    assert moments[0].flow.shape == (80, 120, 2)
    assert thumbnails[0].dtype == moments[0].frame.dtype == np.uint8


def test_a_thumbnail_is_the_frame_that_is_shown_at_its_time(video):
    times = [0.0, 0.2, 0.4, 0.6]  # frames 0, 5, 10, 15: each 35 brighter than the one before
    brightness = [picture.mean() for picture in look(video, times)[0]]
    assert np.diff(brightness) == pytest.approx([35, 35, 35], abs=3)


def test_thumbnails_come_in_the_order_that_they_are_asked_for(video):
    late, early, same = look(video, [0.6, 0.0, 0.6])[0]
    assert late.mean() > early.mean()
    assert np.array_equal(late, same)


def test_behind_the_end_there_is_the_last_frame_and_no_motion(video):
    thumbnails, moments = look(video, [3.19, 100.0], [100.0])
    assert np.array_equal(thumbnails[0], thumbnails[1])
    assert np.abs(moments[0].flow).max() < 0.01


def test_nothing_is_decoded_behind_the_last_frame_that_is_shown(video, monkeypatch):
    seen = []
    shown = preview.shown

    def counted(*arguments):
        for frame in shown(*arguments):
            seen.append(frame.pts)
            yield frame

    monkeypatch.setattr(preview, "shown", counted)
    look(video, [0.0, 0.4], [0.2])
    assert len(seen) == 11


def test_motion_leads_to_the_next_frame_that_differs(tmp_path):
    slow = write_video(tmp_path / "slow.mp4", 20, rate=Fraction(5))  # each frame fills five slots
    moments = look(slow, [], [1.0, 1.1])[1]
    assert np.array_equal(moments[0].flow, moments[1].flow)
    assert not np.array_equal(moments[0].flow, np.zeros_like(moments[0].flow))


@pytest.mark.parametrize("size", [(64, 96), (320, 16), (16, 320)])
def test_a_video_of_any_shape_is_shown(tmp_path, size):
    video = write_video(tmp_path / "v.mp4", 10, size=size)
    thumbnails, moments = look(video, [0.1], [0.2])
    for picture in (thumbnails[0], moments[0].frame):
        assert picture.shape[0] / picture.shape[1] == pytest.approx(size[1] / size[0], rel=0.05)


@pytest.mark.parametrize(
    ("direction", "colour"),
    [((2, 0), (255, 0, 0)), ((0, 2), (127, 255, 0)), ((-2, 0), (0, 255, 255)), ((0, -2), (127, 0, 255))],
)
def test_the_hue_is_the_direction(direction, colour):
    flow = np.tile(np.float32(direction), (4, 6, 1))
    assert coloured(flow, 2.0)[0, 0].tolist() == pytest.approx(list(colour), abs=3)


def test_the_brightness_is_the_speed():
    flow = np.zeros((1, 3, 2), np.float32)
    flow[0, :, 0] = 0, 1, 9
    assert coloured(flow, 2.0).max(axis=2)[0].tolist() == pytest.approx([0, 127, 255], abs=1)
    assert not coloured(flow * 0, 0.0).any()


def test_jpeg_is_a_jpeg_file():
    assert jpeg(np.zeros((8, 8, 3), np.uint8)).startswith(b"\xff\xd8\xff")


def test_loudness_and_onsets_are_on_the_time_line(video):
    heard = listen(video)
    assert len(heard.loudness) == len(heard.onset) == pytest.approx(3.2 * heard.rate, abs=2)
    assert 9 < heard.rate < 11
    assert np.isfinite(heard.loudness).all()
    assert np.isfinite(heard.onset).all()
    assert -30 < heard.loudness[3:-3].min() < heard.loudness.max() < 0
    assert heard.onset.min() >= 0


def test_a_video_without_sound_has_none(tmp_path):
    heard = listen(write_video(tmp_path / "v.mp4", 10))
    assert len(heard.loudness) == len(heard.onset) == 0


def test_what_is_no_video_is_refused(tmp_path):
    file = tmp_path / "v.mp4"
    file.write_bytes(b"no video")
    with pytest.raises(InputError, match="cannot be read as a video"):
        look(file, [0.0])
    with pytest.raises(InputError, match="cannot be read as a video"):
        listen(file)
