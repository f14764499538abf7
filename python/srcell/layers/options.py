"""The options that all SRC layers share, written once: names, types and defaults."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, SupportsIndex, TypedDict, TypeVar, cast

import torch
from torch import Tensor

from .._shared.arguments import as_float, check_bool, check_choice
from .._shared.parameters import TABLE
from .._shared.renamed import RENAMED, refuse_renamed
from ..functional.layer import Cell, Parameter
from ..ops._layer import SURROGATES


class Spread(NamedTuple):
    """Time constants spaced evenly in their logarithm over the neurons of a layer; see :func:`spread`."""

    low: float
    high: float

    def __repr__(self) -> str:
        return f"spread({self.low}, {self.high})"

    def values(self, neurons: int) -> Tensor:
        """The parameter of each neuron, (N,) float64."""
        first, last = (-math.log(1 - x) for x in self)
        return 1 - (-torch.linspace(first, last, neurons, dtype=torch.float64, device="cpu")).exp()


def spread(low: float, high: float) -> Spread:
    """Give each neuron its own ``alpha`` (or ``zs_hyp``), for inputs with several time scales.

    The time constants 1 / (1 - alpha), in steps, are spaced evenly in their logarithm from the first neuron to the
    last. A slow neuron accumulates more: under a steady current c its integrator converges to c / (1 - alpha). With
    dense inputs the integrator may stay far beyond rho, where only its sign counts; docs/howto/time-constants.md says
    what that costs.

    Args:
        low: value of the first neuron, in [0, 1).
        high: value of the last neuron, in [low, 1).

    Raises:
        TypeError: an argument is not a number.
        ValueError: a number is outside its range.

    Example:
        >>> import srcell
        >>> srcell.SRC(10, 3, alpha=srcell.spread(0.5, 0.98)).alpha_l0
        tensor([0.5000, 0.9000, 0.9800])

    """
    low, high = as_float("low", low), as_float("high", high)
    if not 0 <= low < 1:
        raise ValueError(f"low: expected a number in [0, 1), got {low}")
    if not low <= high < 1:
        raise ValueError(f"high: expected a number in [low, 1) = [{low}, 1), got {high}")
    return Spread(low, high)


class SpreadFrequencies(NamedTuple):
    """Angular frequencies spaced evenly in their logarithm over a layer's neurons; see :func:`spread_frequencies`."""

    low: float
    high: float
    silent: float

    def __repr__(self) -> str:
        return f"spread_frequencies({self.low}, {self.high}, {self.silent})"

    def values(self, neurons: int) -> Tensor:
        """The omega of each neuron, (N,) float64."""
        still = round(self.silent * neurons)
        ends = math.log(self.low), math.log(self.high)
        turning = torch.linspace(*ends, neurons - still, dtype=torch.float64, device="cpu").exp()
        order = torch.randperm(neurons, generator=torch.Generator("cpu").manual_seed(ORDER), device="cpu")
        return torch.cat([torch.zeros(still, dtype=torch.float64, device="cpu"), turning])[order]


# The seed of the order of frequencies: the same in every layer, so that a layer is made the same each time.
ORDER = 196


def spread_frequencies(low: float, high: float, silent: float = 0.125) -> SpreadFrequencies:
    """Give each neuron its own ``omega``, for inputs with rhythms of several lengths.

    The periods 2 pi / omega, in steps, are spaced evenly in their logarithm. A share of the neurons does not resonate
    (omega = 0). The order is drawn once and for all, so that with ``alpha=spread(...)`` neurons of any time constant
    have any frequency.

    Args:
        low: the lowest angular frequency, in radians per step, in (0, pi].
        high: the highest, in [low, pi].
        silent: share of the neurons whose omega is 0, in [0, 1).

    Raises:
        TypeError: an argument is not a number.
        ValueError: a number is outside its range.

    Example:
        >>> import srcell
        >>> layer = srcell.SRC(10, 4, omega=srcell.spread_frequencies(0.01, 1, silent=0.25))
        >>> layer.omega_l0.sort().values
        tensor([0.0000, 0.0100, 0.1000, 1.0000])

    """
    low, high, silent = as_float("low", low), as_float("high", high), as_float("silent", silent)
    if not 0 < low <= math.pi:
        raise ValueError(f"low: expected a number in (0, pi], got {low}")
    if not low <= high <= math.pi:
        raise ValueError(f"high: expected a number in [low, pi] = [{low}, pi], got {high}")
    if not 0 <= silent < 1:
        raise ValueError(f"silent: expected a number in [0, 1), got {silent}")
    return SpreadFrequencies(low, high, silent)


class Recurrent(NamedTuple):
    """Options of a layer's recurrent weights, as :class:`~srcell.SRC` documents them."""

    recurrent: bool = False
    recurrent_surrogate: str = "relu"
    autapses: bool = True
    delay_hh: Parameter | None = None
    max_delay: SupportsIndex | None = None
    delay_width: SupportsIndex = 1

    def check(self) -> None:
        """Raise unless the options have the right types and values; the layer checks the values of delays."""
        check_bool("recurrent", self.recurrent)
        check_bool("autapses", self.autapses)
        check_choice("recurrent_surrogate", self.recurrent_surrogate, SURROGATES)
        if self.delay_hh is not None and not self.recurrent:
            raise ValueError("delay_hh: expected recurrent=True beside it, got False")
        if self.delay_hh is None and self.max_delay is not None:
            raise ValueError(f"max_delay: expected None without delay_hh, got {self.max_delay!r}")
        if self.delay_hh is None and self.delay_width != 1:
            raise ValueError(f"delay_width: expected 1 without delay_hh, got {self.delay_width!r}")


NOT_RECURRENT = Recurrent()


class Options(TypedDict, total=False):
    """Keyword arguments of every layer, as :class:`~srcell.SRC` documents them."""

    learn_bias: bool
    alpha: Parameter | Spread
    omega: Parameter | SpreadFrequencies
    rho: Parameter
    r: Parameter
    rs: Parameter
    zs_hyp: Parameter | Spread
    zs_dep: Parameter
    learnable: Sequence[str]
    surrogate: str
    full_gradient: bool
    initial_state: str
    learn_initial_state: bool
    bias_init: float
    bias_max: float
    input_gain: float | None
    device: torch.device | str | None
    dtype: torch.dtype | None


class RecurrentOptions(Options, total=False):
    """Keyword arguments of ``SRC`` and ``SRCCell``: those of every layer, and the fields of ``Recurrent``."""

    recurrent: bool
    recurrent_surrogate: str
    autapses: bool
    delay_hh: Parameter | None
    max_delay: SupportsIndex | None
    delay_width: SupportsIndex


CELL_DEFAULTS = Cell()._asdict()

DEFAULTS: dict[str, Any] = {
    "learn_bias": True,
    **CELL_DEFAULTS,
    "learnable": (),
    "surrogate": "straight_through",
    "full_gradient": False,
    "initial_state": "zeros",
    "learn_initial_state": False,
    "bias_init": TABLE["bias"].standard,
    "bias_max": -4.0,
    "input_gain": None,
    "device": None,
    "dtype": None,
}

INITIAL_STATES = ("zeros", "rest")


Init = TypeVar("Init", bound=Callable[..., None])


def takes_options(kind: type[Options]) -> Callable[[Init], Init]:
    """Decorate an ``__init__`` with ``**options`` of this kind: its signature then shows each with its default."""

    def decorate(init: Init) -> Init:
        signature = inspect.signature(init)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        positional = [p for p in own if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        keywords = [p for p in own if p.kind is inspect.Parameter.KEYWORD_ONLY]
        defaults = {**DEFAULTS, **NOT_RECURRENT._asdict()}
        option = {
            name: inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=annotation.__forward_arg__
            )
            for name, annotation in kind.__annotations__.items()
        }
        recurrent = [option.pop(name) for name in Recurrent._fields if name in option]
        parameters = [*positional, option.pop("learn_bias"), *keywords, *recurrent, *option.values()]
        init.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return init

    return decorate


def split_recurrent(options: RecurrentOptions) -> tuple[Recurrent, Options]:
    """The options of recurrent weights, with their defaults, and the others as they were given."""
    given: dict[str, Any] = {**options}
    recurrent = Recurrent(**{name: given.pop(name) for name in Recurrent._fields if name in given})
    return recurrent, cast("Options", given)


# Arguments that layers of torch.nn have and srcell's lack: what to do instead.
INSTEAD = {
    "bidirectional": "a layer runs forwards in time; run a second layer on the input flipped in time, and join both",
    "nonlinearity": "a cell has its own, tanh",
    "proj_size": "put a torch.nn.Linear behind the layer",
}


def completed(layer: object, options: Options) -> dict[str, Any]:
    """Fill in the defaults of the options that are not given; raise a TypeError for an unknown option."""
    where = type(layer).__name__
    for name in options:
        if name not in DEFAULTS:
            own = inspect.signature(type(layer)).parameters
            refuse_renamed(where, options, [old for old, now in RENAMED.items() if now in own])
            hint = f": {INSTEAD[name]}" if name in INSTEAD else ""
            raise TypeError(f"{where}.__init__() got an unexpected keyword argument {name!r}{hint}")
    return {**DEFAULTS, **options}
