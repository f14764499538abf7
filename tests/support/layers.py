"""Layers of every kind, some with exact results, and spikes for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from srcell import SRC, SRCCell, SRCConv2d
from support.inputs import noise

LAYERS: dict[str, Callable[..., Any]] = {
    "SRC": lambda **options: SRC(3, 4, **options),
    "SRCCell": lambda **options: SRCCell(3, 4, **options),
    "SRCConv2d": lambda **options: SRCConv2d(3, 4, 1, **options),
}


def make(kind: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return LAYERS[kind](**options)


def make_layer(*sizes: int, cls: type = SRC, **options: Any) -> Any:
    """A layer whose weights are multiples of 2^-6: sums over inputs of 0 and 1 are exact, in any order."""
    layer = cls(*sizes, **options)
    with torch.no_grad():
        for k, (name, weight) in enumerate(layer.named_parameters()):
            if name.startswith("weight"):
                weight.copy_((64 * 3 * noise(50 + k, *weight.shape)).round() / 64)
    return layer


def stepped(cell: SRCCell, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    """The spikes of all steps and the last state of a cell, as a layer returns them."""
    spikes = []
    for now in x:
        s, state = cell(now, state)
        spikes.append(s)
    return torch.stack(spikes), state


def of_cell(layer: SRC) -> dict[str, Tensor]:
    """The state_dict of a layer with the names of a cell's."""
    return {"bias_ih" if name == "bias_l0" else name.removesuffix("_l0"): x for name, x in layer.state_dict().items()}


def make_spikes(seed: int, *shape: int) -> Tensor:
    return (noise(seed, *shape) > 0.5).float()
