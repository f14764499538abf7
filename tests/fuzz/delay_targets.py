"""Fuzz targets on delays, in the form that ``op_targets`` describes."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from fuzz.draws import FLOATS, Draw, fits
from fuzz.event_targets import event_parts
from fuzz.facts import RefusedError, assert_own_memory, attempt, contents, may_raise, tensors_in
from fuzz.op_targets import assert_gradients, leaf, spoilt_argument
from srcell import EventBatch, delay
from srcell.reference import delay_reference

MOST = 9


def delays(draw: Draw) -> None:
    """``delay`` and its operators, on events and on dense inputs."""
    draw.pick(delayed, delayed, raw_delay)(draw)


def drawn_delays(draw: Draw, inputs: int, dtype: torch.dtype) -> Any:
    """Delays from 0 to MOST, whole or not, as one number, for each input, or for each tap of each input."""
    if draw.chance(10):
        return draw.pick(draw.uniform(0, MOST), float(draw.randrange(MOST + 1)))
    shape = (inputs, draw.pick(1, 2, 3)) if draw.chance(40) else (inputs,)
    steps = (MOST * draw.floats(*shape).sigmoid()).to(dtype)
    return leaf(draw, draw.relaid(steps.round() if draw.chance(40) else steps))


def drawn_input(draw: Draw, dtype: torch.dtype) -> dict[str, Any]:
    """A dense input, or an EventBatch with events in any order, and lengths."""
    if draw.chance(50):
        parts = event_parts(draw)
        if parts["shape"][2] < 1000:
            return {"input": EventBatch(**parts)}
    x = draw.spikes(draw.size(), draw.size(), draw.size(), dtype=dtype)
    given: dict[str, Any] = {"input": leaf(draw, draw.repeated(draw.relaid(x)))}
    if draw.chance(40):
        given["lengths"] = draw.any_lengths(*x.shape[:2])
    return given


def delayed(draw: Draw) -> None:
    dtype = draw.pick(*FLOATS, *FLOATS, torch.float16, torch.bfloat16)
    given = drawn_input(draw, dtype)
    given["delay"] = drawn_delays(draw, given["input"].shape[2], draw.pick(dtype, *FLOATS))
    given |= {"max_delay": draw.pick(MOST, MOST, 65535), "delay_width": draw.pick(1, 1, 1, 2, 7, 300)}
    spoilt = draw.spoil(given, 35)
    inputs = tensors_in(given)
    seen = contents(inputs)

    made = attempt(delay, given, spoilt)

    if made.device.type == "meta" or not all(map(fits, inputs)):
        return
    assert_own_memory([made] if isinstance(made, Tensor) else tensors_in(vars(made)), inputs)
    if isinstance(given["delay"], Tensor) and not spoilt:
        assert_the_reference(made, given)
    values = made if isinstance(made, Tensor) else made.values
    if values is not None and values.requires_grad:
        assert_gradients([values], [x for x in inputs if x.requires_grad], finite=dtype in FLOATS)
    assert contents(inputs) == seen


def assert_the_reference(made: Any, given: dict[str, Any]) -> None:
    """Assert that an output equals that of the reference, which has the delays as they are after rounding."""
    given_input, lengths = given["input"], given.get("lengths")
    x, got, half = given_input, made, False
    if isinstance(given_input, EventBatch):
        x, got, lengths = given_input.to_dense(torch.float64), made.to_dense(torch.float64), given_input.lengths
        assert EventBatch(made.offsets, made.indices, made.values, shape=made.shape, lengths=made.lengths) == made
    else:
        half = given_input.dtype in (torch.float16, torch.bfloat16)
    d = given["delay"].detach().to(torch.float64)
    expected = delay_reference(x.detach().to(torch.float64), d, delay_width=given["delay_width"], lengths=lengths)
    assert got.shape == expected.shape
    bound = 1e-2 if half else 1e-5
    assert bool(((got.detach().to(torch.float64) - expected).abs() <= bound * (1 + expected.abs())).all())


def raw_delay(draw: Draw) -> None:
    """The operators, with tables that no delay gives."""
    dtype, taps, terms = draw.pick(*FLOATS), draw.pick(1, 2), draw.pick(1, 2, 4)
    x = draw.spikes(draw.size(), draw.size(), draw.pick(3, 1, 0, 20), dtype=dtype)
    steps, batch, inputs = x.shape
    first = torch.tensor([draw.randrange(-3, 9) for _ in range(inputs * taps)], dtype=torch.int32)
    if first.numel() and draw.chance(20):
        first[draw.randrange(first.numel())] = draw.pick(2**31 - 1, -(2**31), 2**31 - terms, steps, -steps)
    factors = draw.floats(inputs * taps, terms, dtype=dtype) if draw.chance(70) else None
    lengths = draw.lengths(steps, batch) if draw.chance(40) else None
    tables = {"first": first, "factors": factors, "lengths": lengths}
    sizes = {"taps": taps, "skip": draw.randrange(steps + 1), "keep_zeros": draw.chance(50)}
    dense = draw.chance(40)
    if dense:
        given = {"input": x, **tables, **sizes}
        operator: Any = torch.ops.srcell.delay_dense
    else:
        events = EventBatch.from_dense(x)
        rows = {"offsets": events.offsets, "indices": events.indices.clone(), "values": events.values}
        if draw.chance(20) and len(rows["indices"]):
            rows["indices"][draw.randrange(len(rows["indices"]))] = draw.pick(-1, inputs, 2**31 - 1)
        given = {**rows, **tables, "steps": steps, "batch": batch, "graded": draw.chance(80), **sizes}
        operator = torch.ops.srcell.delay_events
    if draw.chance(30):
        name = draw.pick(*given)
        given[name] = spoilt_argument(draw, given[name])
    outputs = attempt_raw(operator, given)
    if draw.chance(50):
        back = {name: x for name, x in given.items() if name != "graded"} | {"output_mask": [True, draw.chance(50)]}
        if dense:
            back["grad_delayed"] = torch.ones_like(outputs[0])
        else:
            back |= {"grad_values": torch.ones_like(outputs[0]), "delayed_offsets": outputs[1]}
        if draw.chance(40):
            name = draw.pick(*back)
            back[name] = spoilt_argument(draw, back[name])
        attempt_raw(getattr(torch.ops.srcell, f"delay_{'dense' if dense else 'events'}_backward"), back)


def attempt_raw(operator: Any, given: dict[str, Any]) -> tuple[Tensor, ...]:
    """The outputs of an operator, which may refuse what no call of ``delay`` passes."""
    if any(x.device.type == "meta" for x in tensors_in(given)):  # fake kernels compute shapes and check nothing
        raise RefusedError
    names = [argument.name for argument in operator.default._schema.arguments]
    with may_raise(NotImplementedError):
        made = attempt(partial(operator), given, True, *names)
    return made if isinstance(made, tuple) else (made,)
