"""The networks: their contract, the modality branches, PAMFN and the late fusions."""

from pamfn.models.branch import ModalityBranch
from pamfn.models.late_fusion import LateFusion
from pamfn.models.network import BagNetwork, Network, ScoreOutput, SolvedNetwork
from pamfn.models.pamfn import PAMFN

__all__ = ["PAMFN", "BagNetwork", "LateFusion", "ModalityBranch", "Network", "ScoreOutput", "SolvedNetwork"]
