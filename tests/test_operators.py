"""The operators of torch.ops.srcell: they pass torch's opcheck, their fake kernels agree with the kernels, and errors
name the argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from srcell import EventBatch, IntegerCell, SRCState
from srcell.ops import _cpu
from srcell.ops._operator import Operator
from support.calls import images, spikes
from support.gradients import make_output_gradients, requiring_grad
from support.inputs import MODES, Layer, make_inputs, make_layer, make_linear_inputs, noise, with_values
from support.refusals import assert_refused

X = torch.zeros(3, 2, 4)
BATCH = EventBatch.from_dense(X)


# opcheck


def operator_layer(dtype: torch.dtype, present: bool, requires_grad: bool, mode: tuple[str, bool]) -> Layer:
    """A layer of five neurons and two samples, with or without its optional tensors."""
    inputs = make_inputs(16, 18, 2, 5, dtype=dtype) | {"weight_hh": noise(17, 5, 5, dtype=dtype)}
    if requires_grad:
        inputs = requiring_grad(inputs)
    return make_layer(inputs, mode, [18, 7], present=present)


def operator_current(dtype: torch.dtype, requires_grad: bool) -> Tensor:
    return make_inputs(16, 18, 2, 5, dtype=dtype)["current"].requires_grad_(requires_grad)


optional_arguments = pytest.mark.parametrize("present", [True, False], ids=["optional present", "optional absent"])
# The numbers' type changes nothing of what opcheck looks at but the type of the outputs: one suffices on most days.
dtypes = pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.release)])


@optional_arguments
@dtypes
@pytest.mark.parametrize("mode", MODES)
def test_opcheck_of_the_operator(mode: tuple[str, bool], dtype: torch.dtype, present: bool) -> None:
    for save in (True, False):
        layer = operator_layer(dtype, present, save, mode)
        arguments = (operator_current(dtype, save), *layer.forward)
        torch.library.opcheck(
            torch.ops.srcell.src, arguments, {**layer.options, "save": save, "trace_integrator": save}
        )


@optional_arguments
@dtypes
@pytest.mark.parametrize("mode", MODES)
def test_opcheck_of_its_backward(mode: tuple[str, bool], dtype: torch.dtype, present: bool) -> None:
    current, layer = operator_current(dtype, False), operator_layer(dtype, present, False, mode)
    options = {**layer.options, "save": True, "trace_integrator": True}
    spikes, *state, checkpoints = torch.ops.srcell.src(current, *layer.forward, **options)
    arriving = make_output_gradients(16, (spikes, SRCState(*state)))
    given = [g if present else None for g in arriving]
    for wanted in ([True] * 7, [True, False, True] + [False] * 4):
        arguments = (*given, current, checkpoints, *layer.backward)
        options = {**layer.options, "output_mask": wanted}
        torch.library.opcheck(torch.ops.srcell.src_backward, arguments, options)


def operator_arguments(
    dtype: torch.dtype, present: bool, requires_grad: bool, mode: tuple[str, bool]
) -> tuple[EventBatch, Tensor, Layer]:
    """Events, weight and layer for an operator's call, with or without its optional tensors."""
    events, inputs = make_linear_inputs(5, 35, 2, 5, inputs=7, dtype=dtype)
    inputs["weight_hh"] = noise(17, 5, 5, dtype=dtype)
    if requires_grad:
        inputs = requiring_grad(inputs)
    layer = make_layer(inputs, mode, [35, 7], present=present)
    return with_values(events, inputs["values"] if present else None), inputs["weight"], layer


# One mode suffices: opcheck checks shapes, dtypes, strides, aliases and dispatch, on which the mode has no effect.
MODE = ("straight_through", True)
WANTED_OF_LAYER = ([True] * 7, [False] * 7, [True, False] * 3 + [True])


@optional_arguments
@dtypes
@pytest.mark.parametrize("save", [True, False])
def test_opcheck_of_src_events(save: bool, dtype: torch.dtype, present: bool) -> None:
    events, weight, layer = operator_arguments(dtype, present, save, MODE)
    arguments = (events.offsets, events.indices, events.values, weight, *layer.forward)
    options = {**layer.options, "steps": 35, "batch": 2, "save": save, "trace_integrator": present}
    torch.library.opcheck(torch.ops.srcell.src_events, arguments, options)


@optional_arguments
@dtypes
def test_opcheck_of_src_events_backward(dtype: torch.dtype, present: bool) -> None:
    events, weight, layer = operator_arguments(dtype, present, False, MODE)
    parts = (events.offsets, events.indices, events.values, weight)
    options = {**layer.options, "steps": 35, "batch": 2}
    for of_layer in WANTED_OF_LAYER if present else ([False] * 7,):
        spikes, *state, trace, checkpoints = torch.ops.srcell.src_events(
            *parts, *layer.forward, **options, save=True, trace_integrator=any(of_layer[1:])
        )
        given = [g if present else None for g in make_output_gradients(5, (spikes, SRCState(*state)))]
        for wanted in ([present, True], [False, False]):
            arguments = (*given, *parts, trace, checkpoints, *layer.backward)
            masked = {**options, "output_mask": wanted + of_layer}
            torch.library.opcheck(torch.ops.srcell.src_events_backward, arguments, masked)


@optional_arguments
@dtypes
@pytest.mark.parametrize("save", [True, False])
@pytest.mark.parametrize("method", ["events", "gemm"])
def test_opcheck_of_src_dense(method: str, save: bool, dtype: torch.dtype, present: bool) -> None:
    events, weight, layer = operator_arguments(dtype, present, save, MODE)
    input = events.to_dense(dtype).detach().requires_grad_(save)
    for at_events in (True, False):
        options = {"method": method, "save": save, "trace_integrator": present, "input_grad_at_events": at_events}
        torch.library.opcheck(torch.ops.srcell.src_dense, (input, weight, *layer.forward), layer.options | options)


@optional_arguments
@dtypes
@pytest.mark.parametrize("at_events", [True, False])
@pytest.mark.parametrize("method", ["events", "gemm"])
def test_opcheck_of_src_dense_backward(method: str, at_events: bool, dtype: torch.dtype, present: bool) -> None:
    events, weight, layer = operator_arguments(dtype, present, False, MODE)
    input = events.to_dense(dtype)
    options = {**layer.options, "input_grad_at_events": at_events}
    for of_layer in WANTED_OF_LAYER if present else ([False] * 7,):
        spikes, *state, trace, checkpoints, mask, path = torch.ops.srcell.src_dense(
            input, weight, *layer.forward, **options, method=method, save=True, trace_integrator=any(of_layer[1:])
        )
        assert path[0] == (method == "events")
        given = [g if present else None for g in make_output_gradients(5, (spikes, SRCState(*state)))]
        for wanted in ([True, True], [False, False]):
            arguments = (*given, input, weight, trace, checkpoints, mask, path, *layer.backward)
            masked = {**options, "output_mask": wanted + of_layer}
            torch.library.opcheck(torch.ops.srcell.src_dense_backward, arguments, masked)


# Positional and keyword-only arguments for opcheck of the operators that run no layer.
OUTSIDE_LAYERS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "rate_encode": ((images(), torch.arange(3)), dict(steps=7, prefix=2, gain=0.5, seed=-1, thinned=True)),
    "latency_encode": ((images(),), dict(steps=7, prefix=2)),
    "count_spikes": ((spikes(),), {}),
    "scale": ((spikes().requires_grad_(), torch.ones(2, 6)), {}),
    "rest": ((torch.full((3,), -6.0).double(), torch.full((3,), -5.0).double()), {}),
    "find_event_fault": (
        (torch.tensor([0, 1, 2]), torch.tensor([0, 2], dtype=torch.int32), None, None),
        dict(steps=2, batch=1, inputs=3),
    ),
}


@pytest.mark.parametrize("name", OUTSIDE_LAYERS)
def test_opcheck_of_what_is_no_layer(name: str) -> None:
    torch.library.opcheck(getattr(torch.ops.srcell, name), *OUTSIDE_LAYERS[name])


INTEGERS: dict[str, Any] = dict(steps=30, batch=2, cell=list(IntegerCell()))


def integer_input(way: str) -> tuple[Tensor | None, ...]:
    """Offsets, indices and dense input for integer neurons."""
    if way == "dense":
        return None, None, spikes()
    events = EventBatch.from_dense(spikes())
    return events.offsets, events.indices, None


@optional_arguments
@pytest.mark.parametrize("way", ["dense", "events"])
def test_opcheck_of_integer_src(way: str, present: bool) -> None:
    offsets, indices, input = integer_input(way)
    if present and input is not None:
        input = input.requires_grad_()
    weight = (300 * noise(4, 4, 6)).to(torch.int16)
    latent, scale = (weight.float().requires_grad_(), torch.tensor(50.0)) if present else (None, None)
    state = [torch.zeros(2, 4, dtype=torch.int16)] * 3 if present else []
    lengths = torch.tensor([30, 17]) if present else None
    arguments = (offsets, indices, input, weight, latent, scale, state, lengths)
    options = {**INTEGERS, "rho": 3.0, "floats": present, "save": present}
    torch.library.opcheck(torch.ops.srcell.integer_src, arguments, options)


@pytest.mark.parametrize("way", ["dense", "events"])
def test_opcheck_of_integer_src_backward(way: str) -> None:
    weight = (300 * noise(4, 4, 6)).to(torch.int16)
    grad, slopes = noise(6, 30, 2, 4, dtype=torch.float32), noise(7, 30, 2, 4, dtype=torch.float32)
    for wanted in ([True, True], [False, False]):
        arguments = (grad, *integer_input(way), weight, torch.tensor(50.0), torch.tensor([30, 17]), slopes)
        torch.library.opcheck(torch.ops.srcell.integer_src_backward, arguments, {**INTEGERS, "output_mask": wanted})


def test_no_address_of_0_reaches_the_core_for_a_tensor_with_elements() -> None:
    from srcell.ops._memory import address

    assert address(None) == 0
    with pytest.raises(RuntimeError, match="expected tensors that lie in memory, got a Tensor on meta"):
        address(torch.ones(3, device="meta"))


# Bad calls


def test_the_operators_name_what_is_wrong() -> None:
    ops, layer, weight = torch.ops.srcell, make_layer({"bias": torch.tensor(-6.0)}, ("relu", True)), torch.zeros(5, 4)
    spikes, *state, checkpoints = ops.src(X, *layer.forward, **layer.options, save=True, trace_integrator=False)
    call = (spikes, *state, X, checkpoints, *layer.backward)
    for mask in ([], [True] * 6, [False] * 8):
        assert_refused(ValueError, "output_mask", ops.src_backward, *call, **layer.options, output_mask=mask)
    rows, options = (BATCH.offsets, BATCH.indices, None), {**layer.options, "trace_integrator": False}
    call = (*rows, weight, *layer.forward)
    assert_refused(ValueError, "weight", ops.src_events, *call, **options, steps=-2, batch=-3, save=False)
    *outputs, trace, saved = ops.src_events(*call, **options, steps=3, batch=2, save=True)
    call, options = (*outputs, *rows, weight, trace, saved), {**layer.options, "steps": 3, "batch": 2}
    for mask in ([], [True], [True] * 8, [False] * 10):
        assert_refused(
            *(ValueError, "output_mask", ops.src_events_backward, *call, *layer.backward),
            **options,
            output_mask=mask,
        )
    options = {**layer.options, "method": "events", "save": True, "trace_integrator": False}
    call, at_events = (X, torch.zeros(()), *layer.forward), {"input_grad_at_events": False}
    assert_refused(ValueError, "weight", ops.src_dense, *call, **options, **at_events)
    *outputs, trace, saved, mask, path = ops.src_dense(X, weight, *layer.forward, **options, **at_events)
    call, options = (*outputs, X, weight, trace, saved, mask), {**layer.options, **at_events}

    def backward(path: Tensor, output_mask: list[bool]) -> Any:
        return ops.src_dense_backward(*call, path, *layer.backward, **options, output_mask=output_mask)

    for bad in (path[:0], path[0], path.repeat(2)):
        assert_refused(ValueError, "path", backward, bad, [True] * 9)
    assert_refused(TypeError, "path", backward, path.float(), [True] * 9)
    for wanted in ([], [True], [True] * 8, [False] * 10):
        assert_refused(ValueError, "output_mask", backward, path, wanted)


@pytest.mark.parametrize("name", ["src", "src_events", "src_dense"])
@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"cell": 3}, "cell: expected 0 or 6 tensors, got 3"),
        ({"cell": 7}, "cell: expected 0 or 6 tensors, got 7"),
        ({"state": 1}, "state: expected 0 or 3 tensors, got 1"),
        ({"state": 4}, "state: expected 0 or 3 tensors, got 4"),
        ({"constants": 0}, "constants: expected 6 values, got 0"),
        ({"constants": 7}, "constants: expected 6 values, got 7"),
    ],
)
def test_the_operators_name_a_list_of_a_wrong_length(name: str, lists: dict[str, int], message: str) -> None:
    """In the forward operator, and in the backward one if it has such a list."""
    ops, bias, weight = torch.ops.srcell, torch.full((4,), -6.0), torch.zeros(4, 4)
    whole = make_layer({"bias": bias}, ("relu", True))
    items = {"cell": bias, "state": X[0], "constants": 1.0}
    layer = whole._replace(**{key: [items[key]] * count for key, count in lists.items()})
    synapse: tuple[Any, ...] = (X,)
    forward: dict[str, Any] = {"save": True, "trace_integrator": False}
    both: dict[str, Any] = {}
    if name == "src_events":
        synapse, both = (BATCH.offsets, BATCH.indices, None, weight), {"steps": 3, "batch": 2}
    elif name == "src_dense":
        synapse, both = (X, weight), {"input_grad_at_events": False}
        forward["method"] = "events"
    with pytest.raises(ValueError) as error:
        getattr(ops, name)(*synapse, *layer.forward, **layer.options, **both, **forward)
    assert str(error.value) == message
    if "constants" not in lists:
        return
    outputs = getattr(ops, name)(*synapse, *whole.forward, **whole.options, **both, **forward)
    mask = [True] * (7 if name == "src" else 9)
    call = (*outputs[:4], *synapse, *outputs[4:], *layer.backward)
    with pytest.raises(ValueError) as error:
        getattr(ops, f"{name}_backward")(*call, **layer.options, **both, output_mask=mask)
    assert str(error.value) == message


PIXELS, NUMBERS = torch.ones(10, 10), torch.arange(10)
ENCODING = dict(steps=5, prefix=2, gain=0.5, seed=1, thinned=False)
PARTS = torch.tensor([0, 1, 2]), torch.tensor([0, 2], dtype=torch.int32)
SIZES = dict(steps=2, batch=1, inputs=3)


@pytest.mark.parametrize(
    ("error", "argument", "call"),
    [
        (TypeError, "spikes", lambda ops: ops.count_spikes(torch.ones(400, 10, 10, dtype=torch.int8))),
        (TypeError, "spikes", lambda ops: ops.count_spikes(torch.ones(400, 10, 10, dtype=torch.float16))),
        (ValueError, "spikes", lambda ops: ops.count_spikes(torch.ones(4, 10))),
        (TypeError, "images", lambda ops: ops.rate_encode(PIXELS.byte(), NUMBERS, **ENCODING)),
        (TypeError, "images", lambda ops: ops.latency_encode(PIXELS.double(), steps=5, prefix=0)),
        (ValueError, "images", lambda ops: ops.latency_encode(PIXELS[0], steps=5, prefix=0)),
        (ValueError, "steps", lambda ops: ops.rate_encode(PIXELS, NUMBERS, **ENCODING | {"steps": -5})),
        (ValueError, "prefix", lambda ops: ops.rate_encode(PIXELS, NUMBERS, **ENCODING | {"prefix": -5})),
        (ValueError, "index", lambda ops: ops.rate_encode(PIXELS, NUMBERS[:1], **ENCODING)),
        (ValueError, "steps", lambda ops: ops.latency_encode(PIXELS, steps=0, prefix=0)),
        (ValueError, "offsets", lambda ops: ops.find_event_fault(*PARTS[:2], None, None, **SIZES | {"steps": 2**40})),
        (ValueError, "steps", lambda ops: ops.find_event_fault(*PARTS[:2], None, None, **SIZES | {"steps": -1})),
        (ValueError, "values", lambda ops: ops.find_event_fault(*PARTS[:2], torch.ones(1), None, **SIZES)),
        (ValueError, "lengths", lambda ops: ops.find_event_fault(*PARTS[:2], None, PARTS[0], **SIZES)),
        (ValueError, "factors", lambda ops: ops.scale(torch.ones(2, 3, 4), torch.ones(5, 2, 3, 4))),
        (TypeError, "factors", lambda ops: ops.scale(torch.ones(2, 3, 4), torch.ones(3, 4, dtype=torch.float64))),
    ],
)
def test_the_operators_that_run_no_layer_name_what_is_wrong(
    error: type[Exception], argument: str, call: Callable[[Any], Any]
) -> None:
    """Regression: many of these read or wrote invalid memory."""
    assert_refused(error, argument, call, torch.ops.srcell)


def test_an_output_of_more_bytes_than_there_are_addresses() -> None:
    with pytest.raises(MemoryError):
        _cpu.empty(torch.empty(0), 2**32, 2**30)


@pytest.mark.parametrize("name", ["src", "src_events", "src_dense"])
def test_only_spikes_and_state_carry_gradients(name: str) -> None:
    """What an operator saves for its backward has no gradient, although it is computed from tensors that have."""
    layer, weight = make_layer({"bias": torch.full((4,), -6.0, requires_grad=True)}, ("relu", True)), torch.zeros(4, 6)
    calls = {
        "src": ((noise(1, 30, 2, 4, dtype=torch.float32),), {}),
        "src_events": (
            (torch.zeros(61, dtype=torch.int64), torch.zeros(0, dtype=torch.int32), None, weight),
            {"steps": 30, "batch": 2},
        ),
        "src_dense": ((spikes(), weight), {"method": "events", "input_grad_at_events": False}),
    }
    synapse, options = calls[name]
    options |= {"trace_integrator": False, "save": False}
    outputs = getattr(torch.ops.srcell, name)(*synapse, *layer.forward, **layer.options, **options)
    assert [x.requires_grad for x in outputs] == [True] * 4 + [False] * (len(outputs) - 4)
    assert all(x.numel() for x in outputs[4:6])


def test_an_operator_has_tensors_alone_before_the_options() -> None:
    with pytest.raises(ValueError, match=r"^toy: expected tensors and lists of them before the \*, got float gain"):
        Operator("toy(Tensor x, float gain, *, int steps) -> Tensor")


OFFSETS, INDICES = torch.zeros(21, dtype=torch.int64), torch.zeros(0, dtype=torch.int32)
FAULT_SIZES = {"steps": 10, "batch": 2, "inputs": 3}
REFUSED: dict[str, tuple[str, tuple[Any, ...], dict[str, int]]] = {
    "offsets of too few rows": ("find_event_fault", (OFFSETS[:3], INDICES, None, None), FAULT_SIZES),
    "indices of int64": ("find_event_fault", (OFFSETS, INDICES.long(), None, None), FAULT_SIZES),
    "values of another number": ("find_event_fault", (OFFSETS, INDICES, torch.zeros(5), None), FAULT_SIZES),
    "factors of another shape": ("scale", (spikes(), torch.ones(9)), {}),
    "spikes of two dimensions": ("count_spikes", (torch.zeros(2, 3),), {}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_fake_kernels_refuse_what_kernels_refuse(case: str) -> None:
    name, arguments, options = REFUSED[case]
    operator = getattr(torch.ops.srcell, name)
    with pytest.raises((ValueError, TypeError)) as expected:
        operator(*arguments, **options)
    with FakeTensorMode() as mode, pytest.raises(type(expected.value)) as found:
        operator(*(mode.from_tensor(x) if isinstance(x, Tensor) else x for x in arguments), **options)
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("spoilt", ["offsets", "indices", "values", "weight", "bias"])
def test_the_fake_kernel_of_events_refuses_what_the_kernel_refuses(spoilt: str) -> None:
    layer, weight = make_layer({"bias": torch.full((4,), -6.0)}, ("relu", True)), torch.zeros(4, 6)
    parts = {"offsets": OFFSETS, "indices": INDICES, "values": torch.zeros(0), "weight": weight}
    if spoilt == "bias":
        layer = layer._replace(bias=torch.zeros(3))
    else:
        parts[spoilt] = torch.zeros(7, 7, 7) if spoilt == "weight" else torch.zeros(5, dtype=parts[spoilt].dtype)
        parts |= {"indices": torch.zeros(1, dtype=torch.int64)} if spoilt == "indices" else {}
    options = {**layer.options, "steps": 10, "batch": 2, "save": False, "trace_integrator": False}
    with pytest.raises((ValueError, TypeError), match=f"^{spoilt}: expected") as expected:
        torch.ops.srcell.src_events(*parts.values(), *layer.forward, **options)
    with FakeTensorMode() as mode, pytest.raises(type(expected.value), match=f"^{spoilt}: expected"):
        fake = [mode.from_tensor(x) for x in parts.values()]
        torch.ops.srcell.src_events(*fake, mode.from_tensor(layer.bias), [], [], None, None, **options)
