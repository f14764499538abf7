"""Entry point of the command line: the script ``srcell``, and ``python -m srcell``, which torchrun needs."""

import sys

from ._shared.names import without_torch


def main() -> int:
    """Run the command; without torch, print one line that says that torch is required."""
    if without_torch():
        sys.stderr.write("srcell: expected torch 2.4 or newer to be installed, found none: pip install torch\n")
        return 2
    from .cli import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
