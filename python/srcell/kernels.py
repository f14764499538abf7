"""``core_info``: version, instruction sets and CUDA build of the compiled modules."""

from __future__ import annotations

from typing import Any

from .ops._cpu import core
from .ops._gpu import cuda_info


def core_info() -> dict[str, Any]:
    """Version, instruction sets, thread runtime, and the CUDA module's runtime and architectures (None without it)."""
    return {
        "version": core.version,
        "isa": core.isa,
        "isas": core.available_isas,
        "thread_runtime": core.thread_runtime(),
        "cuda": cuda_info(),
    }
