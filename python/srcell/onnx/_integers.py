"""Integer neurons in ONNX: the equations of csrc/integer-inl.h on float64, which holds all their integers exactly.

``integer_src`` is in the translation table; its arguments are those of the operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from .._integer import IntegerCell
from ._graph import Body, Values, active_steps, constant, empty, ir, op, scan
from ._neurons import refuse_events

WORK = ir.DataType.DOUBLE
# The constants that are shifts, and the names of the powers of two by which the step divides instead.
DIVISORS = {
    "leak_shift_a": "divisor_a",
    "leak_shift_b": "divisor_b",
    "fraction_bits": "one",
    "slope_shift": "slope_divisor",
}


def constants_of(cell: Sequence[int]) -> SimpleNamespace:
    """The constants of the step, from the operator's argument, as values of the graph; shifts become divisors."""
    numbers = IntegerCell(*cell)._asdict()
    for shift, divisor in DIVISORS.items():
        numbers[divisor] = 2 ** numbers.pop(shift)
    numbers |= {"i_min": -numbers["i_max"], "zero": 0}
    return SimpleNamespace(**{name: constant(number, WORK) for name, number in numbers.items()})


def advance(body: Body, cell: SimpleNamespace, state: Values, current: ir.Value) -> list[ir.Value]:
    """i, h and hs after a step, and the new i before clamping."""
    i, h, hs = state
    lost = [body.Floor(body.Div(i, divisor)) for divisor in (cell.divisor_a, cell.divisor_b)]
    free = body.Add(body.Sub(i, body.Add(*lost)), current)
    i = body.Clip(free, cell.i_min, cell.i_max)
    drive = body.Where(body.Greater(i, cell.zero), cell.drive_high, cell.drive_low)
    gate = body.Where(body.Less(h, cell.gate_threshold), cell.zs_hyp, cell.zs_dep)
    slow = body.Add(body.Mul(cell.rs, hs), cell.bias)
    u = body.Add(drive, body.Add(body.Mul(cell.r, h), slow))
    sloped = body.Floor(body.Div(body.Mul(cell.slope, u), cell.slope_divisor))
    kept = body.Floor(body.Div(body.Mul(body.Sub(hs, h), gate), cell.one))
    hs = body.Clip(body.Add(h, kept), cell.hs_min, cell.hs_max)
    return [i, body.Clip(sloped, cell.h_min, cell.h_max), hs, free]


def integer_src(
    offsets: Any,
    indices: Any,
    input: Any,
    weight: Any,
    latent: Any,
    scale: Any,
    state: Sequence[Any],
    lengths: Any,
    *,
    cell: Sequence[int],
    floats: bool,
    **options: Any,
) -> list[Any]:
    """``torch.ops.srcell.integer_src`` on a dense input."""
    if input is None:
        refuse_events()
    cell_values, spike_type = constants_of(cell), ir.DataType.FLOAT if floats else ir.DataType.UINT8
    weight = op.Transpose(op.Cast(weight, to=WORK), perm=[1, 0])
    current = op.MatMul(op.Cast(input, to=WORK), weight)
    start = [op.Cast(x, to=WORK) for x in state]
    start = start or [op.Expand(constant(0, WORK), op.Shape(current, start=1))] * 3
    inputs = [current] if lengths is None else [current, active_steps(current, lengths)]

    def step(body: Body, before: Values, now: Values) -> tuple[Values, Values]:
        c, *active = now
        *after, free = advance(body, cell_values, before, c)
        spiking = body.GreaterOrEqual(after[1], cell_values.spike_threshold)
        clamped = body.Not(body.Equal(free, after[0]))
        if active:
            spiking, clamped = body.And(*active, spiking), body.And(*active, clamped)
            after = [body.Where(*active, x, y) for x, y in zip(after, before, strict=True)]
        return after, [body.Cast(spiking, to=spike_type), body.Cast(clamped, to=ir.DataType.UINT8)]

    end, (spikes, clamped) = scan(step, start, inputs, [spike_type, ir.DataType.UINT8])
    count = op.ReduceSum(op.Cast(clamped, to=ir.DataType.INT64), keepdims=0)
    return [spikes, *(op.Cast(x, to=ir.DataType.INT16) for x in end), count, empty(ir.DataType.FLOAT)]
