"""What ``import srcell`` does where torch is not installed: the runtime works, every other name says what it needs."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NoReturn


def without_torch() -> bool:
    """Whether torch is not installed."""
    return find_spec("torch") is None


def refuse(name: str) -> NoReturn:
    """Raise for a name of srcell that needs torch, or that does not exist."""
    if name.startswith("_"):
        raise AttributeError(f"module 'srcell' has no attribute '{name}'")
    raise ImportError(
        f"srcell.{name}: expected torch 2.4 or newer to be installed, found none: pip install torch. "
        "srcell.runtime runs exported networks without it"
    )
