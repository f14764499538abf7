"""Names that ``import srcell`` does not import: submodules and, without torch, everything but the runtime."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NoReturn

SUBMODULES = (
    *("benchmark", "data", "evaluation", "events", "hardware", "layers", "models", "nir"),
    *("onnx", "plots", "reference", "training"),
)


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


def submodule(name: str) -> ModuleType:
    """Import a documented submodule when it is first used, as in ``import srcell; srcell.data.load(...)``."""
    if name not in SUBMODULES:
        raise AttributeError(f"module 'srcell' has no attribute '{name}'")
    return import_module(f"srcell.{name}")
