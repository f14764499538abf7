"""``srcell info`` prints what is installed."""

from __future__ import annotations

import argparse

from ..kernels import cuda_lacks, info
from .parser import Parser
from .terminal import put


def add_command(commands: argparse._SubParsersAction[Parser], line: str) -> None:
    """Add ``srcell info``."""
    commands.add_parser("info", help=line).set_defaults(run=print_info)


def print_info(arguments: argparse.Namespace) -> None:
    """Print the items of ``srcell.info``, one per line."""
    facts = info()
    if facts["cuda"] is None:
        facts["cuda"] = f"no: {cuda_lacks()}"
    for name, value in facts.items():
        put(f"{name:16}{', '.join(value) if isinstance(value, list | tuple) else value}")
