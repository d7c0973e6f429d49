"""Extractors with pretrained networks: what they show their network of a segment."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pamfn.extraction import AST, I3D, UNMT, VideoSwin
from pamfn.extraction.extractor import SEGMENT_SAMPLES, FlowSettings, Segment, Sound
from pamfn.extraction.fbank import fbank
from pamfn.extraction.pretrained import PretrainedExtractor, cropped


class Mean(nn.Module):
    """Stands for a network: as many numbers as it has, of the means of its input."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).mean(1).view(-1, *[1] * len(self.shape)).expand(-1, *self.shape)


def segment(height: int = 256, width: int = 340, seconds: float = 4.0, index: int = 0) -> Segment:
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (32, height, width, 3), dtype=np.uint8)
    flow = random.normal(0, 15, (32, height, width, 2)).astype(np.float32)
    whole = random.normal(0, 0.1, int(seconds * 16_000)).astype(np.float32)
    flows = {FlowSettings(method, 256): flow for method in ("tvl1", "dis")}
    return Segment(index, {256: frames}, flows, {channel: Sound(whole, 44_100, 3) for channel in ("mean", "left")})


EXTRACTORS: list[tuple[PretrainedExtractor, str, tuple[int, ...]]] = [
    (VideoSwin("sound"), "VST", (3, 32, 224, 224)),
    (VideoSwin("authors"), "VST-authors", (3, 32, 224, 224)),
    (UNMT(), "UNMT", (3, 16, 224, 224)),
    (UNMT("authors", 8), "UNMT-8-authors", (3, 8, 224, 224)),
    (I3D(), "I3D", (2, 32, 224, 224)),
    (I3D("authors", "dis"), "I3D-dis-authors", (2, 32, 224, 224)),
    (AST(), "AST", (1024, 128)),
    (AST(window="short"), "AST-short", (126, 128)),
    (AST(window="context"), "AST-context", (1024, 128)),
    (AST("authors"), "AST-authors", (41, 128)),
]


@pytest.mark.parametrize(("extractor", "name", "shape"), EXTRACTORS, ids=[name for _, name, _ in EXTRACTORS])
def test_a_network_sees_its_input_and_the_name_says_which(
    extractor: PretrainedExtractor, name: str, shape: tuple[int, ...]
):
    shown = extractor.input_of(segment())
    assert (extractor.name, shown.shape, shown.dtype) == (name, shape, torch.float32)
    assert shown.isfinite().all()
    output = (extractor.width, 2, 3, 3) if isinstance(extractor, VideoSwin | I3D) else (extractor.width,)
    extractor.use(Mean(output), "cpu", "32")
    alone, together = extractor.features([segment()]), extractor.features([segment(), segment(index=1)])
    assert together.shape == (2, extractor.width)
    np.testing.assert_allclose(together[0], alone[0], atol=1e-5)


def test_names_differ_wherever_numbers_do():
    flows: list[Any] = ["tvl1", "tvl1_fast", "dis", "dis_fast"]
    names = [I3D(preset, flow).name for preset in ("sound", "authors") for flow in flows]
    assert len({*names}) == 8
    assert not any("_" in name for name in names)


def test_the_middle_of_a_frame_is_taken_and_the_authors_squeeze_more_of_it():
    frames = np.zeros((1, 256, 340, 3), np.uint8)
    frames[:, :, 20:320] = 200
    frames[:, :, 58:282] = 100
    assert (cropped(frames, "sound") == 100).all()
    authors = cropped(frames, "authors")[0, 0]
    assert authors.shape == (224, 224)
    assert (authors[:, 0] == 200).all()
    narrow = cropped(np.full((1, 340, 256, 3), 90, np.uint8), "authors")[0, 0]
    assert (narrow[:, 0] == 0).all()  # black where there is no picture
    assert (narrow[:, 112] == 90).all()


def test_flow_is_cut_off_at_twenty_pixels_and_the_authors_round_it():
    one = segment()
    exact, rounded = (I3D(preset).input_of(one) for preset in ("sound", "authors"))
    assert exact.abs().max() == 1
    assert len(rounded.unique()) <= 2**16
    still = Segment(0, {}, {FlowSettings("tvl1", 256): np.zeros((32, 256, 340, 2), np.float32)}, {})
    assert (I3D().input_of(still) == 0).all()
    assert I3D("authors").input_of(still).unique().numpy() == pytest.approx([128 / 127.5 - 1], abs=1e-6)


def test_a_segment_of_sound_is_padded_or_seen_in_its_context():
    one = segment(seconds=20, index=8)
    spectrogram = (fbank(one.sound["mean"].segment(8)) + 4.2677393) / 9.1379948
    padded, context = (AST(window=window).input_of(one) for window in ("padded", "context"))  # type: ignore[arg-type]
    np.testing.assert_allclose(padded[:126], spectrogram, atol=1e-5)
    np.testing.assert_allclose(padded[126:], 4.2677393 / 9.1379948, atol=1e-5)
    middle = (1024 - 128) // 2
    np.testing.assert_allclose(context[middle + 2 : middle + 124], spectrogram[2:124], atol=1e-3)


def test_the_authors_sound_is_cut_into_equal_parts_with_filters_for_another_rate():
    one = segment(seconds=4.0, index=1)
    sound = one.sound["left"]
    expected = (fbank(sound.whole[len(sound.whole) // 3 :][: len(sound.whole) // 3], 44_100) - 4.26) / 9.14
    shown = AST("authors").input_of(one).numpy()
    rows = min(41, len(expected))
    np.testing.assert_allclose(shown[:rows], expected[:rows], atol=1e-5)
    assert not shown[rows:].any()
    assert len(sound.whole) // 3 != SEGMENT_SAMPLES
