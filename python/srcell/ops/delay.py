"""``delay_events`` and ``delay_dense``: inputs that arrive later, as terms with factors.

``first`` (K * taps,) int32 has the delay in steps of each first term, and ``factors`` (K * taps, terms) the factor of
each term; without factors there is one term of factor 1. ``functional.delay`` makes them from delays, and torch makes
the gradient of a delay from that of the factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _gpu
from ._cpu import core, rows_of
from ._layer import OF_OPERATOR, check_mask, on_cpu
from ._layer import empty_like as gradients_like
from ._memory import Optionals, address, contiguous, or_contiguous
from ._operator import Gradients, Operator
from ._table import TABLE, Checked, declared

SIZES = "SymInt taps, SymInt skip, bool keep_zeros"
ROWS = {name: [*TABLE[name], *TABLE["delayed"]] for name in ("delay_events", "delay_dense")}
ROWS.update({f"{name}_backward": [*TABLE[f"{name}_backward"], *rows] for name, rows in ROWS.items()})
(GRAD_DELAYED,) = TABLE["delay_dense_backward"]

delay_events = Operator(
    f"delay_events({declared(ROWS['delay_events'])}, *, SymInt steps, SymInt batch, bool graded, {SIZES})"
    " -> (Tensor delayed_values, Tensor delayed_offsets, Tensor delayed_indices)",
    entry=core.delay_events,
)


def with_sizes(checked: Checked, call: Any) -> Checked:
    """Check the numbers of a call, whose T, B and K are known, and add the sizes that they give."""
    steps, batch, inputs = checked["TBK"]
    if call.taps < 1 or not 0 <= call.skip <= steps:
        raise ValueError(f"taps, skip: expected at least 1 and from 0 to T = {steps}, got {call.taps}, {call.skip}")
    if inputs * call.taps > 2**31:
        raise ValueError(f"first: expected at most 2^31 delayed inputs, got {inputs} * {call.taps}")
    checked.letters.update(M=call.taps, S=call.skip, R=batch * (steps - call.skip))
    return checked


def checked_events(call: Any, name: str = "delay_events") -> Checked:
    """A checked call on events."""
    if call.steps < 0 or call.batch < 0:
        raise ValueError(f"steps, batch: expected at least 0, got {call.steps}, {call.batch}")
    inputs = 0 if call.first is None else call.first.numel() // max(call.taps, 1)
    checked = with_sizes(Checked(T=call.steps, B=call.batch, K=inputs), call).rows(ROWS[name], call)
    of_ones = call.values is None and call.factors is None and not call.keep_zeros
    if name == "delay_events" and not (call.graded or of_ones):
        raise ValueError("graded: expected True for events with values, or with factors, got False")
    return checked


def checked_dense(call: Any, name: str = "delay_dense") -> Checked:
    """A checked call on a dense input."""
    checked = with_sizes(Checked().rows(TABLE["delay_dense"], call), call)
    if name != "delay_dense":
        checked.rows(TABLE[name], call)
    return checked.rows(TABLE["delayed"], call)


def kernel_delay(call: Any, checked: Checked) -> tuple[core.Delay, Optionals]:
    """The arguments of the kernels on a GPU that all calls share, and the tensors whose addresses they have."""
    first, factors, lengths = contiguous(call.first), or_contiguous(call.factors), or_contiguous(call.lengths)
    terms = 1 if factors is None else factors.shape[1]
    tables = call.taps, terms, address(first), address(factors), call.keep_zeros
    struct = core.Delay(checked.dtype == torch.float64, checked["TBK"], address(lengths), call.skip, *tables)
    return struct, (first, factors, lengths)


@delay_events.kernel("CPU", "CUDA")
def forward(call: Any) -> Any:
    """The events of the output, with values if ``graded``; on a GPU it synchronises to learn their number."""
    if not _gpu.is_gpu(call.offsets):
        return on_cpu(core.delay_events, checked_events, call, OF_OPERATOR)
    checked, rows = checked_events(call), rows_of(call)
    gpu, (delay, _kept) = _gpu.gpu_of("input", call.offsets), kernel_delay(call, checked)
    new, (delayed_rows,) = rows.offsets.new_empty, checked["R"]
    starts, events = new(call.batch + 1), rows.for_kernels(checked.letters["K"])
    gpu.launch("count_delayed", delay, events, starts)
    starts = torch.nn.functional.pad(starts[:-1].cumsum(0), (1, 0))
    count = int(starts[-1])
    cursors, offsets = new(delayed_rows), new(delayed_rows + 1)
    offsets[-1:] = count
    values, indices = new(count if call.graded else 0, dtype=checked.dtype), rows.indices.new_empty(count)
    made = starts, cursors, offsets, count, indices, values if call.graded else None
    gpu.launch("write_delayed", delay, events, *made)
    return values, offsets, indices


@delay_events.fake
def forward_fake(call: Any) -> tuple[Tensor, ...]:
    """The outputs' shapes; the number of events is known only to a real call."""
    checked = checked_events(call)
    count = torch.library.get_ctx().new_dynamic_size()
    values = call.indices.new_empty(count if call.graded else 0, dtype=checked.dtype)
    return values, call.offsets.new_empty(checked.size("R+1")), call.indices.new_empty(count)


delay_events_backward = Operator(
    f"delay_events_backward({declared(ROWS['delay_events_backward'])}, *, SymInt steps, SymInt batch, {SIZES},"
    " bool[] output_mask) -> (Tensor values, Tensor factors)",
    entry=core.delay_events_backward,
)


@delay_events_backward.kernel("CPU", "CUDA")
def backward(call: Any) -> Any:
    """The gradients of values and factors, each if its flag in ``output_mask`` is set."""
    if not _gpu.is_gpu(call.offsets):
        return on_cpu(core.delay_events_backward, checked_events_backward, call, OF_OPERATOR)
    checked, rows = checked_events_backward(call), rows_of(call)
    delay, _kept = kernel_delay(call, checked)
    count, delayed_rows = checked["AR"]
    grad, offsets = contiguous(call.grad_values), contiguous(call.delayed_offsets)
    grad_values, grad_factors = gradients_like((call.values, call.factors), call.output_mask)
    partials = None if grad_factors is None else grad_factors.new_empty(call.batch, *grad_factors.shape)
    gradients = None if grad_values is None else grad_values.zero_(), grad_factors, partials
    arguments = offsets.new_empty(delayed_rows), offsets, count, grad, *gradients
    gpu = _gpu.gpu_of("input", offsets)
    gpu.launch("delayed_backward", delay, rows.for_kernels(checked.letters["K"]), *arguments)
    return grad_values, grad_factors


def checked_events_backward(call: Any) -> Checked:
    """A checked backward call on events."""
    check_mask(call.output_mask, 2)
    return checked_events(call, "delay_events_backward")


@delay_events_backward.fake
def backward_fake(call: Any) -> list[Tensor | None]:
    """The gradients' shapes."""
    checked_events_backward(call)
    return gradients_like((call.values, call.factors), call.output_mask)


@delay_events.gradient(lambda call: {})
def gradient(call: Any, saved: Sequence[Tensor], grads: Optionals, needs: Any) -> Gradients:
    """The gradients of values and factors."""
    given = {"grad_values": grads[0], "delayed_offsets": saved[0], "output_mask": [needs.values, needs.factors]}
    values, factors = delay_events_backward.with_arguments_of(call, **given)
    return {"values": values, "factors": factors}


delay_dense = Operator(f"delay_dense({declared(ROWS['delay_dense'])}, *, {SIZES}) -> Tensor", entry=core.delay_dense)


@delay_dense.kernel("CPU", "CUDA")
def dense_forward(call: Any) -> Any:
    """The delayed input, (T - skip, B, K * taps)."""
    if not _gpu.is_gpu(call.input):
        return on_cpu(core.delay_dense, checked_dense, call, OF_OPERATOR)
    checked, input = checked_dense(call), contiguous(call.input)
    gpu, (delay, _kept) = _gpu.gpu_of("input", input), kernel_delay(call, checked)
    delayed = input.new_empty(checked.shape(GRAD_DELAYED))
    gpu.launch("delay_elements", delay, input, delayed)
    return delayed


@delay_dense.fake
def dense_fake(call: Any) -> Tensor:
    """The output's shape."""
    checked, input = checked_dense(call), call.input
    made: Tensor = input.new_empty(checked.shape(GRAD_DELAYED))
    return made


delay_dense_backward = Operator(
    f"delay_dense_backward({declared(ROWS['delay_dense_backward'])}, *, {SIZES}, bool[] output_mask)"
    " -> (Tensor input_gradient, Tensor factors_gradient)",
    entry=core.delay_dense_backward,
)


@delay_dense_backward.kernel("CPU", "CUDA")
def dense_backward(call: Any) -> Any:
    """The gradients of input and factors, each if its flag in ``output_mask`` is set."""
    if not _gpu.is_gpu(call.input):
        return on_cpu(core.delay_dense_backward, checked_dense_backward, call, OF_OPERATOR)
    checked, input, grad = checked_dense_backward(call), contiguous(call.input), contiguous(call.grad_delayed)
    gpu, (delay, _kept) = _gpu.gpu_of("input", input), kernel_delay(call, checked)
    grad_input, grad_factors = gradients_like((input, call.factors), call.output_mask)
    partials = None if grad_factors is None else grad_factors.new_empty(input.shape[1], *grad_factors.shape)
    gpu.launch("delay_elements_backward", delay, input, grad, grad_input, grad_factors, partials)
    return grad_input, grad_factors


def checked_dense_backward(call: Any) -> Checked:
    """A checked backward call on a dense input."""
    check_mask(call.output_mask, 2)
    return checked_dense(call, "delay_dense_backward")


@delay_dense_backward.fake
def dense_backward_fake(call: Any) -> list[Tensor | None]:
    """The gradients' shapes."""
    checked_dense_backward(call)
    return gradients_like((call.input, call.factors), call.output_mask)


@delay_dense.gradient(lambda call: {})
def dense_gradient(call: Any, saved: Sequence[Tensor], grads: Optionals, needs: Any) -> Gradients:
    """The gradients of input and factors."""
    given = {"grad_delayed": grads[0], "output_mask": [needs.input, needs.factors]}
    input, factors = delay_dense_backward.with_arguments_of(call, **given)
    return {"input": input, "factors": factors}
