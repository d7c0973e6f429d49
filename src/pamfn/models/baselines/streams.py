"""The streams of methods that read one modality, or two."""

from collections.abc import Mapping

from torch import Tensor


def only_width(widths: Mapping[str, int], method: str) -> int:
    """The feature width of the only modality; ValueError when there are several."""
    if len(widths) != 1:
        raise ValueError(f"{method} reads one modality, not {', '.join(widths)}: choose e.g. modalities=[rgb]")
    return next(iter(widths.values()))


def only_stream(features: Tensor | Mapping[str, Tensor]) -> Tensor:
    """Features (b, t, c), which may come as the only entry of a dict."""
    if isinstance(features, Tensor):
        return features
    (stream,) = features.values()
    return stream


def two_widths(widths: Mapping[str, int], method: str) -> tuple[int, int]:
    """The feature widths of the two modalities; ValueError when there are not two."""
    if len(widths) != 2:
        raise ValueError(f"{method} reads two modalities, not {', '.join(widths)}: choose e.g. modalities=[rgb,audio]")
    first, second = widths.values()
    return first, second
