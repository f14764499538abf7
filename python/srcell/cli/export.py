"""``srcell export``: the network of a run as one file, which runs without torch."""

from __future__ import annotations

import argparse
from pathlib import Path

import srcell

from .._shared.files import is_stream
from .parser import Parser
from .terminal import put

TEXT = """\
Write the trained network of a run to one file. srcell.runtime reads it in Python, without torch, and libsrcell in C."""


def add_command(commands: argparse._SubParsersAction[Parser], line: str) -> None:
    """Add ``srcell export``."""
    parser = commands.add_parser("export", help=line, description=TEXT)
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("file", type=Path, metavar="FILE", help="the file to write, by convention NAME.srcell")
    parser.set_defaults(run=export)


def export(arguments: argparse.Namespace) -> None:
    """Write the file and say what is in it."""
    srcell.load(arguments.run_folder).export(arguments.file)
    if is_stream(arguments.file):  # it cannot be read back, and may be standard output
        return
    network = srcell.runtime.load(arguments.file)
    sizes = "-".join(str(size) for size in (network.input_size, *(layer.neurons for layer in network.layers)))
    put(f"{arguments.file}: {sizes}, {network.num_classes} classes, {arguments.file.stat().st_size:,} bytes")
