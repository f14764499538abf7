"""Training: turns a configuration into a trained network and its run folder.

The command line and users call it; the library never imports it, and ``srcell.load`` is a part of it.
"""

from importlib import import_module
from typing import Any

from .._shared.interrupted import Interrupted
from ..evaluation import evaluate
from .config import TrainingConfig
from .loop import TrainedRun, evaluate_run, resume, train
from .metrics import EpochMetrics, Tally
from .network import build_model, load_weights
from .observer import Observer
from .optimisation import parameter_groups
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
    "parameter_groups",
    "read_checkpoint",
    "resume",
    "summarise",
    "train",
    "write_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'srcell.training' has no attribute '{name}'")
    # All other names are imported above; those of run folders need the extra "train".
    return getattr(import_module("srcell.training.run_folder"), name)
