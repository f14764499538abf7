"""``delay_events`` and ``delay_dense``: inputs that arrive later, as terms with factors.

``first`` (K * taps,) int32 has the delay in steps of each first term, and ``factors`` (K * taps, terms) the factor of
each term; without factors there is one term of factor 1. ``functional.delay`` makes them from delays, and torch makes
the gradient of a delay from that of the factors.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _cpu, _gpu
from ._cpu import core, rows_of
from ._gpu import plain
from ._layer import Like, Sizes, check_events, check_floats, check_integers, check_mask, check_tensor
from ._layer import empty_like as gradients_like
from ._memory import Optionals, address, contiguous, or_contiguous
from ._operator import Gradients, Operator

# A delay is so fast that fresh pages would cost as much.
empty = functools.partial(_cpu.empty, block_bytes=_cpu.SCRATCH_BLOCK_BYTES)

TABLES = "Tensor first, Tensor? factors, Tensor? lengths"
SIZES = "SymInt taps, SymInt skip, bool keep_zeros"
EVENTS = "Tensor offsets, Tensor indices, Tensor? values"

delay_events = Operator(
    f"delay_events({EVENTS}, {TABLES}, *, SymInt steps, SymInt batch, bool graded, {SIZES})"
    " -> (Tensor delayed_values, Tensor delayed_offsets, Tensor delayed_indices)"
)


def checked_delay(call: Any, sizes: Sizes, like: Like) -> tuple[core.Delay, Optionals]:
    """Check the tables and the sizes that all calls share; ``sizes`` are T, B and K of the input.

    Return the arguments of the kernels, and the tensors whose addresses they have.
    """
    steps, batch, inputs = sizes
    numbers = inputs * call.taps
    if call.taps < 1 or not 0 <= call.skip <= steps:
        raise ValueError(f"taps, skip: expected at least 1 and from 0 to T = {steps}, got {call.taps}, {call.skip}")
    if numbers > 2**31:
        raise ValueError(f"first: expected at most 2^31 delayed inputs, got {inputs} * {call.taps}")
    first = contiguous(check_integers("first", call.first, torch.int32, numbers, like))
    factors, terms = call.factors, 1
    if factors is not None:
        terms = factors.shape[1:].numel()
        factors = contiguous(check_tensor("factors", factors, like, (numbers, terms)))
    lengths = or_contiguous(check_integers("lengths", call.lengths, torch.int64, batch, like))
    is_double, on_host, threads = like.dtype == torch.float64, not _gpu.is_gpu(like.device), torch.get_num_threads()
    tables = call.taps, terms, address(first), address(factors), call.keep_zeros
    struct = core.Delay(is_double, on_host, sizes, address(lengths), threads, call.skip, *tables)
    return struct, (first, factors, lengths)


def check_input(call: Any) -> tuple[Like, Sizes]:
    """Check the events of a call; return what its other tensors must have, and T, B and K."""
    like = Like("offsets", torch.float32, call.offsets.device)
    if call.factors is not None:
        like = check_floats("factors", call.factors, "K, terms")
    elif call.values is not None:
        like = check_floats("values", call.values, "events")
    if call.steps < 0 or call.batch < 0:
        raise ValueError(f"steps, batch: expected at least 0, got {call.steps}, {call.batch}")
    check_events(call, like)
    return like, (call.steps, call.batch, call.first.numel() // max(call.taps, 1))


def run(like: Tensor, name: str, *arguments: Any) -> Any:
    """Run a pass of the delay on the device of ``like``; tensors are passed as their addresses."""
    if _gpu.is_gpu(like.device):
        return _gpu.gpu_of("input", like).launch(name, *arguments)
    return getattr(core, name)(*map(plain, arguments))


@delay_events.kernel("CPU", "CUDA")
def forward(call: Any) -> tuple[Tensor | None, ...]:
    """The events of the output, with values if ``graded``; on a GPU it synchronises to learn their number."""
    (like, sizes), rows = check_input(call), rows_of(call)
    delay, _kept = checked_delay(call, sizes, like)
    if not call.graded and (rows.values is not None or call.factors is not None or call.keep_zeros):
        raise ValueError("graded: expected True for events with values, or with factors, got False")
    starts, events = empty(rows.offsets, call.batch + 1), rows.for_kernels(sizes[2])
    counted = run(rows.offsets, "count_delayed", delay, events, starts)
    if counted is None:  # on a GPU they are not added up yet
        starts = torch.nn.functional.pad(starts[:-1].cumsum(0), (1, 0))
        counted = int(starts[-1])
    delayed_rows = call.batch * (call.steps - call.skip)
    cursors, offsets = empty(rows.offsets, delayed_rows), empty(rows.offsets, delayed_rows + 1)
    offsets[-1:] = counted
    indices = empty(rows.indices, counted)
    values = empty(rows.indices, counted if call.graded else 0, dtype=like.dtype)
    made = starts, cursors, offsets, counted, indices, values if call.graded else None
    run(rows.offsets, "write_delayed", delay, events, *made)
    return values, offsets, indices


@delay_events.fake
def forward_fake(call: Any) -> tuple[Tensor, ...]:
    """The outputs' shapes; the number of events is known only to a real call."""
    like, _ = check_input(call)
    count = torch.library.get_ctx().new_dynamic_size()
    rows = call.batch * (call.steps - call.skip)
    values = call.indices.new_empty(count if call.graded else 0, dtype=like.dtype)
    return values, call.offsets.new_empty(rows + 1), call.indices.new_empty(count)


delay_events_backward = Operator(
    f"delay_events_backward(Tensor grad_values, Tensor delayed_offsets, {EVENTS}, {TABLES}, *, SymInt steps,"
    f" SymInt batch, {SIZES}, bool[] output_mask) -> (Tensor values, Tensor factors)"
)


@delay_events_backward.kernel("CPU", "CUDA")
def backward(call: Any) -> tuple[Tensor | None, ...]:
    """The gradients of values and factors, each if its flag in ``output_mask`` is set."""
    (like, sizes), rows = check_input(call), rows_of(call)
    delay, _kept = checked_delay(call, sizes, like)
    count, delayed_rows = call.grad_values.numel(), call.batch * (call.steps - call.skip)
    grad = contiguous(check_tensor("grad_values", call.grad_values, like, (count,)))
    offsets = contiguous(check_integers("delayed_offsets", call.delayed_offsets, torch.int64, delayed_rows + 1, like))
    grad_values, grad_factors = backward_fake(call)
    partials = None if grad_factors is None else empty(grad_factors, call.batch, *grad_factors.shape)
    gradients = None if grad_values is None else grad_values.zero_(), grad_factors, partials
    arguments = empty(offsets, delayed_rows), offsets, count, grad, *gradients
    run(offsets, "delayed_backward", delay, rows.for_kernels(sizes[2]), *arguments)
    return grad_values, grad_factors


@delay_events_backward.fake
def backward_fake(call: Any) -> list[Tensor | None]:
    """The gradients' shapes."""
    return gradients_like((call.values, call.factors), check_mask(call.output_mask, 2))


@delay_events.gradient(lambda call: {})
def gradient(call: Any, saved: Sequence[Tensor], grads: Optionals, needs: Any) -> Gradients:
    """The gradients of values and factors."""
    given = {"grad_values": grads[0], "delayed_offsets": saved[0], "output_mask": [needs.values, needs.factors]}
    values, factors = delay_events_backward.with_arguments_of(call, **given)
    return {"values": values, "factors": factors}


delay_dense = Operator(f"delay_dense(Tensor input, {TABLES}, *, {SIZES}) -> Tensor")


def check_dense(call: Any) -> tuple[Like, Sizes]:
    """Check the input of a call; return what its other tensors must have, and T, B and K."""
    return check_floats("input", call.input, "T, B, K"), tuple(call.input.shape)


@delay_dense.kernel("CPU", "CUDA")
def dense_forward(call: Any) -> Tensor:
    """The delayed input, (T - skip, B, K * taps)."""
    like, sizes = check_dense(call)
    delay, _kept = checked_delay(call, sizes, like)
    input, delayed = contiguous(call.input), empty(call.input, *dense_shape(call))
    run(input, "delay_elements", delay, input, delayed)
    return delayed


def dense_shape(call: Any) -> Sizes:
    """The shape of the delayed input."""
    steps, batch, inputs = call.input.shape
    return steps - call.skip, batch, inputs * call.taps


@delay_dense.fake
def dense_fake(call: Any) -> Tensor:
    """The output's shape."""
    input: Tensor = call.input
    return input.new_empty(dense_shape(call))


delay_dense_backward = Operator(
    f"delay_dense_backward(Tensor grad_delayed, Tensor input, {TABLES}, *, {SIZES}, bool[] output_mask)"
    " -> (Tensor input_gradient, Tensor factors_gradient)"
)


@delay_dense_backward.kernel("CPU", "CUDA")
def dense_backward(call: Any) -> tuple[Tensor | None, ...]:
    """The gradients of input and factors, each if its flag in ``output_mask`` is set."""
    like, sizes = check_dense(call)
    delay, _kept = checked_delay(call, sizes, like)
    want_input, want_factors = check_mask(call.output_mask, 2)
    input = contiguous(call.input)
    grad = contiguous(check_tensor("grad_delayed", call.grad_delayed, like, dense_shape(call)))
    grad_input = empty(input, *sizes) if want_input else None
    (grad_factors,) = gradients_like([call.factors], [want_factors])
    partials = None if grad_factors is None else empty(grad_factors, sizes[1], *grad_factors.shape)
    run(input, "delay_elements_backward", delay, input, grad, grad_input, grad_factors, partials)
    return grad_input, grad_factors


@delay_dense_backward.fake
def dense_backward_fake(call: Any) -> list[Tensor | None]:
    """The gradients' shapes."""
    return gradients_like((call.input, call.factors), check_mask(call.output_mask, 2))


@delay_dense.gradient(lambda call: {})
def dense_gradient(call: Any, saved: Sequence[Tensor], grads: Optionals, needs: Any) -> Gradients:
    """The gradients of input and factors."""
    given = {"grad_delayed": grads[0], "output_mask": [needs.input, needs.factors]}
    input, factors = delay_dense_backward.with_arguments_of(call, **given)
    return {"input": input, "factors": factors}
