"""Classical descriptors of pictures, motion and sound: they need no file of weights, and are the default.

A descriptor is made of blocks, each of one kind of quantity in its natural unit. Of every block the signed square root
is taken, which keeps large values from hiding small ones, and then it is divided by its length in the form
sqrt(length ** 2 + 1) of Dalal and Triggs: at most 1 long, 0 where nothing is seen or heard, and without a jump between.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.signal import find_peaks

from pamfn.extraction.extractor import (
    FPS,
    SAMPLE_RATE,
    SEGMENT_SAMPLES,
    Extractor,
    FlowSettings,
    Segment,
    Sound,
)

SHORT_SIDE = 120
FLOW = FlowSettings("dis_fast", SHORT_SIDE)
CELLS = 4
"""Cells of a picture, in height and in width."""


def normalised(*blocks: np.ndarray) -> np.ndarray:
    """Join blocks to one (width,) float32 vector, each with its signed square root taken and its length limited."""
    flat = [np.asarray(block, dtype=np.float64).ravel() for block in blocks]
    roots = [np.sign(x) * np.sqrt(np.abs(x) / (1 + np.abs(x).sum())) for x in flat]
    return np.concatenate(roots).astype(np.float32)


def orientation_histograms(x: np.ndarray, y: np.ndarray, bins: int, period: float) -> np.ndarray:
    """Return histograms of the directions of vectors x, y (t, h, w): (t, 4, 4, bins), the mean of a cell's pixels.

    A vector counts with its length, shared between the two bins that it lies between; bin i is centred at
    i * period / bins. period: 2 pi, or pi where opposite directions are the same.
    """
    t, h, w = x.shape
    length, angle = cv2.cartToPolar(x.reshape(t * h, w), y.reshape(t * h, w))
    position = angle * np.float32(bins / period)
    low = position.astype(np.intp)
    upper = length * (position - low)
    cells, pixels = _cells(t, h, w)
    turns = 3  # a whole circle is two periods at most, and the upper bin may be one further
    low += cells * (turns * bins)
    sums = np.bincount(low.ravel(), (length - upper).ravel(), len(pixels) * turns * bins)
    sums[1:] += np.bincount(low.ravel(), upper.ravel(), len(sums))[:-1]
    means = sums.reshape(-1, turns, bins).sum(axis=1) / pixels[:, None]
    return means.reshape(t, CELLS, CELLS, bins)


def cell_means(values: np.ndarray) -> np.ndarray:
    """Return the means of (t, h, w) in each cell, (t, 4, 4)."""
    cells, pixels = _cells(*values.shape)
    return (np.bincount(cells.ravel(), values.ravel(), len(pixels)) / pixels).reshape(-1, CELLS, CELLS)


@lru_cache(maxsize=4)
def _cells(t: int, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell of each pixel (t * h, w), counted through all frames, and each cell's number of pixels."""
    rows, columns = np.arange(h) * CELLS // h, np.arange(w) * CELLS // w
    frame = rows[:, None] * CELLS + columns
    cells = (np.arange(t)[:, None, None] * CELLS**2 + frame).reshape(t * h, w)
    return cells, np.maximum(np.bincount(cells.ravel(), minlength=t * CELLS**2), 1)


class HOG(Extractor):
    """Histograms of oriented gradients and of colours, (b, 336).

    0..143: mean over the frames of 4 x 4 cells x 9 directions of the gradient, in grey levels
    144..287: their standard deviation over time
    288..335: histograms of hue, saturation and value, 16 bins each, as shares of all pixels
    The first two are one block, so that they do not depend on contrast, and say how much of the picture changes.
    Source: Dalal and Triggs, 2005, with one grid of cells for the whole picture.
    """

    width = 336
    short_sides = (SHORT_SIDE,)

    @property
    def name(self) -> str:
        return "HOG"

    def features(self, segments: Sequence[Segment]) -> np.ndarray:
        return np.stack([self._describe(segment.frames[SHORT_SIDE]) for segment in segments])

    def _describe(self, frames: np.ndarray) -> np.ndarray:
        t, h, w, _ = frames.shape
        tall = np.ascontiguousarray(frames).reshape(t * h, w, 3)
        grey = cv2.cvtColor(tall, cv2.COLOR_RGB2GRAY).reshape(t, h, w).astype(np.float32)
        y, x = gradient(grey)
        gradients = orientation_histograms(x, y, 9, np.pi)
        hsv = np.right_shift(cv2.cvtColor(tall, cv2.COLOR_RGB2HSV_FULL), 4)
        colours = [np.bincount(hsv[..., i].ravel(), minlength=16) / (t * h * w) for i in range(3)]
        return normalised(np.stack([gradients.mean(axis=0), gradients.std(axis=0)]), np.stack(colours))


def gradient(stack: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the change per pixel of (t, h, w) downwards and to the right, by central differences."""
    return np.gradient(stack, axis=1), np.gradient(stack, axis=2)


STILL = 0.2
"""Motion below which a pixel is still, in pixels a frame: at this size 4 % of the picture's height in a second."""

BANDS = ((0.5, 2), (2, 5), (5, 12))
"""Bands of the energy of motion, in Hz; a segment resolves .78 Hz."""


class HOFMBH(Extractor):
    """Histograms of optical flow and of its boundaries, and how motion goes on in time, (b, 416).

    0..143: HOF, 4 x 4 cells x (8 directions, from rightwards through downwards, in pixels a frame; share of still ones)
    144..399: MBH, the same of the gradient of horizontal, then of vertical motion, without a share of still pixels
    400..415: how fast: mean and standard deviation over time, 95th percentile over all pixels, the fastest frame; share
        of moving pixels, divergence and curl: mean, standard deviation over time of each; main direction, rightwards
        and downwards; speed of the camera; root mean square of the motion in .5-2, 2-5 and 5-12 Hz
    The median flow of a frame is taken for the motion of the camera and removed, which is right as long as whatever
    moves by itself covers less than half of the picture.
    Source: Wang and Schmid, 2013, without their trajectories.
    """

    width = 416
    flows = (FLOW,)

    @property
    def name(self) -> str:
        return "HOFMBH"

    def features(self, segments: Sequence[Segment]) -> np.ndarray:
        return np.stack([self._describe(segment.flow[FLOW]) for segment in segments])

    def _describe(self, flow: np.ndarray) -> np.ndarray:
        camera = np.median(flow[:, ::2, ::2], axis=(1, 2))  # a quarter of the pixels is enough
        u, v = (flow[..., i] - camera[:, i, None, None] for i in range(2))
        length = np.hypot(u, v)
        moving = length >= STILL
        directions = orientation_histograms(u * moving, v * moving, 8, 2 * np.pi)
        hof = np.concatenate([directions, cell_means(~moving)[..., None]], axis=-1).mean(axis=0)
        (u_y, u_x), (v_y, v_x) = gradient(u), gradient(v)
        mbh = [orientation_histograms(x, y, 8, 2 * np.pi).mean(axis=0) for x, y in ((u_x, u_y), (v_x, v_y))]
        speed, share = (x.mean(axis=(1, 2)) for x in (length, moving))
        divergence, curl = ((x + sign * y).mean(axis=(1, 2)) for x, y, sign in ((u_x, v_y, 1), (v_x, u_y, -1)))
        course = [
            *(speed.mean(), speed.std(), np.percentile(length[:, ::2, ::2], 95), speed.max()),
            *(share.mean(), share.std(), divergence.mean(), divergence.std(), curl.mean(), curl.std()),
            *(u.mean(), v.mean(), np.hypot(*camera.T).mean()),
            *band_energies(np.stack([cell_means(u), cell_means(v)])),
        ]
        return normalised(hof, np.stack(mbh), np.array(course))


def band_energies(velocity: np.ndarray) -> list[float]:
    """Return the root mean square of the changing part of velocities (2, t, 4, 4) within each of `BANDS`."""
    t = velocity.shape[1]
    power = 2 * np.abs(np.fft.rfft(velocity, axis=1) / t) ** 2
    power = power.mean(axis=(2, 3)).sum(axis=0)
    frequency = np.fft.rfftfreq(t, 1 / FPS)
    return [float(np.sqrt(power[(frequency >= low) & (frequency < high)].sum())) for low, high in BANDS]


WINDOW, HOP = 2048, 256
"""Of the spectrogram, in samples: 128 ms every 16 ms, so that a segment has 80 windows."""
SEGMENT_WINDOWS = SEGMENT_SAMPLES // HOP
WINDOW_RATE = SAMPLE_RATE / HOP
MELS, CEPSTRA = 64, 20
QUIETEST = 1e-10
"""Smallest power of a mel band: 100 dB below full scale."""
RISE = 0.2
"""How far a peak of the onset strength stands out, in the logarithm of power: a fifth, over all bands."""
TEMPO_CONTEXT = 10.0
"""Seconds of sound around a segment that its tempo is taken from."""
LAGS = np.geomspace(0.25, 1.5, 9)
"""Limits of the bands of the tempogram, as the seconds from beat to beat: 240 to 40 beats a minute."""


class MFCC(Extractor):
    """Timbre, harmony and rhythm of the sound, (b, 236).

    0..127: 64 log-mel bands relative to the segment's mean, and their standard deviation over time
    128..187: 20 MFCC from the first, without that of loudness: mean, standard deviation, mean absolute change
    188..211: 12 pitch classes from C, as shares of the energy: mean, standard deviation
    212..215: onset strength: mean, standard deviation, maximum, peaks a window
    216..225: centroid, roll-off (85 %), flatness, zero crossings and RMS: mean, standard deviation of each in turn, the
        first two as shares of 8 kHz
    226..235: tempogram of the 10 s around the segment: highest autocorrelation of the onset strength in 8 bands from
        240 to 40 beats a minute, then the seconds from beat to beat where it is highest, and its value there
    Only the last two of 216..225 tell how loud it is.
    """

    width = 236
    channels = ("mean",)

    def __init__(self) -> None:
        self._sound: Sound | None = None
        self._track: _Track | None = None

    @property
    def name(self) -> str:
        return "MFCC"

    def features(self, segments: Sequence[Segment]) -> np.ndarray:
        return np.stack([self._describe(segment) for segment in segments])

    def _describe(self, segment: Segment) -> np.ndarray:
        sound = segment.sound["mean"]
        if self._track is None or sound is not self._sound:
            self._sound, self._track = sound, describe_windows(sound)
        silence = len(self._track.onset) - SEGMENT_WINDOWS
        first = min(segment.index * SEGMENT_WINDOWS, silence)  # where the sound has ended before the frames
        log_mel, chroma, shape, onset, peaks = (x[first : first + SEGMENT_WINDOWS] for x in self._track)
        log_mel = log_mel - log_mel.mean()
        cepstra = log_mel @ _cosines()
        half, middle = int(TEMPO_CONTEXT * WINDOW_RATE / 2), first + SEGMENT_WINDOWS // 2
        around = self._track.onset[max(middle - half, 0) : middle + half]
        return normalised(
            np.stack([log_mel.mean(axis=0), log_mel.std(axis=0)]),
            np.stack([cepstra.mean(axis=0), cepstra.std(axis=0), np.abs(np.diff(cepstra, axis=0)).mean(axis=0)]),
            np.stack([chroma.mean(axis=0), chroma.std(axis=0)]),
            np.array([onset.mean(), onset.std(), onset.max(), peaks.mean()]),
            np.stack([shape.mean(axis=0), shape.std(axis=0)]),
            tempogram(around),
        )


class _Track(NamedTuple):
    """What is known of every window of a sound, n of them.

    log_mel: (n, 64) natural logarithm of power
    chroma: (n, 12) shares of the energy
    shape: (n, 5) centroid, roll-off, flatness, zero crossings a sample, RMS
    onset: (n,) mean rise of log_mel since the window before (spectral flux)
    peaks: (n,) whether the onset strength has a peak there
    """

    log_mel: np.ndarray
    chroma: np.ndarray
    shape: np.ndarray
    onset: np.ndarray
    peaks: np.ndarray


def describe_windows(sound: Sound) -> _Track:
    """Describe all windows of a sound, and of a segment of silence behind it."""
    samples = np.pad(sound.whole, (0, -len(sound.whole) % HOP + SEGMENT_SAMPLES))
    hops = samples.reshape(-1, HOP)
    crossings = np.diff(np.signbit(samples), prepend=False).reshape(hops.shape).mean(axis=1)
    margin = (WINDOW - HOP) // 2  # every window is centred on its hop
    windows = sliding_window_view(np.pad(samples, margin), WINDOW)[::HOP]
    parts = [_spectra(windows[start : start + 1024]) for start in range(0, len(windows), 1024)]
    log_mel, chroma, shape = (np.concatenate(x) for x in zip(*parts, strict=True))
    shape = np.column_stack([shape, crossings, np.sqrt(np.square(hops).mean(axis=1))])
    onset = np.maximum(np.diff(log_mel, axis=0, prepend=log_mel[:1]), 0).mean(axis=1)
    peaks = np.zeros(len(onset), dtype=bool)
    peaks[find_peaks(onset, prominence=RISE, wlen=int(WINDOW_RATE))[0]] = True
    return _Track(log_mel, chroma, shape, onset, peaks)


def _spectra(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return log-mel (n, 64), chroma (n, 12), and centroid, roll-off, flatness (n, 3) of windows (n, 2048)."""
    hann = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    power = np.square(np.abs(np.fft.rfft(windows * hann)) * (2 / hann.sum()))  # 1 for a sine of full scale
    mel = np.maximum(power @ _mel_filters(), QUIETEST)
    chroma = power @ _pitch_classes()
    total = power.sum(axis=1, keepdims=True)
    heard = total[:, 0] > QUIETEST
    position = np.linspace(0, 1, power.shape[1], dtype=np.float32)
    centroid = power @ position / np.maximum(total[:, 0], QUIETEST)
    roll_off = (power.cumsum(axis=1) < 0.85 * total).mean(axis=1)
    flatness = np.exp(np.log(mel).mean(axis=1)) / mel.mean(axis=1)
    shape = np.stack([centroid, roll_off, flatness], axis=1) * heard[:, None]
    return np.log(mel), chroma / (chroma.sum(axis=1, keepdims=True) + QUIETEST), shape


@lru_cache
def _mel_filters() -> np.ndarray:
    """Return overlapping triangles between 20 Hz and 8 kHz, equally wide on the mel scale: (1025, 64)."""
    frequency = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
    low, high, each = (1127 * np.log1p(np.asarray(f) / 700) for f in (20, SAMPLE_RATE / 2, frequency))
    position = (each[:, None] - low) / (high - low) * (MELS + 1)  # band i is centred at i + 1
    return np.maximum(1 - np.abs(position - np.arange(1, MELS + 1)), 0).astype(np.float32)


@lru_cache
def _cosines() -> np.ndarray:
    """Return the discrete cosine transform without its constant, (64, 20)."""
    angle = np.pi * np.outer(np.arange(MELS) + 0.5, np.arange(1, CEPSTRA + 1)) / MELS
    return (np.cos(angle) * np.sqrt(2 / MELS)).astype(np.float32)


@lru_cache
def _pitch_classes() -> np.ndarray:
    """Return how each frequency from 130 Hz (C3) to 5 kHz is shared by the two pitch classes beside it: (1025, 12)."""
    frequency = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
    semitone = 12 * np.log2(np.maximum(frequency, 1) / 440) + 9  # A is the tenth of the octave from C
    away = np.abs((semitone[:, None] - np.arange(12) + 6) % 12 - 6)
    tonal = (frequency > 130) & (frequency < 5000)
    return (np.maximum(1 - away, 0) * tonal[:, None]).astype(np.float32)


def tempogram(onset: np.ndarray) -> np.ndarray:
    """Return the tempogram (10,) of an onset strength (n,): `MFCC`'s last ten features, before they are normalised."""
    size = 2 * int(TEMPO_CONTEXT * WINDOW_RATE)  # with as many zeros behind it, its ends do not meet
    correlation = np.fft.irfft(np.abs(np.fft.rfft(onset - onset.mean(), size)) ** 2)
    limits = np.round(LAGS * WINDOW_RATE).astype(int)
    if correlation[0] <= QUIETEST:
        return np.zeros(10)
    correlation = correlation[: limits[-1]] / correlation[0]
    bands = np.maximum.reduceat(correlation, limits[:-1])
    best = limits[0] + int(correlation[limits[0] :].argmax())
    return np.array([*bands, best / WINDOW_RATE, correlation[best]])
