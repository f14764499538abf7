"""The numbers with which a layer computes, as an exported file holds them."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from .._shared.parameters import LATER
from ..functional.layer import Cell
from ..functional.terms import exported_delays
from .base import Neurons
from .delays import Delay
from .integer import IntegerSRC
from .options import DEFAULTS, NOT_RECURRENT


@torch.no_grad()
def exported(module: Neurons | IntegerSRC | Delay) -> list[dict[str, Tensor]]:
    """The tensors that each of the stacked layers of a module computes with, on the CPU.

    Of float neurons these are ``weight``, unchanged; ``bias`` and the cell's parameters, of one element or (N,),
    without those that files of version 1 lack if they have the default; and, if the layer has them, the recurrent
    weights ``lateral`` (N, N), their delays (see ``exported_delays``), and ``initial`` (3, N): i, h and hs before the
    first step, when q is always 0.

    Of integer neurons they are ``weight`` (N, K) int16; ``constants``, int32, the fields of ``cell``; and, unless zero,
    ``initial`` (3, N) int16. Of a ``Delay`` they are the ``delays`` (K, M), as of ``exported_delays``.
    """
    if isinstance(module, Delay):
        return [exported_delays("delays", module.delay, module.delay_width, module.max_delay)]
    if isinstance(module, IntegerSRC):
        numbers = {"weight": module.integers(), "constants": torch.tensor(module.cell, dtype=torch.int32)}
        if (start := module._initial(1)) is not None:
            numbers["initial"] = torch.cat(list(start))
        return [{name: x.cpu().contiguous() for name, x in numbers.items()}]
    return [_of_layer(module, suffix) for suffix in module._suffixes]


def learning_rule(module: Neurons | IntegerSRC) -> dict[str, str | bool | float]:
    """How a module's layers are trained, for a learner; settings at their defaults are left out."""
    if isinstance(module, IntegerSRC):
        return {}
    names = ("surrogate", "recurrent_surrogate", "learn_bias", "bias_max")
    defaults = DEFAULTS | NOT_RECURRENT._asdict()
    return {name: getattr(module, name) for name in names if getattr(module, name) != defaults[name]}


# Keyword arguments of layers that can be read from the exported tensors, and those that no file needs.
SHOWN = {*Cell._fields, "recurrent", "delay_hh", "delay_width", "dropout", "device", "dtype"}
EACH = "each"


def further_settings(kind: type[nn.Module]) -> dict[str, Any]:
    """The arguments of a class of layers that the numbers of a layer do not show, and their defaults."""
    arguments = inspect.signature(kind).parameters.values()
    return {x.name: x.default for x in arguments if x.kind is x.KEYWORD_ONLY and x.name not in SHOWN}


def settings_of(module: Neurons, kind: type[nn.Module]) -> dict[str, Any]:
    """The further settings of a layer of that class, unless at their defaults.

    Under ``EACH`` are the parameters and delays of which every neuron has its own, if there are any.
    """
    found = {name: (getattr(module, name), default) for name, default in further_settings(kind).items()}
    made = {name: value for name, (value, default) in found.items() if value != default}
    if not module.delayed:
        made.pop("max_delay", None)  # it is 0, where the default is None
    each = [name for name, value in module._stored().items() if isinstance(value, Tensor)]
    return made | ({EACH: each} if each else {})


def _of_layer(module: Neurons, suffix: str) -> dict[str, Tensor]:
    weight, cell = module._weight(suffix), module._cell_of(suffix)._asdict()
    kept = {name: x for name, x in cell.items() if name not in LATER or module._has(name)}
    numbers = {"weight": weight, "bias": module._acting_bias(suffix), **kept}
    lateral, delay = module._recurrent_weight(suffix), module._delay_of(suffix)
    if lateral is not None:
        numbers["lateral"] = lateral
    made = {name: torch.as_tensor(value, dtype=weight.dtype, device="cpu") for name, value in numbers.items()}
    start = module._initial_state(suffix, 1)
    if start is not None:
        made["initial"] = torch.cat(list(start[:3])).cpu()
    made = {name: (x if x.dim() else x[None]).detach().contiguous() for name, x in made.items()}
    if delay is not None:
        each = delay.to(weight.dtype).expand(len(weight))[:, None]
        made |= exported_delays("lateral_delays", each, module.delay_width, module.max_delay)
    return made
