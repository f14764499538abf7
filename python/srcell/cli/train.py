"""``srcell train``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from .. import training
from ..training import TrainingConfig
from ..training.metrics import remark
from .options import (
    DATASETS,
    DEFAULT_PRESET,
    TrainingHelp,
    add_training_options,
    given_settings,
    named,
    run_options,
    short,
)
from .parser import Parser, new_command
from .progress import header_of, result_text, shown_progress
from .terminal import folder_of, is_first_process, say

TEXT = """\
Train a network and write a run folder. Ctrl-C stops it after a checkpoint.
Sequences of numbers get the layer of SRC.for_sequences, others that of SRC.
Under torchrun the processes share each batch; with --device cuda each takes
the GPU of its LOCAL_RANK. In brackets: what holds without the option, from
the preset of the data set; with --help all, what holds where no preset differs."""
EXAMPLES = """\
examples:
  srcell train digits
  srcell train mnist --preset fast --seed 1 --download
  srcell train mnist --hidden 512 512 --lr 5e-3 --data data
  srcell train recordings/    a folder of WAV, CSV or .npz files
  srcell train data.py:load   a function that returns a srcell.data.Dataset
  srcell train --resume runs/mnist-20260101-120000"""


def add_command(commands: argparse._SubParsersAction[Parser], line: str) -> None:
    """Add ``srcell train``."""
    usage = "srcell train [DATASET] [options]"
    parser = new_command(commands, "train", line, TEXT, EXAMPLES, usage=usage, add_help=False)
    text = "show the settings that the data set and the options before it use; all: every setting"
    parser.add_argument("-h", "--help", action=TrainingHelp, metavar="all", help=text)
    parser.add_argument("dataset", nargs="?", help=f"data set to train on: {DATASETS}")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder, new or empty [runs/<dataset>-<time>]")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="continue the run in that folder")
    add_training_options(parser)
    parser.set_defaults(run=train)


def train(arguments: argparse.Namespace) -> None:
    """Train a network or resume a run, show its progress, and print the test accuracy."""
    began = time.monotonic()
    given = given_settings(arguments)
    options = run_options(arguments)
    if arguments.resume is not None:
        if arguments.dataset is not None or given or arguments.preset is not None or arguments.out is not None:
            raise ValueError("--resume: expected a run folder and no settings, the run keeps its own")
        out = arguments.resume
        with shown_progress(header_of(out, None)) as observer:
            run = training.resume(out, observer, options)
    elif arguments.dataset is None:
        raise ValueError(f"expected a data set: {DATASETS}")
    else:
        preset = arguments.preset or DEFAULT_PRESET
        config = TrainingConfig.preset(preset, named(arguments.dataset), **given)
        with folder_of(arguments.out, short(config.dataset)) as out, shown_progress(header_of(out, preset)) as observer:
            run = training.train(config, out, observer, options)
    if is_first_process():
        seconds = sum(metrics.seconds for metrics in run.history)
        passed = time.monotonic() - began
        say(f"{result_text(run.evaluation)} after {seconds:.1f} s of training, {passed:.1f} s in all, run folder {out}")
        of_run = getattr(getattr(run, "model", None), "config", None)
        if said := remark(run.history, run.evaluation, of_run):
            say(f"warning: {said}")
