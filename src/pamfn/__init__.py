"""Multimodal action quality assessment: PAMFN, its ablations and the methods it is compared with."""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m pamfn...`, whose module is being looked for
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, before anything: what lies there may bear the name of any module
    from pamfn.command_line.process import start

    start()

TYPE_CHECKING = False  # as type checkers know it, without importing typing
if TYPE_CHECKING:
    from pamfn.models import PAMFN, ModalityBranch
    from pamfn.pipeline.job import fit
    from pamfn.pipeline.model import load
    from pamfn.reporting.build import table
    from pamfn.reporting.predictions import predict

__all__ = ["PAMFN", "ModalityBranch", "__version__", "fit", "load", "predict", "table"]

__version__ = "0.1.0"

PLACES = {
    "PAMFN": "models",
    "ModalityBranch": "models",
    "fit": "pipeline.job",
    "load": "pipeline.model",
    "predict": "reporting.predictions",
    "table": "reporting.build",
}


def __getattr__(name: str) -> object:
    """The public names are imported when they are asked for, since they take torch or Hydra."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)
