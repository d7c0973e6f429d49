"""Export a finished run's network as one ONNX file, checked against the network it came from."""

import importlib
import logging
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from pamfn.errors import InputError
from pamfn.files import whole
from pamfn.models.baselines.ms_lstm import MSLSTM
from pamfn.models.batchnorm_folding import folded
from pamfn.pipeline.ensemble import runs_of
from pamfn.pipeline.member import Weights
from pamfn.pipeline.model import Model, load, samples_of_split

OPSET = 20
"""Of the ONNX operators: the first with GELU."""


TOLERANCE = 1e-5
"""How far a score in [0, 1] may be from the network's."""


PAPER_MS = 33
"""For one video, in the paper's Table I; on its own machine."""


GENERATED = (0, 1, 2, 3, 30, 61, 86, 133)
"""Lengths of generated videos, in segments more than the network needs."""


WARM_UP, BATCH = 3, 8


def export(
    runs: Path | Sequence[Path], weights: Weights, data_dir: str | None, output: Path | None, trust: Sequence[str] = ()
) -> Path:
    """Writes the network's scores as an ONNX model and says how it compares; the path of the file.

    runs: one finished run; of several, or of an ensemble's file, the mean is exported
    A file from an export before is replaced.

    Raises:
        InputError: when the run cannot be exported, the file not be written, or what was exported does not score as the
            network does.
    """
    words = [runs] if isinstance(runs, Path) else list(runs)
    folders = runs_of(words)
    output = output or default_output(words, folders)
    refuse_output(output)
    refuse_without_onnx()

    model = load(folders, weights, data_dir, trust)
    torch.set_num_threads(1)
    network, results = model.network.cpu(), [member.result for member in model.members]
    unit = None if model.finds_highlights else model.max_points
    widths = {m: stream.width for m, stream in model.streams.items()}
    videos, source = test_videos(model, widths)
    with whole(output) as temporary:
        program = exported(network, widths, unit)
        program.model.metadata_props.update(described(folders, results, widths, unit, weights, model.min_segments))
        with step(f"3 of 3: checking it on {source}"):
            program.save(temporary, external_data=False)
            compared = compare(temporary, network, videos, unit)
        refuse_different(compared, source)
    of = results[0]["name"] if len(results) == 1 else f"mean of {len(results)} networks of {results[0]['name']}"
    print(f"{output}: {of}, {'+'.join(widths)}, {weights} weights, {output.stat().st_size / 2**20:.1f} MiB")
    print(f"  for videos of {model.min_segments} segments or more: a shorter one may get no score, or an error")
    for line in (*dict.fromkeys(note for result in results for note in notes(result)), *compared.lines(source)):
        print(f"  {line}")
    return output


def default_output(words: Sequence[Path], folders: Sequence[Path]) -> Path:
    """The file to write where none was named: in the folder of the one run, or beside the file of the one ensemble.

    Raises:
        InputError: when there are several runs.
    """
    if len(words) == 1 and words[0].is_file():
        return words[0].with_suffix(".onnx")
    if len(folders) > 1:
        raise InputError("--output: name the file for the mean of several runs, e.g. --output mean.onnx.")
    return folders[0] / "model.onnx"


@contextmanager
def step(what: str) -> Iterator[None]:
    """Says on stderr what is being done and how long it took: a step may take minutes."""
    print(f"{what} ...", end="", file=sys.stderr, flush=True)
    began = time.perf_counter()
    try:
        yield
    except BaseException:
        print(file=sys.stderr)
        raise
    print(f" {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)


def refuse_output(file: Path) -> None:
    """Before anything is computed: what must not be replaced by the model, or cannot be written."""
    if file.is_dir():
        raise InputError(f"--output {file}: a folder. Name a file in it, e.g. {file / 'model.onnx'}.")
    if file.suffix != ".onnx":
        raise InputError(f"--output {file}: name a file that ends in .onnx, so that no other is replaced.")
    if not file.parent.is_dir():
        raise InputError(f"--output {file}: there is no folder {file.parent}. Make it first, or name another.")


def refuse_without_onnx() -> None:
    """Before anything is computed: the packages that only exports need."""
    try:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"{error}: exporting needs more packages, pip install 'pamfn[export]'.") from error


def test_videos(model: Model, widths: Mapping[str, int]) -> tuple[list[dict[str, Any]], str]:
    """Features {modality: (1, t, c)} of every test video, or of generated ones without the data; what they are."""

    try:
        samples = samples_of_split(model, "test").values()
    except InputError as error:
        torch.manual_seed(0)
        lengths = [model.min_segments + more for more in GENERATED]
        videos = [{m: torch.randn(1, t, c) for m, c in widths.items()} for t in lengths]
        return videos, f"{len(videos)} generated videos, since test videos cannot be read ({error.problems[0]})"
    videos = [{m: torch.tensor(sample.features[m])[None].float() for m in widths} for sample in samples]
    return videos, f"the {len(videos)} test videos"


def exported(network: Any, widths: Mapping[str, int], unit: float | None) -> Any:
    """The ONNX program of a network in evaluation mode: its features and `lengths` (b,) -> `score`.

    Raises:
        InputError: when it cannot be exported.
    """

    if any(isinstance(module, MSLSTM) for module in network.modules()):
        raise InputError(
            "MS-LSTM cannot be exported: its skip-LSTMs decide in every step whether to take it, in a loop over the "
            "video that torch.export would write out for one length only. Score with `python -m pamfn.evaluate`."
        )
    features = {m: torch.randn(2, 37, c) for m, c in widths.items()}
    batch: dict[int, Any] = {0: torch.export.Dim.DYNAMIC}
    axes = ({m: batch | {1: torch.export.Dim.DYNAMIC} for m in widths}, batch)
    names = ({m: {0: "batch", 1: "segments"} for m in widths}, {0: "batch"})
    for chatty in ("onnxscript", "torch.onnx"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's and onnxscript's about themselves
            with step("1 of 3: tracing the network"):
                program = torch.export.export(
                    scorer(folded(network), unit), (features, torch.tensor([37, 30])), dynamic_shapes=axes
                )
            with step("2 of 3: translating it to ONNX, which takes a few minutes for a large network"):
                onnx_program = torch.onnx.export(
                    program,
                    dynamo=True,
                    opset_version=OPSET,
                    verbose=False,
                    input_names=[*widths, "lengths"],
                    output_names=["score"],
                    dynamic_shapes=names,
                )
    except Exception as error:  # a network of one's own may do anything
        raise InputError(f"torch.export cannot export {type(network).__name__}: {str(error).strip()}") from error
    assert onnx_program is not None
    for node in onnx_program.model.graph.all_nodes():
        node.metadata_props.clear()  # where in this machine's files it came from
    return onnx_program


def scorer(network: Any, unit: float | None) -> Any:
    """The module that is exported: a network whose score is in points, or the probability of every segment."""

    class Scorer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, features: dict[str, Tensor], lengths: Tensor) -> Tensor:
            score = self.network(features, lengths).score
            return score.sigmoid() if unit is None else score * unit

    return Scorer()


def described(
    folders: Sequence[Path],
    results: Sequence[Mapping[str, Any]],
    widths: Mapping[str, int],
    unit: float | None,
    weights: str,
    shortest: int,
) -> dict[str, str]:
    """What the file says of itself, as ONNX metadata."""
    return {
        "run": ",".join(folder.resolve().name for folder in folders),
        "data": results[0]["name"],
        "modalities": ",".join(widths),
        "widths": ",".join(map(str, widths.values())),
        "min_segments": str(shortest),
        "weights": weights,
        "score": "probability of every segment" if unit is None else "points",
        "max_score": "1" if unit is None else f"{unit:g}",
        "decoding": "argmax" if any(map(decoding, results)) else "none",
        "commit": ",".join(dict.fromkeys(result["commit"] or "unknown" for result in results)),
    }


def decoding(result: Mapping[str, Any]) -> str | None:
    """How the run's network decides at test time, if it decides anything."""
    return result["config"]["model"].get("decoding") if result["decisions"] else None


def notes(result: Mapping[str, Any]) -> list[str]:
    """In what the file differs from how the run was scored."""
    differences = []
    if decoding(result) not in (None, "argmax"):
        differences.append(f"decides by argmax, where the run's own scores are by decoding={decoding(result)}")
    precision = str(result["config"]["trainer"].get("precision", "32-true"))
    if not precision.startswith("32"):
        differences.append(f"computes in float32, where the run was scored in {precision}")
    return differences


class Compared(NamedTuple):
    """Largest differences of scores in [0, 1], one video at a time and in padded batches, and median times in ms."""

    alone: float
    padded: float
    onnx_ms: float
    torch_ms: float

    def lines(self, videos: str) -> list[str]:
        from pamfn.runs.environment import machine

        return [
            f"differs from the network by {self.alone:.1e} at most over {videos}, {self.padded:.1e} in padded batches",
            f"one video takes {self.onnx_ms:.1f} ms in ONNX Runtime and {self.torch_ms:.1f} ms in torch (median, one "
            f"thread of {machine()['cpu']}); the paper's PAMFN takes {PAPER_MS} ms on its own machine",
        ]


def compare(file: Path, network: Any, videos: Sequence[Mapping[str, Any]], unit: float | None) -> Compared:
    """What ONNX Runtime makes of videos {modality: (1, t, c)}, against the network itself."""

    session, scale = session_of(file), unit or 1.0
    own, alone, padded, times = [], [], [], []
    with torch.inference_mode():
        for video in [*[videos[0]] * WARM_UP, *videos]:
            inputs = fed(video, [segments(video)])
            began = time.perf_counter()
            score = network(video).score
            between = time.perf_counter()
            (scores,) = session.run(None, inputs)
            times.append((time.perf_counter() - between, between - began))
            own.append((score.sigmoid() if unit is None else score)[0])
            alone.append(largest(own[-1], scores[0] / scale))
    own = own[WARM_UP:]
    for first in range(0, len(videos), BATCH):
        lengths = [segments(video) for video in videos[first : first + BATCH]]
        (scores,) = session.run(None, fed(together(videos[first : first + BATCH]), lengths))
        for score, one, length in zip(own[first : first + BATCH], scores, lengths, strict=True):
            padded.append(largest(score, (one[:length] if unit is None else one) / scale))
    onnx_ms, torch_ms = (1000 * median(side[WARM_UP:]) for side in zip(*times, strict=True))
    return Compared(max(alone), max(padded), onnx_ms, torch_ms)


def session_of(file: Path) -> Any:
    """ONNX Runtime on one CPU thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def segments(video: Mapping[str, Any]) -> int:
    return next(iter(video.values())).shape[1]


def together(videos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Videos padded with zeros at the end: (b, t, c) of every modality."""

    return {m: pad_sequence([video[m][0] for video in videos], batch_first=True) for m in videos[0]}


def fed(features: Mapping[str, Any], lengths: Sequence[int]) -> dict[str, Any]:
    """The inputs of the ONNX model."""
    import numpy as np

    return {m: x.numpy() for m, x in features.items()} | {"lengths": np.array(lengths, dtype=np.int64)}


def largest(one: Any, other: Any) -> float:
    """Largest difference; infinite where one of them is not a number."""
    import numpy as np

    return float(np.nan_to_num(np.abs(one.numpy() - other), nan=np.inf).max())


def refuse_different(compared: Compared, videos: str) -> None:
    worst = max(compared.alone, compared.padded)
    if worst > TOLERANCE:
        raise InputError(
            f"the exported network differs from the trained one by {worst:.1e} over {videos}, which is more than "
            f"{TOLERANCE:g} of a score in [0, 1]; nothing was written. A decision of PolicyNet that would be a tie but "
            "for rounding can do that: try --weights last."
        )
