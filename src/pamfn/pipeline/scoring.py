"""A network on the device and in the precision of its run, which scores whole videos."""

from collections.abc import Mapping

import lightning as L
import torch
from torch import Tensor

from pamfn.config.schema import Config
from pamfn.data.batches import Batch, Videos, WholeVideos
from pamfn.errors import InputError
from pamfn.models.network import Network
from pamfn.pipeline.build import trainer_of
from pamfn.training.module import video_draws


def trainer_anywhere(config: Config) -> L.Trainer:
    """The configured trainer, or where its device is not here one on whatever device there is."""
    try:
        return trainer_of(config, logger=False)
    except InputError:
        anywhere = {**config.trainer, "accelerator": "auto"}
        return trainer_of(config.model_copy(update={"trainer": anywhere}), logger=False)


class Scorer:
    """Scores whole videos as the test videos of a run are scored: same device, precision and decoding.

    Where the network decides by samples, the same random numbers are drawn for every video, so that a score depends on
    the video alone.
    """

    def __init__(self, network: Network, config: Config) -> None:
        trainer = trainer_anywhere(config)
        self.precision, self.device = trainer.precision_plugin, trainer.strategy.root_device
        self.precision.convert_module(network)
        self.network = network.eval().to(self.device)
        self.seed = config.seed

    @torch.inference_mode()
    def __call__(self, features: Mapping[str, Tensor], lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return scores and spreads, float64 on the CPU: (b,), or (b, t) logits of clips.

        features: {stream: (b, t, c)}. lengths: (b,) number of real segments; None where all are real
        """
        some = next(iter(features.values()))
        placed = {m: x.float().to(self.device) for m, x in features.items()}
        lengths = None if lengths is None else lengths.to(self.device)
        same = torch.zeros(len(some), dtype=torch.long)
        with self.precision.forward_context():
            draws = video_draws(self.network, self.seed, Batch(placed, lengths, same, same))
            score, spread = self.network.predict_scores(placed, lengths, draws)
        return score.double().cpu(), spread.double().cpu()

    def videos(self, videos: Videos, batch_size: int) -> Tensor:
        """Return the score (v,) of every video."""
        scores = torch.zeros(len(videos), dtype=torch.float64)
        for batch in WholeVideos(videos, batch_size=batch_size):
            scores[batch.videos] = self(batch.features, batch.lengths)[0]
        return scores
