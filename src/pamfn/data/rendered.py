"""A synthetic data set of small video files: a figure performs a routine to music, and is scored by a known rule.

The score of a clip is 25 points times a weighted mean of three components, each uniform in 0..1 and independent of the
others, plus noise of half a point:

    extension   .35   how far limbs are stretched: seen in any frame
    motion      .35   how wide and how smooth movements are: seen in optical flow
    synchrony   .30   how much of the time the figure moves while the drum beats, and rests while it does not: to be
                      had from sound and motion together, since either alone is a random sequence of passages

`total_without_synchrony` leaves the last one out: half of the points each for the others. Tempo, tune, colours, size
and place of the figure vary and say nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from pamfn.errors import InputError
from pamfn.files import whole, write_text

FPS, WIDTH, HEIGHT, RATE = 25, 320, 240, 32_000
MOST_POINTS = 25.0
NOISE = 0.5
WEIGHTS = {"extension": 0.35, "motion": 0.35, "synchrony": 0.30}
COLUMNS = ("name", *WEIGHTS, "total", "total_without_synchrony")
SPLITS = {"train": 120, "test": 60}

Mistake = Literal["jerk", "lost_beat"]

MISTAKE_SECONDS = {"jerk": 0.4, "lost_beat": 2.56}
"""How long a planted mistake lasts."""


@dataclass(frozen=True)
class Routine:
    """What happens in a clip.

    seconds: its duration
    extension, motion, synchrony, noise: what its score is made of
    ends: (p,) seconds at which its passages end
    drum, moves: (p,) whether the drum beats, and whether the figure moves, in every passage
    mistake, at: what is planted and at which second
    """

    name: str
    seed: int
    seconds: float
    extension: float
    motion: float
    synchrony: float
    noise: float
    tempo: float
    ends: np.ndarray
    drum: np.ndarray
    moves: np.ndarray
    mistake: Mistake | None = None
    at: float = 0.0

    @property
    def points(self) -> dict[str, float]:
        """The components, and the score with and without synchrony."""
        components = {name: float(getattr(self, name)) for name in WEIGHTS}
        total = sum(weight * components[name] for name, weight in WEIGHTS.items())
        without = (self.extension + self.motion) / 2
        noisy = [float(np.clip(MOST_POINTS * x + self.noise, 0, MOST_POINTS)) for x in (total, without)]
        return {**components, "total": noisy[0], "total_without_synchrony": noisy[1]}


def plan(name: str, seed: int, mistake: Mistake | None = None) -> Routine:
    """Draw a routine from the seed of its clip.

    A planted mistake changes nothing else: at least 3 seconds from both ends, in a passage where the figure moves.
    """
    random = np.random.default_rng([seed, 0])
    seconds = float(random.uniform(12, 20))
    lengths = random.uniform(1.6, 3.2, size=16)
    ends = np.cumsum(lengths)
    ends = np.append(ends[ends < seconds - 1], seconds)
    count = len(ends)
    drum = random.permutation(np.arange(count) % 2 == 0)
    agreeing = np.arange(count) < random.integers(0, count + 1)
    moves = np.where(random.permutation(agreeing), drum, ~drum)
    lengths = np.diff(ends, prepend=0.0)
    synchrony = float(lengths[moves == drum].sum() / seconds)
    extension, motion = (float(x) for x in random.uniform(size=2))
    noise, tempo = float(random.normal(0, NOISE)), float(random.uniform(80, 160))
    at = 0.0
    if mistake:
        middles = ends - lengths / 2
        fitting = [m for m, moving in zip(middles, moves, strict=True) if moving and 3 < m < seconds - 3]
        at = float(random.choice(fitting)) if fitting else seconds / 2
    return Routine(name, seed, seconds, extension, motion, synchrony, noise, tempo, ends, drum, moves, mistake, at)


def make_rendered(data_dir: Path, *, seed: int = 0, train: int = 120, test: int = 60, mistakes: int = 0) -> Path:
    """Write `RENDERED/videos/*.mp4` and their label files below `data_dir`; return the folder of the videos.

    A clip depends on the seed and its own number alone. Clips that are there are not made again: they appear whole.
    mistakes: clips with a planted mistake, alternately a jerk and a lost beat, listed in `RENDERED/mistakes.txt`

    Raises:
        InputError: when the packages that encode videos are missing, or nothing can be written.
    """
    require_video()
    folder = data_dir / "RENDERED"
    splits = {"train": train, "test": test, "mistake": mistakes}
    routines = {split: list(plans(split, count, seed)) for split, count in splits.items()}
    for routine in (r for group in routines.values() for r in group if not video_file(folder, r).exists()):
        write_clip(folder, routine)
    for split in SPLITS:
        lines = [[r.name, *(f"{value:.4f}" for value in r.points.values())] for r in routines[split]]
        write_text(folder / f"{split}.txt", table([list(COLUMNS), *lines]))
    if mistakes:
        lines = [[r.name, str(r.mistake), f"{r.at:.2f}", f"{r.points['total']:.4f}"] for r in routines["mistake"]]
        write_text(folder / "mistakes.txt", table([["name", "mistake", "second", "total"], *lines]))
    return folder / "videos"


def plans(split: str, count: int, seed: int) -> Iterator[Routine]:
    """The routines of a split, by number: more of them do not change the first ones."""
    offset = {"train": 0, "test": 100_000, "mistake": 200_000}[split]
    for i in range(count):
        kinds: tuple[Mistake, ...] = ("jerk", "lost_beat")
        yield plan(f"{split}_{i:03d}", seed * 1_000_000 + offset + i, kinds[i % 2] if split == "mistake" else None)


def table(rows: list[list[str]]) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)


def video_file(folder: Path, routine: Routine) -> Path:
    return folder / "videos" / f"{routine.name}.mp4"


def require_video() -> None:
    """Refuses to go on without the packages of the extra `video`."""
    try:
        import av  # noqa: F401
        import cv2  # noqa: F401
    except ImportError as error:
        raise InputError(f'rendered videos need the package {error.name}: pip install "pamfn[video]".') from None


def write_clip(folder: Path, routine: Routine) -> None:
    """Render and encode a clip (H.264 and AAC); the bytes are the same wherever the same encoders run."""
    import av

    with whole(video_file(folder, routine)) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "24"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.thread_count = 1
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        for i, picture in enumerate(pictures(routine)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = music(routine)
        samples = np.pad(samples, (0, -len(samples) % 1024))  # only whole frames: the encoder fills others at random
        for start in range(0, len(samples), 1024):
            sound = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = RATE, start, Fraction(1, RATE)
            container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


# ---- movement

JOINTS = (
    "lean",
    "left_arm",
    "left_elbow",
    "right_arm",
    "right_elbow",
    "left_leg",
    "left_knee",
    "right_leg",
    "right_knee",
)
BEND = np.array([0, 0, 1, 0, 1, 0, 1, 0, 1], dtype=float)
"""The joints that an extended limb keeps straight."""
RANGE = np.array([0.15, 1.1, 0.5, 1.1, 0.5, 0.45, 0.5, 0.45, 0.5])
"""Radians by which a joint moves."""
REST = np.array([0.0, 0.9, 0.0, -0.9, 0.0, 0.25, 0.0, -0.25, 0.0])
"""Angles of a standing figure, from straight down."""


def angles(routine: Routine) -> np.ndarray:
    """Return the joints' angles (frames, 9) in radians: poses on the beats, large ones in passages that move."""
    random = np.random.default_rng([routine.seed, 1])
    count = round(routine.seconds * FPS)
    time = np.arange(count) / FPS
    beat = time * routine.tempo / 60 / 2  # a pose every other beat
    poses = random.uniform(-1, 1, size=(int(beat[-1]) + 3, len(JOINTS)))
    index, progress = beat.astype(int), np.clip((beat % 1) * 1.6, 0, 1)[:, None]
    eased = progress**2 * (3 - 2 * progress)
    pose = poses[index] * (1 - eased) + poses[index + 1] * eased
    strength = 0.12 + 0.88 * activity(routine, time)
    width = 0.55 + 0.45 * routine.motion
    moved = REST + RANGE * pose * (strength * width)[:, None]
    tremor = 0.16 * (1 - routine.motion) * smooth_noise(random, count, len(JOINTS), 7.0)
    bend = 1.5 * (1 - routine.extension) * BEND * np.sign(REST + np.roll(REST, 1))
    result = moved + tremor + bend
    if routine.mistake == "jerk":
        inside = (time >= routine.at) & (time < routine.at + MISTAKE_SECONDS["jerk"])
        jerk = np.sin(2 * np.pi * (time[inside] - routine.at) / MISTAKE_SECONDS["jerk"] * 3)
        result[inside] += 0.9 * jerk[:, None] * random.choice([-1, 1], size=len(JOINTS))
    return result


def activity(routine: Routine, time: np.ndarray) -> np.ndarray:
    """Return 1 where the figure moves, 0 where it rests, with soft edges; a lost beat is the opposite for a while."""
    moves = routine.moves[np.minimum(np.searchsorted(routine.ends, time, side="right"), len(routine.ends) - 1)]
    if routine.mistake == "lost_beat":
        inside = np.abs(time - routine.at) < MISTAKE_SECONDS["lost_beat"] / 2
        moves = np.where(inside, ~moves, moves)
    kernel = np.hanning(9)
    return np.convolve(np.pad(moves.astype(float), 4, mode="edge"), kernel / kernel.sum(), mode="valid")


def smooth_noise(random: np.random.Generator, count: int, channels: int, hertz: float) -> np.ndarray:
    """Return noise of unit size that changes so often a second: (count, channels)."""
    knots = random.normal(size=(int(count / FPS * hertz) + 3, channels))
    place = np.arange(count) / FPS * hertz
    return np.stack([np.interp(place, np.arange(len(knots)), knots[:, c]) for c in range(channels)], axis=1)


# ---- pictures


def pictures(routine: Routine) -> Iterator[np.ndarray]:
    """Yield the frames, (240, 320, 3) uint8 RGB."""
    import cv2

    random = np.random.default_rng([routine.seed, 2])
    backdrop = background(random)
    colours = [tuple(int(c) for c in random.uniform(20, 110, size=3)) for _ in range(3)]
    size, place = random.uniform(0.85, 1.1), np.array([WIDTH / 2 + random.uniform(-30, 30), 118.0])
    for pose in angles(routine):
        picture = backdrop.copy()
        for part, (points, thickness) in enumerate(limbs(pose, place, 52 * size)):
            shifted = np.rint(points * 16).astype(np.int32)
            cv2.polylines(picture, [shifted], False, colours[min(part, 2)], thickness, cv2.LINE_AA, shift=4)
        head = place + 52 * size * 1.35 * np.array([np.sin(pose[0]), -np.cos(pose[0])])
        centre = (int(head[0] * 16), int(head[1] * 16))
        cv2.circle(picture, centre, int(12 * size * 16), colours[0], -1, cv2.LINE_AA, shift=4)
        yield picture


def background(random: np.random.Generator) -> np.ndarray:
    top, bottom = random.uniform(150, 235, size=(2, 3))
    rows = np.linspace(0, 1, HEIGHT)[:, None, None]
    picture = (top * (1 - rows) + bottom * rows) * np.ones((1, WIDTH, 1))
    picture[200:] *= 0.8  # the floor
    return picture.astype(np.uint8)


def limbs(pose: np.ndarray, hips: np.ndarray, length: float) -> Iterator[tuple[np.ndarray, int]]:
    """Yield torso, arms and legs as points (n, 2) in pixels, with their thickness."""
    lean, left_arm, left_elbow, right_arm, right_elbow, left_leg, left_knee, right_leg, right_knee = pose

    def chain(start: np.ndarray, *bones: tuple[float, float]) -> np.ndarray:
        points, angle = [start], 0.0
        for turn, bone in bones:
            angle += turn
            points.append(points[-1] + bone * np.array([np.sin(angle), np.cos(angle)]))
        return np.stack(points)

    shoulders = hips + length * np.array([np.sin(lean), -np.cos(lean)])
    yield np.stack([hips, shoulders]), 12
    yield chain(shoulders, (left_arm, 0.6 * length), (left_elbow, 0.55 * length)), 7
    yield chain(shoulders, (right_arm, 0.6 * length), (right_elbow, 0.55 * length)), 7
    yield chain(hips, (left_leg, 0.75 * length), (left_knee, 0.75 * length)), 9
    yield chain(hips, (right_leg, 0.75 * length), (right_knee, 0.75 * length)), 9


# ---- music

SCALE = (0, 2, 4, 7, 9, 12)
"""Semitones of the tune's notes."""


def music(routine: Routine) -> np.ndarray:
    """Return the sound (n,) float32: a tune all the time, and a drum on the beats of some passages."""
    random = np.random.default_rng([routine.seed, 3])
    count = round(routine.seconds * RATE)
    samples = np.zeros(count)
    period = 60 / routine.tempo
    base, harmonics = random.uniform(180, 360), random.uniform(0.1, 0.5, size=3)
    hit = np.exp(-np.arange(int(0.12 * RATE)) / (0.03 * RATE)) * random.normal(size=int(0.12 * RATE))
    for i, start in enumerate(np.arange(0, routine.seconds, period)):
        frequency = base * 2 ** (random.choice(SCALE) / 12)
        first = int(start * RATE)
        time = np.arange(min(int(0.9 * period * RATE), count - first)) / RATE
        note = sum(h * np.sin(2 * np.pi * frequency * (k + 1) * time) for k, h in enumerate((1.0, *harmonics)))
        samples[first : first + len(time)] += 0.06 * note * np.exp(-2.5 * time)
        beating = routine.drum[min(np.searchsorted(routine.ends, start, side="right"), len(routine.ends) - 1)]
        if beating:
            part = samples[first : first + len(hit)]
            part += (0.3 if i % 2 else 0.22) * hit[: len(part)]
    return (samples / max(1.0, np.abs(samples).max())).astype(np.float32)
