"""BlazePose: the body of one person as landmarks, and how it is held and moves."""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from pamfn.errors import InputError
from pamfn.extraction.extractor import FPS, SEGMENT_FRAMES, Extractor, Segment
from pamfn.files import regular

SHORT_SIDE = 256
STEP = 2
"""Every second frame is looked at: 16 of a segment, 12.5 a second."""
LOOKED_AT = SEGMENT_FRAMES // STEP
RATE = FPS / STEP

FOUND = 0.3
"""Least score of the detector: at .5 it takes seconds to find somebody behind a desk, and `PRESENT` decides anyway."""
PRESENT = 0.5
"""Least probability of a person in the square that the detector found."""
MARGIN = 1.25
"""Side of the square that the landmarks are looked for in, as a multiple of the body's circle."""

MODELS = {
    "detector": ("pose_detection.tflite", "pose_detector.tflite"),
    "landmarks": ("pose_landmark_full.tflite", "pose_landmarks_detector.tflite"),
}
"""The files of the two networks in mediapipe's wheel, and in Google's `.task` bundles."""
LARGEST = 64 * 2**20
"""Bytes of a network; the heaviest has 30 million."""
SHAPES = {
    "detector": ((1, 224, 224, 3), {(1, 2254, 12), (1, 2254, 1)}),
    "landmarks": ((1, 256, 256, 3), {(1, 195), (1, 1), (1, 117)}),
}
"""Of the input, and of the outputs that are read."""
GRIDS = ((28, 2), (14, 2), (7, 6))
"""The detector's anchors: cells of a side, anchors a cell."""

LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP = 11, 12, 23, 24
JOINTS = [11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
"""Shoulders, elbows, wrists, hips, knees, ankles: left, then right."""
ANGLES = [
    (11, 13, 15),
    (12, 14, 16),
    (13, 11, 23),
    (14, 12, 24),
    (11, 23, 25),
    (12, 24, 26),
    (23, 25, 27),
    (24, 26, 28),
]
"""Elbows, shoulders, hips, knees: the joint is in the middle."""


class Pose(NamedTuple):
    """One person in one frame.

    points: (33, 2) pixels; world: (33, 3) metres from the hips, rightwards, downwards and away from the camera
    visibility: (33,) probability that a landmark is not hidden; presence: probability of a person
    """

    points: np.ndarray
    world: np.ndarray
    visibility: np.ndarray
    presence: float


class BlazePose(Extractor):
    """How a person is held and moves, (b, 256); zeros where no person is seen.

    0..197: 33 landmarks x 3, from the hips, in lengths of the torso, turned so that the shoulders are in the plane of
        the picture: mean, standard deviation
    198..221: speed of 12 joints relative to that, in torsos a second: mean, maximum
    222..245: angle of 8 joints, in radians: mean, standard deviation, range
    246..253: height of the hips in the picture: mean, standard deviation; lean of the trunk from the vertical, in
        radians: mean, standard deviation; turning about the vertical, in radians a second: mean, maximum; speed of the
        hips, in heights of the picture a second: mean, maximum
    254, 255: presence and visibility
    Looks at 16 of the 32 frames and follows one person: the largest that is found in the first frame, and again where
    that one is lost. Weights: mediapipe-0.10.21-*.whl (`pip download mediapipe==0.10.21 --no-deps`) or a .task bundle,
    read as a zip file; both have the Apache licence. Source: Bazarevsky et al., 2020. Without their heat maps and
    smoothing over time. Always on the CPU.
    """

    width = 256
    short_sides = (SHORT_SIDE,)
    needs_weights = True

    @property
    def name(self) -> str:
        return "BlazePose"

    def load(self, *, weights: Path | None, device: str, precision: str) -> None:
        assert weights is not None
        models = read_models(weights)
        self.detector, self.landmarks = (Network(models[kind], kind, weights) for kind in ("detector", "landmarks"))

    def features(self, segments: Sequence[Segment]) -> np.ndarray:
        return np.stack([describe(*self.poses(segment.frames[SHORT_SIDE])) for segment in segments])

    def poses(self, frames: np.ndarray) -> tuple[list[Pose | None], int]:
        """Return the pose in every second of the frames (t, h, w, 3), None where nobody is seen, and h."""
        poses: list[Pose | None] = []
        square = None
        for frame in frames[::STEP]:
            pose = None
            if square is not None:
                pose, square = self.pose(frame, square)
            if square is None and (square := self.person(frame)) is not None:
                pose, square = self.pose(frame, square)
            poses.append(pose)
        return poses, frames.shape[1]

    def person(self, frame: np.ndarray) -> np.ndarray | None:
        """Return the square around the largest person in a frame, None where there is none."""
        h, w = frame.shape[:2]
        whole = square_around(np.array([w, h]) / 2, np.array([w / 2, h / 2 - max(h, w) / 2]), margin=1)
        outputs = self.detector(cropped(frame, whole, 224) / 127.5 - 1)
        scores = sigmoid(outputs[1][:, 0])
        found = scores >= FOUND
        if not found.any():
            return None
        values = outputs[12][found] / 224
        values[:, :2] += ANCHORS[found]
        values[:, 4:] += np.tile(ANCHORS[found], 4)
        largest = np.hypot(*(values[:, 6:8] - values[:, 4:6]).T).argmax()
        same = overlaps(values[:, :4], values[largest, :4]) > 0.3
        hips, end = np.average(values[same], axis=0, weights=scores[found][same])[4:8].reshape(2, 2)
        return square_around(*placed(np.stack([hips, end]), whole))

    def pose(self, frame: np.ndarray, square: np.ndarray) -> tuple[Pose | None, np.ndarray | None]:
        """Return the pose within a square of a frame, and the square for the next frame; None where it is lost."""
        outputs = self.landmarks(cropped(frame, square, 256) / 255)
        presence = float(outputs[1][0])
        if not presence >= PRESENT:
            return None, None
        values = outputs[195].reshape(39, 5)
        points = placed(values[:, :2] / 256, square)
        turn = square[:, :2] / np.hypot(*square[:, 0])
        world = outputs[117].reshape(39, 3)[:33].astype(np.float64)
        world[:, :2] = world[:, :2] @ turn.T
        visibility = sigmoid(values[:33, 3])
        return Pose(points[:33], world, visibility, presence), square_around(points[33], points[34])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.clip(-50, 50)))


def square_around(centre: np.ndarray, end: np.ndarray, margin: float = MARGIN) -> np.ndarray:
    """Return the square around a circle, the radius from its centre to `end` upwards.

    A square is (2, 3): its upper edge and its left edge as vectors, and its upper left corner, in pixels.
    """
    down = (centre - end) * 2 * margin
    right = np.array([down[1], -down[0]])
    return np.stack([right, down, centre - (right + down) / 2], axis=1)


def placed(points: np.ndarray, square: np.ndarray) -> np.ndarray:
    """Return points (n, 2) of a square, from 0 to 1, in the pixels of its picture."""
    return points @ square[:, :2].T + square[:, 2]


def cropped(frame: np.ndarray, square: np.ndarray, size: int) -> np.ndarray:
    """Return what a square has of a picture, (size, size, 3) float32 of 0..255, black outside."""
    matrix = square / (size, size, 1)
    return cv2.warpAffine(frame, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP).astype(np.float32)


def overlaps(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes (n, 4) with a box (4,): centre, width, height."""
    low = np.maximum(boxes[:, :2] - boxes[:, 2:] / 2, box[:2] - box[2:] / 2)
    high = np.minimum(boxes[:, :2] + boxes[:, 2:] / 2, box[:2] + box[2:] / 2)
    common = np.maximum(high - low, 0).prod(axis=1)
    return common / np.maximum(boxes[:, 2:].prod(axis=1) + box[2:].prod() - common, 1e-9)


def anchors() -> Iterator[np.ndarray]:
    for cells, count in GRIDS:
        y, x = (np.mgrid[:cells, :cells] + 0.5) / cells
        yield np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), count, axis=0)


ANCHORS = np.concatenate([*anchors()])
"""(2254, 2) centres, from 0 to 1."""


def describe(poses: Sequence[Pose | None], height: int) -> np.ndarray:
    """Return the features (256,) of the poses of a segment."""
    seen = [(i / RATE, pose) for i, pose in enumerate(poses) if pose is not None]
    if not seen:
        return np.zeros(256, dtype=np.float32)
    time = np.array([t for t, _ in seen])
    points, world, visibility = (np.stack([pose[i] for _, pose in seen]) for i in range(3))
    turned, facing = upright(world)
    step = np.diff(time)[:, None]
    speeds = np.linalg.norm(np.diff(turned[:, JOINTS], axis=0), axis=-1) / step
    angles = np.stack([angle(*(turned[:, i] for i in joint)) for joint in ANGLES], axis=1)
    hips, shoulders = points[:, [23, 24]].mean(axis=1), points[:, [11, 12]].mean(axis=1)
    up = hips + np.array([0, -1])
    turning = np.abs((np.diff(facing) + np.pi) % (2 * np.pi) - np.pi) / step[:, 0]
    travel = np.linalg.norm(np.diff(hips, axis=0), axis=1) / height / step[:, 0]
    return np.concatenate(
        [
            *(turned.mean(axis=0).ravel(), turned.std(axis=0).ravel()),
            mean_and_maximum(speeds),
            *(angles.mean(axis=0), angles.std(axis=0), np.ptp(angles, axis=0)),
            *(mean_and_deviation(1 - hips[:, 1] / height), mean_and_deviation(angle(shoulders, hips, up))),
            *(mean_and_maximum(turning[:, None]), mean_and_maximum(travel[:, None])),
            np.array([sum(pose.presence for _, pose in seen) / len(poses), visibility.mean() * len(seen) / len(poses)]),
        ]
    ).astype(np.float32)


def upright(world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return landmarks (n, 33, 3) from the hips in torsos, turned about the vertical, and by what angle (n,)."""
    hips = world[:, [LEFT_HIP, RIGHT_HIP]].mean(axis=1, keepdims=True)
    body = world - hips
    across = body[:, LEFT_SHOULDER] - body[:, RIGHT_SHOULDER]
    torso = np.linalg.norm(body[:, [LEFT_SHOULDER, RIGHT_SHOULDER]].mean(axis=1), axis=-1)
    facing = np.arctan2(across[:, 2], across[:, 0])
    cosine, sine = np.cos(facing)[:, None], np.sin(facing)[:, None]
    x, y, z = np.moveaxis(body / np.maximum(torso, 0.1)[:, None, None], -1, 0)
    return np.stack([cosine * x + sine * z, y, cosine * z - sine * x], axis=-1), facing


def angle(a: np.ndarray, middle: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the angle at `middle` between points (n, 2 or 3), from 0 to pi."""
    first, second = a - middle, b - middle
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return np.arccos(((first * second).sum(axis=-1) / np.maximum(lengths, 1e-9)).clip(-1, 1))


def mean_and_deviation(values: np.ndarray) -> np.ndarray:
    return np.array([values.mean(), values.std()])


def mean_and_maximum(values: np.ndarray) -> np.ndarray:
    """Return (2 k,) of (n, k); zeros where n is 0, for a person seen in one frame only."""
    if not len(values):
        return np.zeros(2 * values.shape[1])
    return np.concatenate([values.mean(axis=0), values.max(axis=0)])


class Network:
    """A TensorFlow Lite model: an input in, its outputs by their last size."""

    def __init__(self, content: bytes, kind: str, path: Path) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise InputError('BlazePose needs ai-edge-litert: `pip install "pamfn[pose]"`.') from None
        try:
            self.interpreter: Any = Interpreter(model_content=content, num_threads=torch.get_num_threads())
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{path} is damaged: its pose {kind} cannot be loaded ({error}).") from None
        (given,), outputs = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        shape, wanted = SHAPES[kind]
        shapes = {tuple(output["shape"].tolist()) for output in outputs}
        if tuple(given["shape"].tolist()) != shape or not wanted <= shapes:
            raise InputError(f"{path} is not BlazePose: its pose {kind} maps {given['shape']} to {shapes}.")
        self.given = given["index"]
        self.outputs = {shape[-1]: output["index"] for output in outputs if (shape := tuple(output["shape"])) in wanted}

    def __call__(self, x: np.ndarray) -> dict[int, np.ndarray]:
        self.interpreter.set_tensor(self.given, x[None])
        self.interpreter.invoke()
        return {size: self.interpreter.get_tensor(index)[0] for size, index in self.outputs.items()}


def read_models(path: Path) -> dict[str, bytes]:
    """Return BlazePose's two networks from a file that holds them.

    Raises:
        InputError: when it is no such file.
    """
    try:
        with zipfile.ZipFile(regular(path)) as archive:
            found = {
                kind: next(info for info in archive.infolist() if Path(info.filename).name in names)
                for kind, names in MODELS.items()
            }
            if any(info.file_size > LARGEST for info in found.values()):
                raise InputError(f"{path} is refused: it announces a network of more than {LARGEST} bytes.")
            return {kind: archive.read(info) for kind, info in found.items()}
    except StopIteration:
        raise InputError(
            f"{path} holds no BlazePose: expected mediapipe's wheel (`pip download mediapipe==0.10.21 --no-deps`; "
            "later ones are without it) or a .task bundle for pose landmarks."
        ) from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged, or neither a wheel nor a .task bundle ({error}).") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
