"""The methods that PAMFN is compared with, a file each."""

from pamfn.models.baselines.action_net import ActionNet
from pamfn.models.baselines.gdlt import GDLT
from pamfn.models.baselines.ms_lstm import MSLSTM
from pamfn.models.baselines.pooled_svr import PooledSVR

__all__ = ["GDLT", "MSLSTM", "ActionNet", "PooledSVR"]
