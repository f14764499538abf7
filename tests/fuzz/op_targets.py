"""Fuzz targets on tensors: functions, layers, operators and the compiled module.

A target draws one input, makes the call, and returns if its input was accepted. If the input was refused as documented
it raises RefusedError, or returns False. Every other error is a finding: a refusal of another kind, or an assertion
about an accepted input that fails. Blank lines separate the three parts: the drawing of the input, the call
(``attempt`` ends the target if it is refused), and the assertions.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch._dynamo  # loaded early: torch loads it at its first pow on meta, which would look like a leak
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from fuzz.draws import FLOATS, Draw, fits
from fuzz.facts import RefusedError, assert_own_memory, attempt, contents, may_raise, readable, tensors_in
from srcell import (
    SRC,
    EventBatch,
    IntegerCell,
    IntegerSRC,
    IntegerState,
    LeakyReadout,
    SRCCell,
    SRCConv2d,
    _core,
    integer_src_linear,
    leaky_readout,
    rest_state,
    src,
    src_conv2d,
    src_linear,
)
from srcell._shared.state import state_type
from srcell.functional import count_spikes
from srcell.functional.terms import tables
from srcell.ops._layer import LayerArguments
from srcell.reference import src_reference
from support.calls import assert_same
from support.inputs import CONSTANTS, Layer
from support.inputs import PARAMETERS as PLAIN
from support.integers import HARDWARE
from support.operators import LayerCall, OperatorCall, layer_call

warnings.filterwarnings("ignore", message=".*(quantize|Sparse|complex|overflow encountered|NumPy array|nested).*")

DOMAINS = {
    "bias": (-6.5, -4.0),
    "alpha": (0.0, 1.0),
    "rho": (0.5, 4.0),
    "r": (-3.0, 3.0),
    "rs": (-8.0, 1.0),
    "zs_hyp": (0.0, 1.0),
    "zs_dep": (-0.2, 0.5),
    "omega": (-3.14, 3.14),
}
PARAMETERS = (*PLAIN, "omega")
DEFAULTS = {**dict(zip(PLAIN, CONSTANTS, strict=True)), "omega": 0.5}
SYNAPSE = ("current", "input", "weight")
SURROGATES = ("relu", "straight_through")


# The public functions


def parameter(draw: Draw, name: str, features: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Numbers in the domain of a parameter, in a shape that broadcasts to the features."""
    shape = [1 if draw.chance(20) else n for n in features]
    del shape[: draw.randrange(len(shape) + 1) if draw.chance(30) else 0]
    low, high = DOMAINS[name]
    return draw.relaid((low + (high - low) * draw.floats(*shape).sigmoid()).to(dtype))


def parameter_or_number(draw: Draw, name: str, features: Sequence[int], dtype: torch.dtype) -> Any:
    return draw.uniform(*DOMAINS[name]) if draw.chance(60) else leaf(draw, parameter(draw, name, features, dtype))


def leaf(draw: Draw, x: Tensor) -> Tensor:
    return x.detach().requires_grad_() if draw.chance(30) else x


def layer_arguments(
    draw: Draw,
    steps: int,
    batch: int,
    features: Sequence[int],
    dtype: torch.dtype,
    wild: int,
    *,
    recurrent: bool = True,
) -> dict[str, Any]:
    names = ("bias", *(name for name in PARAMETERS if draw.chance(25)))
    given: dict[str, Any] = {name: parameter_or_number(draw, name, features, dtype) for name in names}
    if recurrent and draw.chance(30):
        neurons = math.prod(features)
        given["weight_hh"] = draw.relaid(draw.floats(neurons, neurons, dtype=dtype, wild=wild))
        given["recurrent_surrogate"] = draw.pick(*SURROGATES)
        if draw.chance(50):
            given |= drawn_delays(draw, features, dtype)
    if draw.chance(40):
        shapes = [(batch, *features)] * (4 if "omega" in given else 3)
        if "delay_hh" in given and draw.chance(70):
            shapes += [(batch, past_steps(given), *features)]
        state = [draw.relaid(draw.floats(*shape, dtype=dtype, scale=0.5, wild=wild)) for shape in shapes]
        whole = len(shapes) == 3 + ("omega" in given) + ("delay_hh" in given)
        kind = state_type("omega" in given, "delay_hh" in given)
        given["state"] = kind(*state) if whole and draw.chance(50) else tuple(state)
    if draw.chance(40):
        given["lengths"] = draw.any_lengths(steps, batch)
    if draw.chance(50):
        given |= {"surrogate": draw.pick(*SURROGATES), "full_gradient": draw.chance(50)}
    return given


def drawn_delays(draw: Draw, features: Sequence[int], dtype: torch.dtype) -> dict[str, Any]:
    """Delays of recurrent weights, whole or not, as one number or one for each neuron."""
    most = draw.pick(4, 0, 1, 40)
    delays: Any = draw.pick(float(most), draw.uniform(0, most))
    if draw.chance(60):
        delays = (most * draw.floats(*features).sigmoid()).to(dtype)
        delays = leaf(draw, draw.relaid(delays.round() if draw.chance(40) else delays))
    return {"delay_hh": delays, "max_delay": draw.pick(most, most, 300), "delay_width": draw.pick(1, 1, 2, 9)}


def past_steps(given: dict[str, Any]) -> int:
    """The steps of a call's past."""
    return int(given["max_delay"]) + int(given["delay_width"]) if given.get("delay_hh") is not None else 0


def op_src(draw: Draw) -> None:
    """src, src_linear, src_conv2d, rest_state, leaky_readout and count_spikes, the first three sometimes with
    gradients.
    """
    kind = draw.pick(src, src_linear, src_conv2d, src, src_linear, src_conv2d, leaky_readout, rest_state, count_spikes)
    part = dict.fromkeys((src, src_linear, src_conv2d), running) | {rest_state: resting}
    part.get(kind, reading_out)(draw, kind)


def maps_and_kernel(draw: Draw, steps: int, batch: int, dtype: torch.dtype, work: torch.dtype) -> dict[str, Any]:
    """The arguments of src_conv2d before the layer's: maps, dense or events, at least as large as the kernel."""
    groups, of_group, outputs = draw.pick(1, 1, 2), draw.pick(1, 2, 3), draw.pick(1, 2, 9)
    (kernel, stride, padding, dilation) = (
        [draw.pick(*sizes) for _ in "yx"] for sizes in ((1, 2, 3), (1, 2), (0, 1, 4), (1, 2))
    )
    sizes = [
        max(1, d * (k - 1) + 1 - 2 * p) + draw.pick(0, 1, 4) for k, p, d in zip(kernel, padding, dilation, strict=True)
    ]
    x = draw.repeated(draw.relaid(draw.spikes(steps, batch, groups * of_group, *sizes, dtype=dtype)))
    weight = draw.relaid(draw.floats(groups * outputs, of_group, *kernel, dtype=dtype, scale=3))
    given: dict[str, Any] = {"input": x, "weight": weight, "method": draw.pick("events", "auto", "dense")}
    moves = {"stride": tuple(stride), "padding": tuple(padding), "dilation": tuple(dilation), "groups": groups}
    if draw.chance(40):
        given["input"] = EventBatch.from_dense(x.detach().flatten(2).to(work))
        given["input_size"] = tuple(sizes)
    return given | moves


def maps_of(given: dict[str, Any], x: Any) -> Tensor:
    """Torch's convolution of an input of src_conv2d, (T, B, O, H', W'), in float64."""
    weight = given["weight"].detach().double()
    channels = weight.shape[1] * given.get("groups", 1)
    dense = x
    if isinstance(x, EventBatch):
        square = math.isqrt(x.shape[2] // channels)
        dense = x.to_dense(torch.float64).unflatten(2, (channels, *(given["input_size"] or (square, square))))
    moves = {name: given[name] for name in ("stride", "padding", "dilation", "groups") if name in given}
    return F.conv2d(dense.detach().double().flatten(0, 1), weight, None, **moves).unflatten(0, x.shape[:2])


def drawn_dtype(draw: Draw) -> torch.dtype:
    return draw.pick(torch.float32, torch.float64, torch.float32, torch.float16, torch.bfloat16)


def layer_call_arguments(draw: Draw, kind: Any, dtype: torch.dtype, work: torch.dtype) -> dict[str, Any]:
    """Arguments of src or src_linear, of one dtype and computed in another, ``work``."""
    steps, batch, wild = draw.size(), draw.size(), draw.pick(0, 0, 30)
    features = [draw.size() for _ in range(draw.pick(1, 1, 2, 3))]
    if kind is src:
        current = draw.repeated(draw.relaid(draw.floats(steps, batch, *features, dtype=dtype, scale=3, wild=wild)))
        given: dict[str, Any] = {"current": current}
    elif kind is src_conv2d:
        given = maps_and_kernel(draw, steps, batch, dtype, work)
        features = [*maps_of(given, given["input"]).shape[2:]]
    else:
        features, inputs = features[:1], draw.size()
        x = draw.repeated(draw.relaid(draw.spikes(steps, batch, inputs, dtype=dtype)))
        given = {"input": x, "weight": draw.relaid(draw.floats(*features, inputs, dtype=dtype, scale=3, wild=wild))}
        if draw.chance(40):
            given["input"] = EventBatch.from_dense(x.detach().to(work))
        given["method"] = draw.pick("events", "auto", "gemm")
    given |= layer_arguments(draw, steps, batch, features, work, wild, recurrent=kind is not src_conv2d)
    synapse = {name: leaf(draw, x) for name, x in given.items() if name in SYNAPSE and isinstance(x, Tensor)}
    return given | synapse


def running(draw: Draw, kind: Any) -> None:
    dtype = drawn_dtype(draw)
    work = torch.float64 if dtype == torch.float64 else torch.float32
    given = layer_call_arguments(draw, kind, dtype, work)
    spoilt = draw.spoil(given, 35)
    compared, differentiated = draw.chance(30), draw.chance(50)
    inputs, seen = tensors_in(given), contents(tensors_in(given))

    spikes, state = attempt(kind, given, spoilt)

    outputs = (spikes, *state)
    assert_shapes(kind, given, outputs)
    if spikes.device.type == "meta" or not all(map(fits, inputs)):
        return
    tame = all_moderate(given)
    assert spikes.is_contiguous()
    assert_own_memory(outputs, inputs)
    assert_values(outputs, given.get("lengths"), tame)
    if compared and tame and spikes.dtype == torch.float64 and len(spikes) <= 5:
        assert_the_reference(outputs, given)
    if differentiated and any(x.requires_grad for x in inputs):
        assert_gradients(outputs, inputs, finite=tame and dtype in FLOATS)
    assert contents(inputs) == seen  # the backward pass changes no input either


def moderate(x: Tensor) -> bool:
    return bool((x.detach().abs() < 10).all())


def all_moderate(given: dict[str, Any]) -> bool:
    """Whether no argument can cause an overflow."""
    numbers = [x for x in given.values() if isinstance(x, (int, float))]
    tensors = [x for x in tensors_in(given) if x.is_floating_point()]
    return all(map(moderate, tensors)) and all(abs(x) < 10 for x in numbers)


def assert_shapes(kind: Any, given: dict[str, Any], outputs: Sequence[Tensor]) -> None:
    synapse = given["current"] if kind is src else given["input"]
    shape = synapse.shape if kind is src else (*synapse.shape[:2], len(given["weight"]))
    if kind is src_conv2d:
        shape = maps_of(given, synapse).shape
    assert outputs[0].shape == tuple(shape)
    batch, *features = outputs[0].shape[1:]
    state = outputs[1:-1] if past_steps(given) else outputs[1:]
    assert all(x.shape == (batch, *features) for x in state)
    assert not past_steps(given) or outputs[-1].shape == (batch, past_steps(given), *features)


def assert_values(outputs: Sequence[Tensor], lengths: Any, tame: bool) -> None:
    """Assert that moderate arguments give spikes in [0, 1], and that no spike is past a sample's length."""
    if tame:
        assert all(bool(x.isfinite().all()) for x in outputs)
        assert bool(((outputs[0] >= 0) & (outputs[0] <= 1)).all())
    if lengths is not None and len(outputs[0]):
        past = torch.arange(len(outputs[0]))[:, None] >= torch.as_tensor(lengths).to(torch.int64)
        assert not outputs[0][past].any()


def assert_the_reference(outputs: Sequence[Tensor], given: dict[str, Any]) -> None:
    """Assert that outputs in float64 equal those of the reference."""
    apart = ("method", "stride", "padding", "dilation", "groups", "input_size")
    plain = {name: x.detach() if isinstance(x, Tensor) else x for name, x in given.items() if name not in apart}
    if "input" in plain and plain["weight"].dim() == 4:
        plain["current"] = maps_of(given, plain.pop("input"))
        del plain["weight"]
    elif "input" in plain:
        x, weight = plain.pop("input"), plain.pop("weight")
        dense = x.to_dense(torch.float64) if isinstance(x, EventBatch) else x
        plain["current"] = dense.to(weight.dtype) @ weight.t()
    plain["bias"] = torch.as_tensor(plain["bias"], dtype=torch.float64)
    expected, expected_state = src_reference(**plain)
    for x, y in zip(outputs, (expected, *expected_state), strict=True):
        bound = 1e-9 * max(1.0, float(y.detach().abs().max()) if y.numel() else 0)
        assert bool(((x - y).abs() <= bound).all())


def assert_gradients(outputs: Sequence[Tensor], inputs: Sequence[Tensor], finite: bool) -> None:
    """Assert that every leaf gets a gradient of its shape and dtype, or None."""
    leaves = [x for x in inputs if x.requires_grad]
    made = torch.autograd.grad([x.sum() for x in outputs if x.requires_grad], leaves, allow_unused=True)
    for x, grad in zip(leaves, made, strict=True):
        assert grad is None or (grad.shape == x.shape and grad.dtype == x.dtype)
        assert grad is None or not finite or bool(grad.isfinite().all())


def resting(draw: Draw, kind: Any) -> None:
    features = [draw.size() for _ in range(draw.pick(1, 1, 2, 3))]
    given = {name: parameter_or_number(draw, name, features, draw.pick(*FLOATS)) for name in ("bias", "r", "rs")}
    spoilt = draw.spoil(given, 40)

    state = attempt(kind, given, spoilt)

    tensors = tensors_in(given)
    assert not any(x.requires_grad for x in state)
    if all(map(fits, tensors)) and state.h.device.type == "cpu" and not any(x.isnan().any() for x in tensors):
        assert bool((state.h.abs() <= 1).all()) and not state.i.any() and torch.equal(state.h, state.hs)


def reading_out(draw: Draw, kind: Any) -> None:
    dtype, steps, batch = drawn_dtype(draw), draw.size(), draw.size()
    classes = draw.pick(2, 1, 3, 10)
    neurons = classes * draw.pick(1, 2, 0, 3)
    given: dict[str, Any] = {"spikes": draw.relaid(draw.spikes(steps, batch, neurons, dtype=dtype))}
    if kind is leaky_readout:
        given["num_classes"] = classes
        if draw.chance(50):
            given |= {"alpha": draw.random(), "inhibition": -draw.random()}
        if draw.chance(50):
            given["lengths"] = draw.any_lengths(steps, batch)
    spoilt = draw.spoil(given, 30)

    result = attempt(kind, given, spoilt)

    if kind is leaky_readout:
        assert result.shape == (given["spikes"].shape[1], given["num_classes"])
    elif readable(given["spikes"]) and fits(given["spikes"]):
        assert torch.equal(result.events, (given["spikes"].detach().float() > 0).sum((0, 1)))
    elif readable(given["spikes"]):  # empty, but with strides that torch itself cannot handle
        assert result.events.shape == given["spikes"].shape[2:] and not result.events.any()


# The modules

# Arguments of a module's constructor that may be spoilt, those that are never spoilt, arguments of its call on a
# sequence, and the shapes of the outputs: the spikes and the state's tensors, or the readout's logits.
ModuleCase = tuple[dict[str, Any], dict[str, Any], dict[str, Any], list[tuple[int, ...]]]


def readout_case(draw: Draw, steps: int, batch: int, dtype: torch.dtype) -> ModuleCase:
    classes, each = draw.pick(3, 1, 4), draw.pick(2, 1, 6)
    given: dict[str, Any] = {"num_classes": classes, "neurons_per_class": each}
    if draw.chance(50):
        given |= {"alpha": draw.random(), "inhibition": -draw.random(), "temperature": 1.0}
    x = draw.spikes(steps, batch, classes * each, dtype=dtype)
    return given, {}, {"spikes": draw.relaid(x)}, [(batch, classes)]


def cell_options(draw: Draw, neurons: int) -> dict[str, Any]:
    """The options that every layer takes besides its sizes."""
    recurrent = draw.chance(50)
    given: dict[str, Any] = {"full_gradient": recurrent, "surrogate": draw.pick(*SURROGATES)}
    given |= {"bias_init": -6.0, "bias_max": -4.0, "learn_bias": draw.chance(80)}
    given |= {"initial_state": draw.pick("zeros", "rest"), "learn_initial_state": recurrent and draw.chance(30)}
    learnable = [name for name in PARAMETERS if draw.chance(15) and (recurrent or name not in ("zs_hyp", "zs_dep"))]
    given |= {"learnable": learnable, **{name: DEFAULTS[name] for name in learnable}}
    for name in PARAMETERS:
        if draw.chance(15):
            low, high = DOMAINS[name]
            low = max(low, 0.0) if name == "zs_dep" and name in learnable else low
            given[name] = low + (high - low) * draw.floats(neurons).sigmoid()
    return given


def layer_case(draw: Draw, kind: Any, steps: int, batch: int, dtype: torch.dtype) -> ModuleCase:
    inputs, neurons = draw.pick(3, 1, 4), draw.pick(2, 1, 6)
    given, fixed, before = cell_options(draw, neurons), {"dtype": dtype}, (steps, batch)
    if kind is SRCConv2d:
        height, width = draw.pick((1, 1), (2, 2), (2, 1))
        kernel = height if height == width else (height, width)
        given |= {"in_channels": inputs, "out_channels": neurons, "kernel_size": kernel}
        maps = (batch, neurons, 4 - height, 5 - width)
        x = draw.spikes(*before, inputs, 3, 4, dtype=dtype)
        return given, fixed, {"input": draw.relaid(x)}, [(steps, *maps), *[maps] * (4 if "omega" in given else 3)]
    given |= {"input_size": inputs, "hidden_size": neurons}
    if draw.chance(30):
        given |= {"recurrent": True, "autapses": draw.chance(50), "recurrent_surrogate": draw.pick(*SURROGATES)}
        if draw.chance(50):
            given |= drawn_delays(draw, [neurons], dtype)
            given["delay_hh"] = draw.pick(given["delay_hh"], min(1.5, given["max_delay"]))
    if kind is SRC:
        fixed["num_layers"] = draw.pick(1, 2, 3)
        given["dropout"] = draw.pick(0.0, 0.5)
        ends: tuple[int, ...] = (fixed["num_layers"], batch, neurons)
    else:
        before, ends = (batch,), (batch, neurons)
    states = 4 if "omega" in given else 3
    call: dict[str, Any] = {"input": draw.relaid(draw.spikes(*before, inputs, dtype=dtype))}
    if draw.chance(40):
        call["state"] = tuple(draw.floats(*ends, dtype=dtype) for _ in range(states))
    shapes = [(*before, neurons), *[ends] * states]
    if "delay_hh" in given:
        shapes.append((*ends[:-1], past_steps(given), neurons))
    return given, fixed, call, shapes


def modules(draw: Draw) -> None:
    """SRC, SRCCell, SRCConv2d and LeakyReadout: construction, and a call on a sequence."""
    kind, dtype = draw.pick(SRC, SRCCell, SRCConv2d, LeakyReadout), draw.pick(*FLOATS)
    sizes = draw.size(), draw.size()
    of_layer = kind is not LeakyReadout
    case = layer_case(draw, kind, *sizes, dtype) if of_layer else readout_case(draw, *sizes, dtype)
    given, fixed, call, shapes = case
    if kind is not SRCCell and draw.chance(30):
        call["lengths"] = draw.any_lengths(*sizes)
    spoilt_module, spoilt_call = draw.spoil(given, 15), draw.spoil(call, 25)
    neurons = given.get("hidden_size")
    if isinstance(neurons, int) and neurons > 1000:  # N * N recurrent weights may be more than there is memory
        given["recurrent"] = False

    module = attempt(kind, given | fixed, spoilt_module)
    result = attempt(module, call, spoilt_module or spoilt_call)

    if spoilt_module or spoilt_call:
        return
    outputs = pytree.tree_leaves(result)
    assert [tuple(x.shape) for x in outputs] == shapes
    if of_layer:
        assert outputs[0].dtype == dtype and bool(((outputs[0] >= 0) & (outputs[0] <= 1)).all())


# Integer neurons


def drawn_cell(draw: Draw) -> IntegerCell:
    """Constants, some of which may be refused because values would not fit in 16 bits."""
    changed = {name: value for name, value in HARDWARE.items() if draw.chance(2)}
    for name, value in changed.items():
        changed[name] = draw.pick(value + 1, value - 1, 2 * value, 0, 1, 15, 16, -32767, 32767, 32768)
    return IntegerCell(**changed)


def drawn_state(draw: Draw, batch: int, neurons: int, cell: IntegerCell) -> Any:
    parts = []
    for low, high in ((-cell.i_max, cell.i_max), (cell.h_min, cell.h_max), (cell.hs_min, cell.hs_max)):
        values = [draw.pick(low, high, draw.randrange(low, max(low, high) + 1)) for _ in range(neurons)]
        x = torch.tensor([values] * batch).reshape(batch, neurons).clamp(-32768, 32767)
        parts.append(draw.relaid(x.to(torch.int16)))
    return (IntegerState if draw.chance(50) else lambda *x: x)(*parts)


def integers(draw: Draw) -> None:
    """integer_src_linear, and IntegerSRC with gradients."""
    draw.pick(integer_function, integer_layer)(draw)


def integer_call(draw: Draw, inputs: int, neurons: int, cell: IntegerCell) -> dict[str, Any]:
    """The input, state and lengths for either call."""
    steps, batch = draw.size(), draw.size()
    x = (draw.spikes(steps, batch, inputs) != 0).to(draw.pick(torch.float32, torch.float64, torch.bool, torch.uint8))
    events = draw.chance(40)
    given: dict[str, Any] = {"input": EventBatch.from_dense(x.float()) if events else draw.repeated(draw.relaid(x))}
    if draw.chance(40):
        given["state"] = drawn_state(draw, batch, neurons, cell)
    if draw.chance(40):
        given["lengths"] = draw.any_lengths(steps, batch)
    return given


def plain(given: dict[str, Any]) -> dict[str, Any]:
    """The same arguments in contiguous memory, on which test_integer.py compares the kernels with the model."""

    def copy(x: Tensor) -> Tensor:
        return x.detach().resolve_neg().clone(memory_format=torch.contiguous_format)

    return pytree.tree_map_only(Tensor, copy, given)


def integer_function(draw: Draw) -> None:
    inputs, neurons, cell = draw.size(), draw.size(), drawn_cell(draw)
    given, largest = integer_call(draw, inputs, neurons, cell), draw.pick(1, 8, 512, 32768)
    weight = [[draw.randrange(-largest, largest) for _ in range(inputs)] for _ in range(neurons)]
    given["weight"] = draw.relaid(torch.tensor(weight, dtype=torch.int16).reshape(neurons, inputs))
    given |= {"cell": cell} if cell != IntegerCell() or draw.chance(20) else {}
    counts = torch.zeros(2, dtype=torch.int64)
    spoilt = draw.spoil(given, 30)

    outputs = attempt(partial(integer_src_linear, clamped=counts[0]), given, spoilt or cell != IntegerCell())

    spikes, state = outputs
    assert spikes.dtype == torch.uint8 and spikes.is_contiguous() and all(x.dtype == torch.int16 for x in state)
    assert_own_memory((spikes, *state), tensors_in(given))
    if not spoilt:
        assert_same(outputs, integer_src_linear(**plain(given), clamped=counts[1]))
        assert counts[0] == counts[1]


def integer_layer(draw: Draw) -> None:
    inputs, neurons, cell, dtype = draw.size(), draw.size(), drawn_cell(draw), draw.pick(*FLOATS)
    options = {"input_size": inputs, "hidden_size": neurons, "weight_bits": draw.pick(4, 2, 10, 16), "cell": cell}
    options |= {"rho": draw.pick(3.0, 0.5, 1e-3), "initial_state": draw.pick("zeros", "rest")}
    given = integer_call(draw, inputs, neurons, cell)
    weight = draw.floats(neurons, inputs, dtype=dtype, scale=3, wild=20)
    x = given["input"]
    if isinstance(x, Tensor) and x.is_floating_point() and draw.chance(50):
        given["input"] = x.detach().requires_grad_()
    spoilt_layer, spoilt_call = draw.spoil(options, 15), draw.spoil(given, 25)

    layer = attempt(IntegerSRC, {**options, "dtype": dtype}, spoilt_layer or cell != IntegerCell())
    if not spoilt_layer:
        layer.weight_ih_l0.data.copy_(weight)
    outputs = attempt(layer, given, spoilt_layer or spoilt_call or not moderate(weight), "weight")

    if spoilt_layer or spoilt_call:
        return
    assert outputs[0].dtype == dtype
    assert_same(outputs, layer(**plain(given)))
    leaves = [x for x in (layer.weight_ih_l0, *tensors_in(given["input"])) if x.requires_grad]
    for leaf, grad in zip(leaves, torch.autograd.grad(outputs[0].sum(), leaves), strict=True):
        assert grad.shape == leaf.shape and grad.dtype == leaf.dtype
        assert bool(grad.isfinite().all()) or not moderate(weight)


# The operators below


def spoilt_argument(draw: Draw, x: Any) -> Any:
    """A wrong tensor, number, string or list of them, of the type that the dispatcher requires; None stays None."""
    if isinstance(x, Tensor):
        return draw.altered(x) if draw.chance(75) else draw.relaid(draw.repeated(x))
    if isinstance(x, bool):
        return not x
    if isinstance(x, int):
        return draw.pick(0, 1, -1, x + 1, 2**31, 2**62, 2**63 - 1, -(2**63))
    if isinstance(x, float):
        return math.nan
    if isinstance(x, str):
        return draw.pick("", "relu", "events", "x")
    if isinstance(x, list) and not x:
        return [draw.floats(*draw.pick((), (3,), (2, 3))) for _ in range(draw.pick(1, 3, 6, 2))]
    if isinstance(x, list):
        k = draw.randrange(len(x))
        changed = [*x[:k], spoilt_argument(draw, x[k]), *x[k + 1 :]]
        return draw.pick(changed, changed, changed, draw.pick(x[:-1], [*x, x[0]], [], [*x[1:], x[0]]))
    return x


def raw_layer(draw: Draw, steps: int, batch: int, neurons: int, dtype: torch.dtype) -> Layer:
    names = PARAMETERS if draw.chance(40) else PLAIN
    shapes = [(batch, neurons)] * (3 + len(names) - len(PLAIN))
    bias, *cell = [parameter(draw, name, [neurons], dtype) for name in ("bias", *names)]
    lengths = draw.relaid(draw.lengths(steps, batch)) if draw.chance(40) else None
    mode = draw.pick(*SURROGATES), draw.chance(50)
    lateral = draw.relaid(draw.floats(neurons, neurons, dtype=dtype)) if draw.chance(30) else None
    delays: dict[str, Any] = {}
    if lateral is not None and draw.chance(50):
        first, factors = tables(
            8 * draw.floats(neurons, dtype=dtype).sigmoid(), draw.pick(1, 1, 3), keep=draw.chance(50)
        )
        delays = {"first_hh": first, "factors_hh": factors, "past_steps": draw.pick(11, 11, 12, 200)}
        shapes += [(batch, delays["past_steps"], neurons)] * draw.chance(70)
    state = [draw.relaid(draw.floats(*shape, dtype=dtype)) for shape in shapes] if draw.chance(50) else []
    constants = [DEFAULTS[x] for x in names]
    surrogate = draw.pick(*SURROGATES)
    bound = {"bias_max": draw.pick(None, -6.0, -4.0, 0.0, -math.inf), "channels": draw.pick(0, 0, 1, neurons)}
    return Layer(bias, draw.pick(cell, []), state, lengths, constants, *mode, lateral, surrogate, **delays, **bound)


def raw_call(draw: Draw) -> tuple[OperatorCall, bool]:
    """A forward or backward call, and whether a tensor has contents that no forward call or batch can have."""
    dtype, wild = draw.pick(*FLOATS), draw.pick(0, 0, 40)
    steps, batch, neurons, inputs = draw.size(), draw.size(), draw.size(), draw.pick(3, 1, 0, 64, 70)
    layer = raw_layer(draw, steps, batch, neurons, dtype)
    name = draw.pick("src", "src_events", "src_dense")
    options: dict[str, Any] = {"save": draw.chance(80), "trace_integrator": draw.chance(50)}
    if name == "src":
        call = layer_call(layer, draw.floats(steps, batch, neurons, dtype=dtype, scale=3, wild=wild), **options)
    else:
        dense = draw.spikes(steps, batch, inputs, dtype=dtype)
        weight = draw.floats(neurons, inputs, dtype=dtype, wild=wild)
        options |= {"method": draw.pick("events", "auto", "gemm"), "input_grad_at_events": draw.chance(50)}
        if inputs and neurons and layer.weight_hh is None and draw.chance(40):  # maps of one place
            weight, options["convolution"] = weight[:, :, None, None], [inputs, *[1] * 6, 0, 0, 1, 1]
        call = layer_call(layer, EventBatch.from_dense(dense) if name == "src_events" else dense, weight, **options)
    if options["save"] and draw.chance(50):
        return backward_call(draw, call)
    noisy = name == "src_events" and draw.chance(20)
    rows = draw.pick(*call.synapse[:2]) if noisy else torch.empty(0)
    if rows.numel():
        rows[draw.randrange(rows.numel())] = draw.pick(-1, 2**31 - 1, inputs, 1)
    return call.forward(), noisy


def backward_call(draw: Draw, call: LayerCall) -> tuple[OperatorCall, bool]:
    """The backward call for a forward call, perhaps with noise in a saved tensor; return whether there is noise."""
    with torch.no_grad():
        outputs = call.forward()()
    dtype, saved = outputs[0].dtype, outputs[6:]
    present = [*[True] * 4, len(call.layer.constants) > len(PLAIN), call.layer.past_steps > 0]
    given = zip(outputs[:6], present, strict=True)
    grads = [draw.relaid(draw.floats(*x.shape, dtype=dtype)) if has and draw.chance(80) else None for x, has in given]
    mask = [draw.chance(50) for _ in range(11 if call.name == "src" else 12)]
    noisy = draw.chance(15)
    if noisy:
        noise = draw.pick(*saved)
        noise.copy_(torch.randint(-(2**62), 2**62, noise.shape) if draw.chance(50) else draw.pick(0, -1, 1))
    call = call._replace(synapse=[x if x is None else draw.relaid(x) for x in call.synapse])
    return call.backward(grads, saved, mask), noisy


def op_raw(draw: Draw) -> None:
    """torch.ops.srcell, forward and backward, with tensors of every kind and inconsistent numbers."""
    call, noisy = raw_call(draw)
    names = [argument.name for argument in call.operator.default._schema.arguments]
    given = dict(zip(names, call.arguments, strict=False)) | call.options
    if not given.get("convolution", True):
        del given["convolution"]
    refusable = draw.spoil(given, 40, partial(spoilt_argument, draw)) or noisy
    inputs = tensors_in(given)

    if any(x.device.type == "meta" for x in inputs):  # fake kernels compute shapes and check nothing
        with contextlib.suppress(ValueError, TypeError, RuntimeError, IndexError):
            call.operator(**given)
        raise RefusedError
    with may_raise(NotImplementedError, refusable=refusable):
        outputs = attempt(call.operator, given, refusable, *names, *PARAMETERS, "cell", "offsets", "indices")

    if all(x.device.type == "cpu" for x in inputs):
        assert_own_memory(outputs, inputs)
        if not call.name.endswith("_backward"):
            fake = pytree.tree_map_only(Tensor, lambda x: x.to("meta"), given)
            for x, y in zip(outputs, call.operator(**fake), strict=True):
                assert (x.shape, x.dtype, x.stride()) == (y.shape, y.dtype, y.stride())


# The compiled module


CORE_ERRORS = (TypeError, ValueError, MemoryError)


def core_raw(draw: Draw) -> None:
    """Functions of srcell._core that promise to check the types and sizes of their arguments."""
    draw.pick(core_elementwise, core_empty, core_philox, core_layer)(draw)


def core_elementwise(draw: Draw) -> None:
    x = draw.floats(draw.size(), draw.size(), dtype=draw.pick(*FLOATS), wild=50).numpy()
    function, given = draw.pick(_core.tanh, _core.sigmoid), draw.pick(x, x, x.T, x[:, ::2], x[::-1], draw.oddity())

    with may_raise(*CORE_ERRORS):
        result = function(given)

    assert not isinstance(given, np.ndarray) or np.size(result) == given.size


def core_empty(draw: Draw) -> None:
    shape = [draw.pick(3, 0, 1, 7) for _ in range(draw.randrange(4))]
    if draw.chance(30):
        shape.append(draw.pick(-1, 2**31, 2**44, 2**61, 2**62, 2**63 - 1, -(2**63), 2**64, 1.5, None))
        shape += [draw.pick(4, 2**62, -1)] * draw.chance(50)

    with may_raise(*CORE_ERRORS):
        array = _core.empty(shape, draw.chance(50))

    if array.nbytes < 1000:
        array.fill(1)
    assert array.shape == tuple(shape)


def core_philox(draw: Draw) -> None:
    counter = [draw.getrandbits(32) for _ in range(4 if draw.chance(80) else 3)]
    key: Any = [draw.getrandbits(32) for _ in range(2)] if draw.chance(80) else draw.oddity()

    with may_raise(*CORE_ERRORS):
        words = _core.philox(counter, key)

    assert len(words) == 4


def core_layer(draw: Draw) -> None:
    """The record of a call of ``src`` with zero samples, with drawn constants; it need only return."""
    count, of_layer = draw.pick(6, 7), LayerArguments._fields
    layer: list[Any] = [torch.tensor(-6.0), [], [], *[None] * 4, [0.5] * count, "relu", True, "relu", 0]
    call: list[Any] = [torch.zeros(2, 0, 3), layer, False, False, False]
    if draw.chance(50):
        constants = layer[of_layer.index("constants")]
        constants[draw.randrange(count)] = draw.oddity()
        del constants[: draw.randrange(3)]
    if draw.chance(50):
        spoilt = draw.pick(layer, call)
        spoilt[draw.randrange(len(spoilt))] = draw.oddity()
    if draw.chance(20):
        del call[draw.randrange(len(call)) :]

    with may_raise(*CORE_ERRORS, OverflowError):
        made = _core.src(tuple(tuple(x) if x is layer else x for x in call), _core.Way(False, False, False), 1)
        assert made is None or len(made) == 8
