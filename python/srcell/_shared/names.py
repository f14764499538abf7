"""Finds the names of ``srcell`` that ``import srcell`` does not import: all but the runtime."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def without_torch() -> bool:
    """Whether torch is not installed."""
    return find_spec("torch") is None


def public(wanted: str = "") -> dict[str, Any]:
    """The public names of srcell with what they name, and ``__all__``; of those of ``LATER`` only the wanted one."""
    module = import_module("srcell._public")
    found = {"__all__": module.__all__} | {
        name: getattr(module, name) for name in module.__all__ if name not in module.LATER
    }
    if wanted in module.LATER:
        found[wanted] = getattr(import_module(f"srcell.{module.LATER[wanted]}"), wanted)
    return found


def find(name: str) -> Any:
    """A submodule or a public name of srcell, imported when it is first used.

    Raises:
        AttributeError: there is no such name.
        ImportError: torch is not installed.

    """
    if name != "__all__" and (name.startswith("_") or not name.isidentifier()):
        raise AttributeError(f"module 'srcell' has no attribute '{name}'")
    if without_torch():
        if name == "__all__":
            return ["runtime"]
        raise ImportError(
            f"srcell.{name}: expected torch 2.4 or newer to be installed, found none: pip install torch. "
            "srcell.runtime runs exported networks without it"
        )
    if find_spec(f"srcell.{name}") is not None:
        return import_module(f"srcell.{name}")
    found = public(name)
    vars(sys.modules["srcell"]).update(found)
    if name not in found:
        raise AttributeError(f"module 'srcell' has no attribute '{name}'")
    return found[name]


def listed() -> list[str]:
    """What ``dir(srcell)`` lists: what is imported, and the names that are imported later."""
    found = vars(sys.modules["srcell"])
    return sorted({*found, *found.get("__all__", ())})
