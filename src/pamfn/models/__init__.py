"""Networks: the modality branches, PAMFN, and the late fusions it is compared with."""

from pamfn.models.branch import ModalityBranch
from pamfn.models.late_fusion import LateFusion
from pamfn.models.pamfn import PAMFN

__all__ = ["PAMFN", "LateFusion", "ModalityBranch"]
