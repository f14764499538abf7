"""What the compiled modules say of themselves: version, instruction sets, CUDA."""

from __future__ import annotations

from typing import Any

from .ops._cpu import core
from .ops._gpu import cuda_info


def core_info() -> dict[str, Any]:
    """Version, instruction sets, thread runtime, and for what the CUDA module was built, None if there is none."""
    return {
        "version": core.version,
        "isa": core.isa,
        "isas": core.available_isas,
        "thread_runtime": core.thread_runtime(),
        "cuda": cuda_info(),
    }
