"""``srcell train`` and ``srcell eval``. The flags of settings come from ``training/config.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import data, training
from ..training import TrainingConfig
from .parser import (
    DEFAULT_PRESET,
    Parser,
    TrainingHelp,
    add_run_options,
    add_training_options,
    given_settings,
    new_command,
    run_options,
)
from .terminal import folder_of, header_of, is_first_process, put, say, shown_progress

TRAIN_TEXT = """\
Train a network and write a run folder. Ctrl-C stops it after a checkpoint.
Under torchrun the processes share each batch; with --device cuda each takes
the GPU of its LOCAL_RANK. In brackets: what holds without the option, from
the preset of the data set; with --help all, what holds where no preset differs."""
TRAIN_EXAMPLES = """\
examples:
  srcell train digits
  srcell train mnist --preset fast --seed 1 --download
  srcell train mnist --hidden 512 512 --lr 5e-3 --data data
  srcell train --resume runs/mnist-20260101-120000"""


def add_train_command(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add ``srcell train``."""
    says = {"add_help": False, "usage": "srcell train [DATASET] [options]"}
    parser = new_command(
        commands, "train", "train a network and write a run folder", TRAIN_TEXT, TRAIN_EXAMPLES, **says
    )
    text = "show the settings that the data set and the options before it use; all: every setting"
    parser.add_argument("-h", "--help", action=TrainingHelp, metavar="all", help=text)
    parser.add_argument("dataset", nargs="?", help=f"data set to train on: {', '.join(data.NAMES)}")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder, new or empty [runs/<dataset>-<time>]")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="continue the run in that folder")
    add_training_options(parser)
    parser.set_defaults(run=train)


def add_evaluate_command(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add ``srcell eval``."""
    parser = commands.add_parser("eval", help="evaluate the network of a run; count events and operations")
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--binary", action="store_true", help="let layers pass on 1 where s > 0.5 and 0 elsewhere")
    add_run_options(parser, training=False)
    parser.set_defaults(run=evaluate)


def train(arguments: argparse.Namespace) -> None:
    """Train a network or resume a run, show its progress, and print the test accuracy."""
    given = given_settings(arguments)
    options = run_options(arguments)
    if arguments.resume is not None:
        if arguments.dataset is not None or given or arguments.preset is not None or arguments.out is not None:
            raise ValueError("--resume: expected a run folder and no settings, the run keeps its own")
        out = arguments.resume
        with shown_progress(header_of(out, None)) as observer:
            run = training.resume(out, observer, options)
    elif arguments.dataset is None:
        raise ValueError(f"expected a data set: one of {', '.join(data.NAMES)}")
    else:
        preset = arguments.preset or DEFAULT_PRESET
        config = TrainingConfig.preset(preset, arguments.dataset, **given)
        with folder_of(arguments.out, config.dataset) as out, shown_progress(header_of(out, preset)) as observer:
            run = training.train(config, out, observer, options)
    if is_first_process():
        seconds = sum(metrics.seconds for metrics in run.history)
        say(f"test accuracy {run.evaluation.accuracy:.2%} after {seconds:.1f} s of training, run folder {out}")


def evaluate(arguments: argparse.Namespace) -> None:
    """Print the test accuracy of a run's network, and the events, spikes and operations of an inference."""
    from ..training.run_folder import RunFolder

    folder = RunFolder.open(arguments.run_folder)
    evaluation = training.evaluate_run(folder, run_options(arguments), binary=arguments.binary)
    put(f"test accuracy {evaluation.accuracy:.2%} on {int(evaluation.confusion.sum())} samples")
    if folder.config.integer:
        put(f"integrators clamped to their bounds: {evaluation.clamped:,} times")
    put(f"{'a mean inference':18}{'events':>12}{'spikes':>12}{'additions':>14}{'multiply-adds':>16}")
    for k, layer in enumerate(evaluation.counts):
        name = f"layer {k}" if k else "input"
        put(f"{name:18}{layer.events:12,.0f}{layer.spikes:12,.0f}{layer.additions:14,.0f}{layer.multiply_adds:16,.0f}")
