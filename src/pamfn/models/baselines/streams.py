"""What methods share that read one modality, or two."""

from collections.abc import Mapping

from torch import Tensor, nn

from pamfn.models.layers import average, full_precision
from pamfn.models.network import ScoreOutput


def only_width(widths: Mapping[str, int], method: str) -> int:
    """Return the feature width of the only modality; ValueError when there are several."""
    if len(widths) != 1:
        raise ValueError(f"{method} reads one modality, not {', '.join(widths)}: choose e.g. modalities=[rgb]")
    return next(iter(widths.values()))


def only_stream(features: Tensor | Mapping[str, Tensor]) -> Tensor:
    """Return features (b, t, c), which may come as the only entry of a dict."""
    if isinstance(features, Tensor):
        return features
    (stream,) = features.values()
    return stream


def two_widths(widths: Mapping[str, int], method: str) -> tuple[int, int]:
    """Return the feature widths of the two modalities; ValueError when there are not two."""
    if len(widths) != 2:
        raise ValueError(f"{method} reads two modalities, not {', '.join(widths)}: choose e.g. modalities=[rgb,audio]")
    first, second = widths.values()
    return first, second


def scored(head: nn.Module, x: Tensor, valid: Tensor | None, *, per_segment: bool) -> ScoreOutput:
    """Apply a head to every segment of x (b, t, d), for logits (b, t), or to their average, for scores (b,)."""
    if per_segment:
        return ScoreOutput(full_precision(head, x).squeeze(-1))
    return ScoreOutput(full_precision(head, average(x, valid).squeeze(1)).sigmoid().flatten())
