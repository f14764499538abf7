"""Registers named tuples of tensors with torch's pytree, so that torch.export can save programs that return them.

Files that define such a tuple decorate it with ``of_tensors``.
"""

from __future__ import annotations

from typing import Any, TypeVar

from .torch_private import register_pytree

Class = TypeVar("Class", bound=type)


def of_tensors(cls: Class) -> Class:
    """Decorate a class: torch's transforms see its fields, and torch.export and torch.load know the class by name."""
    made: Any = cls
    register_pytree(cls, lambda values: (made._fields, None), lambda values, context: made(*values))
    return cls
