"""What this installation is and runs on."""

from __future__ import annotations

from typing import Any

import torch

from . import _ops


def info() -> dict[str, Any]:
    """Describe the installation: what is active, what could be, and with which torch.

    Returns:
        ``version``; ``isa``, the instruction set in use, and ``isas``, those available here (the environment variable
        SRCELL_ISA chooses at import); ``threads``, as torch.get_num_threads() says, and ``thread_runtime``; ``cuda``,
        the CUDA runtime and the architectures that this build has kernels for, None if it has none; ``torch``, its
        version.

    Example:
        >>> import srcell
        >>> srcell.info()["isa"] in srcell.info()["isas"]
        True

    """
    return {
        **_ops.core_info(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
