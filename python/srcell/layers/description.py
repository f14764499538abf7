"""The options of a layer as its repr shows them: those that differ from the defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .._shared.arguments import has_memory
from ..functional.layer import Parameter

MOST_SHOWN = 8  # values of a tensor that the repr of a layer shows; of more it shows the range


def changed(module: object, defaults: Mapping[str, Any]) -> list[str]:
    """The attributes of a module that differ from the defaults, as arguments."""
    return [
        f"{name}={getattr(module, name)!r}" for name, default in defaults.items() if getattr(module, name) != default
    ]


def shown_parameter(initial: Parameter, present: Sequence[Tensor], spread: object) -> str:
    """A parameter as an argument.

    Args:
        initial: as the layer was given it.
        present: the tensors of the stacked layers, if other values may have been loaded; otherwise empty.
        spread: the ``spread`` that gave the initial values, or None.

    """
    if not isinstance(initial, Tensor):
        return repr(present[0].item() if present else initial)
    values = torch.stack([*present]) if present else initial
    if spread is not None and has_memory(values) and bool((values == initial.to(values)).all()):
        return repr(spread)
    if not values.numel() or not has_memory(values):
        return f"tensor({initial.numel()} values)"
    numbers = values.double().reshape(-1, initial.numel())
    if initial.numel() <= MOST_SHOWN and bool((numbers == numbers[0]).all()):
        return f"tensor({initial.new_tensor(numbers[0].tolist()).view_as(initial).tolist()})"
    low, high = (x.item() for x in numbers.aminmax())
    return f"tensor({initial.numel()} values, {low:.4g} to {high:.4g})"
