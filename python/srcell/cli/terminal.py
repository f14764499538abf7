"""Terminal output: lines that cannot forge others, and warnings. It imports no torch."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from .._shared.files import new_folder


def is_first_process() -> bool:
    """Whether this process has rank 0: of torchrun's processes, only that one prints."""
    return os.environ.get("RANK", "0") == "0"


def printable(text: str) -> str:
    r"""A text as one line that a terminal only shows: what is not printable is escaped, as by ``repr``.

    These are line breaks, tabs, the control characters with which escape sequences begin, and the characters of Unicode
    that change the direction of text or have no width. So names in files from others cannot forge or hide output.

    Example:
        >>> print(printable("a\x1b[31m\tb\u202e.wav"))
        a\x1b[31m\tb\u202e.wav

    """
    return "".join(x if x.isprintable() else repr(x)[1:-1] for x in text)


def put(*lines: str) -> None:
    """Print lines, which ``printable`` makes safe, and flush; only bars and live lines do not pass here."""
    print(*map(printable, lines), sep="\n", flush=True)


def say(*lines: str) -> None:
    """Put lines. If the reader of standard output is gone, training continues without output."""
    try:
        put(*lines)
    except BrokenPipeError:
        silence()


def silence() -> None:
    """Discard all further standard output, because its reader is gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def complain(line: str) -> None:
    """Write a line, which ``printable`` makes safe, to standard error in one call: lines of processes do not mix."""
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


def fail(line: str) -> None:
    """``complain`` of the error with which this process ends; torchrun ends its summary with it."""
    complain(line)
    if of_torchrun := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        with suppress(OSError):
            Path(of_torchrun).write_text(json.dumps({"message": printable(line), "timestamp": int(time.time())}))


@contextmanager
def printable_warnings() -> Iterator[None]:
    """Let warnings in the block be printed as one line each, which ``printable`` makes safe: they may name files."""

    def as_line(message: object, category: type[Warning], filename: str, lineno: int, line: object = None) -> str:
        return printable(f"{filename}:{lineno}: {category.__name__}: {message}") + "\n"

    usual = warnings.formatwarning
    warnings.formatwarning = as_line
    try:
        yield
    finally:
        warnings.formatwarning = usual


@contextmanager
def folder_of(out: Path | None, kind: str) -> Iterator[Path]:
    """The folder of a run: ``out``, or else a new folder named by kind and time."""
    default = Path("runs") / f"{kind}-{datetime.now():%Y%m%d-%H%M%S}"
    if out is None and is_first_process():
        with new_folder(default) as made:
            yield made
    else:
        yield out or default
