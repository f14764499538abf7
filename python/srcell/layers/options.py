"""The options that all SRC layers share, written once: names, types, defaults, and the domains of cell parameters."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, TypeVar

import torch

from ..functional.layer import Cell, Parameter


class Options(TypedDict, total=False):
    """Keyword arguments of every layer, as :class:`~srcell.SRC` documents them."""

    bias: bool
    alpha: Parameter
    rho: Parameter
    r: Parameter
    rs: Parameter
    zs_hyp: Parameter
    zs_dep: Parameter
    learnable: Sequence[str]
    surrogate: str
    recurrent_grad: bool
    initial_state: str
    learn_initial_state: bool
    bias_init: float
    bias_max: float
    device: torch.device | str | None
    dtype: torch.dtype | None


CELL_DEFAULTS = Cell()._asdict()

DEFAULTS: dict[str, Any] = {
    "bias": True,
    **CELL_DEFAULTS,
    "learnable": (),
    "surrogate": "straight_through",
    "recurrent_grad": False,
    "initial_state": "zeros",
    "learn_initial_state": False,
    "bias_init": -6.0,
    "bias_max": -4.0,
    "device": None,
    "dtype": None,
}

INITIAL_STATES = ("zeros", "rest")

# Bounds to which learnable cell parameters are clamped, in every call and by constrain_(); r and rs have none.
DOMAINS = {"alpha": (0.0, 1.0), "rho": (1e-3, math.inf), "zs_hyp": (0.0, 1.0), "zs_dep": (0.0, 1.0)}
# Cell parameters that have a gradient only with recurrent_grad=True.
NEED_RECURRENT_GRAD = ("zs_hyp", "zs_dep")

Init = TypeVar("Init", bound=Callable[..., None])


def takes_options(init: Init) -> Init:
    """Decorator: let the signature of an ``__init__`` with ``**options`` show each option with its default."""
    signature = inspect.signature(init)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    shared = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS[name], annotation=annotation.__forward_arg__
        )
        for name, annotation in Options.__annotations__.items()
    ]
    positional = [p for p in own if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    keywords = [p for p in own if p.kind is inspect.Parameter.KEYWORD_ONLY]
    bias, *others = shared
    init.__signature__ = signature.replace(parameters=[*positional, bias, *keywords, *others])  # type: ignore
    return init


def completed(layer: object, options: Options) -> dict[str, Any]:
    """The options, completed with defaults.

    Raises:
        TypeError: an unknown option.

    """
    for name in options:
        if name not in DEFAULTS:
            raise TypeError(f"{type(layer).__name__}.__init__() got an unexpected keyword argument {name!r}")
    return {**DEFAULTS, **options}
