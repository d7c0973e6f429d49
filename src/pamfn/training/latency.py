"""How long a network takes to score one video."""

import time
from statistics import median

import lightning as L
import torch
from torch import nn

from pamfn.data.batches import Videos

WARM_UP, TIMED = 5, 30


@torch.inference_mode()
def inference_ms(network: nn.Module, videos: Videos, trainer: L.Trainer) -> float:
    """Median milliseconds for a whole video alone, its features in place, after a few calls that are not timed.

    On the trainer's device and in its precision, PolicyNet deciding once by argmax, whatever its decoding; videos are
    taken in order of their length, evenly over all lengths.
    """
    device = trainer.strategy.root_device
    network.eval().to(device)
    order = videos.length.argsort(stable=True)
    chosen = [order[i * len(order) // TIMED][None] for i in range(TIMED)]
    seconds = []
    with trainer.precision_plugin.forward_context():
        for video in [*chosen[:WARM_UP], *chosen]:
            whole = videos.cut(video, torch.zeros_like(video), int(videos.length[video]))
            features = {m: x.to(device) for m, x in whole.items()}
            synchronise(device)
            began = time.perf_counter()
            network(features)
            synchronise(device)
            seconds.append(time.perf_counter() - began)
    network.cpu()
    return 1000 * median(seconds[WARM_UP:])


def synchronise(device: torch.device) -> None:
    """Waits until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
