"""Fuzz targets on tensors: functions, layers, operators and the compiled module.

A target draws one input, makes the call and returns whether the input was accepted. It raises if the input was refused
in an undocumented way, or if an assertion about an accepted input fails. Blank lines separate the three parts: the
drawing of the input, the call (``attempt`` ends the target if it is refused), and the assertions.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch._dynamo  # loaded early: torch loads it at its first pow on meta, which would look like a leak
from torch import Tensor
from torch.utils import _pytree as pytree

from fuzz.draws import (
    FLOATS,
    INTEGERS,
    Draw,
    altered,
    chance,
    fits,
    floats,
    lengths_in,
    oddity,
    pick,
    relaid,
    repeated,
    size,
    spikes,
    spoil,
)
from fuzz.facts import RefusedError, attempt, contents, may_raise, readable, storages, target, tensors_in
from srcell import (
    SRC,
    EventBatch,
    IntegerCell,
    IntegerSRC,
    IntegerState,
    LeakyReadout,
    SRCCell,
    SRCConv2d,
    SRCState,
    _core,
    integer_src_linear,
    leaky_readout,
    rest_state,
    src,
    src_linear,
)
from srcell.functional import count_spikes
from srcell.reference import src_reference
from support.calls import assert_same
from support.inputs import CONSTANTS, PARAMETERS, Layer
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
}
DEFAULTS = dict(zip(PARAMETERS, CONSTANTS, strict=True))
SURROGATES = ("relu", "straight_through")


# The public functions


def parameter(draw: Draw, low: float, high: float, features: Sequence[int], dtype: torch.dtype) -> Any:
    """A number in an interval, or a tensor of such numbers that broadcasts to the features."""
    if chance(draw, 60):
        return low + (high - low) * draw.random()
    shape = list(features)
    for k in range(len(shape)):
        if chance(draw, 20):
            shape[k] = 1
    del shape[: draw.randrange(len(shape) + 1) if chance(draw, 30) else 0]
    x = relaid(draw, (low + (high - low) * floats(draw, *shape).sigmoid()).to(dtype))
    return x.detach().requires_grad_() if chance(draw, 30) else x


def drawn_lengths(draw: Draw, steps: int, batch: int) -> Any:
    lengths = lengths_in(draw, steps, batch)
    return lengths.tolist() if chance(draw, 50) else lengths.to(pick(draw, *INTEGERS))


def layer_arguments(
    draw: Draw, steps: int, batch: int, features: Sequence[int], dtype: torch.dtype, wild: int
) -> dict[str, Any]:
    given: dict[str, Any] = {"bias": parameter(draw, *DOMAINS["bias"], features, dtype)}
    for name in PARAMETERS:
        if chance(draw, 25):
            given[name] = parameter(draw, *DOMAINS[name], features, dtype)
    if chance(draw, 40):
        state = [relaid(draw, floats(draw, batch, *features, dtype=dtype, scale=0.5, wild=wild)) for _ in range(3)]
        given["state"] = (SRCState if chance(draw, 50) else lambda *x: x)(*state)
    if chance(draw, 40):
        given["lengths"] = drawn_lengths(draw, steps, batch)
    if chance(draw, 50):
        given["surrogate"] = pick(draw, *SURROGATES)
        given["recurrent_grad"] = chance(draw, 50)
    if chance(draw, 30):
        neurons = math.prod(features)
        given["weight_hh"] = relaid(draw, floats(draw, neurons, neurons, dtype=dtype, wild=wild))
        given["lateral_surrogate"] = pick(draw, *SURROGATES)
    return given


@target
def op_src(draw: Draw) -> None:
    """src, src_linear, rest_state, leaky_readout and count_spikes, the first two sometimes with gradients."""
    kind = pick(draw, src, src_linear, src, src_linear, leaky_readout, rest_state, count_spikes)
    part = {src: running, src_linear: running, rest_state: resting}.get(kind, reading_out)
    part(draw, kind)


def drawn_dtype(draw: Draw) -> torch.dtype:
    return pick(draw, torch.float32, torch.float64, torch.float32, torch.float16, torch.bfloat16)


def layer_call_arguments(draw: Draw, kind: Any, dtype: torch.dtype, work: torch.dtype) -> dict[str, Any]:
    """Arguments of src or src_linear, of one dtype and computed in another, ``work``."""
    steps, batch, wild = size(draw), size(draw), pick(draw, 0, 0, 30)
    features = [size(draw) for _ in range(pick(draw, 1, 1, 2, 3))]
    if kind is src:
        current = repeated(draw, relaid(draw, floats(draw, steps, batch, *features, dtype=dtype, scale=3, wild=wild)))
        given: dict[str, Any] = {"current": current}
    else:
        features, inputs = features[:1], size(draw)
        x = repeated(draw, relaid(draw, spikes(draw, steps, batch, inputs, dtype=dtype)))
        given = {"input": x, "weight": relaid(draw, floats(draw, *features, inputs, dtype=dtype, scale=3, wild=wild))}
        if chance(draw, 40):
            given["input"] = EventBatch.from_dense(x.detach().to(work))
        given["method"] = pick(draw, "events", "auto", "gemm")
    given |= layer_arguments(draw, steps, batch, features, work, wild)
    for name in ("current", "input", "weight"):
        if isinstance(given.get(name), Tensor) and chance(draw, 30):
            given[name] = given[name].detach().requires_grad_()
    return given


def running(draw: Draw, kind: Any) -> None:
    dtype = drawn_dtype(draw)
    work = torch.float64 if dtype == torch.float64 else torch.float32
    given = layer_call_arguments(draw, kind, dtype, work)
    spoilt = spoil(draw, given, 35)
    compared, differentiated = chance(draw, 30), chance(draw, 50)
    inputs, seen = tensors_in(given), contents(tensors_in(given))

    spikes_out, state = attempt(kind, given, spoilt)

    outputs = (spikes_out, *state)
    assert_shapes(kind, given, outputs)
    if spikes_out.device.type == "meta" or not all(map(fits, inputs)):
        return
    tame = all_moderate(given)
    assert_own_memory(outputs, inputs)
    assert_values(outputs, given.get("lengths"), tame)
    if compared and tame and spikes_out.dtype == torch.float64 and len(spikes_out) <= 5:
        assert_the_reference(outputs, given)
    if differentiated and any(x.requires_grad for x in inputs):
        assert_gradients(outputs, inputs, work, finite=tame and dtype in FLOATS)
    assert contents(inputs) == seen


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
    assert outputs[0].shape == tuple(shape)
    assert all(x.shape == outputs[0].shape[1:] for x in outputs[1:])


def assert_own_memory(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
    """Assert that no output shares memory with an input or another output."""
    assert outputs[0].is_contiguous()
    assert not storages(outputs) & storages(inputs)
    assert len(storages(outputs)) == len([x for x in outputs if readable(x) and x.numel()])


def assert_values(outputs: Sequence[Tensor], lengths: Any, tame: bool) -> None:
    """Assert that moderate arguments give spikes in [0, 1], and that there are none past a sample's length."""
    if tame:
        assert all(bool(x.isfinite().all()) for x in outputs)
        assert bool(((outputs[0] >= 0) & (outputs[0] <= 1)).all())
    if lengths is not None and len(outputs[0]):
        past = torch.arange(len(outputs[0]))[:, None] >= torch.as_tensor(lengths).to(torch.int64)
        assert not outputs[0][past].any()


def assert_the_reference(outputs: Sequence[Tensor], given: dict[str, Any]) -> None:
    """Assert that outputs in float64 are the reference's."""
    plain = {name: x.detach() if isinstance(x, Tensor) else x for name, x in given.items() if name != "method"}
    if "input" in plain:
        x, weight = plain.pop("input"), plain.pop("weight")
        dense = x.to_dense(torch.float64) if isinstance(x, EventBatch) else x
        plain["current"] = dense.to(weight.dtype) @ weight.t()
    plain["bias"] = torch.as_tensor(plain["bias"], dtype=torch.float64)
    expected, expected_state = src_reference(**plain)
    for x, y in zip(outputs, (expected, *expected_state), strict=True):
        bound = 1e-9 * max(1.0, float(y.detach().abs().max()) if y.numel() else 0)
        assert bool(((x - y).abs() <= bound).all())


def assert_gradients(outputs: Sequence[Tensor], inputs: Sequence[Tensor], work: torch.dtype, finite: bool) -> None:
    """Assert that every leaf gets a gradient of its shape and dtype, or None."""
    leaves = [x for x in inputs if x.requires_grad]
    total = sum((x.to(work).sum() for x in outputs if x.requires_grad), torch.zeros((), dtype=work))
    made = torch.autograd.grad(total, leaves, allow_unused=True)
    for leaf, grad in zip(leaves, made, strict=True):
        assert grad is None or (grad.shape == leaf.shape and grad.dtype == leaf.dtype)
        assert grad is None or not finite or bool(grad.isfinite().all())


def resting(draw: Draw, kind: Any) -> None:
    features = [size(draw) for _ in range(pick(draw, 1, 1, 2, 3))]
    given = {name: parameter(draw, *DOMAINS[name], features, pick(draw, *FLOATS)) for name in ("bias", "r", "rs")}
    spoilt = spoil(draw, given, 40)

    state = attempt(kind, given, spoilt)

    tensors = tensors_in(given)
    assert not any(x.requires_grad for x in state)
    if all(map(fits, tensors)) and state.h.device.type == "cpu" and not any(x.isnan().any() for x in tensors):
        assert bool((state.h.abs() <= 1).all()) and not state.i.any() and torch.equal(state.h, state.hs)


def reading_out(draw: Draw, kind: Any) -> None:
    dtype, steps, batch = drawn_dtype(draw), size(draw), size(draw)
    classes = pick(draw, 2, 1, 3, 10)
    neurons = classes * pick(draw, 1, 2, 0, 3)
    given: dict[str, Any] = {"spikes": relaid(draw, spikes(draw, steps, batch, neurons, dtype=dtype))}
    if kind is leaky_readout:
        given["num_classes"] = classes
        if chance(draw, 50):
            given |= {"alpha": draw.random(), "inhibition": -draw.random()}
        if chance(draw, 50):
            given["lengths"] = drawn_lengths(draw, steps, batch)
    spoilt = spoil(draw, given, 30)

    result = attempt(kind, given, spoilt)

    if kind is leaky_readout:
        assert result.shape == (given["spikes"].shape[1], given["num_classes"])
    elif readable(given["spikes"]) and fits(given["spikes"]):
        assert torch.equal(result.events, (given["spikes"].detach().float() > 0).sum((0, 1)))
    elif readable(given["spikes"]):  # empty, but with strides that torch itself cannot handle
        assert result.events.shape == given["spikes"].shape[2:] and not result.events.any()


# The modules


class ModuleCase(NamedTuple):
    """Arguments of a module and of its call on a sequence."""

    given: dict[str, Any]
    """Arguments of the constructor, which may be spoilt."""
    fixed: dict[str, Any]
    """Further arguments of the constructor, always valid."""
    call: dict[str, Any]
    shapes: list[tuple[int, ...]]
    """The shapes of the outputs: the spikes and the state's tensors, or the readout's logits."""


def readout_case(draw: Draw, steps: int, batch: int, dtype: torch.dtype) -> ModuleCase:
    classes, each = pick(draw, 3, 1, 4), pick(draw, 2, 1, 6)
    given: dict[str, Any] = {"num_classes": classes, "neurons_per_class": each}
    if chance(draw, 50):
        given |= {"alpha": draw.random(), "inhibition": -draw.random(), "temperature": 1.0}
    call = {"spikes": relaid(draw, spikes(draw, steps, batch, classes * each, dtype=dtype))}
    return ModuleCase(given, {}, call, [(batch, classes)])


def cell_options(draw: Draw, neurons: int) -> dict[str, Any]:
    """The options that every layer takes besides its sizes."""
    recurrent = chance(draw, 50)
    given: dict[str, Any] = {"recurrent_grad": recurrent, "surrogate": pick(draw, *SURROGATES)}
    given |= {"bias_init": -6.0, "bias_max": -4.0, "bias": chance(draw, 80)}
    given |= {"initial_state": pick(draw, "zeros", "rest"), "learn_initial_state": recurrent and chance(draw, 30)}
    learnable = [name for name in PARAMETERS if chance(draw, 15) and (recurrent or name not in ("zs_hyp", "zs_dep"))]
    given |= {"learnable": learnable, **{name: DEFAULTS[name] for name in learnable}}
    for name in PARAMETERS:
        if chance(draw, 15):
            low, high = DOMAINS[name]
            low = max(low, 0.0) if name == "zs_dep" and name in learnable else low
            given[name] = low + (high - low) * floats(draw, neurons).sigmoid()
    return given


def layer_case(draw: Draw, kind: Any, steps: int, batch: int, dtype: torch.dtype) -> ModuleCase:
    inputs, neurons = pick(draw, 3, 1, 4), pick(draw, 2, 1, 6)
    given, fixed = cell_options(draw, neurons), {"dtype": dtype}
    if kind is SRCConv2d:
        height, width = pick(draw, (1, 1), (2, 2), (2, 1))
        kernel = height if height == width else (height, width)
        given |= {"in_channels": inputs, "out_channels": neurons, "kernel_size": kernel}
        x = spikes(draw, steps, batch, inputs, 3, 4, dtype=dtype)
        maps = (batch, neurons, 4 - height, 5 - width)
        return ModuleCase(given, fixed, {"input": relaid(draw, x)}, [(steps, *maps), maps, maps, maps])
    given |= {"input_size": inputs, "hidden_size": neurons}
    if chance(draw, 30):
        given |= {"lateral": True, "autapses": chance(draw, 50)}
        given["lateral_surrogate"] = pick(draw, *SURROGATES)
    before, ends = (batch,), (batch, neurons)
    if kind is SRC:
        layers = pick(draw, 1, 2, 3)
        fixed |= {"num_layers": layers}
        given["dropout"] = pick(draw, 0.0, 0.5)
        before, ends = (steps, batch), (layers, batch, neurons)
    call: dict[str, Any] = {"input": relaid(draw, spikes(draw, *before, inputs, dtype=dtype))}
    if chance(draw, 40):
        call["state"] = tuple(floats(draw, *ends, dtype=dtype) for _ in range(3))
    return ModuleCase(given, fixed, call, [(*before, neurons), ends, ends, ends])


@target
def modules(draw: Draw) -> None:
    """SRC, SRCCell, SRCConv2d and LeakyReadout: construction, and a call on a sequence."""
    kind, dtype = pick(draw, SRC, SRCCell, SRCConv2d, LeakyReadout), pick(draw, *FLOATS)
    steps, batch = size(draw), size(draw)
    of_layer = kind is not LeakyReadout
    case = layer_case(draw, kind, steps, batch, dtype) if of_layer else readout_case(draw, steps, batch, dtype)
    if kind is not SRCCell and chance(draw, 30):
        case.call["lengths"] = lengths_in(draw, steps, batch).to(pick(draw, *INTEGERS))
    spoilt_module, spoilt_call = spoil(draw, case.given, 15), spoil(draw, case.call, 25)
    neurons = case.given.get("hidden_size")
    if isinstance(neurons, int) and neurons > 1000:  # N * N lateral weights may be more than there is memory
        case.given["lateral"] = False

    module = attempt(kind, case.given | case.fixed, spoilt_module)
    result = attempt(module, case.call, spoilt_module or spoilt_call)

    if spoilt_module or spoilt_call:
        return
    outputs = pytree.tree_leaves(result)
    assert [tuple(x.shape) for x in outputs] == case.shapes
    if of_layer:
        assert outputs[0].dtype == dtype and bool(((outputs[0] >= 0) & (outputs[0] <= 1)).all())


# Integer neurons


def drawn_cell(draw: Draw) -> IntegerCell:
    """Constants of which some may be refused, because values would not fit in 16 bits."""
    changes: dict[str, int] = {}
    for name in HARDWARE:
        if chance(draw, 2):
            hardware = HARDWARE[name]
            changes[name] = pick(draw, hardware + 1, hardware - 1, 2 * hardware, 0, 1, 15, 16, -32767, 32767, 32768)
    return IntegerCell(**changes)


def drawn_state(draw: Draw, batch: int, neurons: int, cell: IntegerCell) -> Any:
    parts = []
    for low, high in ((-cell.i_max, cell.i_max), (cell.h_min, cell.h_max), (cell.hs_min, cell.hs_max)):
        values = [pick(draw, low, high, draw.randrange(low, max(low, high) + 1)) for _ in range(neurons)]
        x = torch.tensor([values] * batch).reshape(batch, neurons).clamp(-32768, 32767)
        parts.append(relaid(draw, x.to(torch.int16)))
    return (IntegerState if chance(draw, 50) else lambda *x: x)(*parts)


@target
def integers(draw: Draw) -> None:
    """integer_src_linear, and IntegerSRC with gradients."""
    pick(draw, integer_function, integer_layer)(draw)


def integer_call(draw: Draw, steps: int, batch: int, inputs: int, neurons: int, cell: IntegerCell) -> dict[str, Any]:
    """Input, state and lengths of either."""
    x = (spikes(draw, steps, batch, inputs) != 0).to(pick(draw, torch.float32, torch.float64, torch.bool, torch.uint8))
    given: dict[str, Any] = {"input": repeated(draw, relaid(draw, x))}
    if chance(draw, 40):
        given["input"] = EventBatch.from_dense(x.float())
    if chance(draw, 40):
        given["state"] = drawn_state(draw, batch, neurons, cell)
    if chance(draw, 40):
        given["lengths"] = drawn_lengths(draw, steps, batch)
    return given


def plain(given: dict[str, Any]) -> dict[str, Any]:
    """The same arguments in contiguous memory, on which test_integer.py compares the kernels with the model."""

    def copy(x: Tensor) -> Tensor:
        return x.detach().resolve_neg().clone(memory_format=torch.contiguous_format)

    return pytree.tree_map_only(Tensor, copy, given)


def integer_function(draw: Draw) -> None:
    steps, batch, inputs, neurons = size(draw), size(draw), size(draw), size(draw)
    cell, largest = drawn_cell(draw), pick(draw, 1, 8, 512, 32768)
    weight = [[draw.randrange(-largest, largest) for _ in range(inputs)] for _ in range(neurons)]
    given = integer_call(draw, steps, batch, inputs, neurons, cell)
    given["weight"] = relaid(draw, torch.tensor(weight, dtype=torch.int16).reshape(neurons, inputs))
    given |= {"cell": cell} if cell != IntegerCell() or chance(draw, 20) else {}
    counts = torch.zeros(2, dtype=torch.int64)
    spoilt = spoil(draw, given, 30)
    seen = contents(tensors_in(given))

    outputs = attempt(integer_src_linear, {**given, "clamped": counts[0]}, spoilt or cell != IntegerCell())

    spikes_out, state = outputs
    assert spikes_out.dtype == torch.uint8 and all(x.dtype == torch.int16 for x in state)
    assert_own_memory((spikes_out, *state), tensors_in(given))
    assert contents(tensors_in(given)) == seen
    if not spoilt:
        assert_same(outputs, integer_src_linear(**plain(given), clamped=counts[1]))
        assert counts[0] == counts[1]


def integer_layer(draw: Draw) -> None:
    steps, batch, inputs, neurons = size(draw), size(draw), size(draw), size(draw)
    cell, dtype = drawn_cell(draw), pick(draw, *FLOATS)
    options = {"input_size": inputs, "hidden_size": neurons, "weight_bits": pick(draw, 4, 2, 10, 16), "cell": cell}
    options |= {"rho": pick(draw, 3.0, 0.5, 1e-3), "initial_state": pick(draw, "zeros", "rest")}
    given = integer_call(draw, steps, batch, inputs, neurons, cell)
    weight = floats(draw, neurons, inputs, dtype=dtype, scale=3, wild=20)
    x = given["input"]
    if isinstance(x, Tensor) and x.is_floating_point() and chance(draw, 50):
        given["input"] = x.detach().requires_grad_()
    spoilt_layer, spoilt_call = spoil(draw, options, 15), spoil(draw, given, 25)

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


def hostile(draw: Draw, x: Tensor) -> Tensor:
    return altered(draw, x) if chance(draw, 75) else relaid(draw, repeated(draw, x))


def spoilt_argument(draw: Draw, x: Any) -> Any:
    """A wrong tensor, number, string or list of them, of the type that the dispatcher requires; None stays."""
    if isinstance(x, Tensor):
        return hostile(draw, x)
    if isinstance(x, bool):
        return not x
    if isinstance(x, int):
        return pick(draw, 0, 1, -1, x + 1, 2**31, 2**62, 2**63 - 1, -(2**63))
    if isinstance(x, str):
        return pick(draw, "", "relu", "events", "x")
    if isinstance(x, list) and x and isinstance(x[0], Tensor) and chance(draw, 75):
        k = draw.randrange(len(x))
        return [*x[:k], hostile(draw, x[k]), *x[k + 1 :]]
    if isinstance(x, list) and x:
        others = [*x[1:], x[0]] if isinstance(x[0], Tensor) else [not v if isinstance(v, bool) else math.nan for v in x]
        return pick(draw, x[:-1], [*x, x[0]], [], others)
    return x


def spoil_call(draw: Draw, call: OperatorCall, percent: int) -> bool:
    """Sometimes replace one or two arguments of a call by something wrong; return whether that was done."""
    if not chance(draw, percent):
        return False
    places: list[tuple[Any, Any]] = []  # a list once for each of its tensors
    for k, x in enumerate(call.arguments):
        places += [(call.arguments, k)] * (max(len(x), 1) if isinstance(x, list) else 1)
    places += [(call.options, name) for name in call.options]
    for _ in range(pick(draw, 1, 1, 2)):
        arguments, at = pick(draw, *places)
        x = arguments[at]
        if isinstance(x, list) and not x:
            some = [floats(draw, *pick(draw, (), (3,), (2, 3))) for _ in range(pick(draw, 1, 3, 6, 2))]
            arguments[at] = {"constants": [0.0], "output_mask": [True]}.get(at, some)
        else:
            arguments[at] = spoilt_argument(draw, x)
    return True


def raw_layer(draw: Draw, steps: int, batch: int, neurons: int, dtype: torch.dtype) -> Layer:
    state = [relaid(draw, floats(draw, batch, neurons, dtype=dtype)) for _ in range(3)] if chance(draw, 50) else []
    shapes = ((neurons,), (), (1,))
    bias = relaid(draw, floats(draw, *pick(draw, *shapes), dtype=dtype) - 6)
    cell = []
    for name in PARAMETERS if chance(draw, 50) else ():
        x = floats(draw, *pick(draw, *shapes), dtype=dtype).sigmoid() + 1e-3 * (name == "rho")
        cell.append(relaid(draw, x))
    lengths = relaid(draw, lengths_in(draw, steps, batch)) if chance(draw, 40) else None
    mode = pick(draw, *SURROGATES), chance(draw, 50)
    lateral = relaid(draw, floats(draw, neurons, neurons, dtype=dtype)) if chance(draw, 30) else None
    return Layer(bias, cell, state, lengths, list(CONSTANTS), *mode, lateral, pick(draw, *SURROGATES))


def raw_call(draw: Draw) -> tuple[OperatorCall, bool]:
    """A forward or backward call, and whether a tensor has contents that no forward call writes and no batch has."""
    dtype, wild = pick(draw, *FLOATS), pick(draw, 0, 0, 40)
    steps, batch, neurons, inputs = size(draw), size(draw), size(draw), pick(draw, 3, 1, 0, 64, 70)
    layer = raw_layer(draw, steps, batch, neurons, dtype)
    name = pick(draw, "src", "src_events", "src_dense")
    options: dict[str, Any] = {"save": chance(draw, 80), "trace_integrator": chance(draw, 50)}
    if name == "src":
        call = layer_call(layer, floats(draw, steps, batch, neurons, dtype=dtype, scale=3, wild=wild), **options)
    else:
        dense = spikes(draw, steps, batch, inputs, dtype=dtype)
        weight = floats(draw, neurons, inputs, dtype=dtype, wild=wild)
        options |= {"method": pick(draw, "events", "auto", "gemm"), "input_grad_at_events": chance(draw, 50)}
        call = layer_call(layer, EventBatch.from_dense(dense) if name == "src_events" else dense, weight, **options)
    if options["save"] and chance(draw, 50):
        return backward_call(draw, call)
    noisy = name == "src_events" and chance(draw, 20)
    rows = pick(draw, *call.synapse[:2]) if noisy else torch.empty(0)
    if rows.numel():
        rows[draw.randrange(rows.numel())] = pick(draw, -1, 2**31 - 1, inputs, 1)
    return call.forward(), noisy


def backward_call(draw: Draw, call: LayerCall) -> tuple[OperatorCall, bool]:
    """The backward call that belongs to a forward call, perhaps with noise in what this saved."""
    with torch.no_grad():
        outputs = call.forward()()
    dtype, saved = outputs[0].dtype, outputs[4:]
    grads = [relaid(draw, floats(draw, *x.shape, dtype=dtype)) if chance(draw, 80) else None for x in outputs[:4]]
    mask = [chance(draw, 50) for _ in range(7 if call.name == "src" else 9)]
    noisy = chance(draw, 15)
    if noisy:
        noise = pick(draw, *saved)
        noise.copy_(torch.randint(-(2**62), 2**62, noise.shape) if chance(draw, 50) else pick(draw, 0, -1, 1))
    call = call._replace(synapse=[x if x is None else relaid(draw, x) for x in call.synapse])
    return call.backward(grads, saved, mask), noisy


@target
def op_raw(draw: Draw) -> None:
    """torch.ops.srcell, forward and backward, with tensors of every kind and inconsistent numbers."""
    call, noisy = raw_call(draw)
    refusable = spoil_call(draw, call, 35) or noisy
    given, names = tensors_in(call.arguments), [argument.name for argument in call.operator.default._schema.arguments]
    seen = contents(given)

    if any(x.device.type == "meta" for x in given):  # fake kernels compute shapes and check nothing
        with contextlib.suppress(ValueError, TypeError, RuntimeError, IndexError):
            call()
        raise RefusedError
    with may_raise(NotImplementedError, refusable=refusable):
        outputs = attempt(call, {}, refusable, *names, *PARAMETERS, "offsets", "indices")  # of a dense input's events

    if all(x.device.type == "cpu" for x in given):
        assert contents(given) == seen
        assert not storages(outputs) & storages(given)
        if not call.name.endswith("_backward"):
            fake = pytree.tree_map_only(Tensor, lambda x: x.to("meta"), call.arguments)
            for x, y in zip(outputs, OperatorCall(call.name, *fake, **call.options)(), strict=True):
                assert (x.shape, x.dtype, x.stride()) == (y.shape, y.dtype, y.stride())


# The compiled module


@target
def core_raw(draw: Draw) -> None:
    """srcell._core where it promises to check the types and sizes of arguments."""
    call, holds = pick(draw, core_elementwise, core_empty, core_philox, core_layer)(draw)

    with may_raise(TypeError, ValueError, MemoryError):
        result = call()

    assert holds(result)


CoreCall = tuple[Callable[[], Any], Callable[[Any], bool]]
"""A call, and what holds of its result."""


def core_elementwise(draw: Draw) -> CoreCall:
    function = pick(draw, _core.tanh, _core.sigmoid)
    x = floats(draw, size(draw), size(draw), dtype=pick(draw, *FLOATS), wild=50).numpy()
    given = pick(draw, x, x, x.T, x[:, ::2], x[::-1], oddity(draw))
    return lambda: function(given), lambda result: not isinstance(given, np.ndarray) or np.size(result) == given.size


def core_empty(draw: Draw) -> CoreCall:
    shape = [pick(draw, 3, 0, 1, 7) for _ in range(draw.randrange(4))]
    if chance(draw, 30):
        shape.append(pick(draw, -1, 2**31, 2**44, 2**61, 2**62, 2**63 - 1, -(2**63), 2**64, 1.5, None))
        shape += [pick(draw, 4, 2**62, -1)] * chance(draw, 50)
    double = chance(draw, 50)

    def write() -> Any:
        array = _core.empty(shape, double)
        if array.nbytes < 1000:
            array.fill(1)
        return array

    return write, lambda array: array.shape == tuple(shape)


def core_philox(draw: Draw) -> CoreCall:
    counter = [draw.getrandbits(32) for _ in range(4 if chance(draw, 80) else 3)]
    key: Any = [draw.getrandbits(32) for _ in range(2)] if chance(draw, 80) else oddity(draw)
    return lambda: _core.philox(counter, key), lambda words: len(words) == 4


def core_layer(draw: Draw) -> CoreCall:
    """Arguments of a layer, and a scan of no samples with it; it need only return."""
    constants, addresses, strides = [1.0] * 7, [0] * 7, [0] * 7
    spoilt = pick(draw, constants, addresses, strides) if chance(draw, 30) else constants
    if chance(draw, 50):
        spoilt[draw.randrange(7)] = oddity(draw)
        del spoilt[: draw.randrange(3)]
    arguments = [chance(draw, 50), chance(draw, 50), (0, 0, 0), 0, 1, constants, addresses, strides, True, True]
    state = [(0, 0, 0), (0, 0, 0, 0)]
    if chance(draw, 20):
        spoilt_list = pick(draw, arguments, state)
        where = pick(draw, 1, 2, 5) if spoilt_list is arguments else pick(draw, 0, 1)
        spoilt_list[where] = pick(draw, (0, 0), None, [2**70] * 3, ("a",) * 3, -1)
    if spoilt is addresses:  # addresses are not checked, so the layer is marked as one on a device
        arguments[1] = False

    def scan() -> None:
        layer = _core.Layer(*arguments)
        if spoilt is constants:
            _core.scan_forward(layer, *state, 0, 0)

    return scan, lambda result: result is None
