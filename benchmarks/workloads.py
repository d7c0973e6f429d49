"""What is timed: the same work done by the plain reference and by the library, at the sizes of the paper's data.

Both read the released code's way (doubly negated CMFD, one-layer policy, shared attention layer, frozen branches in
train mode, decision by argmax at test) with the published dropouts, on the same generated features in float16.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.reference import Branch, ReferencePAMFN
from pamfn.data.annotations import read_scores
from pamfn.data.features import feature_file, read_features
from pamfn.data.videos import Crops, Videos, WholeVideos
from pamfn.models.branch import ModalityBranch
from pamfn.models.pamfn import PAMFN
from pamfn.training.regression import ScoreRegression

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
    """A data set's training size: segments of a crop and number of FusionNets."""

    title: str
    segments: int
    fusion_nets: int


SIZES = {"fisv": Size("Fis-V", 130, 6), "rg": Size("RG", 70, 10)}


class Work:
    """A network in training with its optimiser; `run` takes one step on it, or scores videos."""

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, score: Score, bf16: bool = False) -> None:
        self.network, self.optimizer, self.bf16, self.score = network.train(), optimizer, bf16, score
        self.trained = [p for group in optimizer.param_groups for p in group["params"]]

    def step(self, features: dict[str, Tensor], target: Tensor) -> None:
        """Forward, mean squared error, backward, clip, optimiser."""
        self.optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            score = self.score(features)
        F.mse_loss(score.float(), target).backward()
        torch.nn.utils.clip_grad_norm_(self.trained, CLIP)
        self.optimizer.step()


def reference_branch() -> Work:
    """Stage 1 of rgb, plainly."""
    network = Branch(WIDTHS["rgb"])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    return Work(network, optimizer, lambda features: network(features["rgb"])[0])


def our_branch(modality: str = "rgb") -> Work:
    """Stage 1 of a modality by the library."""
    network = ModalityBranch(width=WIDTHS[modality])
    return Work(network, our_optimizer(network, STAGE1), lambda features: network(features).score)


def reference_pamfn(size: Size, bf16: bool = False) -> Work:
    """Stage 2, plainly."""
    network = ReferencePAMFN(widths=WIDTHS, num_fusion_nets=size.fusion_nets)
    for name in ("rgb", "flow"):
        network.get_submodule(f"model_{name[0]}").requires_grad_(False)
    network.get_submodule("model_a.fc").requires_grad_(False)
    unused = {id(p) for name, p in network.named_parameters() if ".norm." in name}
    head = {id(p) for p in network.fc.parameters()}
    body = [p for p in network.parameters() if p.requires_grad and id(p) not in unused | head]
    groups = [{"params": body}, {"params": list(network.fc.parameters()), "lr": 8e-5}]
    return Work(network, torch.optim.AdamW(groups, lr=8e-4, weight_decay=1e-2), network, bf16)


def our_pamfn(size: Size, bf16: bool = False) -> Work:
    """Stage 2 by the library."""
    network = PAMFN(
        branches={name: ModalityBranch(width=width) for name, width in WIDTHS.items()},
        num_fusion_nets=size.fusion_nets,
        frozen="train",
        double_negation=True,
        policy_layers=1,
        shared_attention=True,
        temperature="unconstrained",
    )
    return Work(network, our_optimizer(network, STAGE2), lambda features: network(features).score, bf16)


def our_optimizer(network: nn.Module, recipe: dict[str, Any]) -> torch.optim.Optimizer:
    """The optimiser that training uses."""
    module = ScoreRegression(network, splits=[], max_score=45, seed=0, epochs=500, **recipe)
    return module.configure_optimizers()["optimizer"]


def crop_batch(size: Size) -> tuple[dict[str, Tensor], Tensor]:
    """One training batch: features (b, t, c) of every modality and targets (b,)."""
    features = {m: torch.randn(BATCH, size.segments, c) for m, c in WIDTHS.items()}
    return features, torch.rand(BATCH)


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


def generated_videos(lengths: list[int]) -> Videos:
    """Videos of these lengths with random float16 features."""
    length = torch.tensor(lengths)
    total = int(length.sum())
    packed = {m: torch.empty(total, c, dtype=torch.float16).normal_() for m, c in WIDTHS.items()}
    target = torch.rand(len(lengths))
    index = torch.arange(len(lengths))
    names = [str(i) for i in range(len(lengths))]
    return Videos(names, packed, length.cumsum(0) - length, length, target * 45, target, index)


def our_test(work: Work, videos: Videos) -> None:
    """Scores of whole videos, as the library does it: similar lengths share a masked batch."""
    work.network.eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=work.bf16):
        for batch in WholeVideos(videos, batch_size=TEST_BATCH):
            work.network(batch.features, batch.lengths)
    work.network.train()


def reference_test(work: Work, videos: Videos) -> None:
    """Scores of whole videos, one by one."""
    work.network.eval()
    with torch.inference_mode():
        for i in range(len(videos)):
            work.network({m: x[None].float() for m, x in video(videos, i).items()})
    work.network.train()


def our_epoch(work: Work, train: Videos, test: Videos) -> None:
    """One pass over Fis-V's training videos and the test pass."""
    for batch in Crops(train, segments=SIZES["fisv"].segments, batch_size=BATCH, seed=0):
        work.step(batch.features, batch.target)
    our_test(work, test)


def reference_epoch(work: Work, train: Videos, test: Videos) -> None:
    """The same with crops cut and stacked video by video."""
    for index in torch.randperm(len(train)).split(BATCH):
        crops = [dict(random_crop(video(train, int(i)), SIZES["fisv"].segments)) for i in index]
        work.step({m: torch.stack([crop[m] for crop in crops]) for m in WIDTHS}, train.target[index])
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
