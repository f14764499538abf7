"""``src_conv2d``: a convolution of events or of dense maps, then the recurrence."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._shared.arguments import check_choice, require_dense, require_tensor
from .._shared.state import AnyState
from ..events import EventBatch
from ..ops._convolution import Convolution
from ..ops._layer import LayerArguments
from ..ops._table import device_error, shape_error
from .layer import Parameter, State, autocasts, check_device, converted, flat_size, layer_of
from .synapse import after_synapse, as_spikes, check_weight_dtype, directly

# The methods, with the names that operators have for them.
OF_OPERATOR = {"auto": "auto", "events": "events", "dense": "gemm"}
METHODS = tuple(OF_OPERATOR)
MOST = 2**31  # inputs and neurons: an event's index is an int32


class Window(NamedTuple):
    """How a kernel moves over a map: sizes are (vertical, horizontal)."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] | str
    dilation: tuple[int, int]
    groups: int

    def pads(self) -> tuple[int | None, int | None]:
        """The zeros before the first row and column; None for "same", which fits any input."""
        if not isinstance(self.padding, str):
            return self.padding
        return (None, None) if self.padding == "same" else (0, 0)

    def spans(self) -> list[int]:
        """The distance from the first to the last row and column of the kernel."""
        return [dilation * (kernel - 1) for kernel, dilation in zip(self.kernel_size, self.dilation, strict=True)]

    def over(self, channels: int, height: int, width: int) -> Convolution:
        """The convolution over maps of this size; the map is empty where the input is smaller than the kernel."""
        # With "same", torch puts the odd one of the zeros after the last row or column.
        zeros = [span if pad is None else 2 * pad for span, pad in zip(self.spans(), self.pads(), strict=True)]
        sizes = zip((height, width), zeros, self.spans(), self.stride, strict=True)
        rows, columns = (max((size + zero - span - 1) // stride + 1, 0) for size, zero, span, stride in sizes)
        top, left = (zero // 2 for zero in zeros)
        return Convolution(channels, height, width, rows, columns, *self.stride, top, left, *self.dilation)


def window_of(
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int],
    padding: int | tuple[int, int] | str,
    dilation: int | tuple[int, int],
    groups: int,
) -> Window:
    """Check the arguments of a convolution."""
    kernel_size = pair("kernel_size", kernel_size, 1)
    stride, dilation = pair("stride", stride, 1), pair("dilation", dilation, 1)
    if not isinstance(padding, str):
        padding = pair("padding", padding, 0)
    elif padding not in ("valid", "same"):
        raise ValueError(f"padding: expected 'valid', 'same' or sizes, got {padding!r}")
    elif padding == "same" and stride != (1, 1):
        raise ValueError(f"padding: expected sizes where the stride is not 1, got 'same' with stride {stride}")
    return Window(kernel_size, stride, padding, dilation, groups)


def pair(name: str, size: int | tuple[int, int], least: int) -> tuple[int, int]:
    """A size as (height, width); one number stands for both."""
    sizes = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(sizes) != 2 or not all(isinstance(x, int) and not isinstance(x, bool) and least <= x < 2**63 for x in sizes):
        raise ValueError(f"{name}: expected one or two integers of at least {least}, got {size!r}")
    return sizes


def src_conv2d(
    input: Tensor | EventBatch,
    weight: Tensor,
    bias: Parameter,
    state: State | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    input_size: int | tuple[int, int] | None = None,
    alpha: Parameter = 0.9,
    rho: Parameter = 3.0,
    r: Parameter = 2.0,
    rs: Parameter = -7.0,
    zs_hyp: Parameter = 0.9,
    zs_dep: Parameter = 0.0,
    omega: Parameter = 0.0,
    surrogate: str = "straight_through",
    full_gradient: bool = False,
    lengths: Tensor | Sequence[int] | None = None,
    method: str = "auto",
) -> tuple[Tensor, AnyState]:
    r"""Run Spiking Recurrent Cells after a convolution: ``src`` on ``torch.nn.functional.conv2d`` of each step.

    Args:
        input: (T, B, C, H, W), or an :class:`~srcell.EventBatch` (T, B, C * H * W) whose inputs are numbered by
            channel, row and column and whose lengths are used. A tensor must have the dtype of the weight, or hold
            bools or integers, which count as numbers of spikes.
        weight: (O, C / groups, kernel height, kernel width).
        bias: excitability, a float or a tensor that broadcasts to (O, H', W'), the shape of the map of neurons: (O, 1,
            1) for one number a channel.
        state: see :func:`src`; its tensors are (B, O, H', W').
        stride: stride of the convolution, one number or two (vertical, horizontal), like all sizes here.
        padding: zeros beyond the edge, as numbers, ``"valid"`` or ``"same"``.
        dilation: dilation of the kernel.
        groups: groups of channels.
        input_size: (H, W) of an EventBatch; maps are square if absent.
        method: ``"events"`` adds the weights of the nonzero inputs one by one in their order, with the same bits for
            every instruction set, thread count and batch size. ``"dense"`` is torch's convolution, whose bits may
            depend on the batch; an EventBatch is made dense for it. ``"auto"`` uses events for an EventBatch. For a
            dense tensor it uses whichever is expected to be faster: events if the density, measured on some of its
            steps, is below 0.1. It uses torch's convolution for half precision, under autocast, and on a GPU, where
            there is no ``"events"``.
        alpha: see :func:`src`.
        rho: see :func:`src`.
        r: see :func:`src`.
        rs: see :func:`src`.
        zs_hyp: see :func:`src`.
        zs_dep: see :func:`src`.
        omega: see :func:`src`.
        surrogate: see :func:`src`.
        full_gradient: see :func:`src`.
        lengths: see :func:`src`; must be absent for an EventBatch that has its own.

    Returns:
        spikes (T, B, O, H', W') and the state after each sample's last step.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape, device or value; the message names the argument.

    Example:
        >>> import torch
        >>> from srcell.functional import src_conv2d
        >>> spikes, state = src_conv2d(torch.ones(30, 2, 1, 6, 6), torch.ones(4, 1, 3, 3), bias=-6.0, padding="same")
        >>> spikes.shape, state.h.shape
        (torch.Size([30, 2, 4, 6, 6]), torch.Size([2, 4, 6, 6]))

    """
    require_tensor("weight", weight)
    check_weight_dtype(weight)
    if weight.dim() != 4 or 0 in weight.shape:
        raise shape_error("weight", "(O, C / groups, height, width)", weight.shape)
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1 or weight.shape[0] % groups:
        raise ValueError(f"groups: expected a divisor of the {weight.shape[0]} output channels, got {groups!r}")
    check_choice("method", method, METHODS)
    if input_size is not None:
        input_size = pair("input_size", input_size, 1)
    window = window_of((weight.shape[2], weight.shape[3]), stride, padding, dilation, groups)
    sizes = convolution_of(input, weight.shape[1] * groups, weight.shape[0], window, input_size)
    flat = _flat_input(input, weight)
    lengths = input._lengths_or(lengths) if isinstance(input, EventBatch) else lengths
    features, cell = (weight.shape[0], *sizes[3:5]), (alpha, rho, r, rs, zs_hyp, zs_dep, omega)
    options: dict[str, Any] = {"surrogate": surrogate, "full_gradient": full_gradient}
    layer = layer_of(weight, (input.shape[1], *features), bias, cell, state, lengths, **options)
    method = _method_for(weight, method)
    made = directly(flat, weight, layer, method, convolution=sizes)
    return _as_maps(made or after_synapse(flat, weight, layer, method, convolution=sizes), features)


def conv2d(
    input: Tensor | EventBatch,
    weight: Tensor,
    layer: LayerArguments,
    convolution: Convolution,
    method: str,
    *,
    input_grad_at_events: bool = False,
) -> tuple[Tensor, AnyState]:
    """A layer after a convolution that is checked, from a record that may need conversions; as ``synapse.linear``."""
    features = weight.shape[0], convolution.out_height, convolution.out_width
    further: dict[str, Any] = {"input_grad_at_events": input_grad_at_events, "convolution": convolution}
    if not torch.compiler.is_compiling():
        ready = layer if layer.state is None else _with_flat_state(layer, features)
        if ready is not None:
            flat = input if isinstance(input, EventBatch) else input.flatten(2)
            made = directly(flat, weight, ready, OF_OPERATOR[method], **further)
            if made is not None:
                return _as_maps(made, features)
    check_weight_dtype(weight)
    flat, method = _flat_input(input, weight), _method_for(weight, method)
    layer = converted(layer, weight, (input.shape[1], *features))
    return _as_maps(after_synapse(flat, weight, layer, method, **further), features)


def _method_for(weight: Tensor, method: str) -> str:
    """The name that operators have for a method on the device of the weight."""
    if weight.device.type == "cuda":
        if method == "events":
            raise ValueError('method: expected "auto" or "dense" on a GPU, where torch convolves, got "events"')
        return "gemm"
    return OF_OPERATOR[method]


def _flat_input(input: Tensor | EventBatch, weight: Tensor) -> Tensor | EventBatch:
    """The input (T, B, K) of a convolution, whose dtype and device are checked."""
    check_device("weight", weight)
    if isinstance(input, Tensor):
        input = as_spikes(input, weight.dtype)
        if not input.is_floating_point() or (input.dtype != weight.dtype and not autocasts(input)):
            raise TypeError(f"input: expected {weight.dtype}, as the weight, got {input.dtype}")
        flat_size("input", input.shape[2:])
        input = input.flatten(2)
    if input.device != weight.device:
        raise device_error("input", f"{weight.device}, as the weight", input)
    return input


def _with_flat_state(layer: LayerArguments, features: tuple[int, ...]) -> LayerArguments | None:
    """The record with its state as (B, N), or None if that of a map needs to be checked."""
    flat = []
    for x in layer.state:
        if type(x) is not Tensor or x.is_nested or x.layout != torch.strided or x.shape[1:] != features:
            return None
        flat.append(x.flatten(1))
    return LayerArguments(*layer[:2], tuple(flat), *layer[3:])  # type: ignore[arg-type]


def _as_maps(made: tuple[Tensor, AnyState], features: Sequence[int]) -> tuple[Tensor, AnyState]:
    (spikes, state), maps = made, []
    for x in state:
        maps.append(x.reshape(x.shape[0], *features))  # len() would make a constant of a dynamic batch
    return spikes.reshape(*spikes.shape[:2], *features), type(state)(*maps)


def convolution_of(
    input: Tensor | EventBatch,
    channels: int,
    out_channels: int,
    window: tuple[Any, ...],
    input_size: tuple[int, int] | None,
) -> Convolution:
    """The convolution over the maps of an input, whose shape is checked; ``window`` has the fields of a Window."""
    if isinstance(input, EventBatch):
        height, width = _map_size(input, channels, input_size)
    else:
        if not isinstance(input, Tensor) or input.dim() != 5 or input.shape[2] != channels:
            got = tuple(input.shape) if isinstance(input, Tensor) else type(input).__name__
            raise ValueError(f"input: expected an EventBatch or a tensor (T, B, {channels}, H, W), got {got}")
        if input.layout != torch.strided or input.is_nested:
            require_dense("input", input)
        height, width = input.shape[3:]
    if torch.compiler.is_compiling():
        return _over_maps(Window(*window), channels, height, width)
    return _over(window, channels, height, width, out_channels)


@functools.lru_cache(maxsize=1024)
def _over(fields: tuple[Any, ...], channels: int, height: int, width: int, out_channels: int) -> Convolution:
    """``_over_maps``, with the sizes checked that kernels take."""
    window = Window(*fields)
    made = _over_maps(window, channels, height, width)
    for name, sizes in (("stride", window.stride), ("padding", window.pads()), ("dilation", window.dilation)):
        if any(size is not None and size > MOST for size in sizes):
            raise ValueError(f"{name}: expected at most 2^31 beside an input, got {sizes}")
    inputs, neurons = channels * height * width, out_channels * made.out_height * made.out_width
    if inputs > MOST or neurons > MOST:
        raise ValueError(f"input: expected at most 2^31 inputs and as many neurons, got {inputs} and {neurons}")
    return made


def _over_maps(window: Window, channels: int, height: int, width: int) -> Convolution:
    """The convolution over maps of this size, which the kernel must fit in."""
    least = [
        1 if pad is None else max(1, span + 1 - 2 * pad)
        for span, pad in zip(window.spans(), window.pads(), strict=True)
    ]
    if height < least[0] or width < least[1]:
        raise ValueError(
            f"input: expected a height of at least {least[0]} and a width of at least {least[1]}, got {(height, width)}"
        )
    return window.over(channels, height, width)


def _map_size(input: EventBatch, channels: int, given: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width of the maps of an EventBatch."""
    inputs = input.shape[2]
    if given is not None:
        height, width = given
        if channels * height * width != inputs:
            raise ValueError(f"input: expected {channels} * {height} * {width} inputs, got {inputs}")
        return height, width
    side = math.isqrt(inputs // channels)
    if channels * side * side != inputs:
        raise ValueError(
            f"input: expected {channels} times a square number of inputs without input_size, got {inputs}: give "
            "input_size, the height and width of the maps"
        )
    return side, side
