"""Networks: the modality branches and PAMFN."""

from pamfn.models.branch import ModalityBranch
from pamfn.models.pamfn import PAMFN

__all__ = ["PAMFN", "ModalityBranch"]
