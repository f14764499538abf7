"""Registers ``EventBatch`` as a pytree, so that torch's transforms see its tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from .._private import register_pytree
from .batch import TENSORS, EventBatch

_Context: TypeAlias = list[list[Any]]  # shape and names; lists, because JSON turns tuples into lists


def _parts(batch: EventBatch) -> tuple[list[str], _Context]:
    names = [name for name in TENSORS if getattr(batch, name) is not None]
    return names, [list(batch.shape), names]


def _unflatten(tensors: Iterable[Any], context: _Context) -> EventBatch:
    shape, names = context
    parts = dict(zip(names, tensors, strict=True))
    steps, batch, inputs = shape
    return EventBatch._trusted(
        parts["offsets"], parts["indices"], parts.get("values"), (steps, batch, inputs), parts.get("lengths")
    )


def register() -> None:
    """Register ``EventBatch`` with torch's pytree, torch.export and torch.load."""
    register_pytree(EventBatch, _parts, _unflatten)
