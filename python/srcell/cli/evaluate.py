"""``srcell eval``: the accuracy of a run's network, and what an inference costs."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import training
from .options import add_run_options, run_options
from .parser import Parser
from .progress import result_text
from .terminal import put


def add_command(commands: argparse._SubParsersAction[Parser], line: str) -> None:
    """Add ``srcell eval``."""
    parser = commands.add_parser("eval", help=line)
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--binary", action="store_true", help="let layers pass on 1 where s > 0.5 and 0 elsewhere")
    parser.add_argument(
        "--data-set",
        metavar="NAME",
        help="another data set with as many inputs and classes, or with classes of the same names, such as nmnist",
    )
    add_run_options(parser, training=False)
    parser.set_defaults(run=evaluate)


def evaluate(arguments: argparse.Namespace) -> None:
    """Print the test accuracy of a run's network, and the events, spikes and operations of an inference."""
    folder, options = training.RunFolder.open(arguments.run_folder), run_options(arguments)
    evaluation = training.evaluate_run(folder, options, binary=arguments.binary, dataset=arguments.data_set)
    put(f"{result_text(evaluation)} on {evaluation.answers} {'steps' if evaluation.of_steps else 'samples'}")
    if folder.config.integer:
        put(f"integrators clamped to their bounds: {evaluation.clamped:,} times")
    put(f"{'a mean inference':18}{'events':>12}{'spikes':>12}{'additions':>14}{'multiply-adds':>16}")
    for k, layer in enumerate(evaluation.counts):
        name = f"layer {k}" if k else "input"
        put(f"{name:18}{layer.events:12,.0f}{layer.spikes:12,.0f}{layer.additions:14,.0f}{layer.multiply_adds:16,.0f}")
