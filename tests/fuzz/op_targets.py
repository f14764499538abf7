"""Fuzz targets on tensors: functions, layers, operators, the compiled module, event batches and encoders.

A target draws one input, hands it over and returns whether it was accepted. It raises where it was refused in another
way than documented, or where a fact about an accepted one does not hold.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from conftest import CONSTANTS, Layer
from fuzz.draws import (
    FLOATS,
    INTEGERS,
    Draw,
    altered,
    assert_names,
    chance,
    fits,
    floats,
    oddity,
    out_of_memory,
    pick,
    relaid,
    repeated,
    size,
    spikes,
    wrong,
)
from srcell import (
    SRC,
    EventBatch,
    LeakyReadout,
    SRCCell,
    SRCConv2d,
    SRCState,
    _core,
    latency_encode,
    leaky_readout,
    rate_encode,
    rest_state,
    src,
    src_linear,
)
from srcell.functional import count_spikes
from srcell.reference import src_reference

ops = torch.ops.srcell
warnings.filterwarnings("ignore", message=".*(quantize|Sparse|complex|overflow encountered|NumPy array|nested).*")

CELL = ("alpha", "rho", "r", "rs", "zs_hyp", "zs_dep")
SYNAPSE = ("current", "input", "weight", "spikes")
ARGUMENTS = (*SYNAPSE, *CELL, "bias", "state", "lengths", "surrogate", "method", "recurrent_grad", "num_classes")
ARGUMENTS += ("inhibition",)
OF_EVENTS = ("offsets", "indices", "values", "lengths", "shape", "csr", "x", "y", "polarity", "times", "bin_width")
OF_EVENTS += ("inputs", "sensor_size", "steps", "prefix", "count", "batches", "samples", "dtype", "device")


def accepts(names: Sequence[str], call: Callable[[], Any], *others: type[Exception]) -> tuple[Any] | None:
    """What the call returns, or None if it refuses as documented."""
    try:
        return (call(),)
    except (ValueError, TypeError, IndexError) as error:
        assert_names(error, names)
    except others:
        pass
    except (RuntimeError, MemoryError) as error:
        of_schema = "Expected a value of type 'int'" in str(error)  # torch's word on one of 2^63
        if not of_schema and not out_of_memory(error):
            raise
    return None


# The public functions


def parameter(draw: Draw, low: float, high: float, features: Sequence[int], dtype: torch.dtype) -> Any:
    """A number in an interval, or a tensor of such that broadcasts to the features."""
    if chance(draw, 60):
        return low + (high - low) * draw.random()
    shape = list(features)
    for k in range(len(shape)):
        if chance(draw, 20):
            shape[k] = 1
    del shape[: draw.randrange(len(shape) + 1) if chance(draw, 30) else 0]
    x = relaid(draw, (low + (high - low) * floats(draw, *shape).sigmoid()).to(dtype))
    return x.detach().requires_grad_() if chance(draw, 30) else x


_CELL_DEFAULTS = {"alpha": 0.9, "rho": 3.0, "r": 2.0, "rs": -7.0, "zs_hyp": 0.9, "zs_dep": 0.0}
DOMAINS = {
    **{"bias": (-6.5, -4.0), "alpha": (0.0, 1.0), "rho": (0.5, 4.0), "r": (-3.0, 3.0), "rs": (-8.0, 1.0)},
    **{"zs_hyp": (0.0, 1.0), "zs_dep": (-0.2, 0.5)},
}


def layer_arguments(
    draw: Draw, steps: int, batch: int, features: Sequence[int], dtype: torch.dtype, wild: int
) -> dict[str, Any]:
    given: dict[str, Any] = {"bias": parameter(draw, *DOMAINS["bias"], features, dtype)}
    for name in CELL:
        if chance(draw, 25):
            given[name] = parameter(draw, *DOMAINS[name], features, dtype)
    if chance(draw, 40):
        state = [relaid(draw, floats(draw, batch, *features, dtype=dtype, scale=0.5, wild=wild)) for _ in range(3)]
        given["state"] = (SRCState if chance(draw, 50) else lambda *x: x)(*state)
    if chance(draw, 40):
        lengths = [draw.randrange(steps + 1) for _ in range(batch)]
        given["lengths"] = lengths if chance(draw, 50) else torch.tensor(lengths, dtype=pick(draw, *INTEGERS))
    if chance(draw, 50):
        given["surrogate"] = pick(draw, "relu", "straight_through")
        given["recurrent_grad"] = chance(draw, 50)
    return given


def spoil(draw: Draw, given: dict[str, Any], percent: int) -> bool:
    """Perhaps put something wrong in the place of an argument or two; whether that was done."""
    spoilt = chance(draw, percent)
    for _ in range(pick(draw, 1, 1, 2) if spoilt else 0):
        name = pick(draw, *given)
        given[name] = wrong(draw, given[name])
    return spoilt


def tensors_in(given: Any) -> list[Tensor]:
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, dict):
        return [x for value in given.values() for x in tensors_in(value)]
    return [x for value in given for x in tensors_in(value)] if isinstance(given, (tuple, list)) else []


def readable(x: Tensor) -> bool:
    return x.layout == torch.strided and x.device.type == "cpu" and not x.is_quantized and x.numel() < 10_000


def contents(tensors: Sequence[Tensor]) -> list[bytes]:
    """The bytes of those that can be looked at."""
    plain = (x.detach().resolve_conj().resolve_neg().reshape(-1) for x in tensors if readable(x))
    return [x.clone(memory_format=torch.contiguous_format).view(torch.uint8).numpy().tobytes() for x in plain]


def storages(tensors: Sequence[Tensor]) -> set[int]:
    return {x.untyped_storage().data_ptr() for x in tensors if readable(x) and x.numel()}


def moderate(x: Tensor) -> bool:
    return bool((x.detach().abs() < 10).all())


def op_src(draw: Draw) -> bool:
    """src, src_linear, rest_state, leaky_readout and count_spikes, the first two with gradients in part."""
    kind = pick(draw, src, src_linear, src, src_linear, leaky_readout, rest_state, count_spikes)
    dtype = pick(draw, torch.float32, torch.float64, torch.float32, torch.float16, torch.bfloat16)
    work = torch.float64 if dtype == torch.float64 else torch.float32
    steps, batch, wild = size(draw), size(draw), pick(draw, 0, 0, 30)
    features = [size(draw) for _ in range(pick(draw, 1, 1, 2, 3))]
    if kind is rest_state:
        return resting(draw, features)
    if kind in (leaky_readout, count_spikes):
        return reading_out(draw, kind, steps, batch, dtype)
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
    for name in SYNAPSE:
        if isinstance(given.get(name), Tensor) and chance(draw, 30):
            given[name] = given[name].detach().requires_grad_()
    spoilt = spoil(draw, given, 35)
    inputs_given, seen = tensors_in(given), contents(tensors_in(given))
    outcome = accepts(ARGUMENTS, lambda: kind(**given))
    if outcome is None:
        assert spoilt
        return False
    spikes_out, state = outcome[0]
    synapse = given["current"] if kind is src else given["input"]
    steps, batch, *features = synapse.shape if kind is src else (*synapse.shape[:2], len(given["weight"]))
    assert spikes_out.shape == (steps, batch, *features)
    assert all(x.shape == spikes_out.shape[1:] for x in state)
    if spikes_out.device.type == "meta" or not all(map(fits, inputs_given)):
        return True
    outputs = (spikes_out, *state)
    assert spikes_out.is_contiguous()
    assert contents(inputs_given) == seen
    assert not storages(outputs) & storages(inputs_given)
    assert len(storages(outputs)) == len([x for x in outputs if readable(x) and x.numel()])
    tame = all(moderate(x) for x in inputs_given if x.is_floating_point()) and all(
        abs(x) < 10 for x in given.values() if isinstance(x, (int, float))
    )
    if tame:
        assert all(bool(x.isfinite().all()) for x in outputs)
        assert bool(((spikes_out >= 0) & (spikes_out <= 1)).all())
    if given.get("lengths") is not None and steps:
        lengths = torch.as_tensor(given["lengths"]).to(torch.int64)
        past = torch.arange(steps)[:, None] >= lengths
        assert not spikes_out[past].any()
    if tame and spikes_out.dtype == torch.float64 and steps <= 5 and chance(draw, 30):
        expected, expected_state = src_reference(**reference_arguments(given))
        for x, y in zip(outputs, (expected, *expected_state), strict=True):
            bound = 1e-9 * max(1.0, float(y.detach().abs().max()) if y.numel() else 0)
            assert bool(((x - y).abs() <= bound).all())
    if any(x.requires_grad for x in inputs_given) and chance(draw, 50):
        leaves = [x for x in inputs_given if x.requires_grad]
        arriving = [x for x in outputs if x.requires_grad]
        total = sum((x.to(work).sum() for x in arriving), torch.zeros((), dtype=work))
        made = torch.autograd.grad(total, leaves, allow_unused=True)
        for leaf, grad in zip(leaves, made, strict=True):
            assert grad is None or (grad.shape == leaf.shape and grad.dtype == leaf.dtype)
            assert grad is None or not tame or dtype not in FLOATS or bool(grad.isfinite().all())
        assert contents(inputs_given) == seen
    return True


def reference_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """The same call of the reference, in float64 and without graphs."""
    plain = {name: x.detach() if isinstance(x, Tensor) else x for name, x in given.items() if name != "method"}
    if "input" in plain:
        x, weight = plain.pop("input"), plain.pop("weight")
        dense = x.to_dense(torch.float64) if isinstance(x, EventBatch) else x
        plain["current"] = dense.to(weight.dtype) @ weight.t()
    plain["bias"] = torch.as_tensor(plain["bias"], dtype=torch.float64)
    if plain.get("state") is not None:
        plain["state"] = tuple(x.detach() for x in plain["state"])
    return plain


def resting(draw: Draw, features: Sequence[int]) -> bool:
    given = {name: parameter(draw, *DOMAINS[name], features, pick(draw, *FLOATS)) for name in ("bias", "r", "rs")}
    spoilt = spoil(draw, given, 40)
    outcome = accepts(ARGUMENTS, lambda: rest_state(**given))
    if outcome is None:
        assert spoilt
        return False
    state = outcome[0]
    if (
        all(map(fits, tensors_in(given)))
        and state.h.device.type == "cpu"
        and not any(x.isnan().any() for x in tensors_in(given))
    ):
        assert bool((state.h.abs() <= 1).all()) and not state.i.any() and torch.equal(state.h, state.hs)
    assert not any(x.requires_grad for x in state)
    return True


def reading_out(draw: Draw, kind: Any, steps: int, batch: int, dtype: torch.dtype) -> bool:
    classes = pick(draw, 2, 1, 3, 10)
    neurons = classes * pick(draw, 1, 2, 0, 3)
    given: dict[str, Any] = {"spikes": relaid(draw, spikes(draw, steps, batch, neurons, dtype=dtype))}
    if kind is leaky_readout:
        given["num_classes"] = classes
        if chance(draw, 50):
            given |= {"alpha": draw.random(), "inhibition": -draw.random()}
        if chance(draw, 50):
            lengths = [draw.randrange(steps + 1) for _ in range(batch)]
            given["lengths"] = lengths if chance(draw, 50) else torch.tensor(lengths, dtype=pick(draw, *INTEGERS))
    spoilt = spoil(draw, given, 30)
    outcome = accepts(ARGUMENTS, lambda: kind(**given))
    if outcome is None:
        assert spoilt
        return False
    if kind is leaky_readout:
        assert outcome[0].shape == (given["spikes"].shape[1], given["num_classes"])
    elif readable(given["spikes"]):
        assert torch.equal(outcome[0].events, (given["spikes"].detach().float() > 0).sum((0, 1)))
    return True


# The modules


SIZES = ("input_size", "hidden_size", "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
OF_MODULES = (*ARGUMENTS, *SIZES, "groups", "neurons_per_class", "temperature", "dropout", "learnable", "bias_init")
OF_MODULES += ("bias_max", "initial_state", "learn_initial_state")


def modules(draw: Draw) -> bool:
    """SRC, SRCCell, SRCConv2d and LeakyReadout: making one, and a sequence through it."""
    kind = pick(draw, SRC, SRCCell, SRCConv2d, LeakyReadout)
    dtype = pick(draw, *FLOATS)
    steps, batch, inputs, neurons = size(draw), size(draw), pick(draw, 3, 1, 4), pick(draw, 2, 1, 6)
    given: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    if kind is LeakyReadout:
        given |= {"num_classes": inputs, "neurons_per_class": neurons}
        given |= {"alpha": draw.random(), "inhibition": -draw.random(), "temperature": 1.0} if chance(draw, 50) else {}
        call: dict[str, Any] = {"spikes": relaid(draw, spikes(draw, steps, batch, inputs * neurons, dtype=dtype))}
        ends: tuple[int, ...] = ()
    else:
        recurrent = chance(draw, 50)
        given |= {"recurrent_grad": recurrent, "surrogate": pick(draw, "relu", "straight_through")}
        given |= {"bias_init": -6.0, "bias_max": -4.0, "bias": chance(draw, 80)}
        given |= {"initial_state": pick(draw, "zeros", "rest"), "learn_initial_state": recurrent and chance(draw, 30)}
        learnable = [name for name in CELL if chance(draw, 15) and (recurrent or name not in ("zs_hyp", "zs_dep"))]
        given |= {"learnable": learnable, **{name: _CELL_DEFAULTS[name] for name in learnable}}
        for name in CELL:
            if chance(draw, 15):
                low, high = DOMAINS[name]
                low = max(low, 0.0) if name == "zs_dep" and name in learnable else low
                given[name] = low + (high - low) * floats(draw, neurons).sigmoid()
        fixed["dtype"] = dtype
        if kind is SRCConv2d:
            given |= {"in_channels": inputs, "out_channels": neurons, "kernel_size": pick(draw, 1, 2, (2, 1))}
            shape, ends = (steps, batch, inputs, 3, 4), ()
        else:
            given |= {"input_size": inputs, "hidden_size": neurons}
            shape, ends = (steps, batch, inputs), (batch, neurons)
            if kind is SRC:
                fixed["num_layers"] = pick(draw, 1, 2, 3)
                given["dropout"] = pick(draw, 0.0, 0.5)
                ends = (fixed["num_layers"], *ends)
            else:
                shape = shape[1:]
        call = {"input": relaid(draw, spikes(draw, *shape, dtype=dtype))}
        if ends and chance(draw, 40):
            call["state"] = tuple(floats(draw, *ends, dtype=dtype) for _ in range(3))
    if kind is not SRCCell and chance(draw, 30):
        call["lengths"] = torch.tensor([draw.randrange(steps + 1) for _ in range(batch)], dtype=pick(draw, *INTEGERS))
    spoilt = spoil(draw, given, 15)
    made = accepts(OF_MODULES, lambda: kind(**given, **fixed))
    if made is None:
        assert spoilt
        return False
    spoilt |= spoil(draw, call, 25)
    outcome = accepts(OF_MODULES, lambda: made[0](**call))
    if outcome is None:
        assert spoilt
        return False
    if not spoilt:
        if kind is LeakyReadout:
            assert outcome[0].shape == (batch, inputs)
        else:
            spikes_out, state = outcome[0]
            assert spikes_out.dtype == dtype and bool(((spikes_out >= 0) & (spikes_out <= 1)).all())
            if kind is SRCConv2d:
                assert spikes_out.shape[:3] == (steps, batch, neurons)
            else:
                assert spikes_out.shape[:-1] == shape[:-1]
            assert all(x.shape == (ends or spikes_out.shape[1:]) for x in state)
    return True


# The operators below


def hostile(draw: Draw, x: Tensor) -> Tensor:
    return altered(draw, x) if chance(draw, 75) else relaid(draw, repeated(draw, x))


def spoilt_argument(draw: Draw, x: Any) -> Any:
    """A wrong tensor, number, word or list of them, of the type that the dispatcher wants; None stays."""
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


def spoil_call(draw: Draw, positional: list[Any], keywords: dict[str, Any], percent: int) -> bool:
    """Perhaps put something wrong in the place of an argument or two of an operator's call; whether that was done."""
    if not chance(draw, percent):
        return False
    places: list[tuple[Any, Any]] = []  # a list as often as it has tensors
    for k, x in enumerate(positional):
        places += [(positional, k)] * (max(len(x), 1) if isinstance(x, list) else 1)
    places += [(keywords, name) for name in keywords]
    for _ in range(pick(draw, 1, 1, 2)):
        arguments, at = pick(draw, *places)
        x = arguments[at]
        if isinstance(x, list) and not x:
            some = [floats(draw, *pick(draw, (), (3,), (2, 3))) for _ in range(pick(draw, 1, 3, 6, 2))]
            arguments[at] = {"constants": [0.0], "output_mask": [True]}.get(at, some)
        else:
            arguments[at] = spoilt_argument(draw, x)
    return True


LAYER = ("i0", "h0", "hs0", "state", "bias", "cell", "constants", *CELL, "lengths", "surrogate")
GRADS = ("grad_spikes", "grad_i", "grad_h", "grad_hs")
OF_RAW = (*LAYER, *GRADS, "current", "input", "weight", "offsets", "indices", "values", "steps", "batch", "method")
OF_RAW += ("checkpoints", "trace", "mask", "path", "output_mask", "events")


def raw_layer(draw: Draw, steps: int, batch: int, neurons: int, dtype: torch.dtype) -> Layer:
    state = [relaid(draw, floats(draw, batch, neurons, dtype=dtype)) for _ in range(3)] if chance(draw, 50) else []
    shapes = ((neurons,), (), (1,))
    bias = relaid(draw, floats(draw, *pick(draw, *shapes), dtype=dtype) - 6)
    cell = []
    for name in CELL if chance(draw, 50) else ():
        x = floats(draw, *pick(draw, *shapes), dtype=dtype).sigmoid() + 1e-3 * (name == "rho")
        cell.append(relaid(draw, x))
    lengths = None
    if chance(draw, 40):
        lengths = relaid(draw, torch.tensor([draw.randrange(steps + 1) for _ in range(batch)], dtype=torch.int64))
    mode = pick(draw, "relu", "straight_through"), chance(draw, 50)
    return Layer(bias, cell, state, lengths, list(CONSTANTS), *mode)


def op_raw(draw: Draw) -> bool:
    """torch.ops.srcell, forwards and backwards, with tensors of every kind and numbers that lie."""
    name = pick(draw, "src", "src_events", "src_dense")
    dtype, wild = pick(draw, *FLOATS), pick(draw, 0, 0, 40)
    steps, batch, neurons, inputs = size(draw), size(draw), size(draw), pick(draw, 3, 1, 0, 64, 70)
    layer = raw_layer(draw, steps, batch, neurons, dtype)
    save, integrator, at_events = chance(draw, 80), chance(draw, 50), chance(draw, 50)
    both: dict[str, Any] = {}  # keywords of both directions
    forward: dict[str, Any] = {"save": save}
    if name == "src":
        synapse = [floats(draw, steps, batch, neurons, dtype=dtype, scale=3, wild=wild)]
    else:
        weight = floats(draw, neurons, inputs, dtype=dtype, wild=wild)
        dense = spikes(draw, steps, batch, inputs, dtype=dtype)
        forward["trace_integrator"] = integrator
        if name == "src_events":
            events = EventBatch.from_dense(dense)
            synapse = [events.offsets, events.indices, events.values, weight]
            both |= {"steps": steps, "batch": batch}
        else:
            synapse = [dense, weight]
            both["input_grad_at_events"] = at_events
            forward["method"] = pick(draw, "events", "auto", "gemm")
    positional: list[Any] = [*synapse, *layer.forward]
    keywords: dict[str, Any] = {**layer.options, **both, **forward}
    synapse = [relaid(draw, x) if isinstance(x, Tensor) else x for x in synapse]
    backwards, noisy = save and chance(draw, 50), False
    if backwards:
        with torch.no_grad():
            outputs = getattr(ops, name)(*positional, **keywords)
        grads = [relaid(draw, floats(draw, *x.shape, dtype=dtype)) if chance(draw, 80) else None for x in outputs[:4]]
        mask = [chance(draw, 50) for _ in range({"src": 6, "src_events": 8, "src_dense": 8}[name])]
        behind = layer.backward if name == "src" else layer.synapse_backward
        positional = [*grads, *synapse, *outputs[4:], *behind]
        keywords = {**layer.options, **both, "output_mask": mask}
        name += "_backward"
        noisy = chance(draw, 15)
        if noisy:  # contents that no forward call writes
            noise = pick(draw, *(x for x in outputs[4:]))
            noise.copy_(torch.randint(-(2**62), 2**62, noise.shape) if chance(draw, 50) else pick(draw, 0, -1, 1))
    elif name == "src_events" and chance(draw, 20):
        noise, noisy = pick(draw, positional[0], positional[1]), True
        if noise.numel():
            noise[draw.randrange(noise.numel())] = pick(draw, -1, 2**31 - 1, inputs, 1)
    spoilt = spoil_call(draw, positional, keywords, 35)
    given = tensors_in(positional)
    seen = contents(given)
    call = getattr(ops, name)
    if any(x.device.type == "meta" for x in given):  # fake kernels compute shapes and check nothing
        with contextlib.suppress(ValueError, TypeError, RuntimeError, IndexError):
            call(*positional, **keywords)
        return False
    outcome = accepts(OF_RAW, lambda: call(*positional, **keywords), NotImplementedError)
    if outcome is None:
        assert spoilt or noisy
        return False
    if all(x.device.type == "cpu" for x in given):
        assert contents(given) == seen
        assert not storages(outcome[0]) & storages(given)
        if not backwards:
            fake = pytree.tree_map(lambda x: x.to("meta") if isinstance(x, Tensor) else x, positional)
            for x, y in zip(outcome[0], call(*fake, **keywords), strict=True):
                assert (x.shape, x.dtype, x.stride()) == (y.shape, y.dtype, y.stride())
    return True


# The compiled module


def core_raw(draw: Draw) -> bool:
    """srcell._core where it says that it checks: argument types and sizes, event rows, elementwise functions."""
    how = draw.randrange(6)
    if how == 0:
        return core_event_rows(draw)
    if how == 1:
        function = pick(draw, _core.tanh, _core.sigmoid)
        x = floats(draw, size(draw), size(draw), dtype=pick(draw, *FLOATS), wild=50).numpy()
        given = pick(draw, x, x, x.T, x[:, ::2], x[::-1], oddity(draw))
        try:
            result = function(given)
        except TypeError:
            return False
        assert np.size(result) == given.size if isinstance(given, np.ndarray) else True
        return True
    if how == 2:
        shape = [pick(draw, 3, 0, 1, 7) for _ in range(draw.randrange(4))]
        if chance(draw, 30):
            shape.append(pick(draw, -1, 2**31, 2**44, 2**61, 2**62, 2**63 - 1, -(2**63), 2**64, 1.5, None))
            shape += [pick(draw, 4, 2**62, -1)] * chance(draw, 50)
        try:
            array = _core.empty(shape, chance(draw, 50))
        except (TypeError, ValueError, MemoryError):
            return False
        assert array.shape == tuple(shape)
        if array.nbytes < 1000:
            array.fill(1)
        return True
    if how == 3:
        counter = [draw.getrandbits(32) for _ in range(4 if chance(draw, 80) else 3)]
        key: Any = [draw.getrandbits(32) for _ in range(2)] if chance(draw, 80) else oddity(draw)
        try:
            words = _core.philox(counter, key)
        except TypeError:
            return False
        assert len(words) == 4
        return True
    constants, addresses, strides = [1.0] * 7, [0] * 7, [0] * 7
    spoilt = pick(draw, constants, addresses, strides) if chance(draw, 30) else constants
    if chance(draw, 50):
        spoilt[draw.randrange(7)] = oddity(draw)
        del spoilt[: draw.randrange(3)]
    try:
        arguments = [chance(draw, 50), chance(draw, 50), (0, 0, 0), 0, 1, constants, addresses, strides, True, True]
        state = [(0, 0, 0), (0, 0, 0, 0)]
        if chance(draw, 20):
            spoilt_list = pick(draw, arguments, state)
            where = pick(draw, 1, 2, 5) if spoilt_list is arguments else pick(draw, 0, 1)
            spoilt_list[where] = pick(draw, (0, 0), None, [2**70] * 3, ("a",) * 3, -1)
        if spoilt is addresses:  # which are believed
            arguments[1] = False
        layer = _core.Layer(*arguments)
        if spoilt is constants:
            _core.scan_forward(layer, *state, 0, 0)
    except (TypeError, ValueError):
        return False
    return True


def core_event_rows(draw: Draw) -> bool:
    """The search for faults, on rows of any content."""
    steps, batch, inputs, events = size(draw), size(draw), pick(draw, 3, 0, 2**31), draw.randrange(8)
    edge = [-(2**63), -1, 0, 1, events, events + 1, 2**62, 2**63 - 1]
    rows = [pick(draw, *edge) if chance(draw, 10) else draw.randrange(events + 1) for _ in range(steps * batch + 1)]
    if chance(draw, 70):
        rows = [0, *sorted(rows)[1:-1], events][: steps * batch + 1]
    offsets = torch.tensor(rows, dtype=torch.int64)
    indices = torch.tensor([pick(draw, 0, 1, 2, -1, 2**31 - 1) for _ in range(events)], dtype=torch.int32)
    values = floats(draw, events, wild=50)
    lengths = torch.tensor([pick(draw, *edge) for _ in range(batch)], dtype=torch.int64) if chance(draw, 30) else None
    arrays = _core.EventRows(offsets.data_ptr(), indices.data_ptr(), values.data_ptr(), events, inputs)
    length_address = lengths.data_ptr() if lengths is not None and batch else 0
    found = _core.find_event_fault(False, (steps, batch, inputs), arrays, length_address, 1)
    valid = rows[0] == 0 and rows == sorted(rows) and rows[-1] == events and not values.isnan().any()
    if lengths is None:
        assert (found is None) == (valid and all(0 <= index < inputs for index in indices.tolist()))
    return True


# Event batches


def event_parts(draw: Draw) -> dict[str, Any]:
    steps, batch, inputs = size(draw), size(draw), pick(draw, 3, 1, 5, 0, 300, 2**31)
    rows = batch * steps
    counts = [draw.randrange(3) if inputs and chance(draw, 50) else 0 for _ in range(rows)]
    lengths = None
    if chance(draw, 30):
        lengths = [draw.randrange(steps + 1) for _ in range(batch)]
        counts = [n if k % steps < lengths[k // steps] else 0 for k, n in enumerate(counts)]
    events = sum(counts)
    offsets = torch.tensor([0, *np.cumsum(counts, dtype=np.int64).tolist()], dtype=torch.int64)
    indices = torch.tensor([draw.randrange(min(inputs, 2**31)) for _ in range(events)], dtype=torch.int32)
    values = floats(draw, events, dtype=pick(draw, *FLOATS)) if chance(draw, 50) else None
    parts: dict[str, Any] = {"offsets": offsets, "indices": indices, "values": values, "shape": (steps, batch, inputs)}
    parts["lengths"] = None if lengths is None else torch.tensor(lengths, dtype=torch.int64)
    for name, x in parts.items():
        if isinstance(x, Tensor):
            x = relaid(draw, x)
            parts[name] = x.numpy() if chance(draw, 30) and not x.is_neg() else x
    return parts


def spoil_parts(draw: Draw, parts: dict[str, Any]) -> None:
    name = pick(draw, *(name for name, x in parts.items() if x is not None))
    x = parts[name]
    if isinstance(x, (Tensor, np.ndarray)) and len(x) and chance(draw, 50):
        x = parts[name] = x.clone() if isinstance(x, Tensor) else x.copy()
        bound = 2**31 - 1 if name == "indices" else 2**63 - 1
        at = draw.randrange(len(x))
        x[at] = pick(draw, math.nan, 1e9) if name == "values" else pick(draw, 0, 1, -1, bound, -bound - 1)
    elif name == "shape" and chance(draw, 60):
        shape = list(x)
        shape[draw.randrange(3)] = pick(draw, 0, 1, -1, 2**31, 2**31 + 1, 2**62, 2**63 - 1, 2**63, 1.0, None)
        parts[name] = shape[: pick(draw, 3, 3, 2)]
    else:
        parts[name] = wrong(draw, torch.from_numpy(x) if isinstance(x, np.ndarray) and x.flags.writeable else x)


def event_batch(draw: Draw) -> bool:
    """EventBatch: its parts, what makes one and what is made of one."""
    how = draw.randrange(8)
    if how == 5:
        return dense_events(draw)
    if how == 6:
        return timed_events(draw)
    if how == 7:
        return pickled_events(draw)
    parts = event_parts(draw)
    spoilt = chance(draw, 30)
    if spoilt:
        spoil_parts(draw, parts)
    given = tensors_in(parts)
    seen = contents(given)
    outcome = accepts(OF_EVENTS, lambda: EventBatch(**parts))
    if outcome is None:
        assert spoilt
        return False
    batch: EventBatch = outcome[0]
    if batch.device.type == "meta":
        return True
    assert contents(given) == seen
    steps, samples, _ = batch.shape
    assert len(batch.offsets) == steps * samples + 1 and len(batch) == samples
    if max(batch.shape) > 10_000:
        assert repr(batch) and batch.nbytes >= 8 and batch.density >= 0 and batch == batch
        return True
    dense = batch.to_dense(torch.float64)
    assert dense.shape == batch.shape
    again = EventBatch.from_dense(dense, batch.lengths)
    assert torch.equal(again.to_dense(torch.float64), dense)
    for part in (pickle.loads(pickle.dumps(batch)), EventBatch.cat([batch]), batch[:], batch.to("cpu")):
        assert part == batch
    if samples:
        assert EventBatch.cat(list(batch)).to_dense(torch.float64).equal(dense)
        chosen = [draw.randrange(-samples, samples) for _ in range(3)]
        assert batch[chosen].to_dense(torch.float64).equal(dense[:, chosen])
    assert batch.truncate(steps // 2).to_dense(torch.float64).equal(dense[: steps // 2])
    if dense.numel():
        csr = EventBatch.from_sparse_csr(batch.to_sparse_csr(torch.float64), shape=batch.shape, lengths=batch.lengths)
        assert torch.allclose(csr.to_dense(torch.float64), dense, rtol=1e-12, atol=1e-12)
    if chance(draw, 25):
        uses = (
            *(lambda x: batch[x], lambda x: batch.truncate(x), lambda x: batch.to_dense(x), lambda x: batch.to(x)),
            *(lambda x: EventBatch.cat([batch, x]), lambda x: EventBatch.cat([batch], steps=x), EventBatch.cat),
            lambda x: EventBatch.from_sparse_csr(x, shape=batch.shape),
            lambda x: EventBatch.from_sparse_csr(batch.to_sparse_csr(), shape=x),
        )
        use, x = pick(draw, *uses), oddity(draw) if chance(draw, 60) else altered(draw, batch.offsets)
        return accepts((*OF_EVENTS, "slice"), lambda: use(x)) is not None
    return True


def dense_events(draw: Draw) -> bool:
    dtype = pick(draw, torch.float32, torch.float64, torch.bool)
    x: Any = relaid(draw, spikes(draw, size(draw), size(draw), size(draw)).to(dtype))
    given = {"x": x.numpy() if chance(draw, 30) and not x.is_neg() else x}
    if chance(draw, 30):
        given["lengths"] = torch.tensor([draw.randrange(x.shape[0] + 1) for _ in range(x.shape[1])], dtype=torch.int64)
    spoilt = spoil(draw, given, 30)
    outcome = accepts(OF_EVENTS, lambda: EventBatch.from_dense(**given))
    if outcome is None:
        assert spoilt
        return False
    batch = outcome[0]
    if given.get("lengths") is None and max(batch.shape) < 10_000:
        expected = torch.as_tensor(given["x"])
        assert torch.equal(batch.to_dense(torch.float64), expected.to(torch.float64))
    return True


def timed_events(draw: Draw) -> bool:
    events, inputs, width = draw.randrange(9), pick(draw, 6, 1, 300), pick(draw, 10, 1, 2.5, 1000)
    top = pick(draw, 40, 0, 400)
    times: Any = sorted(draw.randrange(top + 1) if chance(draw, 50) else top * draw.random() for _ in range(events))
    times = [int(t) for t in times] if chance(draw, 50) else times
    cells = [draw.randrange(inputs) for _ in range(events)]
    given: dict[str, Any] = {"times": times, "bin_width": width}
    if chance(draw, 50):
        given |= {"indices": cells, "inputs": inputs}
    else:
        x, y, polarity = [k % 3 for k in cells], [k % 2 for k in cells], [k % 5 < 2 for k in cells]
        given |= {"x": x, "y": y, "sensor_size": (2, 3)}
        if chance(draw, 50):
            given["polarity"] = polarity
        cells = [(p * 2 + b) * 3 + a for a, b, p in zip(x, y, given.get("polarity", [0] * events), strict=True)]
    for name, x in given.items():
        if isinstance(x, list) and events and chance(draw, 40):
            dtype = pick(draw, torch.int64, torch.int32, torch.int16) if isinstance(x[0], int) else None
            tensor = torch.tensor(x, dtype=torch.bool if isinstance(x[0], bool) else dtype)
            given[name] = tensor.numpy() if chance(draw, 50) else tensor
    if chance(draw, 40):
        given |= {"steps": pick(draw, 9, 0, 1), "prefix": pick(draw, 3, 0), "count": pick(draw, "once", "all")}
    spoilt = spoil(draw, given, 35)
    outcome = accepts(OF_EVENTS, lambda: EventBatch.from_events(**given))
    if outcome is None:
        assert spoilt
        return False
    batch = outcome[0]
    EventBatch(batch.offsets, batch.indices, shape=batch.shape)
    if not spoilt:
        prefix, steps = given.get("prefix", 0), given.get("steps")
        bins = [math.floor(float(t) / width) for t in given["times"]]
        kept = [(prefix + b, k) for b, k in zip(bins, cells, strict=True) if steps is None or b < steps]
        kept = sorted(kept if given.get("count") == "all" else set(kept))
        rows = [step for step in range(batch.shape[0]) for _ in range(*batch.offsets[step : step + 2].tolist())]
        assert list(zip(rows, batch.indices.tolist(), strict=True)) == kept
    return True


def pickled_events(draw: Draw) -> bool:
    """A batch that is pickled between processes of one's own; whatever state arrives is validated."""
    parts = {name: x for name, x in event_parts(draw).items()}
    if chance(draw, 35):
        spoil_parts(draw, parts)
    if chance(draw, 10):
        parts[pick(draw, "other", "shape")] = None
    state = pickle.loads(pickle.dumps(parts)) if all(readable(x) for x in tensors_in(parts)) else parts
    batch = EventBatch.__new__(EventBatch)
    return accepts((*OF_EVENTS, "EventBatch"), lambda: batch.__setstate__(state)) is not None


# Encoders


def encoders(draw: Draw) -> bool:
    """rate_encode and latency_encode."""
    rate = chance(draw, 50)
    samples = size(draw)
    shape = (samples, *(size(draw) for _ in range(pick(draw, 1, 1, 2, 3))))
    images = floats(draw, *shape, dtype=pick(draw, torch.float32, torch.float64, torch.float16)).sigmoid()
    images = torch.where(floats(draw, *shape) > 0.5, 0, images) if chance(draw, 50) else images.round()
    if images.numel() and chance(draw, 10):
        images.view(-1)[draw.randrange(images.numel())] = pick(draw, math.nan, -1e-6, 1.001, math.inf)
    x: Any = repeated(draw, relaid(draw, images))
    fit = bool(((x >= 0) & (x <= 1)).all())
    steps, prefix = pick(draw, 5, 1, 33, 70), pick(draw, 2, 0)
    given: dict[str, Any] = {"images": x.numpy() if chance(draw, 25) and not x.is_neg() else x}
    given |= {"steps": steps, "prefix": prefix}
    if rate:
        given |= {"seed": draw.getrandbits(64), "gain": pick(draw, 0.25, 1.0, 0.0, 7.5, 1e300, 1e-300)}
        if chance(draw, 50):
            given["index"] = [pick(draw, 0, 5, 2**31, 2**63 - 1) for _ in range(samples)]
    spoilt = spoil(draw, given, 35)
    names = ("images", "steps", "prefix", "seed", "gain", "index")
    seen = contents(tensors_in(given))
    outcome = accepts(names, lambda: (rate_encode if rate else latency_encode)(**given))
    if outcome is None:
        assert spoilt or not fit
        return False
    batch = outcome[0]
    assert contents(tensors_in(given)) == seen
    EventBatch(batch.offsets, batch.indices, shape=batch.shape)
    pixels = given["images"]
    if isinstance(pixels, np.ndarray):
        pixels = torch.from_numpy(pixels.astype(np.float32))
    flat = pixels.resolve_neg().flatten(1).float()
    assert batch.shape == (given["prefix"] + given["steps"], *flat.shape)
    counts = batch.to_dense().sum(0)
    if not rate:
        assert torch.equal(counts, (flat != 0).float())
        late = (given["prefix"] + ((1 - flat.double()) * (given["steps"] - 1)).round()).long()
        for sample, pixel in flat.nonzero().tolist()[:5]:
            row = sample * batch.shape[0] + int(late[sample, pixel])
            found = batch.indices[batch.offsets[row] : batch.offsets[row + 1]]
            assert pixel in found.tolist()
    else:
        assert not counts[flat == 0].any()
        if float(given["gain"]) == 1.0:
            assert bool((counts[flat == 1] == given["steps"]).all())
    return True
