"""The methods that PAMFN is compared with, one file each."""

from pamfn.models.baselines.action_net import ActionNet
from pamfn.models.baselines.gdlt import GDLT
from pamfn.models.baselines.joint_va import JointVA
from pamfn.models.baselines.mini_net import MiniNet
from pamfn.models.baselines.ms_lstm import MSLSTM
from pamfn.models.baselines.msaf import MSAF
from pamfn.models.baselines.pooled_svr import PooledSVR
from pamfn.models.baselines.umt import UMT

__all__ = ["GDLT", "MSAF", "MSLSTM", "UMT", "ActionNet", "JointVA", "MiniNet", "PooledSVR"]
