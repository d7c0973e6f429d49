"""Finished runs as a model that scores new videos: the public `pamfn.load`."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from pamfn.data.batches import Batch, Videos
from pamfn.errors import InputError
from pamfn.evaluation.averaging import common_scale
from pamfn.evaluation.conformal import cv_plus, split_conformal, within
from pamfn.models.average import AverageNetwork
from pamfn.models.network import Network
from pamfn.models.pamfn import PAMFN
from pamfn.pipeline.ensemble import runs_of
from pamfn.pipeline.explain import Stage, on_batch
from pamfn.pipeline.inputs import Sample, Stream, problem_of_sample, segment_seconds
from pamfn.pipeline.member import Member, Weights, cost_of_missing, open_member
from pamfn.pipeline.occlusion import occlusion
from pamfn.pipeline.prediction import LEVELS, Explained, FusionSteps, Prediction
from pamfn.pipeline.reload import quiet, refuse_no_split
from pamfn.training.tasks import HighlightTask

Points = tuple[float, float]
"""Points, and their spread over sampled decisions."""


class Model:
    """One or several finished runs that score new videos.

    Several are averaged: each is brought to one scale by the mean and the standard deviation of its own held-out (else
    training) predictions, so that a video's score does not depend on the videos that it is scored with.

    members: the runs
    streams: {stream: the features that any of them reads}
    notes: what is to be said of every prediction
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        refuse_different(members)
        self.streams = streams_of(members)
        self.data = members[0].data
        self.finds_highlights = self.data.predicts == "highlights"
        several = len(members) > 1 and not self.finds_highlights
        scales = [member.own_scale(member.weights) for member in members] if several else []
        self.scale_to = common_scale(scales) if several else None
        self.notes = [] if self.finds_highlights else [*self.notes_on_intervals()]
        if all(member.reference is None for member in members):
            self.notes.append(
                "nothing is known of the training videos (a run of an earlier version, and its data are not here): "
                "whether a video is unlike them, and what masking its parts does, is not said"
            )

    @property
    def network(self) -> Network:
        """The network of the one run, or one that averages those of all runs: in evaluation mode, on its device."""
        if len(self.members) == 1:
            return self.members[0].network
        scales = [self.to_scale(member, member.weights) for member in self.members]
        return AverageNetwork(
            [member.network for member in self.members],
            [list(member.streams) for member in self.members],
            [factor for factor, _ in scales],
            [shift / self.max_points for _, shift in scales],
        ).eval()

    @property
    def min_segments(self) -> int:
        """The number of segments of the shortest video that it can score."""
        return max(member.network.min_segments for member in self.members)

    @property
    def source(self) -> str:
        """`real`, or `synthetic` if any run was trained on synthetic data."""
        return "synthetic" if any(m.result["data_source"] == "synthetic" for m in self.members) else "real"

    @property
    def max_points(self) -> float:
        """The points of a score of 1."""
        return self.members[0].scale

    @property
    def training_points(self) -> np.ndarray | None:
        """The judges' points (n,) of the training videos, where they are known."""
        return next((m.reference.points for m in self.members if m.reference and m.reference.points is not None), None)

    @cached_property
    def residuals(self) -> list[tuple[Member, np.ndarray]]:
        """Members with the residuals (n,) of their last epoch on their own held-out videos, on the common scale.

        Those of the chosen epoch would be too small, since it was chosen on these videos. The centre of an interval is
        the score of the chosen epoch all the same: intervals are made like split conformal ones, and how often they
        cover is measured, not guaranteed.
        """
        found = []
        for member in self.members:
            if held := member.held_out.get("last"):
                found.append((member, held.true - self.on_scale(member, "last", held.predicted)))
        return found

    def to_scale(self, member: Member, weights: str) -> tuple[float, float]:
        """Return (factor, shift) that bring a member's points to the common scale."""
        return member.own_scale(weights).onto(self.scale_to) if self.scale_to else (1.0, 0.0)

    def on_scale(self, member: Member, weights: str, points: np.ndarray) -> np.ndarray:
        """Bring a member's points to the common scale."""
        factor, shift = self.to_scale(member, weights)
        return factor * points + shift

    def notes_on_intervals(self) -> list[str]:
        """Say why there is no interval, or not every one."""
        if not self.residuals:
            rules = ", ".join(sorted({member.result["reported"] for member in self.members}))
            return [
                f"no interval: there are no held-out predictions (reported: {rules}), and residuals of training or "
                "test videos would not do. Train with protocol=holdout"
            ]
        held_out = sum(len(residuals) for _, residuals in self.residuals)
        lacking = [level for level in LEVELS if math.ceil((held_out + 1) * level) > held_out]
        return [f"no interval at {level:.0%}: {held_out} held-out videos are too few for it" for level in lacking]

    def predict(self, features: Mapping[str, np.ndarray | torch.Tensor]) -> Prediction:
        """Score a video.

        features: {stream: (t, c)} of its t segments, as in training; without some of the streams it is scored as if
            they had not been recorded, and a warning says so

        Raises:
            InputError: when they are not what the network reads.
        """
        if not isinstance(features, Mapping):
            example = ", ".join(f"{stream!r}: array" for stream in self.streams)
            raise InputError(f"features: expected {{{example}}}, not {type(features).__name__}. Name the streams.")
        return self.explain(Sample("video", {m: as_array(x, m) for m, x in features.items()}), parts=False).prediction

    def explain(self, sample: Sample, *, parts: bool = True) -> Explained:
        """Score a video, and say why. parts: also what masked parts of it change, and what a fused network decided.

        Raises:
            InputError: when it cannot be scored.
        """
        if strange := [stream for stream in sample.features if stream not in self.streams]:
            raise InputError(f"{', '.join(strange)}: the network reads {', '.join(self.streams)}.")
        if problem := problem_of_sample(sample, self.streams):
            raise InputError(problem)
        features = {m: sample.features[m] for m in self.streams if m in sample.features}
        segments = len(next(iter(features.values())))
        if segments < self.min_segments:
            raise InputError(f"{segments} segments: the network needs {self.min_segments} or more.")
        warnings = [*sample.warnings, *self.warnings(features)]
        complete = {m: features.get(m, np.zeros((segments, s.width), np.float32)) for m, s in self.streams.items()}
        prediction = self.highlights(complete) if self.finds_highlights else self.score(complete)
        prediction.warnings.extend([*warnings, *self.notes])
        explained = Explained(sample.name, prediction, segments, sample.segment_seconds)
        if not parts:
            return explained
        masked = None
        if self.fill is not None and not self.finds_highlights:
            masked = occlusion(lambda changed: self.mean_points(changed)[0], complete, self.fill)
        return Explained(sample.name, prediction, segments, sample.segment_seconds, masked, self.stages(complete))

    def warnings(self, features: Mapping[str, np.ndarray]) -> list[str]:
        """Say what makes the score of these features less trustworthy."""
        said = []
        for member in self.members:
            if missing := [m for m in member.streams if m not in features]:
                refuse_missing(member, missing)
                if len(self.members) == 1:
                    said.append(f"scored without {', '.join(missing)}: {cost_of_missing(member, list(features))}")
        if len(self.members) > 1 and (missing := [m for m in self.streams if m not in features]):
            said.append(f"scored without {', '.join(missing)}: what that costs was not measured for several networks")
        return said + self.unlike_training(features)

    def unlike_training(self, features: Mapping[str, np.ndarray]) -> list[str]:
        """Say in what the features are unlike all that the members were trained on, which may differ."""
        references = [member.reference for member in self.members if member.reference is not None]
        known = [{m: x for m, x in features.items() if m in reference.means} for reference in references]
        most = max(map(len, known), default=0)
        found = [r.warnings(streams) for r, streams in zip(references, known, strict=True) if len(streams) == most > 0]
        return min(found, key=len, default=[])

    @cached_property
    def fill(self) -> dict[str, np.ndarray] | None:
        """{stream: (c,) the mean of its features over the training videos}; None where that is not known."""
        fill: dict[str, np.ndarray] = {}
        for member in self.members:
            if member.reference is not None:
                fill |= member.reference.mean_features()
        return fill if fill.keys() >= self.streams.keys() else None

    def score(self, features: Mapping[str, np.ndarray]) -> Prediction:
        """Score complete features {stream: (t, c)}.

        Points are cut to 0 and `max_points`, beyond which several networks on one scale can lie, and so are intervals.
        """
        uncut, spread, own = self.mean_points(features)
        points = min(max(uncut, 0.0), self.max_points)
        intervals = {}
        for level in LEVELS:
            if len(self.members) == 1:
                limits = split_conformal(uncut, self.residuals[0][1], level) if self.residuals else None
            else:
                seen = [own[member.name] for member, _ in self.residuals]
                limits = cv_plus(seen, [residuals for _, residuals in self.residuals], level)
            if limits is not None:
                intervals[level] = within(limits, points, self.max_points)
        low, high = intervals.get(LEVELS[-1], (None, None))
        members = own if len(self.members) > 1 else {}
        return Prediction(points, low, high, spread, [], intervals, None, members)

    def mean_points(self, features: Mapping[str, np.ndarray]) -> tuple[float, float, dict[str, float]]:
        """Return the mean of all members' points, its spread, and {member: its points}, all on the common scale.

        They can lie a little below 0 or above `max_points`.
        """
        own, spreads = {}, []
        for member in self.members:
            score, spread = member.scorer({m: torch.tensor(features[m])[None] for m in member.streams})
            own[member.name] = float(self.on_scale(member, member.weights, score.numpy() * member.scale)[0])
            spreads.append(float(spread[0]) * member.scale)
        if not all(map(math.isfinite, own.values())):
            raise InputError("the network's score is no finite number: its features are far beyond those of training.")
        values = list(own.values())
        spread = spreads[0] if len(values) == 1 else float(np.std(values, ddof=1))
        return float(np.mean(values)), spread, own

    def highlights(self, features: Mapping[str, np.ndarray]) -> Prediction:
        """Score every clip of complete features: the mean of the members' probabilities (t,)."""
        each = []
        for member in self.members:
            logits, _ = member.scorer({m: torch.tensor(features[m])[None] for m in member.streams})
            each.append(HighlightTask(weak=bool(vars(member.data)["bags"])).shown(logits[0].numpy()))
        scores = np.mean(each, axis=0)
        spread = float(np.std(each, axis=0, ddof=1).mean()) if len(each) > 1 else 0.0
        return Prediction(float(scores.max()), None, None, spread, [], {}, scores)

    def stages(self, features: Mapping[str, np.ndarray]) -> list[FusionSteps]:
        """What the stages of a single fused network did; nothing for other models."""
        network = self.members[0].network
        if len(self.members) > 1 or not isinstance(network, PAMFN):
            return []
        device, zero = self.members[0].scorer.device, torch.zeros(1, dtype=torch.long)
        placed = {m: torch.tensor(features[m])[None].float().to(device) for m in self.streams}
        ((_, stages, _),) = on_batch(network, Batch(placed, None, zero, zero))
        segments = len(next(iter(features.values())))
        steps = network.stage_lengths(segments)
        spans = [segments if t == 1 else segments // t for t in steps]
        streams, networks = list(self.streams), network.num_fusion_nets
        return [steps_of(stage, span, streams, networks) for stage, span in zip(stages, spans, strict=True)]


def load(
    run: Path | str | Sequence[Path | str],
    weights: Weights = "selected",
    data_dir: str | None = None,
    trust: Sequence[str] = (),
) -> Model:
    """Load finished runs to score new videos with; a single one's network is `.network`.

    run: a folder, the file of an ensemble, or several of them, whose mean is the score
    weights: those of the reported epoch or of the last
    data_dir: where the training data is now, for runs that have not kept what they need of it
    trust: packages besides this one that the runs' classes may come from, which runs their code

    Raises:
        InputError: when there is no such run, it has no weights, or they do not predict the same.
    """
    quiet()
    words = [run] if isinstance(run, Path | str) else list(run)
    return Model([open_member(folder, weights, data_dir, trust) for folder in runs_of(words)])


def samples_of_split(model: Model, split: str) -> dict[str, Sample]:
    """Return the videos of a split of the runs' own data, each stream from the first run that reads it.

    Raises:
        InputError: when the data are not here, the protocol makes no such split, or the runs have different ones.
    """
    splits: dict[str, Videos] = {}
    first: Videos | None = None
    for member in model.members:  # all of them: one may have been trained on what another holds out
        refuse_no_split(member.data, split)
        videos = member.data.splits[split]
        first = first or videos
        if videos.names != first.names or not videos.length.equal(first.length):
            raise InputError(f"the runs have different videos in {split}: give the features of the videos.")
        splits |= {stream: videos for stream in member.streams if stream not in splits}
    assert first is not None
    seconds = {segment_seconds(stream.extraction) for stream in model.streams.values()}
    samples = {}
    for name, start, length in zip(first.names, first.start.tolist(), first.length.tolist(), strict=True):
        features = {m: videos.packed[m][start : start + length].numpy() for m, videos in splits.items()}
        samples[name] = Sample(name, features, None, next(iter(seconds)) if len(seconds) == 1 else None)
    return samples


def as_array(x: np.ndarray | torch.Tensor, stream: str) -> np.ndarray:
    """Return features as a numpy array (t, c) of float32 or float16; bfloat16 becomes float32."""
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu()
        x = (x.float() if x.dtype == torch.bfloat16 else x).numpy()  # numpy has no bfloat16
    array = np.asarray(x)
    if array.dtype.kind != "f":
        raise InputError(f"{stream}: expected floating-point features (segments, width), not {array.dtype}.")
    return array if array.dtype == np.float16 else np.ascontiguousarray(array, dtype=np.float32)


def refuse_different(members: Sequence[Member]) -> None:
    """Refuse runs that do not predict the same."""
    tasks = {(member.result["name"], member.scale): member for member in members}
    if len(tasks) > 1:
        said = ", ".join(f"{member.name} {name}" for (name, _), member in tasks.items())
        raise InputError(f"these runs do not predict the same: {said}. Give the runs of one task.")


def streams_of(members: Sequence[Member]) -> dict[str, Stream]:
    """Return {stream: what is read of it} of all members; refuse two extractors for one stream."""
    streams: dict[str, Stream] = {}
    for member in members:
        for stream, spec in member.streams.items():
            known = streams.get(stream, spec)
            if (known.extractor, known.width) != (spec.extractor, spec.width):
                raise InputError(
                    f"{member.name} reads {stream} features of {spec.extractor}, and others of {known.extractor}: "
                    "runs that score together read the same features."
                )
            streams[stream] = known if known.extraction is not None else spec
    return streams


def refuse_missing(member: Member, missing: Sequence[str]) -> None:
    """Refuse to score with a run that cannot do without these streams."""
    if len(missing) == len(member.streams) or member.result["kind"] != "fusion":
        raise InputError(f"{', '.join(missing)} features are missing: {member.name} cannot score without them.")


def steps_of(stage: Stage, segments: int, streams: Sequence[str], networks: int) -> FusionSteps:
    """Return what a stage did, whose time steps are of so many segments."""
    weights = stage.modality_weights
    attention = {} if weights is None else {m: weights[:, i] for i, m in enumerate(streams)}
    return FusionSteps(segments, attention, stage.decision, networks)
