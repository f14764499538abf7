"""``Interrupted``, which ends a run; the command line catches it without importing torch."""

from __future__ import annotations

import shlex
import signal


class Interrupted(Exception):  # noqa: N818
    """Raised when a signal stops a run: between two optimiser steps, after a checkpoint has been written.

    Args:
        number: the signal's number.
        out: the run folder.
        own: whether the caller made the network and the samples.
        code: FILE.py:FUNCTION that made the samples, if one did.

    Attributes:
        signal: the signal's number.

    """

    def __init__(self, number: int, out: object, own: bool = False, code: str = "") -> None:
        command = f"srcell train --resume {shlex.quote(str(out))}{f' --data {shlex.quote(code)}' if code else ''}"
        if own:
            command = f"srcell.training.resume({str(out)!r}, model=..., dataset=...)"
        super().__init__(f"stopped by {signal.Signals(number).name}, after a checkpoint: {command}")
        self.signal = number
