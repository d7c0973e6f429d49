"""MS-LSTM: a self-attentive LSTM beside skip-LSTMs on several scales (Xu et al., TCSVT 2019)."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pamfn.models.baselines.skip_lstm import SkipLSTMs
from pamfn.models.baselines.streams import only_stream, only_width
from pamfn.models.layers import Pointwise, SequenceNorm, full_precision, real_segments, valid_segments
from pamfn.models.network import Network
from pamfn.models.ranges import Count, NotNegative, Positive, Width

SCALES = ((2, 1), (4, 2), (8, 4))
"""(kernel, stride) of the three scales, in segments."""


class MSLSTMOutput(NamedTuple):
    """Output of MS-LSTM.

    score: (b,), not bounded
    attention: (b, t, r) of the r rows over time
    """

    score: Tensor
    attention: Tensor


class SelfAttentiveLSTM(nn.Module):
    """An LSTM that reads r weighted sums over time, one after the other.

    x: (b, t, c)
    valid: (b, t) or None
    returns: last hidden state (b, hidden), attention (b, t, r)
    """

    def __init__(self, width: int, hidden: int, attention_hidden: int, rows: int) -> None:
        super().__init__()
        self.attention1 = nn.Linear(width, attention_hidden, bias=False)
        self.attention2 = nn.Linear(attention_hidden, rows, bias=False)
        self.norm = SequenceNorm(width)
        self.lstm = nn.LSTM(width, hidden, batch_first=True)

    def forward(self, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        logits = self.attention2(self.attention1(x).tanh()).float()
        if valid is not None:
            logits = logits.masked_fill(~valid[..., None], -math.inf)
        attention = logits.softmax(dim=1)
        rows = self.norm(attention.transpose(1, 2).to(x.dtype) @ x)
        with torch.autocast(x.device.type, enabled=False):
            return self.lstm(rows.float())[0][:, -1], attention


class Windows(nn.Module):
    """Overlapping windows of segments as one vector each, without padding.

    x: (b, t, c)
    lengths: (b,) or None
    returns: windows (b, t', d), number of real windows of each video (b,) or None
    """

    def __init__(self, width: int, d_model: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv = nn.Conv1d(width, d_model, kernel, stride)
        self.norm = SequenceNorm(d_model)

    def forward(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        image = x.transpose(1, 2).unsqueeze(2)  # (b, c, 1, t), channels-last in memory
        windows = F.conv2d(image, self.conv.weight.unsqueeze(2), self.conv.bias, stride=(1, self.stride))
        y = F.relu(windows.squeeze(2).transpose(1, 2))
        if lengths is None:
            return self.norm(y), None
        steps = (lengths - self.kernel) // self.stride + 1
        return self.norm(y, valid_segments(steps, y.shape[1])), steps


class MSLSTM(Network):
    """A self-attentive LSTM, a skip-LSTM on each of three scales, and a regressor on their last states.

    features: (b, t, c) of one modality, t at least 8, the widest window
    lengths: (b,) number of real segments of each video; None where all t are real
    returns: `MSLSTMOutput`

    Source: the authors' code, chmxu/MS_LSTM. Its mistakes, which are put right here: docs/methods.md.

    Args:
        widths: {modality: feature width} of the one modality.
        rows: number r of attended sums.
        penalty: weight of the loss that keeps the rows apart, beside the squared error in units of 1 / score_scale.
        score_scale: the last layer's output is in units of 1 / score_scale; with the points of a score of 1 it
            regresses raw points, as released.
        random_start: skip-LSTMs start from random states, also at test time, as released; those of a test video follow
            from the seed and the video.
    """

    min_segments = 8

    def __init__(
        self,
        *,
        widths: Mapping[str, int],
        embedding: Width = 128,
        hidden: Width = 256,
        attention_hidden: Width = 64,
        rows: Count = 50,
        reduced: Width = 64,
        penalty: NotNegative = 1.0,
        score_scale: Positive = 1.0,
        random_start: bool = False,
    ) -> None:
        super().__init__()
        if score_scale <= 0 or penalty < 0:
            raise ValueError(f"score_scale is above 0 and penalty not below, not {score_scale} and {penalty}")
        self.penalty, self.score_scale = penalty, score_scale
        self.embedding = Pointwise(only_width(widths, "MS-LSTM"), embedding)
        self.norm = SequenceNorm(embedding)
        self.attentive = SelfAttentiveLSTM(embedding, hidden, attention_hidden, rows)
        self.scales = nn.ModuleList(Windows(embedding, hidden, *scale) for scale in SCALES)
        self.lstms = SkipLSTMs(len(SCALES), hidden, hidden, random_start)
        self.reduce = nn.ModuleList(nn.Linear(hidden, reduced) for _ in range(1 + len(SCALES)))
        self.head = nn.Sequential(nn.Linear(reduced * len(self.reduce), reduced), nn.ReLU(), nn.Linear(reduced, 1))

    def forward(
        self, features: Tensor | Mapping[str, Tensor], lengths: Tensor | None = None, start: Tensor | None = None
    ) -> MSLSTMOutput:
        """Score videos. `start` (b, 2, 3, hidden): hidden and cell states before the first step of every scale."""
        x = only_stream(features)
        valid = real_segments(x, lengths)
        x = self.norm(F.relu(self.embedding(x)), valid)
        state, attention = self.attentive(x, valid)
        windows, steps = zip(*(scale(x, lengths) for scale in self.scales), strict=True)
        states = [state, *self.lstms(windows, None if lengths is None else steps, start)]
        reduced = [F.relu(layer(state)) for layer, state in zip(self.reduce, states, strict=True)]
        points = full_precision(self.head, torch.cat(reduced, dim=1)).flatten()
        return MSLSTMOutput(points / self.score_scale, attention)

    def draws(self, keys: Sequence[int], segments: int) -> list[Tensor] | None:
        """Draw the random states that `predict_scores` starts from, [(b, 2, 3, hidden)]; None for zero states."""
        if not self.lstms.random_start:
            return None
        size = (2, len(SCALES), self.lstms.hidden)
        drawn = [np.random.default_rng(key).standard_normal(size, dtype=np.float32) for key in keys]
        return [torch.from_numpy(np.stack(drawn))]

    def predict_scores(
        self, features: Mapping[str, Tensor], lengths: Tensor | None = None, draws: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return test scores (b,), and a spread of 0: the states are drawn once."""
        score = self(features, lengths, None if draws is None else draws[0]).score
        return score, torch.zeros_like(score)

    def added_loss(self, output: MSLSTMOutput) -> Tensor:
        """Return the weighted squared Frobenius norm of A^T A - I, mean over videos."""
        overlap = output.attention.transpose(1, 2) @ output.attention
        identity = torch.eye(overlap.shape[1], device=overlap.device)
        return self.penalty / self.score_scale**2 * (overlap - identity).square().sum(dim=(1, 2)).mean()
