"""Maps of fixed branches that are kept between epochs."""

import pytest
import torch

from pamfn.data.videos import Crops, Videos, WholeVideos
from pamfn.models.branch import ModalityBranch
from pamfn.models.late_fusion import LateFusion
from pamfn.models.pamfn import PAMFN
from pamfn.training.fixed_maps import FixedMaps, fixed_maps

WIDTHS = {"rgb": 6, "flow": 5, "audio": 4}


def videos(part: str = "train") -> Videos:
    """Six of 9 to 14 segments."""
    torch.manual_seed(3)
    length = torch.tensor([9, 10, 11, 12, 13, 14])
    packed = {m: torch.randn(int(length.sum()), width) for m, width in WIDTHS.items()}
    points, index = torch.rand(6, dtype=torch.float64), torch.arange(6)
    names = [str(i) for i in range(6)]
    return Videos(names, packed, length.cumsum(0) - length, length, points, points.float(), index, part=part)


def network(kind=PAMFN, **settings):
    torch.manual_seed(0)
    branches = {m: ModalityBranch(width=width, d_model=8, hidden=8) for m, width in WIDTHS.items()}
    for x in (x for branch in branches.values() for name, x in branch.named_buffers() if "running" in name):
        torch.nn.init.uniform_(x, 0.5, 1.5)
    return kind(branches=branches, frozen="eval", **settings)


@pytest.fixture
def computed(monkeypatch):
    """How many crops went through a branch."""
    seen = []
    real = ModalityBranch.maps
    monkeypatch.setattr(ModalityBranch, "maps", lambda self, x, *a: (seen.append(len(x)), real(self, x, *a))[1])
    return seen


@pytest.mark.parametrize(("kind", "settings"), [(PAMFN, {"num_fusion_nets": 3}), (LateFusion, {"fusion": "average"})])
@pytest.mark.parametrize("batches", ["crops", "whole"])
def test_kept_maps_give_the_same_scores(kind, settings, batches):
    fused = network(kind, **settings).eval()
    maps = fixed_maps(fused, 1.0)
    assert maps is not None
    loader = (
        Crops(videos(), segments=12, batch_size=4, seed=0)
        if batches == "crops"
        else WholeVideos(videos(), batch_size=4)
    )
    with torch.no_grad():
        for _ in range(2):
            for batch in loader:
                score = fused(maps.features(batch), batch.lengths).score
                torch.testing.assert_close(score, fused(batch.features, batch.lengths).score, atol=1e-6, rtol=0)


def test_a_crop_is_computed_once_and_audio_goes_on_learning(computed):
    fused = network(num_fusion_nets=3).train()
    maps = FixedMaps(fused.branches, 1.0)
    batches = list(WholeVideos(videos(), batch_size=6))
    with torch.inference_mode():
        maps.features(batches[0])
    assert computed == [1] * 12
    features = maps.features(batches[0])
    assert len(computed) == 12
    fused(features, batches[0].lengths).score.sum().backward()
    assert computed[12:] == [6]
    assert fused.get_parameter("branches.audio.embedding.linear1.weight").grad is not None
    assert fused.get_parameter("branches.rgb.embedding.linear1.weight").grad is None


def test_the_same_place_of_another_part_is_another_crop():
    maps = FixedMaps(network(num_fusion_nets=3).branches, 1.0)
    for part in ("train", "test"):
        for batch in WholeVideos(videos(part), batch_size=6):
            maps.features(batch)
    assert len(maps.kept) == 12


def test_what_does_not_fit_is_computed_again(computed):
    fused = network(num_fusion_nets=3)
    maps = FixedMaps(fused.branches, 3e-6)  # of about 1.5 kB a crop, two
    for _ in range(2):
        for batch in WholeVideos(videos(), batch_size=6):
            maps.features(batch)
    assert len(maps.kept) == 2
    assert len(computed) == 12 + 8


def test_only_maps_that_do_not_change_are_kept():
    assert fixed_maps(network(num_fusion_nets=3), 0.0) is None
    assert fixed_maps(network(num_fusion_nets=3, modality_dropout=0.3), 1.0) is None
    assert fixed_maps(network(num_fusion_nets=3, finetune=None), 1.0) is None
    drifting = network(num_fusion_nets=3)
    drifting.branches.frozen = "train"
    assert fixed_maps(drifting, 1.0) is None
    assert fixed_maps(ModalityBranch(width=4), 1.0) is None
