"""Registers named tuples of tensors with torch's pytree, so that torch.export can save programs that return them.

The files that define such a tuple use it as a decorator; it must never know what the tensors are.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch.fx import _pytree as fx_pytree
from torch.utils import _pytree as pytree

Class = TypeVar("Class", bound=type)


def of_tensors(cls: Class) -> Class:
    """Decorator: torch's transforms see the fields, and torch.export and torch.load know the class by its name."""
    made: Any = cls
    keys = [pytree.GetAttrKey(name) for name in made._fields]
    pytree.register_pytree_node(
        cls,
        lambda values: (list(values), None),
        lambda values, context: made(*values),
        serialized_type_name=f"srcell.{cls.__name__}",
        flatten_with_keys_fn=lambda values: (list(zip(keys, values, strict=True)), None),
    )
    # torch.export of 2.4 asks for this as well.
    fx_pytree.register_pytree_flatten_spec(cls, lambda values, spec: list(values))
    torch.serialization.add_safe_globals([cls])
    return cls
