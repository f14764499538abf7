"""Networks as they are in a file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from srcell import export, runtime


def bytes_of(network: Any, *input_shape: tuple[int, ...]) -> bytes:
    """The file that ``srcell.export`` writes."""
    with tempfile.TemporaryDirectory() as folder:
        export(network, Path(folder) / "net.srcell", *input_shape)
        return (Path(folder) / "net.srcell").read_bytes()


def exported(network: Any) -> runtime.Network:
    return runtime.Network(bytes_of(network))
