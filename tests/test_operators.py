"""The operators of torch.ops.srcell: they pass torch's opcheck, their fake kernels agree with the kernels, and errors
name the argument.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree as pytree

import srcell
from srcell import EventBatch, IntegerCell, delay, src_linear
from srcell.ops import _cpu, src, src_dense, src_events
from srcell.ops._layer import LayerArguments
from srcell.ops._memory import address
from srcell.ops._operator import Operator
from support.calls import NEW_TORCH, images, spikes
from support.gradients import requiring_grad
from support.inputs import (
    PARAMETERS,
    delayed,
    make_inputs,
    make_layer,
    make_linear_inputs,
    noise,
    resonant,
    with_values,
)
from support.operators import DECLARED, LayerCall, OperatorCall, layer_call
from support.refusals import Refusal, refusals

# opcheck

# One mode suffices: opcheck checks shapes, dtypes, strides, aliases and dispatch, on which the mode has no effect.
MODE = ("straight_through", True)
STEPS, BATCH, NEURONS, INPUTS = 35, 2, 5, 7

# A kernel of one row and three columns makes a map of NEURONS from one of INPUTS.
CONVOLUTION = [1, 1, INPUTS, 1, NEURONS, 1, 1, 0, 0, 1, 1]

# An operator that runs a layer is a row: the names of its synapse's tensors, and its options.
LAYERS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "src": (["current"], {}),
    "src_events": (["events", "weight"], {}),
    "src_dense by events": (["dense", "weight"], {"method": "events"}),
    "src_dense by events, grad at events": (["dense", "weight"], {"method": "events", "input_grad_at_events": True}),
    "src_dense by events, autocast": (["dense", "weight"], {"method": "events", "product_dtype": "bfloat16"}),
    "src_dense by gemm": (["dense", "weight"], {"method": "gemm"}),
    "src_dense by gemm, autocast": (["dense", "weight"], {"method": "gemm", "product_dtype": "float16"}),
    "src_dense by gemm, grad at events": (["dense", "weight"], {"method": "gemm", "input_grad_at_events": True}),
    "src, resonant": (["current"], {}),
    "src_events, resonant": (["events", "weight"], {}),
    "src, delayed": (["current"], {}),
    "src_events, delayed": (["events", "weight"], {}),
    "src, bounded": (["current"], {}),
    "src_events, bounded": (["events", "weight"], {}),
    "src_dense by events, bounded": (["dense", "weight"], {"method": "events"}),
    "src_events, convolved": (["events", "kernel"], {"convolution": CONVOLUTION}),
    "src_dense by events, convolved": (["dense", "kernel"], {"method": "events", "convolution": CONVOLUTION}),
    "src_dense by gemm, convolved": (["dense", "kernel"], {"method": "gemm", "convolution": CONVOLUTION}),
}
layers = pytest.mark.parametrize("name", LAYERS)
optional_arguments = pytest.mark.parametrize("present", [True, False], ids=["optional present", "optional absent"])
# Of all that opcheck looks at, the inputs' dtype changes only the outputs' dtype: outside release checks one dtype
# suffices.
dtypes = pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.release)])


def make_call(
    name: str, dtype: torch.dtype = torch.float32, present: bool = True, requires_grad: bool = False, **options: bool
) -> LayerCall:
    """The call of a row of LAYERS, with or without its optional tensors."""
    events, inputs = make_linear_inputs(5, STEPS, BATCH, NEURONS, inputs=INPUTS, dtype=dtype)
    inputs["weight_hh"] = noise(17, NEURONS, NEURONS, dtype=dtype)
    inputs["current"] = make_inputs(16, STEPS, BATCH, NEURONS, dtype=dtype)["current"]
    inputs["dense"] = events.to_dense(dtype)
    inputs["kernel"] = noise(18, 1, 1, 1, 3, dtype=dtype)
    if name.endswith("convolved"):
        del inputs["weight_hh"]
    if name.endswith("resonant"):
        inputs = resonant(inputs, 5)
    if name.endswith("delayed"):
        inputs = delayed(inputs, 5, 9)
    if requires_grad:
        inputs = requiring_grad(inputs)
    given: dict[str, Any] = {**inputs, "events": with_values(events, inputs["values"] if present else None)}
    layer = make_layer(inputs, MODE, [STEPS, 7], present=present)
    if name.endswith("bounded"):
        layer = layer._replace(bias_max=-6.0, channels=NEURONS if present else 0)
    of_call, of_row = LAYERS[name]
    return layer_call(layer, *(given[key] for key in of_call), **of_row, **options)


# Tracing with symbols for sizes takes most of opcheck's time. Which sizes the outputs have is asked of one function,
# whatever is saved or masked: it is traced once for each row.
UNTRACED = ("test_schema", "test_autograd_registration", "test_faketensor")


def opcheck(call: OperatorCall, *, traced: bool = True) -> None:
    tests = (*UNTRACED, "test_aot_dispatch_dynamic") if traced else UNTRACED
    torch.library.opcheck(call.operator, tuple(call.arguments), call.options, test_utils=tests)


@optional_arguments
@dtypes
@layers
def test_layers_pass_opcheck(name: str, dtype: torch.dtype, present: bool) -> None:
    for save in (True, False):
        call = make_call(name, dtype, present, requires_grad=save, save=save, trace_integrator=present)
        opcheck(call.forward(), traced=save)


def outputs_of(call: LayerCall) -> tuple[list[Tensor | None], list[Tensor]]:
    """Gradients of spikes and state, and the tensors that the operator saved."""
    made = list(call.forward()())
    present = [True] * 4 + [len(call.layer.constants) == len(PARAMETERS) + 1, call.layer.past_steps > 0]
    grads = [noise(5 + k, *x.shape, dtype=x.dtype) if present[k] else None for k, x in enumerate(made[:6])]
    return grads, made[6:]


@optional_arguments
@dtypes
@layers
def test_backward_operators_pass_opcheck(name: str, dtype: torch.dtype, present: bool) -> None:
    # A gradient is wanted or not whatever the others are: each mask of the layer stands beside one of the synapse.
    masks = [([True] * 10, [True] * 2), ([False] * 10, [True] * 2), ([True, False] * 5, [False] * 2)]
    if not present:
        masks = [([False] * 10, [False, True]), ([False] * 10, [False] * 2)]
    for k, (of_layer, of_synapse) in enumerate(masks):
        call = make_call(name, dtype, present, trace_integrator=any(of_layer[1:]))
        grad_outputs, saved = outputs_of(call)
        if call.name == "src_dense":
            assert bool(saved[-2].any()) == ("by events" in name and "convolved" not in name)
        wanted = (of_synapse[1:] if call.name == "src" else of_synapse) + of_layer
        opcheck(call.backward(grad_outputs if present else [None] * 6, saved, wanted), traced=k == 0)


OFFSETS, INDICES = torch.tensor([0, 1, 2]), torch.tensor([0, 2], dtype=torch.int32)
SIZES = {"steps": 2, "batch": 1, "inputs": 3}
ENCODING = {"steps": 7, "prefix": 2, "gain": 0.5, "seed": -1, "thinned": True}


def integer_calls() -> Iterator[OperatorCall]:
    """Integer neurons on events and on a dense input, with and without the data for gradients, and their backward."""
    options: dict[str, Any] = {"steps": 30, "batch": 2, "cell": list(IntegerCell())}
    weight, scale, lengths = (300 * noise(4, 4, 6)).to(torch.int16), torch.tensor(50.0), torch.tensor([30, 17])
    latent, state = weight.float().requires_grad_(), [torch.zeros(2, 4, dtype=torch.int16)] * 3
    grad, slopes = (noise(seed, 30, 2, 4, dtype=torch.float32) for seed in (6, 7))
    events, dense = EventBatch.from_dense(spikes()), spikes().requires_grad_()
    for input in ((events.offsets, events.indices, None), (None, None, dense)):
        plain = [x if x is None else x.detach() for x in input]
        forward = {**options, "rho": 3.0}
        yield OperatorCall("integer_src", *plain, weight, None, None, [], None, **forward, floats=False, save=False)
        gradient = (latent, scale, state, lengths)
        yield OperatorCall("integer_src", *input, weight, *gradient, **forward, floats=True, save=True)
        for mask in ([True, True], [False, False]):
            given = (grad, *plain, weight, scale, lengths, slopes)
            yield OperatorCall("integer_src_backward", *given, **options, output_mask=mask)


def delay_calls() -> Iterator[OperatorCall]:
    """The delays, on inputs and factors of which some are not contiguous."""
    first, factors = torch.tensor([0, 2, 1], dtype=torch.int32), torch.rand(2, 3).t().requires_grad_()
    options = {"taps": 1, "skip": 1, "keep_zeros": True}
    x = torch.randn(3, 4, 3).transpose(0, 1).requires_grad_()
    yield OperatorCall("delay_dense", x, first, factors, None, **options)
    made = torch.randn(3, 3, 3)
    for mask in ([True, True], [False, True], [False, False]):
        given = (made, x.detach(), first, factors.detach(), None)
        yield OperatorCall("delay_dense_backward", *given, **options, output_mask=mask)
    events = EventBatch.from_dense(x.detach())
    rows, sizes = (events.offsets, events.indices, events.values), {"steps": 4, "batch": 3}
    tables = (first, factors.detach(), None)
    values, offsets, _ = torch.ops.srcell.delay_events(*rows, *tables, **sizes, graded=True, **options)
    for mask in ([True, True], [True, False], [False, False]):
        given = (values, offsets, *rows, *tables)
        yield OperatorCall("delay_events_backward", *given, **sizes, **options, output_mask=mask)


SENSOR = {"rise": 0.2, "fall": 0.2, "spread": 0.1, "refractory": 0, "noise": 0.01, "seed": 3}
VIEW = {"steps": 8, "height": 3, "width": 4, "blur": 0.5, "size_jitter": 0.1, "place_jitter": 0.1}
MOVEMENT = torch.tensor([[0.0, 0, 0], [8, 1, -1]], dtype=torch.float64)
PIXELS, NUMBERS = torch.ones(10, 10), torch.arange(10)
OTHERS = [
    OperatorCall("rate_encode", images(), torch.arange(3), **ENCODING),
    OperatorCall("latency_encode", images(), steps=7, prefix=2),
    OperatorCall("camera_frames", spikes()[:, :, None], NUMBERS[:2], dark=0.0, **SENSOR),
    OperatorCall("camera_pictures", images()[:, None], MOVEMENT, NUMBERS[:3], **VIEW, **SENSOR),
    OperatorCall("count_spikes", spikes()),
    OperatorCall("scale", spikes().requires_grad_(), torch.ones(2, 6)),
    OperatorCall("sum_over_time", spikes().requires_grad_(), torch.linspace(0.5, 1, 30)),
    OperatorCall("sum_over_time", spikes().requires_grad_(), torch.linspace(0.5, 1, 4)),
    OperatorCall("sum_over_time", spikes().requires_grad_(), torch.linspace(0.5, 1, 8).view(4, 2)),
    OperatorCall("spread_over_time", torch.randn(2, 6).requires_grad_(), torch.linspace(0.5, 1, 4), steps=30),
    OperatorCall(
        "spread_over_time", torch.randn(2, 6).requires_grad_(), torch.linspace(0.5, 1, 8).view(4, 2), steps=30
    ),
    OperatorCall("project", spikes().requires_grad_(), torch.randn(4, 6).requires_grad_()),
    OperatorCall("project_back", torch.randn(30, 2, 4).requires_grad_(), torch.randn(4, 6).requires_grad_()),
    OperatorCall("rest", torch.full((3,), -6.0).double(), torch.full((3,), -5.0).double()),
    OperatorCall("find_event_fault", OFFSETS, INDICES, None, None, **SIZES),
    *integer_calls(),
    *delay_calls(),
]


@pytest.mark.parametrize("call", OTHERS, ids=lambda call: call.name)
def test_operators_that_run_no_layer_pass_opcheck(call: OperatorCall) -> None:
    opcheck(call)


@layers
def test_only_spikes_and_state_carry_gradients(name: str) -> None:
    """Tensors saved for the backward have no gradient, although they are computed from tensors that have one."""
    outputs = make_call(name, requires_grad=True, save=False, trace_integrator=False).forward()()
    assert [x.requires_grad for x in outputs] == [True] * 6 + [False] * (len(outputs) - 6)
    trace, checkpoints = outputs[6:8]
    assert checkpoints.numel() and bool(trace.numel()) == ("by gemm" in name or "convolved" not in name)


# Invalid arguments


def with_layer(call: LayerCall, **changes: Any) -> LayerCall:
    return call._replace(layer=call.layer._replace(**changes))


def with_synapse(name: str, position: int, x: Tensor) -> OperatorCall:
    call = make_call(name).forward()
    call.arguments[position] = x
    return call


def with_mask(name: str, count: int) -> OperatorCall:
    call = make_call(name)
    return call.backward(*outputs_of(call), [True] * count)


def with_saved(position: int, change: Callable[[Tensor], Tensor]) -> OperatorCall:
    call = make_call("src_dense by events")
    grad_outputs, saved = outputs_of(call)
    saved[position] = change(saved[position])
    return call.backward(grad_outputs, saved, [True] * 12)


def encoding(name: str, *arguments: Tensor, **changes: int) -> OperatorCall:
    options = ENCODING if name == "rate_encode" else {"steps": 5, "prefix": 0}
    return OperatorCall(name, *arguments, **options | changes)


def searching(indices: Tensor = INDICES, values: Any = None, lengths: Any = None, **changes: int) -> OperatorCall:
    return OperatorCall("find_event_fault", OFFSETS, indices, values, lengths, **SIZES | changes)


SEEN_BY_FAKE_KERNELS = [
    Refusal("offsets", with_synapse("src_events", 0, torch.zeros(5, dtype=torch.int64))),
    Refusal("indices", with_synapse("src_events", 1, torch.zeros(1, dtype=torch.int64)), TypeError),
    Refusal("values", with_synapse("src_events", 2, torch.zeros(5))),
    Refusal("weight", with_synapse("src_events", 3, torch.zeros(7, 7, 7))),
    Refusal("weight", with_synapse("src_dense by events", 1, torch.zeros(()))),
    Refusal(
        "weight", make_call("src_events", present=False)._replace(both={"steps": -STEPS, "batch": -BATCH}).forward()
    ),
    *(Refusal("bias", with_layer(make_call(name), bias=torch.zeros(3)).forward()) for name in LAYERS),
    Refusal("offsets", searching(steps=2**40)),
    Refusal("steps", searching(steps=-1)),
    Refusal("indices", searching(INDICES.long()), TypeError),
    Refusal("values", searching(values=torch.ones(1))),
    Refusal("lengths", searching(lengths=OFFSETS)),
    Refusal("factors", OperatorCall("scale", spikes(), torch.ones(9))),
    Refusal("factors", OperatorCall("scale", torch.ones(2, 3, 4), torch.ones(5, 2, 3, 4))),
    Refusal("factors", OperatorCall("scale", spikes(), torch.ones(2, 6, dtype=torch.float64)), TypeError),
    Refusal("spikes", OperatorCall("sum_over_time", torch.zeros(2, 3), torch.ones(2))),
    Refusal("spikes", OperatorCall("sum_over_time", torch.zeros(0, 2, 3), torch.ones(0))),
    Refusal("factors", OperatorCall("sum_over_time", spikes(), torch.ones(31))),
    Refusal("factors", OperatorCall("sum_over_time", spikes(), torch.ones(2, 6))),
    Refusal("factors", OperatorCall("sum_over_time", spikes(), torch.ones(3).double()), TypeError),
    Refusal("factors", OperatorCall("sum_over_time", spikes(), torch.ones(4, 2, 1))),
    Refusal("weight", OperatorCall("project", spikes(), torch.ones(4, 5))),
    Refusal("weight", OperatorCall("project", spikes(), torch.ones(4, 6).double()), TypeError),
    Refusal("spikes", OperatorCall("project", torch.zeros(2, 6), torch.ones(4, 6))),
    Refusal("sums", OperatorCall("project_back", torch.zeros(2, 4), torch.ones(4, 6))),
    Refusal("sums", OperatorCall("spread_over_time", torch.zeros(3), torch.ones(2), steps=2)),
    Refusal("factors", OperatorCall("spread_over_time", torch.zeros(3, 2), torch.ones(2), steps=1)),
    Refusal("spikes", OperatorCall("count_spikes", torch.zeros(2, 3))),
    *(Refusal("output_mask", with_mask("src", count)) for count in (10, 12)),
    *(Refusal("output_mask", with_mask("src_events", count)) for count in (11, 13)),
    *(Refusal("output_mask", with_mask("src_dense by events", count)) for count in (11, 13)),
    *(Refusal(name, with_saved(k, lambda x: x[:-1])) for k, name in enumerate(("trace", "checkpoints", "mask"))),
    Refusal("mask", with_saved(2, Tensor.float), TypeError),
    Refusal("ones", with_saved(3, lambda ones: ones[None])),
    Refusal("spikes", OperatorCall("count_spikes", torch.ones(400, 10, 10, dtype=torch.int8)), TypeError),
    Refusal("spikes", OperatorCall("count_spikes", torch.ones(400, 10, 10, dtype=torch.float16)), TypeError),
    Refusal("images", encoding("rate_encode", PIXELS.byte(), NUMBERS), TypeError),
    Refusal("images", encoding("latency_encode", PIXELS.double()), TypeError),
    Refusal("images", encoding("latency_encode", PIXELS[0])),
    Refusal("steps", encoding("rate_encode", PIXELS, NUMBERS, steps=-5)),
    Refusal("prefix", encoding("rate_encode", PIXELS, NUMBERS, prefix=-5)),
    Refusal("index", encoding("rate_encode", PIXELS, NUMBERS[:1])),
    Refusal("steps", encoding("latency_encode", PIXELS, steps=0)),
    Refusal("frames", OperatorCall("camera_frames", PIXELS, NUMBERS, dark=0.0, **SENSOR)),
    Refusal(
        "frames", OperatorCall("camera_frames", PIXELS[None, None].double(), NUMBERS, dark=0.0, **SENSOR), TypeError
    ),
    Refusal("index", OperatorCall("camera_frames", PIXELS[None, None], NUMBERS, dark=0.0, **SENSOR)),
    Refusal("images", OperatorCall("camera_pictures", PIXELS, MOVEMENT, NUMBERS, **VIEW, **SENSOR)),
    Refusal("movement", OperatorCall("camera_pictures", PIXELS[None], MOVEMENT[:, 1:], NUMBERS[:1], **VIEW, **SENSOR)),
    Refusal(
        "movement",
        OperatorCall("camera_pictures", PIXELS[None], MOVEMENT.float(), NUMBERS[:1], **VIEW, **SENSOR),
        TypeError,
    ),
]
# Of values, which fake tensors do not have, and of what the kernel alone counts with.
SEEN_BY_KERNELS = [
    Refusal(
        "steps", OperatorCall("camera_pictures", PIXELS[None], MOVEMENT, NUMBERS[:1], **VIEW | {"steps": -1}, **SENSOR)
    ),
]


@refusals(*SEEN_BY_FAKE_KERNELS, *SEEN_BY_KERNELS)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    """Regression: many of these read or wrote invalid memory."""
    refusal.check()


def error_of(call: OperatorCall) -> ValueError | TypeError:
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    return caught.value


DIRECT = {x.operator.name: x for x in (src.directly, src_events.directly, src_dense.directly)}


def directly(call: OperatorCall) -> Any:
    """The call as functions and layers make it: past torch's dispatcher if C++ takes it."""
    operator = DECLARED[call.name]
    record = operator.call(*call.arguments, **call.options)
    if call.name in DIRECT:
        made = DIRECT[call.name](record)
        if made:
            return made
    tensors = len(record) - len(operator._options)
    return operator(*record[:tensors], **dict(zip(operator._options, record[tensors:], strict=True)))


def fake_mode() -> FakeTensorMode:
    return FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True)


def with_fakes(call: OperatorCall, mode: FakeTensorMode | None = None) -> Any:
    """The call on fake tensors, of which a mode makes one for each tensor that it is given."""
    with mode or fake_mode() as mode:
        fake = pytree.tree_map_only(Tensor, mode.from_tensor, call.arguments)
        return OperatorCall(call.name, *fake, **call.options)()


def error_said(run: Callable[[], Any]) -> ValueError | TypeError | None:
    try:
        run()
    except (ValueError, TypeError) as error:
        return error
    return None


def refusal_of(run: Callable[[], Any]) -> str | None:
    error = error_said(run)
    return None if error is None else repr(error)


@refusals(*SEEN_BY_FAKE_KERNELS)
def test_fake_kernels_raise_the_error_of_the_kernel(refusal: Refusal) -> None:
    """And so does the call that goes past torch's dispatcher."""
    call = refusal.call
    assert isinstance(call, OperatorCall)
    said = refusal_of(call)
    assert said is not None
    assert said == refusal_of(lambda: with_fakes(call)) == refusal_of(lambda: directly(call))


def changes_of(x: Tensor) -> list[Tensor | None]:
    """A tensor of another shape, size, dtype or device, or none."""
    dtype = torch.float64 if x.dtype == torch.float32 else torch.float32
    given = x.detach()
    return [given[None], torch.cat([given, given]) if x.dim() else x, given.to(dtype), given.to("meta"), None]


WRONG_OPTIONS: dict[str, Any] = {
    "surrogate": "relu ", "lateral_surrogate": "", "past_steps": -1, "constants": [0.9], "bias_max": float("nan"),
    "channels": -2, "clamped": [True] * 9, "start": "", "method": "", "product_dtype": "float8",
    "steps": -3, "batch": -3, "taps": 0, "skip": 99, "output_mask": [True], "cell": [1, 2],
}  # fmt: skip


def changed_calls(call: OperatorCall) -> Iterator[OperatorCall]:
    """The call with one of its tensors or options changed."""
    for option in WRONG_OPTIONS.keys() & call.options.keys():
        yield OperatorCall(call.name, *call.arguments, **{**call.options, option: WRONG_OPTIONS[option]})
    alone = len(call.arguments) == 1  # then another device is no fault, and none is refused by torch
    for k, given in enumerate(call.arguments):
        if isinstance(given, Tensor):
            for x in changes_of(given):
                if alone and (x is None or x.is_meta):
                    continue
                yield OperatorCall(call.name, *call.arguments[:k], x, *call.arguments[k + 1 :], **call.options)
        elif given:
            for j, item in enumerate(given):
                lists: list[Any] = [[*given[:j], x, *given[j + 1 :]] for x in changes_of(item) if x is not None]
                for items in [*lists, given[:j]]:
                    yield OperatorCall(call.name, *call.arguments[:k], items, *call.arguments[k + 1 :], **call.options)


OF_VALUES = re.compile(
    r"ValueError\('(offsets: expected the last|movement: expected finite|steps: expected from 0 to 2)"
)


@functools.cache
def valid_calls() -> dict[str, OperatorCall]:
    """A call of each operator, of those of layers one of each kind, by their names."""
    made = {f"{call.name} {k}": call for k, call in enumerate(OTHERS)}
    for name in LAYERS:
        call = make_call(name)
        made[name] = call.forward()
        made[f"{name}, backward"] = call.backward(*outputs_of(call), [True] * (11 if call.name == "src" else 12))
    return made


@pytest.mark.parametrize("name", valid_calls())
def test_real_calls_are_refused_as_fake_ones_are(name: str) -> None:
    """Whichever way a call goes, what the table says of its tensors is said in the same words."""
    call = valid_calls()[name]
    assert refusal_of(call) is None
    mode = fake_mode() if NEW_TORCH else None  # a mode of torch 2.4 mixes up storages at an address used before
    for changed in changed_calls(call):
        said, fake = refusal_of(changed), refusal_of(lambda c=changed: with_fakes(c, mode))
        assert refusal_of(lambda c=changed: directly(c)) == said, changed.arguments
        assert fake == said or (fake is None and OF_VALUES.match(str(said))), changed.arguments


def on_devices(call: OperatorCall, first: str, other: str, position: int) -> str | None:
    """What is said of a call on fake tensors on one device, except that at a position, which is on another."""
    with fake_mode():
        tensors, spec = pytree.tree_flatten(call.arguments)
        for k, x in enumerate(tensors):
            if isinstance(x, Tensor):
                tensors[k] = torch.empty(x.shape, dtype=x.dtype, device=other if k == position else first)
        return refusal_of(OperatorCall(call.name, *pytree.tree_unflatten(tensors, spec), **call.options))


# A GPU keeps checkpoints of another size for the backward calls of layers.
@pytest.mark.parametrize("name", [name for name in valid_calls() if not name.endswith(", backward")])
def test_tensors_on_several_devices_are_refused(name: str) -> None:
    call = valid_calls()[name]
    places = [k for k, x in enumerate(pytree.tree_leaves(call.arguments)) if isinstance(x, Tensor)]
    assert on_devices(call, "cuda:0", "cuda:0", -1) is None
    for first, other in (("cuda:0", "cuda:1"), ("cuda:1", "cpu"), ("cpu", "cuda:0")):
        for place in places if len(places) > 1 else []:
            said = str(on_devices(call, first, other, place))
            assert re.search(f"expected device ({first}|{other}), as [a-z_.]+ has, got ({first}|{other})", said), said


class Placed(Tensor):
    """A tensor on the CPU that says it lies elsewhere."""

    place = torch.device("cuda:0")
    device = property(lambda self: self.place)  # type: ignore[assignment]


def placed(place: str, *shape: int) -> Tensor:
    made = torch.zeros(*shape).as_subclass(Placed)
    made.place = torch.device(place)
    return made


@pytest.mark.parametrize("other", ["cpu", "cuda:1", "cuda:0"])
def test_a_layer_on_a_gpu_is_read_from_one_device(other: str) -> None:
    layer = LayerArguments(
        placed("cuda:0", 5), [], [], None, placed(other, 5, 5), None, None, [0.9, 3.0, 2.0, -7.0, 0.9, 0.0], "relu",
        False, "relu", 0,
    )  # fmt: skip
    call = functools.partial(_cpu.core.layer_on_gpu, layer, (4, 2, 5), is_double=False, backward=False)
    if other == "cuda:0":
        assert isinstance(call(), _cpu.core.Layer)
    else:
        with pytest.raises(RuntimeError, match="expected contiguous tensors that lie in the memory of one device"):
            call()


def texts_of_python(file: Path) -> Iterator[str]:
    """The texts of the errors that a file makes, each with ``{}`` for what is put into it."""

    def text_of(node: ast.AST) -> str:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.JoinedStr):
            return "".join(text_of(part) for part in node.values)
        return "{}"

    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("ValueError", "TypeError") and node.args:
            yield text_of(node.args[0])


def texts_of_cpp(file: Path) -> Iterator[str]:
    for given in re.findall(r"value_error\(((?:[^()]|\([^()]*\))*)\);", file.read_text()):
        parts = re.split(r'"((?:[^"\\]|\\.)*)"', given)  # what stands between texts, and texts, in turn
        yield "".join(part if k % 2 else "{}" * bool(part.strip(" ,\n")) for k, part in enumerate(parts))


SOURCES = Path(__file__).parents[1] / "csrc"


@pytest.mark.skipif(not SOURCES.is_dir(), reason="the C++ sources are not beside the tests")
def test_what_is_wrong_is_worded_in_one_file() -> None:
    """Of all texts that fit what is said of a call, that of the most letters stands in one source file."""
    texts: dict[str, set[str]] = {}
    package = Path(srcell.__file__).parent
    for folder, pattern, texts_of in ((package, "*.py", texts_of_python), (SOURCES, "bindings/*", texts_of_cpp)):
        for file in folder.rglob(pattern) if folder == package else folder.glob(pattern):
            for text in texts_of(file):
                texts.setdefault(text, set()).add(str(file))
    patterns = {text: re.compile(".+?".join(map(re.escape, text.split("{}"))), re.DOTALL) for text in texts}
    calls = [refusal.call for refusal in SEEN_BY_FAKE_KERNELS]
    calls += [changed for call in valid_calls().values() for changed in changed_calls(call)]
    messages = {str(error) for call in calls if (error := error_said(call)) and not OF_VALUES.match(repr(error))}
    assert len(messages) > 100
    for message in messages:
        fitting = [text for text, pattern in patterns.items() if pattern.fullmatch(message)]
        assert fitting, message
        files = texts[max(fitting, key=lambda text: len(text.replace("{}", "")))]
        assert len(files) == 1, (message, files)


@layers
@pytest.mark.parametrize(
    ("argument", "count", "expected"),
    [
        ("cell", 3, "0 or {} tensors"),
        ("cell", 8, "0 or {} tensors"),
        ("state", 1, "0 or {} tensors"),
        ("state", 5, "0 or {} tensors"),
        ("constants", 0, "6 or 7 values"),
        ("constants", 8, "6 or 7 values"),
    ],
)
def test_lists_of_a_wrong_length_are_named(name: str, argument: str, count: int, expected: str) -> None:
    call = make_call(name)
    expected = expected.format(len(getattr(call.layer, argument)))
    items = 3 * getattr(call.layer, argument)
    changed = with_layer(call, **{argument: items[:count]})
    calls = [changed.forward()]
    if argument == "constants":
        calls.append(changed.backward(*outputs_of(call), [True] * (11 if call.name == "src" else 12)))
    for refused in calls:
        assert str(error_of(refused)) == f"{argument}: expected {expected}, got {count}"


def test_a_tensor_with_elements_never_passes_a_null_address_to_the_core() -> None:
    assert address(None) == 0
    with pytest.raises(RuntimeError, match="expected tensors that lie in memory, got a Tensor on meta"):
        address(torch.ones(3, device="meta"))


def test_an_output_larger_than_the_address_space_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        _cpu.empty(torch.empty(0), 2**32, 2**30)


def test_an_operator_has_only_tensors_before_the_options() -> None:
    with pytest.raises(ValueError, match=r"^toy: expected tensors and lists of them before the \*, got float gain"):
        Operator("toy(Tensor x, float gain, *, int steps) -> Tensor")


def test_memory_is_made_on_the_device_of_its_model() -> None:
    """Regression: from 4 MiB on it lay on the CPU."""
    assert _cpu.empty(torch.empty(1, device="meta"), 1024, 1024).device.type == "meta"


def test_the_resting_point_is_refused_for_arguments_that_do_not_match() -> None:
    """Regression: the kernel read and wrote past them."""
    single, four = torch.full((4,), -6.0), torch.full((4,), -5.0, dtype=torch.float64)
    for bias, gain, name in ((single, single, "bias"), (four, single, "gain"), (four, four[0], "gain")):
        with pytest.raises((TypeError, ValueError), match=f"^{name}: expected"):
            torch.ops.srcell.rest(bias, gain)


def test_a_product_is_refused_in_the_words_of_its_operator() -> None:
    """Regression: for calls with a gradient the message named currents, which no caller passes."""
    weight = torch.rand(3, 300, requires_grad=True)
    with pytest.raises(TypeError, match="as input has"):
        src_linear(torch.rand(10, 4, 300), weight, torch.full((3,), -6.0).double())


def test_integer_constants_of_other_types_are_named() -> None:
    weight, zeros = torch.zeros(2, 3, dtype=torch.int16), torch.zeros(4, 1, 3)
    call = OperatorCall(
        "integer_src", None, None, zeros, weight, None, None, [], None, steps=4, batch=1, rho=3.0, floats=False,
        save=False, cell=[2**40, *list(IntegerCell())[1:]],
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"^cell.leak_shift_a: expected an int in \[1, 15\]"):
        call()


def test_large_outputs_may_be_changed_in_place() -> None:
    """They lie in memory that is used again, but are no views to autograd."""
    x, delays, weight = torch.rand(300, 64, 64), torch.rand(64, requires_grad=True), torch.rand(64, 64).requires_grad_()
    delayed = delay(x, delays, max_delay=3)
    assert isinstance(delayed, torch.Tensor)
    spikes, _ = src_linear(x, weight, 0.0)
    (delayed.mul_(2).sum() + spikes.mul_(2).sum()).backward()
    assert delays.grad is not None and weight.grad is not None
