"""Training: turns a configuration into a trained network and its run folder.

The command line and users call it; the rest of srcell, except ``srcell.load``, must never import it.
"""

from importlib import import_module
from typing import Any

from .._processes import Interrupted
from ..evaluation import evaluate
from .config import TrainingConfig
from .loop import TrainedRun, evaluate_run, resume, train
from .metrics import EpochMetrics, Tally
from .network import build_model, load_weights
from .observer import Observer
from .options import RunOptions
from .samples import load_data, make_encoding
from .trainer import Trainer

__all__ = [
    "EpochMetrics",
    "Interrupted",
    "Observer",
    "RunData",
    "RunFolder",
    "RunOptions",
    "Tally",
    "TrainedRun",
    "Trainer",
    "TrainingConfig",
    "build_model",
    "evaluate",
    "evaluate_run",
    "load_data",
    "load_weights",
    "make_encoding",
    "read_checkpoint",
    "resume",
    "summarise",
    "train",
    "write_checkpoint",
]

# These need the extra "train".
_LATER = {
    "RunData": "run_folder",
    "RunFolder": "run_folder",
    "read_checkpoint": "checkpoint",
    "summarise": "run_folder",
    "write_checkpoint": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'srcell.training' has no attribute '{name}'")
    return getattr(import_module(f"srcell.training.{_LATER[name]}"), name)
