"""Log-mel filter banks as Kaldi computes them: what the Audio Spectrogram Transformer reads."""

from functools import cache

import numpy as np

BINS = 128
LOWEST = 20.0
PREEMPHASIS = 0.97
FLOOR = float(np.finfo(np.float32).eps)


def fbank(samples: np.ndarray, rate: int = 16_000) -> np.ndarray:
    """Return log-mel energies: 128 bins, a 25 ms Hann window every 10 ms.

    samples: (n,) in -1..1, n of at least 25 ms
    rate: samples a second that the filters are made for
    returns: (frames, 128) float32

    Source: Kaldi's compute-fbank-feats with the settings of Gong, Chung and Glass, 2021 (no dither).
    """
    window, shift = int(rate * 0.025), int(rate * 0.010)
    size = 1 << (window - 1).bit_length()
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), window)[::shift]
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - PREEMPHASIS * before) * np.hanning(window)
    power = np.abs(np.fft.rfft(frames, size)) ** 2
    energies = power[:, : size // 2] @ mel_filters(rate, size)
    return np.log(np.maximum(energies, FLOOR)).astype(np.float32)


def mel(hertz: np.ndarray) -> np.ndarray:
    return 1127.0 * np.log(1.0 + hertz / 700.0)


@cache
def mel_filters(rate: int, size: int) -> np.ndarray:
    """Return triangular filters (size / 2, 128), equally wide on the mel scale from 20 Hz to half the rate."""
    edges = np.linspace(mel(np.array(LOWEST)), mel(np.array(rate / 2)), BINS + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = mel(np.arange(size // 2) * rate / size)[:, None]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return np.maximum(0.0, np.minimum(rising, falling))
