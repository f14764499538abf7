"""Delays in ONNX: each term of a delay gathers rows of earlier steps; a row of zeros stands for what does not arrive.

``delay_dense`` is in the translation table, and layers with delayed recurrent weights use ``under_way``. This file must
not know the equations of neurons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._graph import Body, Values, active_steps, constant, dtype_of, ir, op, scan, whole

NEVER = 2**32  # steps of a term that does not arrive: more than any delay and any number of steps of a sequence


def terms(first: Any, factors: Any | None, dtype: ir.DataType, *, keep_zeros: bool) -> tuple[Any, Any]:
    """The steps and the factors of the terms of N delays, (terms, N) each; without factors there is one term, of 1."""
    later = op.Unsqueeze(op.Cast(first, to=ir.DataType.INT64), whole([0]))
    if factors is None:
        factors = op.Expand(constant(1, dtype), op.Shape(later))
    else:
        factors = op.Transpose(factors, perm=[1, 0])
        term = op.Range(whole(0), op.Squeeze(op.Shape(factors, start=0, end=1)), whole(1))
        later = op.Add(later, op.Unsqueeze(term, whole([1])))
    arrives = op.GreaterOrEqual(later, whole(0))
    if not keep_zeros:
        arrives = op.And(arrives, op.Not(op.Equal(factors, constant(0, dtype))))
    return op.Where(arrives, later, whole(NEVER)), factors


def rows_of(later: Any, newest: Any) -> Any:
    """The rows that terms read: row 0, of zeros, or a later one; a term of 0 steps reads row ``newest``."""
    return op.Max(op.Sub(newest, later), whole(0))


def delay_dense(
    input: Any,
    first: Any,
    factors: Any | None,
    lengths: Any | None,
    *,
    taps: int,
    skip: int,
    keep_zeros: bool,
) -> Any:
    """``torch.ops.srcell.delay_dense``: a loop over the terms, which adds one term to all elements in each round."""
    dtype = dtype_of(input)
    numbers = op.Range(whole(0), op.Squeeze(op.Shape(first)), whole(1))
    copies = op.Gather(input, op.Div(numbers, whole(taps)), axis=2)
    padded = op.Pad(copies, whole([1, 0, 0, 0, 0, 0]))
    newest = op.Range(whole(skip + 1), op.Squeeze(op.Shape(padded, start=0, end=1)), whole(1))
    later, factors = terms(first, factors, dtype, keep_zeros=keep_zeros)
    rows = rows_of(op.Unsqueeze(later, whole([1])), op.Unsqueeze(newest, whole([1])))
    shape = op.Concat(op.Shape(newest), op.Shape(copies, start=1), axis=0)
    zero, axis = constant(0, dtype), whole([1])

    def add(body: Body, before: Values, now: Values) -> tuple[Values, Values]:
        row, factor = now
        sent = body.GatherElements(padded, body.Expand(body.Unsqueeze(row, axis), shape), axis=0)
        return [body.Add(*before, body.Mul(factor, sent))], []

    (delayed,), _ = scan(add, [op.Expand(zero, shape)], [rows, factors], [])
    if lengths is None:
        return delayed
    return op.Where(active_steps(delayed, op.Sub(lengths, whole(skip))), delayed, zero)


def under_way(
    current: Any, first: Any, factors: Any | None, past_steps: int, dtype: ir.DataType
) -> tuple[ir.Value, Callable[[Body, ir.Value, ir.Value], tuple[ir.Value, ir.Value]]]:
    """How spikes arrive through delayed recurrent weights at neurons that receive currents (T, B, N).

    Returns the past before the first step, (B, past_steps, N) zeros, and a function of a step. Given the past and the
    spikes of the step before, it makes what arrives at the step, (B, N), and the next step's past.
    """
    batch, neurons = (op.Shape(current, start=k, end=k + 1) for k in (1, 2))
    no_past, zeros = (
        op.Expand(constant(0, dtype), op.Concat(batch, whole([steps]), neurons, axis=0)) for steps in (past_steps, 1)
    )
    later, factors = terms(first, factors, dtype, keep_zeros=False)
    rows = op.Expand(rows_of(later, whole(past_steps + 1)), op.Concat(batch, op.Shape(later), axis=0))
    axis, next_begin, next_end = whole([1]), whole([2]), whole([past_steps + 2])

    def arrive(body: Body, past: ir.Value, last: ir.Value) -> tuple[ir.Value, ir.Value]:
        sent = body.Concat(zeros, past, body.Unsqueeze(last, axis), axis=1)  # (B, past_steps + 2, N)
        read = body.GatherElements(sent, rows, axis=1)
        arrived = body.ReduceSum(body.Mul(read, factors), axis, keepdims=0)
        return arrived, body.Slice(sent, next_begin, next_end, axis)

    return no_past, arrive
