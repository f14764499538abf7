"""``src_linear``: a linear synapse on events or on a dense input, then the recurrence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

import torch
from torch import Tensor
from torch.nn import functional as F

from .._shared.arguments import check_choice, require_tensor
from .._shared.renamed import renamed
from .._shared.state import AnyState
from ..events import EventBatch
from ..ops import _gpu
from ..ops._convolution import convolve, places
from ..ops._layer import LayerArguments, checked_layer
from ..ops._memory import contiguous, zero_padding
from ..ops._operator import DIRECT
from ..ops._table import HALF, WORK, Checked, dtype_error, shape_error, work_dtype
from ..ops.src import directly as currents_directly
from ..ops.src_dense import METHODS, resolved, src_dense, takes_events
from ..ops.src_dense import directly as dense_directly
from ..ops.src_events import directly as events_directly
from ..ops.src_events import src_events
from .layer import (
    INTEGERS,
    Cell,
    Parameter,
    State,
    autocasts,
    converted,
    final_state,
    in_work_dtype,
    layer_of,
    lengths_beside,
    product_dtype,
    without_padding,
)
from .recurrence import run_src


@renamed("lateral_surrogate", "recurrent_grad")
def src_linear(
    input: Tensor | EventBatch,
    weight: Tensor,
    bias: Parameter,
    state: State | None = None,
    *,
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
    weight_hh: Tensor | None = None,
    recurrent_surrogate: str = "relu",
    delay_hh: Parameter | None = None,
    max_delay: SupportsIndex | None = None,
    delay_width: SupportsIndex = 1,
    method: str = "auto",
) -> tuple[Tensor, AnyState]:
    """Run Spiking Recurrent Cells after a linear synapse: ``src(input @ weight.T, ...)``.

    Args:
        input: (T, B, K) tensor, or an :class:`~srcell.EventBatch` of that shape, whose lengths are used. A tensor must
            have the dtype of the weight, or hold bools or integers, which count as numbers of spikes.
        weight: (N, K).
        bias: excitability, a float or a tensor that broadcasts to (N,).
        state: see :func:`src`; its tensors are (B, N), a past (B, max_delay + delay_width, N).
        method: ``"events"`` adds the weights of the nonzero inputs one by one in their order, with the same bits for
            every instruction set, thread count and batch size. ``"gemm"`` is torch's matrix product, whose bits
            depend on the batch; an EventBatch is made dense for it, which synchronises on a GPU. ``"auto"`` uses
            events for an EventBatch. For a dense tensor it uses whichever is expected to be faster: events if the
            density, measured on some of its rows, is below 0.5 + 30 / K. It uses the product for half precision, and
            on a GPU, where measuring the density would synchronise. Under autocast torch's products, forwards and
            backwards, are in the dtype of autocast; what is added event by event is in float32.
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
        weight_hh: see :func:`src`.
        recurrent_surrogate: see :func:`src`.
        delay_hh: see :func:`src`.
        max_delay: see :func:`src`.
        delay_width: see :func:`src`.

    Returns:
        spikes (T, B, N) and the state after each sample's last step.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape, device or value; the message names the argument.

    Example:
        >>> import torch
        >>> from srcell.functional import src_linear
        >>> spikes, state = src_linear(torch.ones(30, 2, 5), torch.ones(3, 5), bias=torch.full((3,), -6.0))
        >>> spikes.shape, state.h.shape
        (torch.Size([30, 2, 3]), torch.Size([2, 3]))

    """
    require_tensor("weight", weight)
    if weight.dim() != 2:
        raise shape_error("weight", "(N, K)", weight.shape)
    check_choice("method", method, METHODS)
    check_weight_dtype(weight)
    lengths = lengths_beside(input, weight, lengths)
    layer = layer_of(
        weight,
        (input.shape[1], weight.shape[0]),
        bias,
        (alpha, rho, r, rs, zs_hyp, zs_dep, omega),
        state,
        lengths,
        surrogate=surrogate,
        full_gradient=full_gradient,
        weight_hh=weight_hh,
        recurrent_surrogate=recurrent_surrogate,
        delay_hh=delay_hh,
        max_delay=max_delay,
        delay_width=delay_width,
    )
    made = directly(input, weight, layer, method)
    return made if made else after_synapse(input, weight, layer, method)


def directly(
    input: Tensor | EventBatch,
    weight: Tensor,
    layer: LayerArguments,
    method: str = "auto",
    way: Any = DIRECT,
    *,
    input_grad_at_events: bool = False,
    convolution: Sequence[int] = (),
) -> tuple[Tensor, AnyState] | None:
    """Run a layer after a synapse, on a CPU, past torch's dispatcher; None if ``after_synapse`` must run it."""
    if torch.compiler.is_compiling() or not weight.is_cpu:
        return None
    made: tuple[Tensor, AnyState] | None
    if isinstance(input, Tensor):
        made = dense_directly((input, weight, layer, method, input_grad_at_events, False, False, convolution, ""), way)
        if made is False:
            if layer.lengths is not None:
                input = zero_padding(input, layer.lengths)
            made = currents_directly((_product(input, weight, convolution), layer, False, False, False), way)
    elif method == "gemm" or (not convolution and input.shape[2] != weight.shape[1]):
        return None
    else:
        steps, batch, _ = input.shape
        events = input.offsets, input.indices, input.values
        made = events_directly((*events, weight, layer, steps, batch, False, False, convolution), way)
    return made


def linear(
    input: Tensor | EventBatch, weight: Tensor, layer: LayerArguments, *, input_grad_at_events: bool = False
) -> tuple[Tensor, AnyState]:
    """A layer after a linear synapse by its operator, from a record that may need conversions.

    With ``input_grad_at_events`` the gradient of a dense input is unspecified where the input is 0. That suffices if
    the input is the output of a layer with the relu surrogate, which multiplies the gradient by 0 there.
    """
    check_weight_dtype(weight)
    lengths_beside(input, weight, None)
    ready = converted(layer, weight, (input.shape[1], weight.shape[0]))
    return after_synapse(input, weight, ready, "auto", input_grad_at_events=input_grad_at_events)


def check_weight_dtype(weight: Tensor) -> None:
    """Raise unless a weight has a dtype that synapses take."""
    if weight.dtype not in (*WORK, *HALF):
        raise TypeError(f"weight: expected float32, float64, float16 or bfloat16, got {weight.dtype}")


def after_synapse(
    input: Tensor | EventBatch,
    weight: Tensor,
    layer: LayerArguments,
    method: str,
    *,
    input_grad_at_events: bool = False,
    convolution: Sequence[int] = (),
) -> tuple[Tensor, AnyState]:
    """Run a layer on an input (T, B, K) of the right shape, through a linear synapse or a convolution."""
    if isinstance(input, Tensor):
        return _after_dense(input, weight, layer, method, input_grad_at_events, convolution)
    if method == "gemm":
        return _after_dense(_as_dense(input, weight), weight, layer, method, input_grad_at_events, convolution)
    work, (steps, batch, _) = in_work_dtype(weight), input.shape
    values = None if input.values is None else input.values.to(work.dtype)
    options = {"steps": steps, "batch": batch, "convolution": [*convolution], "save": False, "trace_integrator": False}
    spikes, *ended = src_events(input.offsets, input.indices, values, work, layer, **options)
    return _in_dtype(spikes, weight), final_state(layer, ended)


def _as_dense(input: EventBatch, weight: Tensor) -> Tensor:
    """The elements of a batch in the weight's dtype.

    The batch is made anew to validate it: its tensors may have changed since, and the kernels, which check events,
    never see those of an EventBatch that is made dense.
    """
    checked = EventBatch(input.offsets, input.indices, input.values, shape=input.shape)
    return checked.to_dense(work_dtype(weight)).to(weight.dtype)


def _after_dense(
    input: Tensor,
    weight: Tensor,
    layer: LayerArguments,
    method: str,
    input_grad_at_events: bool,
    convolution: Sequence[int],
) -> tuple[Tensor, AnyState]:
    """``after_synapse`` on a dense input."""
    if input.dtype != weight.dtype:
        input = as_spikes(input, weight.dtype)
        if input.dtype != weight.dtype and not autocasts(input):
            raise dtype_error("input", f"{weight.dtype}, as weight has", input)
    if method == "auto" and (weight.dtype in HALF or input.dtype in HALF):
        method = "gemm"
    elif method == "auto" and not (torch.compiler.is_compiling() or _gpu.is_gpu(input)):
        method = resolved(input, layer.lengths, convolution)
    if method == "gemm":
        input, _ = without_padding(input, layer.lengths)
        current = _product(input, weight, convolution)
        if not torch.compiler.is_compiling():
            steps, batch, neurons = current.shape
            checked = Checked("input", current.device, work_dtype(current), T=steps, B=batch, N=neurons)
            checked_layer(checked, layer)
        return run_src(current, layer)
    input, work = in_work_dtype(input), in_work_dtype(weight)
    options = {"method": method, "input_grad_at_events": input_grad_at_events, "convolution": [*convolution]}
    options["product_dtype"] = product_dtype(work)
    spikes, *ended = src_dense(input, work, layer, **options, save=False, trace_integrator=False)
    return _in_dtype(spikes, weight), final_state(layer, ended)


def _product(input: Tensor, weight: Tensor, convolution: Sequence[int]) -> Tensor:
    """The currents (T, B, N) by torch's own operators."""
    return convolve(input, weight, convolution) if convolution else F.linear(input, weight)


@torch.no_grad()
def currents_of(
    input: Tensor | EventBatch,
    weight: Tensor,
    lengths: Tensor | None,
    method: str = "auto",
    convolution: Sequence[int] = (),
) -> Tensor:
    """The currents (T, B, N) that ``after_synapse`` computes, with the same bits."""
    steps, batch, inputs = input.shape
    if isinstance(input, Tensor):
        input = as_spikes(input, weight.dtype)
        by_product = method == "gemm" or (method == "auto" and (weight.dtype in HALF or input.dtype in HALF))
        if by_product or not takes_events(contiguous(input), method, lengths, convolution):
            return _product(without_padding(input, lengths)[0], weight, convolution)
        input = EventBatch.from_dense(in_work_dtype(input), lengths)
    elif method == "gemm":
        return currents_of(_as_dense(input, weight), weight, lengths, method, convolution)
    # Run each row as a sample of one step from zeros: the integrator is then the current.
    rows = EventBatch(input.offsets, input.indices, input.values, shape=(1, batch * steps, inputs))
    neurons = weight.shape[0] * (places(convolution) or 1)
    layer = layer_of(weight, (batch * steps, neurons), -6.0, Cell())
    _, state = after_synapse(rows, weight, layer, "events", convolution=convolution)
    return state.i.view(batch, steps, neurons).transpose(0, 1)


def as_spikes(input: Tensor, dtype: torch.dtype) -> Tensor:
    """Bools and integers as numbers of spikes in ``dtype``; floating-point tensors unchanged."""
    return input.to(dtype) if input.dtype in INTEGERS or input.dtype == torch.bool else input


def _in_dtype(spikes: Tensor, weight: Tensor) -> Tensor:
    return spikes.to(weight.dtype) if weight.dtype in HALF and not autocasts(weight) else spikes
