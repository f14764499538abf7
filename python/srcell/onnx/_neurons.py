"""The neurons in ONNX: the equations of one step, and the operators of ``torch.ops.srcell`` that run them over time.

A function with an operator's name has the operator's arguments, but values of the graph in place of tensors. These
values are annotated as Any, because torch would read other annotations as ONNX types.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from .._shared.parameters import PARAMETERS, TABLE
from .._shared.state import TYPES
from ._delays import under_way
from ._graph import Body, Values, active_steps, constant, dtype_of, empty, ir, op, scan, whole

BISECTIONS = 60


def cell_of(
    bias: ir.Value, tensors: Sequence[ir.Value], constants: Sequence[float], bias_max: float | None
) -> SimpleNamespace:
    """The parameters as the step uses them, one value or one per neuron, as in csrc/cell-inl.h.

    They are an operator's tensors if it has any, otherwise its constants. Of resonant neurons, ``alpha`` is
    alpha cos(omega) and ``turn`` is alpha sin(omega); ``turn`` of others is None.
    """
    dtype = dtype_of(bias)
    if bias_max is not None:
        most = constant(bias_max, dtype)
        bias = op.Where(op.Greater(bias, most), most, bias)
    given = dict(zip(PARAMETERS, tensors or [constant(x, dtype) for x in constants], strict=False))
    cell = SimpleNamespace(**given, bias=bias, turn=None)
    if "omega" in given:
        wide_alpha, wide_omega = (op.Cast(given[name], to=ir.DataType.DOUBLE) for name in ("alpha", "omega"))
        cell.alpha = op.Cast(op.Mul(wide_alpha, op.Cos(wide_omega)), to=dtype)
        cell.turn = op.Cast(op.Mul(wide_alpha, op.Sin(wide_omega)), to=dtype)
    one, cell.ten, cell.minus_five = (constant(x, dtype) for x in (1, 10, -5))
    cell.inverse_rho, cell.zs_span = op.Div(one, cell.rho), op.Sub(cell.zs_dep, cell.zs_hyp)
    return cell


def advance(body: Body, cell: SimpleNamespace, state: Values, current: ir.Value) -> list[ir.Value]:
    """The state after a step, in csrc/cell-inl.h's order of operations; but ONNX has no fused multiply-add."""
    i, h, hs, *second = state
    if cell.turn is not None:
        (q,) = second
        current = body.Sub(current, body.Mul(cell.turn, q))
        second = [body.Add(body.Mul(cell.turn, i), body.Mul(cell.alpha, q))]
    i = body.Add(body.Mul(cell.alpha, i), current)
    drive = body.Tanh(body.Mul(i, cell.inverse_rho))
    activation = body.Sigmoid(body.Add(body.Mul(cell.ten, h), cell.minus_five))
    slow = body.Add(body.Mul(cell.rs, hs), cell.bias)
    u = body.Add(body.Mul(cell.rho, drive), body.Add(body.Mul(cell.r, h), slow))
    gate = body.Add(body.Mul(cell.zs_span, activation), cell.zs_hyp)
    hs = body.Add(body.Mul(gate, body.Sub(hs, h)), h)
    return [i, body.Tanh(u), hs, *second]


def src(
    current: Any,
    bias: Any,
    cell: Sequence[Any],
    state: Sequence[Any],
    lengths: Any | None,
    weight_hh: Any | None,
    first_hh: Any | None,
    factors_hh: Any | None,
    *,
    constants: Sequence[float],
    past_steps: int,
    half_spikes: bool = False,
    bias_max: float | None = None,
    channels: int = 0,
    clamped: Sequence[bool] = (),
    autapses: bool = True,
    start: str = "zeros",
    **options: Any,
) -> list[Any]:
    """``torch.ops.srcell.src``. In a network exported on a GPU, currents may have half precision."""
    work, half = dtype_of(bias), dtype_of(current)
    if half != work:
        current = op.Cast(current, to=work)
    if channels:
        bias, *cell = (over_channels(x, channels, current) for x in (bias, *cell))
    flags = [*clamped, *[False] * (len(cell) - len(clamped))]
    cell = [clip(x, name) if flag else x for x, name, flag in zip(cell, PARAMETERS, flags, strict=False)]
    parameters = cell_of(bias, cell, constants, bias_max)
    zero, axis = constant(0, work), whole([2])
    states = len(TYPES[parameters.turn is not None, False]._fields)
    begin = list(state[:states])
    if not begin:
        begin = [op.Expand(zero, op.Shape(current, start=1))] * states
        if start == "rest":
            h = op.Expand(h_at_rest(parameters, work), op.Shape(current, start=1))
            begin[1:3] = [h, h]
    if weight_hh is not None and not autapses:
        weight_hh = op.Where(op.EyeLike(weight_hh, dtype=ir.DataType.BOOL), zero, weight_hh)
    arrive = None
    if first_hh is not None:
        no_past, arrive = under_way(current, first_hh, factors_hh, past_steps, work)
        begin.append(state[states] if len(state) > states else no_past)
    inputs = [current] if lengths is None else [current, active_steps(current, lengths)]
    from_neurons = None if weight_hh is None else op.Transpose(weight_hh, perm=[1, 0])

    def step(body: Body, before: Values, now: Values) -> tuple[Values, Values]:
        (c, *active), past = now, before[states:]
        if from_neurons is not None:
            arrived = body.Relu(before[1])
            if arrive is not None:
                arrived, *past = arrive(body, past[0], arrived)
            c = body.Add(c, body.MatMul(arrived, from_neurons))
        after = [*advance(body, parameters, before[:states], c), *past]
        spikes = body.Relu(after[1])
        if active:
            spikes = body.Where(*active, spikes, zero)
            runs = active * states + [body.Unsqueeze(*active, axis)] * len(past)
            after = [body.Where(*triple) for triple in zip(runs, after, before, strict=True)]
        return after, [spikes]

    end, (spikes,) = scan(step, begin, inputs, [work])
    if half_spikes and half != work:
        spikes = op.Cast(spikes, to=half)
    none = empty(work)
    without_q = [none] * (len(TYPES[True, False]._fields) - states)
    return [spikes, *end[:states], *without_q, *(end[states:] or [none]), empty(work), empty(work)]


def over_channels(x: Any, channels: int, current: Any) -> Any:
    """A parameter of channels as one of neurons; any other unchanged."""
    if len(x.shape) != 1 or x.shape[0] != channels:
        return x
    copies = op.Div(op.Shape(current, start=2, end=3), whole([channels]))
    made = op.Expand(op.Unsqueeze(x, whole([1])), op.Concat(whole([channels]), copies, axis=0))
    made = op.Reshape(made, whole([-1]))
    made.dtype = dtype_of(x)
    return made


def clip(x: Any, name: str) -> Any:
    """A parameter clamped to its domain."""
    row, dtype = TABLE[name], dtype_of(x)
    made = op.Clip(x, constant(row.least_learnt, dtype), constant(row.most_learnt, dtype))
    made.dtype = dtype
    return made


def h_at_rest(cell: SimpleNamespace, work: Any) -> Any:
    """The h of neurons at rest, one or one for each."""
    bias, r, rs = (op.Cast(x, to=ir.DataType.DOUBLE) for x in (cell.bias, cell.r, cell.rs))
    gain = op.Add(r, rs)
    shape = op.Shape(op.Add(bias, gain))
    return op.Cast(rest(op.Expand(bias, shape), op.Expand(gain, shape)), to=work)


def src_dense(
    input: Any,
    weight: Any,
    bias: Any,
    cell: Sequence[Any],
    state: Sequence[Any],
    lengths: Any | None,
    weight_hh: Any | None,
    first_hh: Any | None,
    factors_hh: Any | None,
    *,
    convolution: Sequence[int] = (),
    **options: Any,
) -> list[Any]:
    """``torch.ops.srcell.src_dense``: one product for all steps, whatever ``method`` is."""
    if convolution:
        current = convolved(input, weight, convolution)
    else:
        current = op.MatMul(input, op.Transpose(weight, perm=[1, 0]))
    current.dtype = dtype_of(bias)  # torch's exporter gives only inputs of operators theirs
    of_layer = bias, cell, state, lengths, weight_hh, first_hh, factors_hh
    outputs = src(current, *of_layer, **options)
    return [*outputs, empty(ir.DataType.INT64), empty(ir.DataType.INT64)]


def convolved(input: Any, weight: Any, convolution: Sequence[int]) -> Any:
    """The currents (T, B, N) of an input (T, B, K) through a convolution, whose numbers an operator has."""
    if not all(isinstance(size, int) for size in convolution):
        raise TypeError("input: expected maps of a fixed height and width, got dynamic ones")
    channels, *sizes = convolution
    outputs, of_group, *kernel = weight.shape.numpy()
    within, out, strides, before, dilations = (sizes[k : k + 2] for k in range(0, 10, 2))
    after = [
        max((n - 1) * stride + dilation * (k - 1) + 1 - size - pad, 0)
        for n, stride, dilation, k, size, pad in zip(out, strides, dilations, kernel, within, before, strict=True)
    ]
    maps = op.Conv(
        op.Reshape(input, whole([-1, channels, *within])),
        weight,
        dilations=dilations,
        group=channels // of_group,
        kernel_shape=kernel,
        pads=[*before, *after],
        strides=strides,
    )
    return op.Reshape(maps, op.Concat(op.Shape(input, start=0, end=2), whole([outputs * math.prod(out)]), axis=0))


def refuse_events(*arguments: Any, **options: Any) -> None:
    """Raise: ONNX has no events. The translation of operators that take them."""
    raise TypeError("input: expected a dense tensor, got an EventBatch, which ONNX lacks: export with a dense input")


def scale(spikes: Any, factors: Any) -> Any:
    """``torch.ops.srcell.scale``."""
    return op.Mul(spikes, factors)


def rest(bias: Any, gain: Any) -> Any:
    """``torch.ops.srcell.rest``: the bisection of ops/rest.py in float64; acosh(x) is log(x + sqrt(x^2 - 1))."""
    one, minus_one, two, nan = (constant(x, ir.DataType.DOUBLE) for x in (1, -1, 2, math.nan))
    steep = op.Max(gain, one)
    acosh = op.Log(op.Add(op.Sqrt(steep), op.Sqrt(op.Sub(steep, one))))
    turning = op.Clip(op.Div(op.Sub(op.Neg(acosh), bias), gain), minus_one, one)
    above = op.Greater(turning, op.Tanh(op.Add(op.Mul(gain, turning), bias)))
    rising = op.And(op.Greater(gain, one), above)
    all_ones = op.Expand(one, op.Shape(bias))
    bounds = [op.Neg(all_ones), op.Where(rising, turning, all_ones)]

    def halve(body: Body, before: Values, now: Values) -> tuple[Values, Values]:
        low, high = before
        middle = body.Div(body.Add(low, high), two)
        below = body.Less(middle, body.Tanh(body.Add(body.Mul(gain, middle), bias)))
        return [body.Where(below, middle, low), body.Where(below, high, middle)], []

    (low, high), _ = scan(halve, bounds, [constant([0.0] * BISECTIONS, ir.DataType.DOUBLE)], [])
    return op.Where(op.IsNaN(op.Add(gain, bias)), nan, op.Div(op.Add(low, high), two))
