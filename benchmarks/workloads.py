"""What is timed: the same work done by the plain reference and by the library, at the sizes of the paper's data.

Both read the released code's way (doubly negated CMFD, one-layer policy, shared attention layer, frozen branches in
train mode, decision by argmax at test) with the published dropouts, on the same generated features in float16.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.devices import CPU, Mode
from benchmarks.reference import Branch, ReferencePAMFN
from pamfn.data.batches import Batch, Crops, Videos, WholeVideos
from pamfn.data.features import feature_file, read_features
from pamfn.data.score_labels import read_scores
from pamfn.models.branch import ModalityBranch
from pamfn.models.network import Network
from pamfn.models.pamfn import PAMFN
from pamfn.training.module import TrainingModule, video_draws
from pamfn.training.tasks import ScoreTask

WIDTHS = {"rgb": 1024, "flow": 1024, "audio": 768}
BATCH = 32
TEST_BATCH = 16
CLIP = 2.0
STAGE1 = {"optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}
STAGE2 = {"optimizer": "adamw", "lr": 8e-4, "weight_decay": 1e-2, "head_lr_scale": 0.1}
GENERATED = "generated: 400 + 100, nine in ten within 131..142, one in fifteen 155..166, shortest 124, longest 302"

Score = Callable[[dict[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Size:
    """A data set's size: segments of a crop, number of FusionNets, and of videos to train on and to test."""

    title: str
    segments: int
    fusion_nets: int
    videos: tuple[int, int] = (400, 100)
    shared_attention: bool = True


SIZES = {"fisv": Size("Fis-V", 130, 6), "rg": Size("RG", 70, 10, (200, 50))}


class Work:
    """A network in training with its optimiser, on a device and in a precision; `score` is its forward pass."""

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, score: Score, mode: Mode = CPU) -> None:
        self.network, self.optimizer, self.mode, self.score = network.train(), optimizer, mode, score
        self.trained = [p for group in optimizer.param_groups for p in group["params"]]

    def given(self, batch: Batch) -> tuple[Any, Tensor | None, Tensor]:
        """Features, lengths and targets of a batch, on the device."""
        batch = batch.to(self.mode.device)
        return batch.features, batch.lengths, batch.target

    def step(self, features: dict[str, Tensor], target: Tensor) -> None:
        """Forward, mean squared error, backward, clip, optimiser."""
        with self.mode.products():
            self.optimizer.zero_grad()
            with self.mode.autocast():
                score = self.score(features)
            F.mse_loss(score.float(), target).backward()
            torch.nn.utils.clip_grad_norm_(self.trained, CLIP)
            self.optimizer.step()

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """The network as it scores videos, without gradients."""
        self.network.eval()
        with torch.inference_mode(), self.mode.products(), self.mode.autocast():
            yield
        self.network.train()


def reference_branch(mode: Mode = CPU) -> Work:
    """Stage 1 of rgb, plainly."""
    network = Branch(WIDTHS["rgb"]).to(mode.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    return Work(network, optimizer, lambda features: network(features["rgb"])[0], mode)


def our_branch(modality: str = "rgb", mode: Mode = CPU) -> Work:
    """Stage 1 of a modality by the library."""
    network = ModalityBranch(width=WIDTHS[modality]).to(mode.device)
    return Work(network, our_optimizer(network, STAGE1), lambda features: network(features).score, mode)


def reference_pamfn(size: Size, mode: Mode = CPU, kind: type[ReferencePAMFN] = ReferencePAMFN) -> Work:
    """Stage 2, plainly."""
    network = kind(widths=WIDTHS, num_fusion_nets=size.fusion_nets).to(mode.device)
    for name in ("rgb", "flow"):
        network.get_submodule(f"model_{name[0]}").requires_grad_(False)
    network.get_submodule("model_a.fc").requires_grad_(False)
    unused = {id(p) for name, p in network.named_parameters() if ".norm." in name}
    head = {id(p) for p in network.fc.parameters()}
    body = [p for p in network.parameters() if p.requires_grad and id(p) not in unused | head]
    groups = [{"params": body}, {"params": list(network.fc.parameters()), "lr": 8e-5}]
    return Work(network, torch.optim.AdamW(groups, lr=8e-4, weight_decay=1e-2), network, mode)


def our_pamfn(
    size: Size,
    mode: Mode = CPU,
    widths: dict[str, int] = WIDTHS,
    finetune: Sequence[str] | None = ("audio",),
    frozen: Literal["eval", "train"] = "train",
    samples: int = 1,
) -> Work:
    """Stage 2 by the library.

    samples: decisions drawn for a test video, where more than one; else the largest logits decide.
    """
    network = PAMFN(
        branches={name: ModalityBranch(width=width) for name, width in widths.items()},
        num_fusion_nets=size.fusion_nets,
        finetune=finetune,
        frozen=frozen,
        double_negation=True,
        policy_layers=1,
        shared_attention=size.shared_attention,
        temperature="unconstrained",
        decoding="mean" if samples > 1 else "argmax",
        samples=samples,
    ).to(mode.device)
    return Work(network, our_optimizer(network, STAGE2), lambda features: network(features).score, mode)


def our_optimizer(network: Network, recipe: dict[str, Any]) -> torch.optim.Optimizer:
    """The optimiser that training uses."""
    return our_module(network, recipe).configure_optimizers()["optimizer"]


def our_module(network: Network, recipe: dict[str, Any]) -> TrainingModule:
    """The module that training uses."""
    return TrainingModule(network, ScoreTask(max_score=45, score_range=45), epochs=500, **recipe)


def crop_batch(size: Size, device: torch.device = CPU.device) -> tuple[dict[str, Tensor], Tensor]:
    """One training batch: features (b, t, c) of every modality and targets (b,)."""
    features = {m: torch.randn(BATCH, size.segments, c, device=device) for m, c in WIDTHS.items()}
    return features, torch.rand(BATCH, device=device)


def lengths_of(size: Size) -> tuple[list[int], list[int], str]:
    """Segments of the train and test videos, and where from: real for Fis-V if its features are there."""
    if size == SIZES["fisv"]:
        return fisv_lengths(os.environ.get("PAMFN_DATA_DIR"))
    draw, (train, test) = np.random.default_rng(0), size.videos
    lengths = draw.integers(size.segments, size.segments * 11 // 10 + 1, size=train + test).tolist()
    return lengths[:train], lengths[train:], f"generated: {train} + {test}, up to a tenth longer than a crop"


def fisv_lengths(data_dir: str | None) -> tuple[list[int], list[int], str]:
    """Segments of the train and test videos of Fis-V, from its rgb features if they are there, and where from."""
    if data_dir is None:
        draw = np.random.default_rng(0)
        lengths = draw.normal(135.5, 2.5, size=500).round().clip(131, 142).astype(int)
        lengths[::15] = draw.integers(155, 167, size=len(lengths[::15]))
        lengths[[1, 450]] = 124, 302
        return lengths[:400].tolist(), lengths[400:].tolist(), GENERATED
    folder = Path(data_dir)
    arrays = read_features(feature_file(folder, "FISV", "rgb", "VST")).arrays
    columns = ["id", "TES", "PCS", "deduction"]
    names = [read_scores(folder / f"FISV/{split}.txt", columns=columns, score="TES") for split in ("train", "test")]
    train, test = ([len(arrays[name]) for name in split] for split in names)
    return train, test, "real"


def generated_videos(lengths: Sequence[int], widths: dict[str, int] = WIDTHS) -> Videos:
    """Videos of these lengths with random float16 features."""
    length = torch.tensor(lengths)
    total = int(length.sum())
    packed = {m: torch.empty(total, c, dtype=torch.float16).normal_() for m, c in widths.items()}
    target = torch.rand(len(lengths))
    index = torch.arange(len(lengths))
    names = [str(i) for i in range(len(lengths))]
    return Videos(names, packed, length.cumsum(0) - length, length, target * 45, target, index)


def our_test(work: Work, videos: Videos) -> None:
    """Scores of whole videos, as the library does it: similar lengths share a masked batch."""
    with work.scoring():
        for batch in WholeVideos(videos, batch_size=TEST_BATCH):
            features, lengths, _ = work.given(batch)
            if isinstance(work.network, PAMFN):
                work.network.predict_scores(features, lengths, video_draws(work.network, 0, batch.to(work.mode.device)))
            else:
                work.network(features, lengths)


def reference_test(work: Work, videos: Videos) -> None:
    """Scores of whole videos, one by one."""
    with work.scoring():
        for i in range(len(videos)):
            work.network({m: x[None].float().to(work.mode.device) for m, x in video(videos, i).items()})


def our_training(work: Work, videos: Videos, segments: int) -> None:
    """One pass over training videos."""
    for batch in Crops(videos, segments=segments, batch_size=BATCH, seed=0):
        with work.mode.products(), work.mode.autocast():
            features, _, target = work.given(batch)
        work.step(features, target)


def our_epoch(work: Work, train: Videos, test: Videos, segments: int = SIZES["fisv"].segments) -> None:
    """One pass over training videos and the test pass."""
    our_training(work, train, segments)
    our_test(work, test)


def reference_epoch(work: Work, train: Videos, test: Videos, segments: int = SIZES["fisv"].segments) -> None:
    """The same with crops cut and stacked video by video."""
    device = work.mode.device
    for index in torch.randperm(len(train)).split(BATCH):
        crops = [dict(random_crop(video(train, int(i)), segments)) for i in index]
        features = {m: torch.stack([crop[m] for crop in crops]).to(device) for m in WIDTHS}
        work.step(features, train.target[index].to(device))
    reference_test(work, test)


def video(videos: Videos, i: int) -> dict[str, Tensor]:
    """One video's features (t, c) of every modality."""
    start, length = int(videos.start[i]), int(videos.length[i])
    return {m: x[start : start + length] for m, x in videos.packed.items()}


def random_crop(features: dict[str, Tensor], segments: int) -> Iterator[tuple[str, Tensor]]:
    """The same `segments` segments of every modality in float32, zeros after the video's end."""
    length = len(next(iter(features.values())))
    first = int(torch.randint(max(length - segments + 1, 1), ()))
    for name, x in features.items():
        crop = x[first : first + segments].float()
        yield name, F.pad(crop, (0, 0, 0, segments - len(crop)))
