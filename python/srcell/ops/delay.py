"""``delay_events`` and ``delay_dense``: inputs that arrive later, as terms with factors.

``first`` (K * taps,) int32 has the delay in steps of each first term, and ``factors`` (K * taps, terms) the factor of
each term; without factors there is one term of factor 1. ``functional.delay`` makes them from delays, and torch makes
the gradient of a delay from that of the factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _gpu
from ._cpu import SCRATCH_BLOCK_BYTES, core, empty, rows_of
from ._gpu import plain
from ._layer import Like, check_floats, check_integers, check_optional, check_tensor
from ._layer import empty_like as contiguous_like
from ._memory import Optionals, address, contiguous
from ._operator import Gradients, Operator

TABLES = "Tensor first, Tensor? factors, Tensor? lengths"
SIZES = "SymInt taps, SymInt skip, bool keep_zeros"
EVENTS = "Tensor offsets, Tensor indices, Tensor? values"

delay_events = Operator(
    f"delay_events({EVENTS}, {TABLES}, *, SymInt steps, SymInt batch, bool graded, {SIZES})"
    " -> (Tensor delayed_values, Tensor delayed_offsets, Tensor delayed_indices)"
)


class Delayed(NamedTuple):
    """A call's delay, checked."""

    struct: core.Delay
    """The arguments of the kernels."""
    kept: Optionals
    """The tensors whose addresses the struct has."""
    rows: int
    """Rows of the output: B * (T - skip)."""
    numbers: int
    """Inputs of the output: K * taps."""
    terms: int
    """The terms of each of these inputs."""


def checked_delay(call: Any, sizes: tuple[int, int, int], like: Like) -> Delayed:
    """Check the tables and the sizes that all calls share; ``sizes`` are T, B and K of the input."""
    steps, batch, inputs = sizes
    numbers = inputs * call.taps
    if call.taps < 1 or not 0 <= call.skip <= steps:
        raise ValueError(f"taps, skip: expected at least 1 and from 0 to T = {steps}, got {call.taps}, {call.skip}")
    if numbers > 2**31:
        raise ValueError(f"first: expected at most 2^31 delayed inputs, got {inputs} * {call.taps}")
    first = contiguous(check_integers("first", call.first, torch.int32, numbers, like))
    factors, terms = call.factors, 1
    if factors is not None:
        if factors.dim() != 2:
            raise ValueError(f"factors: expected shape ({numbers}, terms), got {tuple(factors.shape)}")
        terms = factors.shape[1]
        factors = contiguous(check_tensor("factors", factors, like, (numbers, terms)))
    lengths = call.lengths
    if lengths is not None:
        lengths = contiguous(check_integers("lengths", lengths, torch.int64, batch, like))
    struct = core.Delay(
        like.dtype == torch.float64,
        not _gpu.is_gpu(like.device),
        sizes,
        address(lengths),
        torch.get_num_threads(),
        call.skip,
        call.taps,
        terms,
        address(first),
        address(factors),
        call.keep_zeros,
    )
    return Delayed(struct, (first, factors, lengths), batch * (steps - call.skip), numbers, terms)


def check_events(call: Any) -> tuple[Like, int]:
    """Check the events of a call; return what its other tensors must have, and K."""
    like, count = Like("offsets", torch.float32, call.offsets.device), call.indices.numel()
    if call.factors is not None:
        like = check_floats("factors", call.factors, "K, terms")
    elif call.values is not None:
        like = check_floats("values", call.values, "events")
    if call.steps < 0 or call.batch < 0:
        raise ValueError(f"steps, batch: expected at least 0, got {call.steps}, {call.batch}")
    check_integers("offsets", call.offsets, torch.int64, call.steps * call.batch + 1, like)
    check_integers("indices", call.indices, torch.int32, count, like)
    check_optional("values", call.values, like, (count,))
    return like, call.first.numel() // max(call.taps, 1)


def run(like: Tensor, name: str, *arguments: Any) -> Any:
    """Run a pass of the delay on the device of ``like``; tensors are passed as their addresses."""
    if _gpu.is_gpu(like.device):
        return _gpu.gpu_of("input", like).launch(name, *arguments)
    return getattr(core, name)(*map(plain, arguments))


@delay_events.kernel("CPU", "CUDA")
def forward(call: Any) -> tuple[Tensor | None, ...]:
    """The events of the output, with values if ``graded``; on a GPU it synchronises to learn their number."""
    (like, inputs), rows = check_events(call), rows_of(call)
    delay = checked_delay(call, (call.steps, call.batch, inputs), like)
    if not call.graded and (rows.values is not None or call.factors is not None or call.keep_zeros):
        raise ValueError("graded: expected True for events with values, or with factors, got False")
    starts, events = empty_like(rows.offsets, call.batch + 1), rows.for_kernels(inputs)
    counted = run(rows.offsets, "count_delayed", delay.struct, events, starts)
    if counted is None:  # on a GPU they are not added up yet
        starts = torch.nn.functional.pad(starts[:-1].cumsum(0), (1, 0))
        counted = int(starts[-1])
    cursors = empty_like(rows.offsets, delay.rows)
    offsets = empty_like(rows.offsets, delay.rows + 1)
    offsets[-1:] = counted
    indices = empty_like(rows.indices, counted)
    values = empty_like(rows.indices, counted, dtype=like.dtype) if call.graded else None
    run(rows.offsets, "write_delayed", delay.struct, events, starts, cursors, offsets, counted, indices, values)
    return rows.indices.new_empty(0, dtype=like.dtype) if values is None else values, offsets, indices


def empty_like(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised tensor on the device of ``like``; a delay is so fast that fresh pages would cost as much."""
    if _gpu.is_gpu(like.device):
        return like.new_empty(*shape, dtype=dtype)
    return empty(like, *shape, dtype=dtype, block_bytes=SCRATCH_BLOCK_BYTES)


@delay_events.fake
def forward_fake(call: Any) -> tuple[Tensor, ...]:
    """The outputs' shapes; the number of events is known only to a real call."""
    like, _ = check_events(call)
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
    (like, inputs), rows = check_events(call), rows_of(call)
    delay = checked_delay(call, (call.steps, call.batch, inputs), like)
    count, (want_values, want_factors) = call.grad_values.numel(), wanted(call.output_mask)
    want_values = want_values and call.values is not None
    grad = contiguous(check_tensor("grad_values", call.grad_values, like, (count,)))
    offsets = contiguous(check_integers("delayed_offsets", call.delayed_offsets, torch.int64, delay.rows + 1, like))
    grad_events = contiguous_like(call.values).zero_() if want_values else None
    grad_factors, partials = empty_factors(delay, call.factors, call.batch, want_factors)
    cursors = empty_like(offsets, delay.rows)
    run(
        offsets,
        "delayed_backward",
        delay.struct,
        rows.for_kernels(inputs),
        cursors,
        offsets,
        count,
        grad,
        grad_events,
        grad_factors,
        partials,
    )
    return or_empty((grad_events, grad_factors), call.indices)


def wanted(output_mask: Sequence[bool]) -> tuple[bool, bool]:
    """Whether the gradients of the input or its values, and of the factors are wanted."""
    if len(output_mask) != 2:
        raise ValueError(f"output_mask: expected 2 values, got {len(output_mask)}")
    return output_mask[0], output_mask[1]


def empty_factors(delay: Delayed, factors: Tensor | None, batch: int, wanted: bool) -> Optionals:
    """Memory for the gradient of the factors and its parts, None if not wanted."""
    if not wanted or factors is None:
        return None, None
    return contiguous_like(factors), empty_like(factors, batch, delay.numbers, delay.terms)


@delay_events_backward.fake
def backward_fake(call: Any) -> tuple[Tensor | None, ...]:
    """The gradients' shapes."""
    return gradients_like(call.values, call.factors, call.output_mask, call.indices)


def gradients_like(
    of_input: Tensor | None, factors: Tensor | None, output_mask: Sequence[bool], other: Tensor
) -> tuple[Tensor, ...]:
    """A tensor for each gradient, without elements if it is not wanted."""
    pairs = zip((of_input, factors), output_mask, strict=True)
    return or_empty([contiguous_like(x) if want and x is not None else None for x, want in pairs], other)


def or_empty(gradients: Sequence[Tensor | None], other: Tensor) -> tuple[Tensor, ...]:
    """The gradients, with a tensor without elements for each None."""
    return tuple(other.new_empty(0, dtype=torch.float32) if x is None else x for x in gradients)


@delay_events.gradient(lambda call: {}, outputs=1)
def gradient(call: Any, saved: Sequence[Tensor], grads: Optionals, needs: Any) -> Gradients:
    """The gradients of values and factors."""
    if grads[0] is None:
        return {}
    tables = (call.first, call.factors, call.lengths)
    sizes = {name: getattr(call, name) for name in ("steps", "batch", "taps", "skip", "keep_zeros")}
    mask = [needs.values, needs.factors]
    values, factors = delay_events_backward(
        grads[0], saved[0], call.offsets, call.indices, call.values, *tables, **sizes, output_mask=mask
    )
    return {"values": values if needs.values else None, "factors": factors if needs.factors else None}


delay_dense = Operator(f"delay_dense(Tensor input, {TABLES}, *, {SIZES}) -> Tensor")


def checked_dense(call: Any) -> tuple[Delayed, Like, tuple[int, int, int]]:
    """The checked delay of a call on a dense input, and T, B and K."""
    like = check_floats("input", call.input, "T, B, K")
    steps, batch, inputs = sizes = tuple(call.input.shape)
    return checked_delay(call, (steps, batch, inputs), like), like, sizes


@delay_dense.kernel("CPU", "CUDA")
def dense_forward(call: Any) -> Tensor:
    """The delayed input, (T - skip, B, K * taps)."""
    delay, _, (steps, batch, _) = checked_dense(call)
    input = contiguous(call.input)
    delayed = empty_like(input, steps - call.skip, batch, delay.numbers)
    run(input, "delay_elements", delay.struct, input, delayed)
    return delayed


@delay_dense.fake
def dense_fake(call: Any) -> Tensor:
    """The output's shape."""
    input: Tensor = call.input
    steps, batch, inputs = input.shape
    return input.new_empty(steps - call.skip, batch, inputs * call.taps)


delay_dense_backward = Operator(
    f"delay_dense_backward(Tensor grad_delayed, Tensor input, {TABLES}, *, {SIZES}, bool[] output_mask)"
    " -> (Tensor input_gradient, Tensor factors_gradient)"
)


@delay_dense_backward.kernel("CPU", "CUDA")
def dense_backward(call: Any) -> tuple[Tensor | None, ...]:
    """The gradients of input and factors, each if its flag in ``output_mask`` is set."""
    delay, like, (steps, batch, _) = checked_dense(call)
    want_input, want_factors = wanted(call.output_mask)
    input, shape = contiguous(call.input), (steps - call.skip, batch, delay.numbers)
    grad = contiguous(check_tensor("grad_delayed", call.grad_delayed, like, shape))
    grad_input = empty_like(input, *input.shape) if want_input else None
    grad_factors, partials = empty_factors(delay, call.factors, batch, want_factors)
    run(input, "delay_elements_backward", delay.struct, input, grad, grad_input, grad_factors, partials)
    return or_empty((grad_input, grad_factors), input)


@delay_dense_backward.fake
def dense_backward_fake(call: Any) -> tuple[Tensor | None, ...]:
    """The gradients' shapes."""
    return gradients_like(call.input, call.factors, call.output_mask, call.input)


@delay_dense.gradient(lambda call: {})
def dense_gradient(call: Any, saved: Sequence[Tensor], grads: Optionals, needs: Any) -> Gradients:
    """The gradients of input and factors."""
    if grads[0] is None:
        return {}
    tables = (call.first, call.factors, call.lengths)
    sizes = {name: getattr(call, name) for name in ("taps", "skip", "keep_zeros")}
    mask = [needs.input, needs.factors]
    input, factors = delay_dense_backward(grads[0], call.input, *tables, **sizes, output_mask=mask)
    return {"input": input if needs.input else None, "factors": factors if needs.factors else None}
