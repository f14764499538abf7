"""Converts users' bias, state, lengths and cell parameters to the form that the operators take, which check the rest.

``src``, ``src_linear`` and ``src_conv2d`` call it first, layers where C++ does not take their record as it is.
Readouts, delays and integer neurons use its conversions of lengths and dtypes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from .._shared.arguments import as_float, as_int, check_bool, check_choice, has_memory, require_dense
from .._shared.parameters import PARAMETERS, RESONANCE, TABLE
from .._shared.state import AnyState, SRCState, state_type
from ..events import EventBatch
from ..ops._layer import LENGTHS, STATE, STATES, SURROGATES, LayerArguments
from ..ops._memory import zero_padding
from ..ops._operator import record_type
from ..ops._product import NAMES
from ..ops._table import HALF, Checked, device_error, shape_error, work_dtype
from .terms import MOST_DELAY, check_delays, tables

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

Parameter = float | Tensor
State = AnyState | tuple[Tensor, ...]


Cell = record_type("Cell", PARAMETERS, defaults=[TABLE[name].standard for name in PARAMETERS])
"""The cell parameters as users give them, each a ``Parameter``."""
Cell.__module__ = __name__  # where pickles of layers look for it


_DEFAULTS = Cell()
_OPTIONS, _BOUND = (LayerArguments._fields.index(name) for name in ("surrogate", "bias_max"))
MOST_ELEMENTS = 2**63 - 1  # not 2**63: torch.jit.trace compares sizes with int64 only


def is_resonant(frequency: object) -> bool:
    """Whether neurons of this angular frequency have a q: unless it is the number 0."""
    return isinstance(frequency, bool) or not isinstance(frequency, (int, float)) or frequency != 0


def layer_of(
    like: Tensor,
    shape: Sequence[int],
    bias: Parameter,
    cell: Sequence[Parameter],
    state: State | None = None,
    lengths: Tensor | Sequence[int] | None = None,
    *,
    surrogate: str = "straight_through",
    full_gradient: bool = False,
    weight_hh: Tensor | None = None,
    recurrent_surrogate: str = "relu",
    delay_hh: Parameter | None = None,
    max_delay: SupportsIndex | None = None,
    delay_width: SupportsIndex = 1,
) -> LayerArguments:
    """Convert the arguments of a layer, as users give them, whose state has the shape (B, *F).

    ``like`` gives the device and the dtype of the computation; ``cell`` has the values of PARAMETERS.
    """
    if type(surrogate) is not str or surrogate not in SURROGATES or type(full_gradient) is not bool:
        check_gradient_mode(surrogate, full_gradient)
    if type(recurrent_surrogate) is not str or recurrent_surrogate not in SURROGATES:
        check_choice("recurrent_surrogate", recurrent_surrogate, SURROGATES)
    parameters = cell if is_resonant(cell[-1]) else cell[:-1]
    names = PARAMETERS[: len(parameters)]  # torch 2.4 compiles no zip of unequal lengths
    constants = list(parameters)
    tensors: Sequence[Parameter] = ()
    if not all(type(value) is float for value in parameters):
        constants = [
            float(default) if isinstance(value, Tensor) else _as_constant(name, value)
            for name, value, default in zip(names, parameters, _DEFAULTS[: len(parameters)], strict=True)
        ]
        if any(isinstance(value, Tensor) for value in parameters):
            tensors = parameters
    past_steps, first, factors = 0, None, None
    if delay_hh is not None or max_delay is not None or type(delay_width) is not int or delay_width != 1:
        past_steps, first, factors = delays_of(delay_hh, max_delay, delay_width, weight_hh, shape, like)
    if weight_hh is not None and not isinstance(weight_hh, Tensor):
        raise TypeError(f"weight_hh: expected a tensor or None, got {type(weight_hh).__name__}")
    options = constants, surrogate, full_gradient, recurrent_surrogate, past_steps
    given = LayerArguments(bias, tensors, state, lengths, weight_hh, first, factors, *options)  # type: ignore[arg-type]
    return converted(given, like, shape)


def converted(given: LayerArguments, like: Tensor, shape: Sequence[int]) -> LayerArguments:
    """The record of a layer, as the operators take it: tensors of one dtype and of one element or N, (B, N), and (B,).

    Its state has the shape (B, *F), and may be None; ``like`` gives the device and the dtype of the computation.
    """
    features, resonant = shape[1:], len(given.constants) == len(PARAMETERS)
    names = PARAMETERS[: len(given.cell)]  # torch 2.4 compiles no zip of unequal lengths
    channels = given.channels
    cell = [_flat_parameter(name, x, features, like, channels) for name, x in zip(names, given.cell, strict=True)]
    bias = _flat_parameter("bias", given.bias, features, like, channels)
    before: list[Tensor | None] = []
    if given.state is not None:
        before += _flat_state(given.state, shape, like, resonant, given.past_steps)
    lengths = None if given.lengths is None else as_lengths(given.lengths, like.device)
    weight = None if given.weight_hh is None else _widened("weight_hh", given.weight_hh, like)
    bias_max = None if given.bias_max == math.inf else given.bias_max
    # torch 2.4 compiles no _replace of named tuples
    made: Any = bias, cell, before, lengths, weight, given.first_hh, given.factors_hh, [*given.constants]
    made = *made, *given[_OPTIONS:_BOUND], bias_max, *given[_BOUND + 1 :]
    return LayerArguments(*made)


def delays_of(
    delay: Parameter | None,
    most: SupportsIndex | None,
    width: SupportsIndex,
    weight_hh: Tensor | None,
    shape: Sequence[int],
    like: Tensor,
) -> tuple[int, Tensor | None, Tensor | None]:
    """How many steps of spikes a layer keeps for the delays of its recurrent weights, and their terms."""
    width = as_int("delay_width", width, MOST_DELAY, minimum=1)
    if delay is None:
        if most is not None:
            raise ValueError(f"max_delay: expected None without delay_hh, got {most!r}")
        if width != 1:
            raise ValueError(f"delay_width: expected 1 without delay_hh, got {width}")
        return 0, None, None
    if weight_hh is None:
        raise ValueError("delay_hh: expected weight_hh beside it, got None for weight_hh")
    if most is None:
        raise ValueError("max_delay: expected the largest delay allowed beside delay_hh, got None")
    most = as_int("max_delay", most, MOST_DELAY)
    neurons, past_steps = flat_size("delay_hh", shape[1:]), most + width
    if not torch.compiler.is_compiling() and shape[0] * neurons * (past_steps + 1) > MOST_ELEMENTS:
        raise ValueError(
            f"max_delay: expected fewer than 2^63 elements of the past, got {shape[0]} * {past_steps} * {neurons}"
        )
    delay = _flat_parameter("delay_hh", delay, shape[1:], like)
    if delay.is_floating_point():
        delay = delay.to(work_dtype(like))
    check_delays("delay_hh", delay, most, like.device)
    keep = delay.requires_grad and torch.is_grad_enabled()
    return past_steps, *tables(delay.expand(neurons), width, keep=keep)


def check_gradient_mode(surrogate: str, full_gradient: bool) -> None:
    """Raise unless ``src`` accepts this surrogate and this ``full_gradient``."""
    check_choice("surrogate", surrogate, SURROGATES)
    check_bool("full_gradient", full_gradient)


def _as_constant(name: str, value: Parameter) -> float:
    if type(value) is float:
        return value
    if isinstance(value, (Tensor, bool)) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a float or a tensor, got {type(value).__name__}")
    return as_float(name, value)


def _flat_parameter(name: str, value: Parameter, features: Sequence[int], like: Tensor, channels: int = 0) -> Tensor:
    """A parameter as a tensor of one element or of N, or of that many channels."""
    if not isinstance(value, Tensor):
        dtype, number = work_dtype(like), _as_constant(name, value)
        if not abs(number) <= torch.finfo(dtype).max:
            raise ValueError(f"{name}: expected a finite value of {dtype}, got {value}")
        return torch.full((), number, dtype=dtype, device=like.device)
    value = _widened(name, value, like)
    if value.dim() == 1 and value.shape[0] == (channels or (features[0] if len(features) == 1 else -1)):
        return value
    if value.numel() == 1:
        return value.reshape(())
    try:
        expanded = value.expand(features)
    except RuntimeError:
        raise ValueError(
            f"{name}: expected a shape that broadcasts to {tuple(features)}, got {tuple(value.shape)}"
        ) from None
    return expanded.reshape(-1)


def _widened(name: str, x: Tensor, like: Tensor) -> Tensor:
    """The tensor, with half precision widened to float32 unless ``like`` is float64."""
    require_dense(name, x)
    return x.float() if x.dtype in HALF and like.dtype != torch.float64 else x


def check_state(state: State, resonant: bool = False, past_steps: int = 0) -> dict[str, Tensor]:
    """The tensors of a state by name; raise if the state has any other form. A past may be missing."""
    most = STATES[resonant, past_steps > 0]
    of_right_length = isinstance(state, tuple) and len(most) - (past_steps > 0) <= len(state) <= len(most)
    if not of_right_length or not all(isinstance(x, Tensor) for x in state):
        count = {3: "three", 4: "four", 5: "five"}[len(most)]
        why = [f"{RESONANCE} is not the constant 0"] * resonant + ["there is a delay_hh"] * (past_steps > 0)
        got = type(state).__name__ + (f" of {len(state)}" if isinstance(state, tuple) else "")
        raise TypeError(
            f"state: expected a tuple of {count} tensors ({', '.join(most)})"
            f"{', because ' if why else ''}{' and '.join(why)}, got {got}"
        )
    return dict(zip(most[: len(state)], state, strict=True))


def _flat_state(state: State, shape: Sequence[int], like: Tensor, resonant: bool, past_steps: int) -> list[Tensor]:
    """The state as tensors (B, N), and (B, past_steps, N) for the past."""
    given = check_state(state, resonant, past_steps)
    flat = {name: _widened(f"state.{name}", x, like) for name, x in given.items()}
    if len(shape) == 2:
        return list(flat.values())
    for name, x in flat.items():
        expected = (shape[0], *(past_steps,) * (name == "past"), *shape[1:])
        if x.shape != torch.Size(expected):
            raise shape_error(f"state.{name}", str(expected), x.shape)
    return [x.reshape(*x.shape[: x.dim() - len(shape) + 1], math.prod(shape[1:])) for x in flat.values()]


def final_state(layer: LayerArguments, tensors: Sequence[Tensor]) -> AnyState:
    """The state, from an operator's outputs after its spikes: the tensors STATE, some of them empty, and others."""
    resonant, delayed = len(layer.constants) == len(PARAMETERS), layer.past_steps > 0
    if not (resonant or delayed):
        return SRCState(tensors[0], tensors[1], tensors[2])
    named = dict(zip(STATE, tensors[: len(STATE)], strict=True))
    return state_type(resonant, delayed)(*[named[name] for name in STATES[resonant, delayed]])


def as_lengths(lengths: Tensor | Sequence[int], device: torch.device) -> Tensor:
    """The lengths as the int64 tensor that the operators take."""
    if not isinstance(lengths, Tensor):
        try:
            lengths = torch.as_tensor(lengths, device=device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"lengths: expected integers, got {type(lengths).__name__}: {error}") from None
    require_dense("lengths", lengths)
    # [] becomes an empty float tensor.
    if lengths.dtype not in INTEGERS and (lengths.numel() or not lengths.is_floating_point()):
        raise TypeError(f"lengths: expected integers, got {lengths.dtype}")
    return lengths.to(torch.int64)


def check_lengths(
    lengths: Tensor | Sequence[int], batch: int, device: torch.device, steps: int | None = None
) -> Tensor:
    """``as_lengths``, with shape and device checked, for torch's own operators, which check neither.

    With ``steps``, lengths on the CPU are also checked to be in [0, steps].
    """
    lengths = as_lengths(lengths, device)
    Checked("the input", device, B=batch).one(LENGTHS, lengths)
    if steps is not None and device.type == "cpu" and not torch.compiler.is_compiling():
        wrong = ((lengths < 0) | (lengths > steps)).any()
        if has_memory(wrong) and bool(wrong):
            raise ValueError(f"lengths: expected values in [0, {steps}], got {lengths.tolist()}")
    return lengths


def without_padding(
    input: Tensor, lengths: Tensor | Sequence[int] | None, *, check_range: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The input (T, B, ...) with zeros past the samples' lengths, and the lengths as a tensor; ``check_range`` as in
    ``check_lengths``.

    Sums over steps need the zeros: the gradient of a padded step is 0, but 0 times a NaN in the padding is NaN.
    """
    if lengths is None:
        return input, None
    steps, batch = input.shape[:2]
    lengths = check_lengths(lengths, batch, input.device, steps if check_range else None)
    return zero_padding(input, lengths), lengths


def lengths_beside(
    input: Tensor | EventBatch, weight: Tensor, lengths: Tensor | Sequence[int] | None
) -> Tensor | Sequence[int] | None:
    """Check what operators do not see of a linear synapse; return the lengths, which an EventBatch may have."""
    check_device("weight", weight)
    if isinstance(input, EventBatch):
        lengths = input._lengths_or(lengths)
    elif isinstance(input, Tensor):
        require_dense("input", input)
    else:
        raise TypeError(f"input: expected a tensor or an EventBatch, got {type(input).__name__}")
    if weight.dim() != 2:
        raise shape_error("weight", "(N, K)", weight.shape)
    if input.device != weight.device:
        raise device_error("input", f"{weight.device}, as weight has", input)
    if len(input.shape) != 3 or input.shape[2] != weight.shape[1]:
        raise shape_error("input", f"(T, B, {weight.shape[1]})", input.shape)
    return lengths


def check_device(name: str, x: Tensor) -> None:
    """Raise if there are no kernels for a tensor's device."""
    if x.device.type not in ("cpu", "cuda", "meta"):
        raise ValueError(
            f"{name}: expected a tensor on a CPU or a CUDA device, got one on {x.device}: move it there with .cpu()"
        )


def autocasts(x: Tensor) -> bool:
    """Whether autocast is enabled for x's device; torch has no autocast for meta."""
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)


def product_dtype(x: Tensor) -> str:
    """The name of the dtype that autocast chooses for products of a tensor; "" without autocast, and of float64."""
    if x.dtype == torch.float64 or not autocasts(x):
        return ""
    return NAMES.get(torch.get_autocast_dtype(x.device.type), "")


def in_work_dtype(x: Tensor) -> Tensor:
    """A floating-point tensor in the dtype of its computation, ``work_dtype``."""
    dtype = work_dtype(x)
    return x if x.dtype == dtype else x.to(dtype)


def flat_size(name: str, sizes: Sequence[int]) -> int:
    """The product of some of a tensor's sizes; raise if it exceeds an int64, as it may for an empty tensor."""
    product = math.prod(sizes)
    if not torch.compiler.is_compiling() and product > MOST_ELEMENTS:
        raise ValueError(f"{name}: expected sizes whose product is below 2^63, got {tuple(sizes)}")
    return product
