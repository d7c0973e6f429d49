"""Read the data of a configuration and say what is there, before anything is trained."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pamfn.config.schema import Config
from pamfn.config.validation import checked
from pamfn.data.base_datamodule import VideoDataModule
from pamfn.data.batches import Videos
from pamfn.data.video_names import some
from pamfn.pipeline.build import data_module
from pamfn.pipeline.job import raw_settings
from pamfn.runs.summary import FEW_HELD_OUT

BARS = " ▁▂▃▄▅▆▇█"
FEW_TEST = 30
"""Test videos below which a result depends much on which they are."""


def check_data(overrides: Sequence[str]) -> str:
    """Read labels and features as a training would, and describe them in lines; of folds the first.

    overrides: words of the command line of `pamfn train`

    Raises:
        InputError: with everything that is wrong.
    """
    raw = raw_settings(overrides)
    folds = raw.protocol.get("folds") is not None
    if folds and raw.protocol.fold is None:
        raw.protocol.fold = 0
    config = checked(raw)
    data = data_module(config)
    data.prepare_data()
    data.setup()
    doubts = list(doubts_of(data, config))
    lines = [
        f"{data.task} ({data.source} data), {data.dataset} in {data.data_dir}",
        f"  videos    {', '.join(f'{split} {len(videos)}' for split, videos in data.splits.items())}"
        + (f" (fold 0 of {config.protocol.folds})" if folds else ""),
        *groups_lines(data),
        *(points_lines(data) if data.predicts == "score" else []),
        *(f"  {line}" for line in stream_lines(data, config)),
        *(f"  left out  {line}" for line in left_out_lines(data)),
        *(f"! {doubt}" for doubt in doubts),
        "" if doubts else "Nothing is wrong with it.",
    ]
    return "\n".join(line for line in lines if line)


def groups_lines(data: VideoDataModule) -> list[str]:
    if not data.groups:
        return []
    sizes = sorted(Counter(data.groups.values()).values())
    return [f"  groups    {len(sizes)}, of {sizes[0]} to {sizes[-1]} videos: {some(sorted(set(data.groups.values())))}"]


def points_lines(data: VideoDataModule) -> list[str]:
    """A line for the scores of every split: range, mean, deviation, and a histogram over all possible points."""
    most = float(vars(data)["max_score"])
    lines = [f"  score     of {most:g} points (max_score)"]
    for split, videos in data.splits.items():
        points = videos.points.numpy()
        counts, _ = np.histogram(points, bins=30, range=(0, most))
        bars = "".join(BARS[-(-8 * count // counts.max())] for count in counts.tolist())
        spread = f"{points.min():.4g} to {points.max():.4g}, mean {points.mean():.4g}, deviation {points.std():.4g}"
        lines.append(f"    {split:<8}{spread:<56} |{bars}|")
    return lines


def stream_lines(data: VideoDataModule, config: Config) -> list[str]:
    """A line for every stream: extractor, width, role, and what its values are like."""
    lengths = np.concatenate([videos.length.numpy() for videos in data.splits.values()])
    crop = vars(data).get("crop")
    shorter = f", {int((lengths < crop).sum())} videos shorter than a crop of {crop}" if crop else ""
    lines = [
        f"segments  {lengths.min()} to {lengths.max()}, median {np.median(lengths):g}{shorter}",
        "streams   " + "; ".join(roles_of(config)),
    ]
    for modality, spec in data.features.items():
        rows = np.concatenate([v.packed[modality].numpy() for v in data.splits.values()]).astype(np.float32)
        like = f"mean {rows.mean():.3g}, deviation {rows.std():.3g}, {rows.min():.3g} to {rows.max():.3g}"
        lines.append(f"  {modality:<22} {spec['extractor']}, {spec['width']} wide, values {like}")
    return lines


def roles_of(config: Config) -> list[str]:
    """What the streams are used for, beside all being fused."""
    finetune = config.model.get("finetune")
    said = [f"methods of one stream read {config.main} (main)"]
    if isinstance(finetune, list) and len(config.streams) > 1:
        said.append(f"stage 2 goes on training the branch of {', '.join(map(str, finetune)) or 'none'} (finetune)")
    return said


def left_out_lines(data: VideoDataModule) -> Iterator[str]:
    """What of the data set is not used: `not annotated: train 4, test 7`."""
    for reason, parts in data.left_out.items():
        counts = [f"{part} {n['count'] if isinstance(n, dict) else n}" for part, n in parts.items()]
        if counts and any(not count.endswith(" 0") for count in counts):
            yield f"{reason.replace('_', ' ')}: {', '.join(counts)}"


def doubts_of(data: VideoDataModule, config: Config) -> Iterator[str]:
    """What is possible, but seldom meant."""
    splits = data.splits
    if data.predicts == "score":
        points = {split: videos.points.numpy() for split, videos in splits.items()}
        yield from (f"{split}: all videos have the same score" for split, p in points.items() if not np.ptp(p) > 0)
        highest = max(p.max() for p in points.values())
        most = float(vars(data)["max_score"])
        if highest < most / 2:
            yield f"no score is above {highest:g}, half of max_score={most:g}: errors in [0, 1] will look small"
    if len(splits["test"]) < FEW_TEST and config.protocol.folds is None:
        better = "; consider protocol=folds" if data.predicts == "score" else ""
        yield f"{len(splits['test'])} test videos: results depend much on which they are{better}"
    if "holdout" in splits and len(splits["holdout"]) < FEW_HELD_OUT:
        yield f"{len(splits['holdout'])} held-out videos: the chosen epoch depends much on them; consider protocol=last"
    for modality in data.features:
        yield from doubts_of_stream(splits, modality)


def doubts_of_stream(splits: Mapping[str, Videos], modality: str) -> Iterator[str]:
    """Columns that never change, values that were not standardised, videos with the same features."""
    rows = np.concatenate([videos.packed[modality].numpy() for videos in splits.values()]).astype(np.float32)
    constant = int((np.ptp(rows, axis=0) == 0).sum())
    if constant:
        yield f"{modality}: {constant} of {rows.shape[1]} columns never change"
    if rows.std() > 100 or abs(float(rows.mean())) > 100:
        yield f"{modality}: its values are large; networks train better on standardised ones"
    same: dict[str, list[str]] = {}
    for split, videos in splits.items():
        for name, features in arrays_of(videos, modality):
            same.setdefault(hashlib.blake2b(features.tobytes()).hexdigest(), []).append(f"{name} ({split})")
    twins = [" = ".join(names) for names in same.values() if len(names) > 1]
    if twins:
        yield f"{modality}: the same features in {len(twins)} pairs or more of videos: {some(twins)}"


def arrays_of(videos: Videos, modality: str) -> Iterator[tuple[str, np.ndarray]]:
    """The features (t, c) of every video."""
    places: Sequence[tuple[int, int]] = list(zip(videos.start.tolist(), videos.length.tolist(), strict=True))
    for name, (start, length) in zip(videos.names, places, strict=True):
        yield name, np.ascontiguousarray(videos.packed[modality][start : start + length].numpy())
