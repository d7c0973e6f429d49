"""Extractors with the paper's pretrained networks, whose weights the user brings."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pamfn.extraction.extractor import (
    SEGMENT_FRAMES,
    SEGMENT_SAMPLES,
    Extractor,
    FlowSettings,
    Segment,
    Sound,
    Statistics,
)
from pamfn.extraction.fbank import fbank
from pamfn.extraction.networks.i3d import InflatedInception
from pamfn.extraction.networks.video_swin import VideoSwinTransformer
from pamfn.extraction.networks.vit import AudioSpectrogramTransformer, UnmaskedTeacher
from pamfn.extraction.weights import State, ast_names, i3d_names, load_published, unmt_names, video_swin_names

Preset = Literal["sound", "authors"]
"""Whether a network's input is as its own authors prepare it, or as in PAMFN's published script."""

SHORT_SIDE = 256
SIZE = 224
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
"""Of ImageNet's pixels, of 255."""


class PretrainedExtractor(Extractor):
    """What extractors with a network share: building, loading, precision.

    preset: another one has another name, since the numbers differ
    """

    needs_weights = True
    network: nn.Module
    called: str
    """The name under preset `sound`."""

    def __init__(self, preset: Preset) -> None:
        self.preset: Preset = preset
        self.device, self.precision = "cpu", "32"

    @property
    def name(self) -> str:
        return self.called + ("-authors" if self.preset == "authors" else "")

    @abstractmethod
    def build(self) -> tuple[nn.Module, Callable[[State], State]]:
        """Return the network, and what gives the tensors of a published file its names."""

    @abstractmethod
    def input_of(self, segment: Segment) -> Tensor:
        """Return the network's input for a segment, without a batch axis."""

    def pooled(self, output: Tensor) -> Tensor:
        """Return features (b, width) of the network's output."""
        return output

    def load(self, *, weights: Path | None, device: str, precision: str) -> None:
        assert weights is not None
        with torch.device("meta"):
            network, names = self.build()
        network = network.to_empty(device="cpu")
        load_published(network, weights, names, self.called)
        self.use(network, device, precision)

    def use(self, network: nn.Module, device: str, precision: str) -> None:
        """Take a network with weights."""
        self.network, self.device, self.precision = network.eval().to(device), device, precision

    @torch.inference_mode()
    def features(self, segments: Sequence[Segment]) -> np.ndarray:
        batch = torch.stack([self.input_of(segment) for segment in segments]).to(self.device)
        with torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.precision == "bf16"):
            output = self.network(batch)
        return self.pooled(output.float()).cpu().numpy()


def cropped(frames: np.ndarray, preset: Preset) -> Tensor:
    """Crop the middle of frames (n, h, w, c) to (n, c, 224, 224).

    authors: 224 x 300, with black where that is not there, squeezed to 224 x 224
    """
    x = torch.from_numpy(frames).permute(0, 3, 1, 2)
    height, width = SIZE, 300 if preset == "authors" else SIZE
    missing = max(width - x.shape[3], 0)
    x = F.pad(x, (missing // 2, missing - missing // 2))
    top, left = round((x.shape[2] - height) / 2), round((x.shape[3] - width) / 2)
    x = x[:, :, top : top + height, left : left + width]
    return x if width == SIZE else F.interpolate(x, size=(SIZE, SIZE), mode="bilinear", antialias=True)


def normalised(frames: np.ndarray, preset: Preset) -> Tensor:
    """Return (3, n, 224, 224) of RGB frames (n, h, w, 3), by ImageNet's mean and standard deviation."""
    x = cropped(frames, preset).float()
    return ((x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]).transpose(0, 1)


class VideoSwin(PretrainedExtractor):
    """VST-B of 32 frames: the mean of its last map. Weights: swin_base_patch244_window877_kinetics600_22k.pth.

    Source: Liu et al., 2022; the statistics are those of GDLT's published Fis-V features.
    """

    width = 1024
    short_sides = (SHORT_SIDE,)
    expected = Statistics("500 videos of Fis-V as published", 4.6e-5, 0.782, -4.71, 4.42, 24.96)
    called = "VST"

    def build(self) -> tuple[nn.Module, Callable[[State], State]]:
        return VideoSwinTransformer(), video_swin_names

    def input_of(self, segment: Segment) -> Tensor:
        return normalised(segment.frames[SHORT_SIDE], self.preset)

    def pooled(self, output: Tensor) -> Tensor:
        return output.mean(dim=(2, 3, 4))


class UNMT(PretrainedExtractor):
    """Unmasked Teacher (ViT-L/16) on 16 or 8 of the 32 frames, evenly spaced.

    Weights: l16_ptk710_ftk710_ftk600_f16_res224.pth, or _f8_. Source: Li et al., 2023. Which frames PAMFN's authors
    took is not known.
    """

    width = 1024
    short_sides = (SHORT_SIDE,)

    def __init__(self, preset: Preset = "sound", frames: Literal[8, 16] = 16) -> None:
        super().__init__(preset)
        self.frames: Literal[8, 16] = frames
        self.called = "UNMT" if frames == 16 else "UNMT-8"

    def build(self) -> tuple[nn.Module, Callable[[State], State]]:
        return UnmaskedTeacher(frames=self.frames), unmt_names

    def input_of(self, segment: Segment) -> Tensor:
        step = SEGMENT_FRAMES // self.frames
        return normalised(segment.frames[SHORT_SIDE][(step - 1) // 2 :: step], self.preset)


class I3D(PretrainedExtractor):
    """I3D on optical flow: the mean over its windows in time. Weights: flow_imagenet.pt or model_flow.pth.

    sound: flow in pixels, cut off at 20, by 20. authors: rounded to the bytes of an image first, and BatchNorm's
    epsilon is 1e-5; the bound of their images is not known and taken to be 20. Source: Carreira and Zisserman, 2017.
    """

    width = 1024
    BOUND = 20.0

    def __init__(
        self, preset: Preset = "sound", flow: Literal["tvl1", "tvl1_fast", "dis", "dis_fast"] = "tvl1"
    ) -> None:
        super().__init__(preset)
        self.settings = FlowSettings(flow, SHORT_SIDE)
        self.flows = (self.settings,)
        self.called = "I3D" if flow == "tvl1" else f"I3D-{flow.replace('_', '-')}"

    def build(self) -> tuple[nn.Module, Callable[[State], State]]:
        return InflatedInception(eps=1e-5 if self.preset == "authors" else 1e-3), i3d_names

    def input_of(self, segment: Segment) -> Tensor:
        flow = np.clip(segment.flow[self.settings], -self.BOUND, self.BOUND) / self.BOUND
        if self.preset == "authors":
            pixels = np.rint((flow + 1) * 127.5).astype(np.uint8)
            return (cropped(pixels, self.preset).float() / 127.5 - 1).transpose(0, 1)
        return cropped(flow, self.preset).transpose(0, 1)

    def pooled(self, output: Tensor) -> Tensor:
        return output.mean(dim=(2, 3, 4))


class AST(PretrainedExtractor):
    """The Audio Spectrogram Transformer: the mean of its two class tokens. Weights: audioset_10_10_0.4593.pth.

    window: `padded` to the 1024 frames that it was trained on, `short` (the network cut to 126 frames), or `context`,
    the 10.24 s around the segment. preset=authors has a window of its own: the track in equal parts, left channel, a
    filter bank for the file's rate, another mean. Source: Gong, Chung and Glass, 2021.
    """

    width = 768
    FRAMES = 1024
    MEAN, SCALE = -4.2677393, 2 * 4.5689974

    def __init__(self, preset: Preset = "sound", window: Literal["padded", "short", "context"] = "padded") -> None:
        super().__init__(preset)
        self.window = window
        self.channels = ("left" if preset == "authors" else "mean",)
        self.called = "AST" if window == "padded" or preset == "authors" else f"AST-{window}"

    def build(self) -> tuple[nn.Module, Callable[[State], State]]:
        return AudioSpectrogramTransformer(), ast_names

    def input_of(self, segment: Segment) -> Tensor:
        sound = segment.sound[self.channels[0]]
        if self.preset == "authors":
            return torch.from_numpy(authors_spectrogram(sound, segment.index))
        if self.window == "context":
            around = self.FRAMES * 160
            start = segment.index * SEGMENT_SAMPLES - (around - SEGMENT_SAMPLES) // 2
            spectrogram = fbank(sound.window(start, around + 240))
        else:
            spectrogram = fbank(sound.segment(segment.index))
        if self.window == "padded":  # with zeros before normalisation, as AST's authors do
            spectrogram = np.pad(spectrogram, ((0, self.FRAMES - len(spectrogram)), (0, 0)))
        return torch.from_numpy((spectrogram - self.MEAN) / self.SCALE).float()


AUTHORS_FRAMES, AUTHORS_MEAN, AUTHORS_SCALE = 41, 4.26, 9.14


def authors_spectrogram(sound: Sound, index: int) -> np.ndarray:
    """Return (41, 128) of a segment as PAMFN's published script makes it.

    The track is cut into as many parts as there are segments; filters are made for the rate of the file, though the
    samples are at 16 kHz; the mean has the wrong sign; padding follows normalisation.
    """
    each = max(len(sound.whole) // max(sound.segments, 1), int(0.025 * sound.source_rate))
    spectrogram = fbank(sound.window(index * each, each), sound.source_rate)
    normalised = ((spectrogram - AUTHORS_MEAN) / AUTHORS_SCALE).astype(np.float32)[:AUTHORS_FRAMES]
    return np.pad(normalised, ((0, AUTHORS_FRAMES - len(normalised)), (0, 0)))
