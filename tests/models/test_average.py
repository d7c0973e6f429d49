import torch

from pamfn.models.average import AverageNetwork
from pamfn.models.branch import ModalityBranch


def branch(width: int, *, per_segment: bool = False) -> ModalityBranch:
    return ModalityBranch(width=width, d_model=8, hidden=6, num_stages=2, per_segment=per_segment).eval()


def test_the_mean_of_scores_on_one_scale():
    torch.manual_seed(0)
    rgb, audio = branch(6), branch(4)
    features = {"rgb": torch.randn(3, 9, 6), "audio": torch.randn(3, 9, 4)}
    lengths = torch.tensor([9, 7, 4])
    mean = AverageNetwork([rgb, audio], [["rgb"], ["audio"]], [1.0, 0.5], [0.0, 0.25]).eval()
    one, other = (net({m: features[m]}, lengths).score for net, m in ((rgb, "rgb"), (audio, "audio")))
    torch.testing.assert_close(mean(features, lengths).score, (one + 0.5 * other + 0.25) / 2)
    assert mean.min_segments == max(rgb.min_segments, audio.min_segments)


def test_the_mean_of_clips_is_that_of_their_probabilities():
    torch.manual_seed(0)
    networks = [branch(6, per_segment=True) for _ in range(2)]
    features = {"rgb": torch.randn(1, 9, 6)}
    mean = AverageNetwork(networks, [["rgb"], ["rgb"]], [1.0, 1.0], [0.0, 0.0]).eval()
    assert mean.per_segment
    expected = sum(net(features).score.sigmoid() for net in networks) / 2
    torch.testing.assert_close(mean(features).score.sigmoid(), expected)
