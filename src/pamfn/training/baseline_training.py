"""Methods that are compared: trained in one piece, without branches."""

from typing import Any

from torch import Tensor

from pamfn.data.batches import Batch
from pamfn.models.network import BagNetwork
from pamfn.training.module import TrainingModule


class BaselineTraining(TrainingModule):
    """Trains a method that PAMFN is compared with; one that learns from bags has a loss of its own."""

    def loss(self, output: Any, batch: Batch) -> Tensor:
        if isinstance(self.network, BagNetwork):  # labels of whole videos alone
            return self.network.bag_loss(output, batch.target)
        return super().loss(output, batch)
