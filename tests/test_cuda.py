"""The CUDA kernels, their bindings and the operators on a GPU give the same bits as the CPU, with and without a real
GPU.

Without a GPU `tools/check.sh` runs them in an emulator, from the PTX that nvcc makes (tests/ptx), or without nvcc on
the host (tests/cpp/cuda_on_host.cpp); SRCELL_CUDA_ON_HOST is that module. On a machine with a GPU the same tests run on
the GPU, and further tests that need it.
"""

import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from srcell import SRC, EventBatch, IntegerSRC, delay, rate_encode
from srcell.functional import src, src_linear
from srcell.functional.layer import Cell
from srcell.functional.layer import layer_of as layer_for
from srcell.functional.recurrence import run_src
from srcell.functional.synapse import after_synapse
from srcell.ops import _gpu
from srcell.ops._direct import Direct
from srcell.ops._layer import LayerArguments
from srcell.ops.src import src as src_operator
from support.gpu import (
    Host,
    check_against_the_cpu,
    check_integer_layer,
    check_layer,
    equal,
    gradients_of,
    layer_of,
    leaves,
    make_case,
    moved,
    needs_card,
    training_step,
)
from support.inputs import CONSTANTS, MODES, STATE, make_layer, noise, with_values
from support.linear import on_dense, on_dense_at_events
from support.operators import layer_call

pytestmark = pytest.mark.landing

# Cases of kernels that other cases run too. The emulator, which is slow, runs them before a release.
exhaustive = pytest.mark.exhaustive

HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
FLOATS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
EVERY_MODE = [MODES[0], *(pytest.param(*mode, marks=exhaustive) for mode in MODES[1:3]), MODES[3]]
# The kind of input, the number of samples, and the surrogate of the recurrent weights or None.
KINDS = [
    ("currents", 3, None),
    ("EventBatch", 20, None),
    ("graded", 20, None),
    ("currents", 3, "relu"),
    pytest.param("currents", 3, "straight_through", marks=exhaustive),
]


@FLOATS
@pytest.mark.parametrize(("surrogate", "full_gradient"), EVERY_MODE)
@pytest.mark.parametrize("resonant", [False, True], ids=["plain", "resonant"])
@pytest.mark.parametrize("cell", ["constants", pytest.param("scalars", marks=exhaustive), "per neuron"])
@pytest.mark.parametrize(("kind", "batch", "recurrent"), KINDS)
def test_layers_are_bit_identical_to_the_cpu(
    gpu, dtype, surrogate, full_gradient, resonant, cell, kind, batch, recurrent
):
    lateral = recurrent is not None
    given, events = make_case(kind, (39, batch, 37), cell=cell, recurrent=lateral, resonant=resonant, dtype=dtype)
    options = {"surrogate": surrogate, "full_gradient": full_gradient}
    if kind == "currents":
        options["lengths"] = torch.tensor([39, 17, 0])
    if recurrent:
        options["recurrent_surrogate"] = recurrent
    if resonant and cell == "constants":  # no parameter of the cell needs a gradient
        del given["omega"]
        options["omega"] = -3.0
    (spikes, *_), grads = check_layer(gpu, given, events, **options)
    assert spikes.max() > 0.5
    assert not recurrent or (grads["weight_hh"].any() and grads["h0"].any())
    assert not resonant or (grads["q0"].any() and (cell == "constants" or grads["omega"].any()))


# The weights of 784 inputs need more shared memory than a block has by default; those of 2,000 more than it can have.
# The gradients of 132 neurons are read as vectors of four; those of 130 are not.
@pytest.mark.parametrize("resonant", [False, True], ids=["plain", "resonant"])
@pytest.mark.parametrize("kind", ["EventBatch", "dense"])
@pytest.mark.parametrize(("inputs", "neurons"), [(784, 132), (2000, 130)])
def test_many_inputs(gpu, inputs, neurons, kind, resonant):
    given, x = make_case(kind, (40, 3, neurons), inputs, density=0.06, resonant=resonant)
    (spikes, *_), grads = check_layer(gpu, given, x, method="events")
    assert spikes.max() > 0.5 and grads["weight"].any()


@FLOATS
@pytest.mark.parametrize("resonant", [False, True], ids=["plain", "resonant"])
@pytest.mark.parametrize("recurrent", ["", "weights", "delays"])
@pytest.mark.parametrize(
    ("kind", "inputs"), [("currents", 0), *((kind, K) for kind in ("EventBatch", "dense") for K in (70, 2000))]
)
def test_layers_without_gradients_are_bit_identical_to_the_cpu(gpu, dtype, resonant, recurrent, kind, inputs):
    delays = (4, 3) if recurrent == "delays" else None
    options = {"recurrent": bool(recurrent), "resonant": resonant, "delays": delays, "dtype": dtype}
    given, x = make_case(kind, (39, 3, 13), inputs, **options)
    options = {"lengths": torch.tensor([39, 17, 0])} if kind != "EventBatch" else {}
    options |= {"method": "events"} if kind != "currents" else {}
    options |= {"max_delay": 4, "delay_width": 3} if delays else {}
    run = layer_of(given, x, **options)
    with torch.no_grad():
        with gpu.on():
            got = run(*(y.clone().to(gpu.device) for y in given.values()))
        expected = run(*given.values())
    equal([y.cpu() for y in got], expected)
    assert expected[0].max() > 0.5


@FLOATS
@pytest.mark.parametrize(("surrogate", "full_gradient"), MODES[::3])
@pytest.mark.parametrize(
    "delays", [(4, 3), pytest.param((60, 1), marks=exhaustive), pytest.param((9, 1), marks=exhaustive)]
)
@pytest.mark.parametrize("resonant", [False, True], ids=["plain", "resonant"])
@pytest.mark.parametrize(
    ("kind", "batch", "recurrent"), [pytest.param("EventBatch", 20, "relu", marks=exhaustive), *KINDS[3:]]
)
def test_delays_of_recurrent_weights_are_bit_identical_to_the_cpu(
    gpu, dtype, surrogate, full_gradient, delays, resonant, kind, batch, recurrent
):
    given, events = make_case(kind, (40, batch, 37), recurrent=True, resonant=resonant, delays=delays, dtype=dtype)
    options = {"surrogate": surrogate, "full_gradient": full_gradient, "recurrent_surrogate": recurrent}
    options |= dict(zip(("max_delay", "delay_width"), delays, strict=True))
    if kind == "currents":
        options["lengths"] = torch.tensor([40, 17, 0])
    (spikes, *_), grads = check_layer(gpu, given, events, **options)
    assert spikes.max() > 0.5
    assert all(grads[name].any() for name in ("weight_hh", "h0", "past0", "delay_hh"))


# A warp of the dot products, and its threads, have several terms each.
@FLOATS
def test_delays_between_many_neurons(gpu, dtype):
    given, _ = make_case("currents", (7, 2, 132), recurrent=True, delays=(4, 3), dtype=dtype)
    options = {"max_delay": 4, "delay_width": 3, "lengths": torch.tensor([7, 3])}
    (spikes, *_), grads = check_layer(gpu, given, **options)
    assert spikes.max() > 0.5 and all(grads[name].any() for name in ("weight_hh", "h0", "past0", "delay_hh"))


# Delays that are not learnt: terms of which nothing arrives are left out.
@pytest.mark.parametrize("width", [1, 6])
@pytest.mark.parametrize("whole", [False, True], ids=["fractional", "whole"])
def test_fixed_delays_of_recurrent_weights_are_bit_identical_to_the_cpu(gpu, whole, width):
    given, events = make_case("EventBatch", (40, 5, 37), recurrent=True)
    delays = (torch.arange(37) % 9).float() / (1 if whole else 2)
    (spikes, *_), grads = check_layer(gpu, given, events, delay_hh=delays, max_delay=9, delay_width=width)
    assert spikes.max() > 0.5 and grads["weight_hh"].any()


def test_no_relu_gradient_passes_where_h_is_0(gpu):
    given = {"current": torch.zeros(3, 2, 4), "bias": torch.zeros(4)}
    (spikes, *_), _ = check_layer(gpu, given, surrogate="relu", full_gradient=True)
    assert not spikes.any()


# Zeros, denormal, small, large and infinite currents come first; an infinite one makes NaN in a resonant neuron and in
# the gradients of parameters. Under autocast spikes are float32.
@HALVES
@pytest.mark.parametrize(("surrogate", "full_gradient"), EVERY_MODE)
@pytest.mark.parametrize("resonant", [False, True], ids=["plain", "resonant"])
@pytest.mark.parametrize("cell", ["constants", "per neuron"])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("recurrent", [False, pytest.param(True, marks=exhaustive)])
def test_half_precision_is_computed_in_float32(
    gpu, dtype, surrogate, full_gradient, resonant, cell, autocast, recurrent
):
    given, _ = make_case("currents", (40, 3, 13), cell=cell, recurrent=recurrent, resonant=resonant)
    given["current"] = given["current"].to(dtype)
    largest = 1.0 if resonant or cell == "per neuron" else torch.inf
    special = torch.tensor([0.0, -0.0, 1e-7, -3e-5, 6e4, -6.5e4, largest]).to(dtype)
    given["current"][0, 0, : len(special)] = special
    options = {"surrogate": surrogate, "full_gradient": full_gradient, "lengths": torch.tensor([40, 17, 0])}
    if resonant and cell == "constants":
        del given["omega"]
        options["omega"] = 0.3
    layer = layer_of(given, **options)

    def run(*tensors):
        with torch.autocast(tensors[0].device.type, dtype=torch.bfloat16, enabled=autocast):
            return layer(*tensors)

    (spikes, *_), grads = check_against_the_cpu(gpu, run, leaves(*given.values()))
    assert spikes.max() > 0.5 and spikes.dtype == (torch.float32 if autocast else dtype)
    assert grads[list(given).index("current")].dtype == dtype
    with torch.no_grad():
        with gpu.on():
            got = run(*(x.clone().to(gpu.device) for x in given.values()))
        equal([x.cpu() for x in got], run(*given.values()))


class Called(TorchDispatchMode):
    """Records which of torch's operators are called."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@HALVES
def test_half_precision_is_read_and_written_without_a_copy(gpu, dtype):
    current = torch.randn(20, 2, 5, device=gpu.device).mul_(2).to(dtype).requires_grad_()
    bias = torch.full((5,), -5.0, device=gpu.device)
    with gpu.on(), Called() as called:
        spikes, _ = src(current, bias)
        spikes.backward(torch.ones_like(spikes))
    assert spikes.dtype == current.grad.dtype == dtype
    assert {"src", "src_backward"} <= called.names
    assert not called.names & {"_to_copy", "copy_", "to"}


# For events without values the weight gradient counts the events in columns (per input and step) if there are enough of
# them, also where an input has several events in one row. Otherwise, and for events with values, it sorts the events.
WEIGHT_GRADIENTS = [(0.1, 1, False), (0.05, 3, False), (0.05, 20, False), (0.01, 1, False), (0.1, 3, True)]


@pytest.mark.parametrize(("density", "repeated", "values"), WEIGHT_GRADIENTS)
def test_weight_gradients_by_columns_and_by_keys(gpu, density, repeated, values):
    generator = torch.Generator().manual_seed(8)
    batch = EventBatch.from_dense((torch.rand(40, 20, 70, generator=generator) < density).float())
    offsets, indices = batch.offsets * repeated, batch.indices.repeat_interleave(repeated)
    events = EventBatch(offsets, indices, shape=batch.shape)
    given = {"weight": torch.randn(132, 70, generator=generator) / repeated, "bias": torch.full((132,), -5.0)}
    if values:
        given["values"] = torch.rand(len(indices), generator=generator)
    launched = len(gpu.launched) if isinstance(gpu, Host) else 0
    (spikes, *_), _ = check_layer(gpu, given, events)
    assert spikes.max() > 0.5
    if isinstance(gpu, Host):
        expected = "event_keys" if values or density < 0.05 else "event_columns"
        assert {"event_keys", "event_columns"} & set(gpu.launched[launched:]) == {expected}


def test_more_keys_than_fit_in_32_bits(gpu):
    """There are more than 2^31 (segment, sample, input) keys."""
    steps, inputs, count = 64_000, 1_100_000, 3_000
    generator = torch.Generator().manual_seed(11)
    rows = torch.randint(steps, (count,), generator=generator).sort().values
    indices = torch.randint(inputs, (count,), generator=generator, dtype=torch.int32)
    indices[::3] = inputs - 1
    offsets = torch.searchsorted(rows, torch.arange(steps + 1))
    given = {"values": torch.rand(count, generator=generator) + 1, "weight": torch.full((1, inputs), 3.0)}
    given["bias"] = torch.tensor([-5.0])
    (spikes, *_), grads = check_layer(gpu, given, EventBatch(offsets, indices, shape=(steps, 1, inputs)))
    assert spikes.max() > 0.5 and grads["weight"][0, -1]


# The function on the GPU, and the CPU function that it must equal: on a GPU "auto" is the product.
DENSE = {
    "events": (on_dense("events"), on_dense("events")),
    "gradient at events": (on_dense_at_events, on_dense_at_events),
    "gemm": (on_dense("gemm"), on_dense("gemm")),
    "auto": (on_dense("auto"), on_dense("gemm")),
}


@FLOATS
@pytest.mark.parametrize("resonant", [False, True], ids=["plain", "resonant"])
@pytest.mark.parametrize("name", DENSE)
def test_dense_inputs_are_bit_identical_to_the_cpu(gpu, dtype, name, resonant):
    given, fires = make_case("dense", (40, 5, 37), resonant=resonant, dtype=dtype)
    given["input"] = fires * torch.rand(fires.shape, generator=torch.Generator().manual_seed(45))
    options = {"full_gradient": True, "lengths": [40, 33, 32, 1, 0]}
    layers = [layer_of(given, function=function, **options) for function in DENSE[name]]
    with gpu.on():
        outputs, got = gradients_of(layers[0], leaves(*given.values()), gpu.device)
    cpu_outputs, expected = gradients_of(layers[1], leaves(*given.values()))
    by_events = name in ("events", "gradient at events")
    if by_events or gpu.device.type == "cpu":  # the product's bits depend on the device's library
        equal(outputs, cpu_outputs)
        equal(got[:-1], expected[:-1])
    # On a GPU the input's gradient is torch's product, in which each element is a sum of 37 terms in an unknown order.
    bound = 37 * torch.finfo(dtype).eps * (expected[-1].abs().max() + given["weight"].abs().max() * 37)
    if by_events:
        assert (got[-1] - expected[-1]).abs().max() <= bound
    if name == "gradient at events":
        assert not got[-1][given["input"] == 0].any()
    assert cpu_outputs[0].max() > 0.5


@pytest.mark.parametrize("steps", [0, 1, 16, 33])
@pytest.mark.parametrize("resonant", [False, True], ids=["plain", "resonant"])
@pytest.mark.parametrize("kind", ["EventBatch", "events", "gemm"])
def test_recurrent_weights_behind_a_synapse_are_bit_identical_to_the_cpu(gpu, kind, resonant, steps):
    shape, options = (steps, 5, 37), {"recurrent": True, "resonant": resonant}
    given, x = make_case("EventBatch" if kind == "EventBatch" else "dense", shape, density=0.2, **options)
    method = "auto" if kind == "EventBatch" else kind
    if kind == "gemm":  # the product's bits depend on the device's library, but integers are exact in any order
        given["weight"] = given["weight"].round()
    if kind == "gemm" or steps == 0:
        run, inputs = layer_of(given, x, method=method), leaves(*given.values())
        with gpu.on():
            outputs, _ = gradients_of(run, inputs, gpu.device)
        equal(outputs, gradients_of(run, inputs)[0])
    else:
        outputs, _ = check_layer(gpu, given, x, method=method)
    assert steps <= 1 or outputs[0].any()


# The loop over the terms is unrolled four times: a width of 6 makes such a round and a rest.
@FLOATS
@pytest.mark.parametrize("width", [1, 3, 6])
@pytest.mark.parametrize("whole", [False, True], ids=["fractional", "whole"])
@pytest.mark.parametrize("kind", ["dense", "ones", "graded"])
def test_delays_are_bit_identical_to_the_cpu(gpu, kind, whole, width, dtype):
    generator = torch.Generator().manual_seed(width)
    x = (torch.rand(40, 21, 5, generator=generator) < 0.3).to(dtype)
    values = 0.5 + torch.rand(int(x.sum()), generator=generator, dtype=dtype)
    delays = 9 * torch.rand(5, 2, generator=generator, dtype=dtype)
    events = EventBatch.from_dense(x, torch.arange(21) * 2)
    events = with_values(events, None if kind == "ones" else values[: events.num_events])
    given = {"dense": [x], "ones": [], "graded": [events.values]}[kind]

    def run(d, *given):
        if kind == "dense":
            return [delay(*given, d, max_delay=9, delay_width=width, lengths=torch.arange(21) * 2)]
        made = delay(with_values(events.to(d.device), *given or [None]), d, max_delay=9, delay_width=width)
        return [made.values, made.offsets.double(), made.indices.double()]

    inputs = leaves(delays.floor() if whole else delays, *given)
    (made, *_), _ = check_against_the_cpu(gpu, run, inputs)
    assert made.any()
    with torch.no_grad():
        with gpu.on():
            got = run(*(x.to(gpu.device) for x in inputs))
        equal([None if x is None else x.cpu() for x in got], run(*inputs))  # without values if all are 1


def test_fixed_whole_delays_are_bit_identical_to_the_cpu(gpu):
    events = EventBatch.from_dense((torch.rand(40, 3, 70, generator=torch.Generator().manual_seed(1)) < 0.1).float())
    delays = torch.arange(70.0) % 9
    with gpu.on():
        got = delay(events.to(gpu.device), delays.to(gpu.device), max_delay=9).to("cpu")
    assert torch.equal(got.to_dense(), delay(events, delays, max_delay=9).to_dense())


def test_a_wrong_mask_raises_an_error(gpu):
    with gpu.on():
        input, weight = torch.ones(9, 3, 5, device=gpu.device), torch.ones(6, 5, device=gpu.device)
        call = layer_call(make_layer({"bias": torch.zeros(6, device=gpu.device)}, ("relu", False)), input, weight)
        saved = list(call.forward()()[6:])
        for mask in (saved[2][:1], saved[2].int(), saved[2][:, :0]):
            saved[2] = mask
            with pytest.raises((TypeError, ValueError), match=r"^mask: expected (dtype int64|shape \(27, 1\)), got "):
                call.backward([None] * 6, saved, [True, True, *[False] * 10])()


@pytest.mark.parametrize("lengths", [None, [40, 0, 13]], ids=["whole", "lengths"])
@pytest.mark.parametrize("kind", ["EventBatch", "dense"])
@pytest.mark.parametrize("size", [8, 32768])
def test_integer_neurons_are_bit_identical_to_the_cpu(gpu, kind, lengths, size):
    generator = torch.Generator().manual_seed(size)
    input = (torch.rand(40, 3, 130, generator=generator) < 0.3).float()
    weight = torch.randint(-size, size, (37, 130), generator=generator).to(torch.int16)
    state = [torch.randint(-700, 700, (3, 37), generator=generator).to(torch.int16) for _ in range(3)]
    x = EventBatch.from_dense(input) if kind == "EventBatch" else input
    *_, clamped = check_integer_layer(gpu, x, weight, state, lengths)
    assert (size == 8) == (clamped == 0)


@pytest.mark.parametrize("lengths", [None, [40, 0, 13]], ids=["whole", "lengths"])
@pytest.mark.parametrize("kind", ["EventBatch", "dense"])
def test_integer_layers_train_as_on_the_cpu(gpu, kind, lengths):
    generator = torch.Generator().manual_seed(0)
    input = (torch.rand(40, 3, 70, generator=generator) < 0.2).float()
    events = EventBatch.from_dense(input)
    inputs = leaves(torch.randn(37, 70, generator=generator), *([input] if kind == "dense" else []))

    def run(weight, *dense):
        layer = IntegerSRC(70, 37, weight_bits=6).to(weight.device)
        given = dense or (events.to(weight.device),)
        spikes, _ = torch.func.functional_call(layer, {"weight_ih_l0": weight}, given, {"lengths": lengths})
        return [spikes]

    with gpu.on():
        spikes, got = gradients_of(run, inputs, gpu.device)
    cpu_spikes, expected = gradients_of(run, inputs)
    equal(spikes, cpu_spikes)
    assert spikes[0].any()
    # The gradients have the CPU's slopes, tanh and order of sums, but the input's gradient is torch's product.
    equal(got[:1], expected[:1])
    for by_input, on_cpu in zip(got[1:], expected[1:], strict=True):
        assert (by_input - on_cpu).abs().max() <= 1e-5 * on_cpu.abs().max()


@pytest.mark.parametrize("thinned", [False, True])
def test_rate_encoding_is_bit_identical_to_the_cpu(gpu, thinned):
    images = torch.rand(5, 9, 15, generator=torch.Generator().manual_seed(0))
    images[images < 0.5] = 0
    arguments = dict(steps=50, prefix=7, gain=0.6, seed=2**40 + 3, index=[3, 1, 4, 1, 5], thinned=thinned)
    with gpu.on():
        got = rate_encode(images.to(gpu.device), **arguments)
    expected = rate_encode(images, **arguments)
    assert expected.num_events > 1000
    equal([got.offsets.cpu(), got.indices.cpu()], [expected.offsets, expected.indices])


def test_invalid_arguments_raise_an_error_that_names_the_argument(gpu):
    images = torch.zeros(3, 70, device=gpu.device)
    images[1, 65] = 1.5
    with gpu.on():
        # A kernel reads the pixels, the bindings check rho.
        with pytest.raises(ValueError, match=r"images: expected values in \[0, 1\], got 1.5 in pixel 65 of sample 1"):
            rate_encode(images, seed=0)
        with pytest.raises(ValueError, match=r"rho: expected finite values > 0 with a finite reciprocal, got 0"):
            src(images[None], -6.0, rho=0.0)


@pytest.mark.parametrize("sizes", [(0, 3, 4, 5), (6, 0, 4, 5), (6, 3, 0, 5), (6, 3, 4, 0)])
def test_empty_sizes(gpu, sizes):
    *shape, inputs = sizes
    given = {"weight": torch.ones(shape[2], inputs), "bias": torch.full((), -6.0)}
    check_layer(gpu, given, EventBatch.from_dense(torch.ones(*shape[:2], inputs)))


def test_non_contiguous_inputs(gpu):
    given, _ = make_case("currents", (40, 3, 37))
    given["bias"] = given["bias"][:1]

    def run(current, bias, i, *state):
        current, i = current.transpose(0, 2).contiguous().transpose(0, 2), i.t().contiguous().t()
        spikes, final = src(current, bias.expand(37), (i, *state))
        return spikes, *final

    check_against_the_cpu(gpu, run, leaves(*(given[name] for name in ("current", "bias", *STATE))))


@pytest.mark.parametrize("method", ["events", "gemm"])
def test_arguments_that_are_views(gpu, method):
    """Regression: the kernels read other numbers of lengths that were every second one, and of transposed weights."""
    x = (noise(5, 40, 3, 20, dtype=torch.float32) > 0.2).float()
    weight, weight_hh = 6 * noise(6, 12, 20, dtype=torch.float32), 0.3 * noise(7, 12, 12, dtype=torch.float32)
    lengths = torch.tensor([40, 0, 17, 0, 29, 0])

    def run(x, weight, weight_hh, lengths):
        options = {"weight_hh": torch._neg_view(weight_hh.t()), "lengths": lengths[::2], "method": method}
        spikes, state = src_linear(x, weight, -6.0, **options)
        return [spikes, *state]

    outputs, grads = check_against_the_cpu(gpu, run, [x, *leaves(weight, weight_hh), lengths])
    assert outputs[0].any() and grads[1] is not None and grads[1].any()


def test_events_altered_after_validation_give_finite_results(gpu):
    weight = torch.ones(2, 3, device=gpu.device, requires_grad=True)
    with gpu.on():
        batch = EventBatch.from_dense(torch.ones(4, 2, 3)).to(gpu.device)
        batch.indices[5], batch.indices[7], batch.offsets[3], batch.offsets[6] = -7, 2**30, -1, 2**40
        spikes, _ = src_linear(batch, weight, -6.0)
        (grad,) = torch.autograd.grad(spikes.sum(), weight)
    assert spikes.isfinite().all() and grad.isfinite().all()


def test_a_build_without_cuda_kernels_raises_an_error_with_the_remedy(monkeypatch):
    def missing():
        raise ImportError("No module named 'srcell._cuda'")

    monkeypatch.setattr(_gpu, "is_gpu", lambda device: True)
    monkeypatch.setattr(_gpu, "cuda_module", missing)
    monkeypatch.setattr(Direct, "__call__", lambda *_: None)  # only calls on a CPU go directly
    with pytest.raises(RuntimeError, match=r"current: is on cpu, for which this build .* SRCELL_CUDA=ON pip install"):
        src(torch.zeros(2, 1, 3), -6.0)


@FLOATS
@pytest.mark.parametrize("channels", [1, 4, 36])
@pytest.mark.parametrize("batch", [1, 20, 0])
@pytest.mark.parametrize("sign", [1, -1])
def test_bounded_biases_of_channels_are_bit_identical_to_the_cpu(gpu, dtype, channels, batch, sign):
    """36 channels of one neuron each are neurons with a bias of their own."""
    current = torch.randn(40, batch, 36, dtype=dtype, generator=torch.Generator().manual_seed(7)) * 3
    bias = torch.linspace(-7, -3, channels, dtype=dtype)
    options = CONSTANTS, "straight_through", True, "relu", 0, -5.5, channels

    def run(current, bias):
        each = bias.repeat_interleave(36 // channels)
        layer = LayerArguments(each, [], [], None, None, None, None, *options)
        made = src_operator(current, layer, save=False, trace_integrator=False, half_spikes=False)
        return [sign * x for x in made[:4]]

    _, (_, grad) = check_against_the_cpu(gpu, run, leaves(current, bias))
    assert not batch or ((grad == 0) <= (bias > -5.5)).all()
    assert not batch or channels == 1 or grad.any()


@FLOATS
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("per_neuron", [False, True])
@pytest.mark.parametrize("sign", [1, pytest.param(-1, marks=exhaustive)])
def test_bounded_biases_behind_a_synapse_are_bit_identical_to_the_cpu(gpu, dtype, recurrent, per_neuron, sign):
    given, events = make_case("graded", (40, 20, 37), recurrent=recurrent, dtype=dtype)
    bias = torch.linspace(-7, -3, 37, dtype=dtype) if per_neuron else torch.tensor(-3.0, dtype=dtype)

    def run(weight, bias, weight_hh):
        options = {"weight_hh": weight_hh if recurrent else None, "surrogate": "relu", "full_gradient": True}
        batch = moved(events, weight.device)
        shape = batch.shape[1], weight.shape[0]
        layer = layer_for(weight, shape, bias, Cell(), None, batch.lengths, **options)._replace(bias_max=-5.5)
        spikes, state = after_synapse(batch, weight, layer, "auto")
        return [sign * x for x in (spikes, *state)]

    weight_hh = given["weight_hh"] if recurrent else torch.zeros((), dtype=dtype)
    _, (_, grad, _) = check_against_the_cpu(gpu, run, leaves(given["weight"], bias, weight_hh))
    assert ((grad == 0) <= (bias > -5.5)).all() and (grad.any() or not per_neuron)


@FLOATS
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("synapse", ["currents", "events", "dense"])
def test_what_acts_instead_of_the_arguments_is_bit_identical_to_the_cpu(gpu, dtype, synapse, recurrent):
    """Clamped parameters, no autapses, and a start at rest."""
    given, events = make_case("graded", (40, 20, 37), recurrent=recurrent, dtype=dtype)
    alpha, bias = torch.linspace(-0.3, 1.3, 37, dtype=dtype), torch.linspace(-7, -3, 37, dtype=dtype)
    rho = torch.tensor(-1.0 if synapse == "dense" else 3.0, dtype=dtype)
    currents = torch.randn(40, 20, 37, dtype=dtype, generator=torch.Generator().manual_seed(7)) * 3

    def run(weight, weight_hh, bias, alpha, rho):
        batch, like = moved(events, weight.device), weight if synapse != "currents" else currents.to(weight.device)
        cell = Cell(alpha=alpha, rho=rho)
        options = {"weight_hh": weight_hh if recurrent else None, "surrogate": "relu", "full_gradient": True}
        layer = layer_for(like, (20, 37), bias, cell, None, batch.lengths, **options)
        start = "rest" if dtype == torch.float32 else "zeros"  # by torch's tanh, whose last bits in float64 are its own
        layer = layer._replace(bias_max=-4.0, clamped=[True, True], autapses=False, start=start)
        if synapse == "currents":
            spikes, state = run_src(like + 0 * weight.sum(), layer)
        else:
            x = batch if synapse == "events" else batch.to_dense(dtype)
            spikes, state = after_synapse(x, weight, layer, "events")
        return [spikes, *state]

    weight_hh = given["weight_hh"] if recurrent else torch.zeros((), dtype=dtype)
    leaf = leaves(given["weight"], weight_hh, bias, alpha, rho)
    made, (_, lateral, _, of_alpha, _) = check_against_the_cpu(gpu, run, leaf)
    assert made[0].any() and of_alpha.any() and (of_alpha[alpha > 1] >= 0).all() and (of_alpha[alpha < 0] <= 0).all()
    assert not recurrent or not lateral.diagonal().any()


@pytest.mark.parametrize("name", ["src", "src float16", "src_dense events", "src_dense gemm", "src_events"])
def test_operators_pass_opcheck(gpu, name):
    torch.manual_seed(0)
    operator, _, option = name.partition(" ")
    bias = torch.full((6,), -6.0, device=gpu.device, requires_grad=True)
    weight = torch.randn(6, 5, device=gpu.device, requires_grad=True)
    fires = (torch.rand(9, 3, 5, device=gpu.device) < 0.3).float()
    current = torch.randn(9, 3, 6, device=gpu.device, dtype=torch.float16 if option == "float16" else torch.float32)
    with gpu.on():
        layer = make_layer({"bias": bias}, ("straight_through", True))
        if operator == "src":
            call = layer_call(layer, current.requires_grad_()).forward()
            call.options["half_spikes"] = option == "float16"
        elif operator == "src_dense":
            call = layer_call(layer, fires.requires_grad_(), weight, method=option, trace_integrator=False).forward()
        else:
            events = EventBatch.from_dense(fires).to(gpu.device)
            call = layer_call(layer, events, weight, trace_integrator=False).forward()
        assert call.name == operator
        torch.library.opcheck(call.operator.default, call.arguments, call.options)


# Events with and without values; the weight gradient in columns and by keys.
@pytest.mark.parametrize("density", [0.3, 0.01])
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("values", [False, True])
def test_only_the_requested_gradients_of_values_and_weight_are_computed(gpu, density, wanted, values):
    given, events = make_case("graded" if values else "EventBatch", (40, 3, 6), 20, density=density)
    grad = torch.randn(40, 3, 6, generator=torch.Generator().manual_seed(4))

    def run(device):
        layer = make_layer({"bias": given["bias"].to(device)}, ("straight_through", False))
        batch = with_values(events.to(device), moved(given.get("values"), device))
        call = layer_call(layer, batch, given["weight"].to(device), trace_integrator=False)
        saved = call.forward()()[6:]
        return call.backward([grad.to(device), None, None, None, None, None], saved, [*wanted, *[False] * 10])()

    with gpu.on():
        got = [x.cpu() for x in run(gpu.device)]
    equal(got, run("cpu"))
    assert (got[0].numel() > 0, got[1].numel() > 0) == wanted


@pytest.mark.parametrize("lateral", [False, True])
def test_half_precision_in_torchs_modes(gpu, lateral):
    """Compiled, and under vmap and torch.func.grad: the outputs and gradients of plain calls."""
    generator = torch.Generator().manual_seed(6)
    current = (torch.randn(2, 12, 3, 6, generator=generator) * 2).half().to(gpu.device)
    weight_hh = torch.randn(6, 6, generator=generator).to(gpu.device) / 4 if lateral else None

    def run(current):
        return src(current, -5.0, weight_hh=weight_hh)[0]

    def loss(current):
        return run(current).float().square().sum()

    with gpu.on():
        expected = torch.stack([run(x) for x in current])
        gradients = torch.stack([torch.func.grad(loss)(x) for x in current])
        compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
        leaf = current[0].clone().requires_grad_()
        spikes = compiled(leaf)
        (by_current,) = torch.autograd.grad(spikes.float().square().sum(), leaf)
        equal([torch.func.vmap(run)(current), torch.func.vmap(torch.func.grad(loss))(current)], [expected, gradients])
    assert expected.dtype == gradients.dtype == torch.float16 and expected.max() > 0.5
    equal([spikes.detach(), by_current], [expected[0], gradients[0]])


def test_half_precision_exports_to_onnx(gpu):
    """Through torch.export."""
    from test_onnx import session, translated  # skips this test if torch cannot export

    bias = torch.full((6,), -5.0, device=gpu.device)
    current = (torch.randn(12, 3, 6, generator=torch.Generator().manual_seed(6)) * 2).half().to(gpu.device)

    class Module(torch.nn.Module):
        def forward(self, current):
            return src(current, bias)[0]

    with gpu.on():
        expected = Module()(current).cpu()
        program = translated(Module(), (current,))
    ready = session(program.model_proto.SerializeToString())
    (spikes,) = ready.run(None, {ready.get_inputs()[0].name: current.cpu().numpy()})
    assert expected.dtype == torch.float16 and expected.max() > 0.5
    torch.testing.assert_close(torch.from_numpy(spikes), expected, rtol=0, atol=1e-3)


# Tests that need a real GPU.


@needs_card
def test_no_call_synchronises():
    layer = SRC(30, 40).cuda()
    events = rate_encode(torch.rand(8, 30), steps=40, seed=0).to("cuda")
    training_step(layer, events)
    torch.cuda.set_sync_debug_mode("error")
    try:
        training_step(layer, events)
        training_step(layer, torch.ones(5, 2, 30, device="cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_card
def test_a_compiled_step_gives_the_same_bits():
    torch.manual_seed(0)
    current, bias = torch.randn(20, 4, 50, device="cuda") * 2, torch.full((50,), -6.0, device="cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(lambda current, bias: src(current, bias)[0], fullgraph=True)
        assert torch.equal(compiled(current, bias), src(current, bias)[0])


@needs_card
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one card")
def test_a_card_other_than_the_current_one():
    current = torch.randn(20, 4, 50) * 2
    spikes, _ = src(current.to("cuda:1"), -6.0)
    assert spikes.device == torch.device("cuda:1") and torch.cuda.current_device() == 0
    assert torch.equal(spikes.cpu(), src(current, -6.0)[0])


@needs_card
def test_devices_must_agree():
    with pytest.raises(ValueError, match="bias: expected device cuda:0"):
        src(torch.zeros(2, 1, 3, device="cuda"), torch.zeros(3))


@needs_card
def test_more_than_2_31_elements():
    steps, batch, neurons = 3, 2**15, 2**15 - 1
    needed = 4 * steps * batch * neurons * 4  # currents, spikes, and temporaries of the comparison
    if torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f"the card has less than {needed / 1e9:.0f} GB free")
    current = torch.full((steps, batch, neurons), 4.0, device="cuda")
    current[0, -1, -1] = -4
    spikes, _ = src(current, 0.0)  # fires at the first step
    expected, _ = src(torch.full((steps, 1, 1), 4.0), 0.0)
    assert expected[0] > 0.9
    assert (spikes[:, :-1] == expected.cuda()).all()
    assert (spikes[:, -1, :-1] == expected[:, 0].cuda()).all() and spikes[0, -1, -1] == 0


@needs_card
def test_out_of_memory_raises_torchs_error():
    current = torch.zeros(1, 1, 1, device="cuda").expand(2**20, 2**10, 2**10)
    with pytest.raises(torch.OutOfMemoryError):
        src(current, -6.0)
    assert torch.isfinite(src(torch.zeros(2, 1, 3, device="cuda"), -6.0)[0]).all()
