"""``info`` and ``core_info``: the version, instruction sets, threads, CUDA and torch of this installation."""

from __future__ import annotations

from typing import Any

import torch

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


def info() -> dict[str, Any]:
    """Describe the installation: what is in use, what is available, and the version of torch.

    Returns:
        A dict. ``version`` is the version of srcell, ``torch`` that of torch. ``isa`` is the instruction set in use,
        ``isas`` are those available here; the environment variable SRCELL_ISA chooses one at import. ``threads`` is
        torch.get_num_threads(), ``thread_runtime`` names what runs the threads, for example "openmp". ``cuda`` has the
        CUDA runtime and the architectures that this build has kernels for. It is None if layers cannot run on a GPU,
        because the build has no kernels or torch finds no GPU; ``srcell info`` prints the reason.

    Example:
        >>> import srcell
        >>> srcell.info()["isa"] in srcell.info()["isas"]
        True

    """
    found = core_info()
    return {
        **found,
        "cuda": None if cuda_lacks() else found["cuda"],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def cuda_lacks() -> str:
    """The reason why layers cannot run on a GPU, as a phrase for messages; empty if they can."""
    missing = [] if core_info()["cuda"] else ["srcell was built without CUDA kernels"]
    if torch.version.cuda is None:
        missing.append("torch was built without CUDA")
    elif not torch.cuda.is_available():
        missing.append("torch finds no GPU")
    return ", ".join(missing)
