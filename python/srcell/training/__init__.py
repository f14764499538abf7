"""Training: turns a configuration into a trained network and its run folder.

The command line and users call it; the rest of srcell, except ``srcell.load``, must never import it.
"""

from .._processes import Interrupted
from ..evaluation import evaluate
from .checkpoint import read_checkpoint, write_checkpoint
from .config import TrainingConfig
from .loop import TrainedRun, evaluate_run, resume, train
from .metrics import EpochMetrics, Tally
from .network import build_model, load_weights
from .observer import Observer
from .options import RunOptions
from .run_folder import RunData, RunFolder, summarise
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
