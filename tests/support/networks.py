"""Networks as they are in a file."""

from __future__ import annotations

import json
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


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the tensors of a file."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: Any, tensors: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors
