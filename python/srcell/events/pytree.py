"""Registers ``EventBatch`` as a pytree, so that torch's transforms see its tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx import _pytree as fx_pytree
from torch.utils import _pytree as pytree

from .batch import TENSORS, EventBatch

_Context: TypeAlias = list[list[Any]]  # shape and names; lists, because JSON turns tuples into lists


def _flatten(batch: EventBatch) -> tuple[list[Tensor], _Context]:
    names = [name for name in TENSORS if getattr(batch, name) is not None]
    return [getattr(batch, name) for name in names], [list(batch.shape), names]


def _flatten_with_keys(batch: EventBatch) -> tuple[list[tuple[pytree.KeyEntry, Tensor]], _Context]:
    tensors, context = _flatten(batch)
    return [(pytree.GetAttrKey(name), x) for name, x in zip(context[1], tensors, strict=True)], context


def _unflatten(tensors: Iterable[Any], context: _Context) -> EventBatch:
    shape, names = context
    parts = dict(zip(names, tensors, strict=True))
    steps, batch, inputs = shape
    return EventBatch._trusted(
        parts["offsets"], parts["indices"], parts.get("values"), (steps, batch, inputs), parts.get("lengths")
    )


def register() -> None:
    """Register ``EventBatch`` with torch's pytree, torch.export and torch.load."""
    pytree.register_pytree_node(
        EventBatch,
        _flatten,
        _unflatten,
        serialized_type_name="srcell.EventBatch",
        flatten_with_keys_fn=_flatten_with_keys,
    )
    # torch.export of 2.4 asks for this as well.
    fx_pytree.register_pytree_flatten_spec(EventBatch, lambda batch, spec: [getattr(batch, x) for x in spec.context[1]])
    torch.serialization.add_safe_globals([EventBatch])
