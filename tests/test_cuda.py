"""The CUDA kernels, their bindings and the operators on a GPU: the same bits as the CPU, with and without a card.

Without a card the kernels run on the host (tests/cpp/cuda_on_host.cpp): `tools/check.sh` builds that module and sets
SRCELL_CUDA_ON_HOST to it. On a machine with a card the same tests run on the card, and further ones that need it.
"""

import warnings

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from srcell import SRC, EventBatch, IntegerSRC, integer_src_linear, rate_encode
from srcell.functional import src, src_linear
from srcell.ops import _gpu, src_dense
from support.calls import EXPORTS_ONNX
from support.gpu import Host, check_against_the_cpu, equal, gradients_of, leaves, moved, needs_card, training_step
from support.gradients import requiring_grad
from support.inputs import STATE, call, make_inputs, make_layer

pytestmark = pytest.mark.landing

PARAMETERS = dict(alpha=0.9, rho=3.0, r=2.0, rs=-7.0, zs_hyp=0.9, zs_dep=0.0)
MODES = [(surrogate, recurrent) for surrogate in ("relu", "straight_through") for recurrent in (False, True)]


def problem(dtype, learnable, per_neuron, *, steps=40, batch=3, neurons=37):
    generator = torch.Generator().manual_seed(steps + batch)
    given = dict(PARAMETERS)
    if learnable:
        shape = (neurons,) if per_neuron else ()
        given = {name: torch.full(shape, value, dtype=dtype) for name, value in PARAMETERS.items()}
    state = [torch.randn(batch, neurons, dtype=dtype, generator=generator) / 4 for _ in range(3)]
    bias = torch.full((neurons,), -5.0, dtype=dtype)
    return generator, given, state, bias


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("surrogate", "recurrent_grad"), MODES)
@pytest.mark.parametrize(("learnable", "per_neuron"), [(False, False), (True, False), (True, True)])
def test_scan_is_the_cpus(gpu, dtype, surrogate, recurrent_grad, learnable, per_neuron):
    generator, given, state, bias = problem(dtype, learnable, per_neuron)
    current = torch.randn(40, 3, 37, dtype=dtype, generator=generator) * 2
    lengths = torch.tensor([40, 17, 0])
    inputs = leaves(current, bias, *state, *(given.values() if learnable else ()))

    def run(current, bias, i, h, hs, *cell):
        parameters = dict(zip(PARAMETERS, cell, strict=True)) if cell else given
        spikes, final = src(
            current,
            bias,
            (i, h, hs),
            **parameters,
            surrogate=surrogate,
            recurrent_grad=recurrent_grad,
            lengths=lengths.to(current.device),
        )
        return spikes, *final

    (spikes, *_), _ = check_against_the_cpu(gpu, run, inputs)
    assert spikes.max() > 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("lateral", [False, True])
def test_half_precision_is_computed_in_float32(gpu, dtype, lateral):
    generator, _, state, bias = problem(torch.float32, False, False)
    weight_hh = [torch.randn(37, 37, generator=generator) / 8] if lateral else []
    # Special values first: zeros, denormal, small, large and infinite; the rest make spikes.
    current = (torch.randn(40, 3, 37, generator=generator) * 2).to(dtype)
    kinds = torch.tensor([0.0, -0.0, 1e-7, -3e-5, 6e4, -6.5e4, torch.inf]).to(dtype)
    current[0, 0, : len(kinds)] = kinds

    def run(current, bias, i, h, hs, weight_hh=None):
        spikes, final = src(current, bias, (i, h, hs), weight_hh=weight_hh)
        assert spikes.dtype == current.dtype
        return spikes, *final

    inputs = leaves(current, bias, *state, *weight_hh)
    (spikes, *_), (by_current, *_) = check_against_the_cpu(gpu, run, inputs)
    assert spikes.max() > 0.5 and by_current.dtype == dtype


class Called(TorchDispatchMode):
    """Which of torch's operators are called."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_read_and_written_as_it_is(gpu, dtype):
    current = torch.randn(20, 2, 5, device=gpu.device).mul_(2).to(dtype).requires_grad_()
    bias = torch.full((5,), -5.0, device=gpu.device)
    with gpu.on(), Called() as called:
        spikes, _ = src(current, bias)
        spikes.backward(torch.ones_like(spikes))
    assert spikes.dtype == current.grad.dtype == dtype
    assert {"src", "src_backward"} <= called.names
    assert not called.names & {"_to_copy", "copy_", "to"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_spikes_are_float32_under_autocast(gpu, dtype):
    current = torch.randn(20, 2, 5, generator=torch.Generator().manual_seed(3)).mul_(2).to(dtype)

    def run(current):
        with torch.autocast(current.device.type, dtype=torch.bfloat16):
            spikes, final = src(current, -5.0)
        assert spikes.dtype == torch.float32
        return spikes, *final

    (spikes, *_), _ = check_against_the_cpu(gpu, run, leaves(current))
    assert spikes.max() > 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("surrogate", "recurrent_grad"), MODES)
@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("learnable", [False, True])
def test_events_are_the_cpus(gpu, dtype, surrogate, recurrent_grad, values, learnable):
    generator, given, state, bias = problem(dtype, learnable, True, batch=20)
    dense = (torch.rand(40, 20, 70, generator=generator) < 0.1).to(dtype)
    batch = EventBatch.from_dense(dense)
    numbers = torch.rand(batch.num_events, dtype=dtype, generator=generator)
    weight = torch.randn(37, 70, dtype=dtype, generator=generator)
    inputs = leaves(weight, bias, *state, *([numbers] if values else []), *(given.values() if learnable else ()))

    def run(weight, bias, i, h, hs, *rest):
        numbers, *cell = rest if values else (None, *rest)
        rows = batch.offsets.to(weight.device), batch.indices.to(weight.device)
        events = EventBatch(*rows, numbers, shape=batch.shape)
        parameters = dict(zip(PARAMETERS, cell, strict=True)) if cell else given
        spikes, final = src_linear(
            events, weight, bias, (i, h, hs), **parameters, surrogate=surrogate, recurrent_grad=recurrent_grad
        )
        return spikes, *final

    (spikes, *_), _ = check_against_the_cpu(gpu, run, inputs)
    assert spikes.max() > 0.5


# Without values the weight gradient counts events in columns if there are enough of them, also where an input has
# several in one row; otherwise, and with values, it sorts them.
WAYS = [(0.1, 1, False), (0.05, 3, False), (0.05, 20, False), (0.01, 1, False), (0.1, 3, True)]


@pytest.mark.parametrize(("density", "repeated", "values"), WAYS)
def test_weight_gradients_by_columns_and_by_keys(gpu, density, repeated, values):
    generator = torch.Generator().manual_seed(8)
    dense = (torch.rand(40, 20, 70, generator=generator) < density).float()
    batch = EventBatch.from_dense(dense)
    offsets, indices = batch.offsets * repeated, batch.indices.repeat_interleave(repeated)
    numbers = torch.rand(len(indices), generator=generator) if values else None
    weight = torch.randn(132, 70, generator=generator) / repeated

    def run(weight):
        given = None if numbers is None else numbers.to(weight.device)
        events = EventBatch(offsets.to(weight.device), indices.to(weight.device), given, shape=batch.shape)
        return src_linear(events, weight, -5.0)[:1]

    launched = len(gpu.launched) if isinstance(gpu, Host) else 0
    (spikes, *_), _ = check_against_the_cpu(gpu, run, leaves(weight))
    assert spikes.max() > 0.5
    if isinstance(gpu, Host):
        way = "event_keys" if values or density < 0.05 else "event_columns"
        assert {"event_keys", "event_columns"} & set(gpu.launched[launched:]) == {way}


def dense_arguments(input, weight, method, at_events, layer):
    """The positional and the keyword arguments of ``src_dense``."""
    options = dict(method=method, save=True, trace_integrator=False, input_grad_at_events=at_events)
    return (input, weight, *layer.forward), layer.options | options


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("method", "at_events"), [("events", False), ("events", True), ("gemm", False), ("auto", False)]
)
def test_dense_inputs(gpu, dtype, method, at_events):
    generator, _, state, bias = problem(dtype, False, False, batch=5)
    input = torch.rand(40, 5, 70, dtype=dtype, generator=generator)
    input[torch.rand(input.shape, generator=generator) > 0.1] = 0
    weight = torch.randn(37, 70, dtype=dtype, generator=generator)
    given = {"bias": bias, **dict(zip(STATE, state, strict=True))}
    layer = make_layer(given, ("straight_through", True), [40, 33, 32, 1, 0])
    grads = [torch.randn(40, 5, 37, dtype=dtype, generator=generator), None, None, None]
    wanted = [True, True, *[False] * 7]

    def passes(method, device):
        on_device = pytree.tree_map(lambda x: moved(x, device), layer)
        x, w = input.to(device), weight.to(device)
        given, options = dense_arguments(x, w, method, at_events, on_device)
        outputs = torch.ops.srcell.src_dense(*given, **options)
        fake = src_dense.forward_fake(*given, **options)
        assert [(x.shape, x.dtype) for x in outputs] == [(x.shape, x.dtype) for x in fake]
        by_outputs = [moved(x, device) for x in grads]
        gradients = torch.ops.srcell.src_dense_backward(
            *(*by_outputs, x, w, *outputs[4:], *on_device.backward),
            **on_device.options,
            input_grad_at_events=at_events,
            output_mask=wanted,
        )
        return [x.cpu() for x in outputs], [x.cpu() for x in gradients]

    with gpu.on():
        outputs, (grad_input, *gradients) = passes(method, gpu.device)
    taken = "events" if method == "events" else "gemm"  # on a GPU "auto" is the product
    cpu_outputs, (cpu_grad_input, *cpu_gradients) = passes(taken, "cpu")
    if method == "events" or gpu.device.type == "cpu":  # the product's bits are those of the device's library
        equal(outputs[:4], cpu_outputs[:4])
        equal(gradients, cpu_gradients)
    # On a GPU the input's gradient is torch's product: each element sums 37 terms in an unknown order.
    bound = 37 * torch.finfo(dtype).eps * (cpu_grad_input.abs().max() + weight.abs().max() * 37)
    if method == "events":
        assert (grad_input - cpu_grad_input).abs().max() <= bound
    if at_events:
        assert not grad_input[input == 0].any()
    assert cpu_outputs[0].max() > 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("surrogate", "recurrent_grad"), MODES)
@pytest.mark.parametrize("lateral_surrogate", ["relu", "straight_through"])
@pytest.mark.parametrize("learnable", [False, True])
def test_lateral_weights_are_the_cpus(gpu, dtype, surrogate, recurrent_grad, lateral_surrogate, learnable):
    generator, given, state, bias = problem(dtype, learnable, True)
    state[1] = state[1] * 3  # some neurons are heard from the first step on
    current = torch.randn(40, 3, 37, dtype=dtype, generator=generator) * 2
    lateral = torch.randn(37, 37, dtype=dtype, generator=generator) / 3
    inputs = leaves(current, bias, lateral, *state, *(given.values() if learnable else ()))
    lengths = torch.tensor([40, 17, 0])

    def run(current, bias, lateral, i, h, hs, *cell):
        parameters = dict(zip(PARAMETERS, cell, strict=True)) if cell else given
        modes = {"surrogate": surrogate, "recurrent_grad": recurrent_grad, "lateral_surrogate": lateral_surrogate}
        ends = lengths.to(current.device)
        spikes, final = src(current, bias, (i, h, hs), **parameters, weight_hh=lateral, lengths=ends, **modes)
        return [spikes, *final]

    outputs, grads = check_against_the_cpu(gpu, run, inputs)
    assert outputs[0].any() and grads[2].any() and grads[4].any()


@pytest.mark.parametrize("steps", [0, 1, 16, 33])
@pytest.mark.parametrize("way", ["EventBatch", "events", "gemm"])
def test_lateral_weights_behind_a_synapse_are_the_cpus(gpu, way, steps):
    generator = torch.Generator().manual_seed(steps)
    x = (torch.rand(steps, 5, 70, generator=generator) < 0.2).float()
    weight, lateral = (torch.randn(37, n, generator=generator) / 2 for n in (70, 37))
    inputs = leaves(weight, lateral, torch.full((37,), -5.0))
    if way == "gemm":  # the product's bits are those of the device's library: integers are exact in any order
        inputs[0] = weight.round().requires_grad_()

    def run(weight, lateral, bias):
        given = x.to(weight.device)
        given = EventBatch.from_dense(given) if way == "EventBatch" else given
        method = "auto" if way == "EventBatch" else way
        spikes, final = src_linear(given, weight, bias, weight_hh=lateral, method=method)
        return [spikes, *final]

    if way == "gemm" and steps:
        with gpu.on():
            outputs, _ = gradients_of(run, inputs, gpu.device)
        equal(outputs, gradients_of(run, inputs)[0])
    elif steps:
        outputs, _ = check_against_the_cpu(gpu, run, inputs)
        assert steps == 1 or outputs[0].any()
    else:
        with gpu.on():
            outputs, _ = gradients_of(run, inputs, gpu.device)
        equal(outputs, gradients_of(run, inputs)[0])


def test_a_wrong_mask_is_refused(gpu):
    with gpu.on():
        input, weight = torch.ones(9, 3, 5, device=gpu.device), torch.ones(6, 5, device=gpu.device)
        layer = make_layer({"bias": torch.zeros(6, device=gpu.device)}, ("relu", False))
        given, options = dense_arguments(input, weight, "events", False, layer)
        saved = list(torch.ops.srcell.src_dense(*given, **options)[4:])
        options = dict(layer.options, input_grad_at_events=False, output_mask=[True, True, *[False] * 7])
        for mask in (saved[2][:1], saved[2].int(), saved[2][:, :0]):
            saved[2] = mask
            with pytest.raises(ValueError, match="mask: expected int64 of shape"):
                torch.ops.srcell.src_dense_backward(*[None] * 4, input, weight, *saved, *layer.backward, **options)


@pytest.mark.parametrize("lengths", [None, [40, 0, 13]], ids=["whole", "lengths"])
@pytest.mark.parametrize("way", ["EventBatch", "dense"])
@pytest.mark.parametrize("size", [8, 32768])
def test_integer_neurons_are_the_cpus(gpu, way, lengths, size):
    generator = torch.Generator().manual_seed(size)
    input = (torch.rand(40, 3, 130, generator=generator) < 0.3).float()
    weight = torch.randint(-size, size, (37, 130), generator=generator).to(torch.int16)
    state = [torch.randint(-700, 700, (3, 37), generator=generator).to(torch.int16) for _ in range(3)]

    def run(device):
        x = input.to(device)
        x = EventBatch(*(y.to(device) for y in rows), shape=input.shape) if way == "EventBatch" else x
        clamped = torch.zeros((), dtype=torch.int64, device=device)
        spikes, after = integer_src_linear(
            x, weight.to(device), [y.to(device) for y in state], lengths=lengths, clamped=clamped
        )
        return [y.cpu() for y in (spikes, *after, clamped)]

    events = EventBatch.from_dense(input)
    rows = events.offsets, events.indices
    with gpu.on():
        got = run(gpu.device)
    expected = run("cpu")
    equal(got, expected)
    assert expected[0].any() and (size == 8) == (expected[4] == 0)


@pytest.mark.parametrize("lengths", [None, [40, 0, 13]], ids=["whole", "lengths"])
@pytest.mark.parametrize("way", ["EventBatch", "dense"])
def test_integer_layers_train_as_on_the_cpu(gpu, way, lengths):
    torch.manual_seed(0)
    input = (torch.rand(40, 3, 70) < 0.2).float()
    events = EventBatch.from_dense(input)
    weight, arriving = torch.randn(37, 70), torch.randn(40, 3, 37)

    def run(weight, input):
        layer = IntegerSRC(70, 37, weight_bits=6).to(weight.device)
        layer.weight_ih_l0 = torch.nn.Parameter(weight.detach())
        rows = (events.offsets.to(weight.device), events.indices.to(weight.device))
        x = EventBatch(*rows, shape=input.shape) if way == "EventBatch" else input
        spikes, _ = layer(x, lengths=lengths)
        wanted = [layer.weight_ih_l0, *([input] if way == "dense" else [])]
        return [spikes.detach(), *torch.autograd.grad((spikes * arriving.to(weight.device)).sum(), wanted)]

    with gpu.on():
        got = [x.cpu() for x in run(weight.to(gpu.device), input.to(gpu.device).requires_grad_())]
    expected = run(weight, input.requires_grad_())
    assert torch.equal(got[0], expected[0]) and expected[0].any()
    # The gradients are of the same slopes; tanh and the order of sums are those of the CPU, torch's product is not.
    equal(got[1:2], expected[1:2])
    if way == "dense":
        assert (got[2] - expected[2]).abs().max() <= 1e-5 * expected[2].abs().max()


@pytest.mark.parametrize("thinned", [False, True])
def test_rate_encoding_is_the_cpus(gpu, thinned):
    images = torch.rand(5, 9, 15, generator=torch.Generator().manual_seed(0))
    images[images < 0.5] = 0
    arguments = dict(steps=50, prefix=7, gain=0.6, seed=2**40 + 3, index=[3, 1, 4, 1, 5], thinned=thinned)
    with gpu.on():
        got = rate_encode(images.to(gpu.device), **arguments)
    expected = rate_encode(images, **arguments)
    assert expected.num_events > 1000
    equal([got.offsets.cpu(), got.indices.cpu()], [expected.offsets, expected.indices])


def test_rate_encoding_refuses_wrong_pixels(gpu):
    images = torch.zeros(3, 70, device=gpu.device)
    images[1, 65] = 1.5
    message = r"images: expected values in \[0, 1\], got 1.5 in pixel 65 of sample 1"
    with gpu.on(), pytest.raises(ValueError, match=message):
        rate_encode(images, seed=0)


@pytest.mark.parametrize("sizes", [(0, 3, 4, 5), (6, 0, 4, 5), (6, 3, 0, 5), (6, 3, 4, 0)])
def test_empty_sizes(gpu, sizes):
    steps, batch, neurons, inputs = sizes
    weight, bias = torch.ones(neurons, inputs), torch.full((), -6.0)
    events = EventBatch.from_dense(torch.ones(steps, batch, inputs))

    def run(weight, bias):
        spikes, final = src_linear(events.to(weight.device), weight, bias)
        return spikes, *final

    check_against_the_cpu(gpu, run, leaves(weight, bias))


def test_non_contiguous_inputs(gpu):
    generator, _, state, bias = problem(torch.float32, False, False)
    current = torch.randn(37, 3, 40, generator=generator).transpose(0, 2) * 2
    expanded = bias[:1].expand(37)

    def run(current, bias, i, h, hs):
        spikes, final = src(current.transpose(0, 2).contiguous().transpose(0, 2), bias, (i, h, hs))
        return spikes, *final

    check_against_the_cpu(gpu, run, leaves(current, expanded, *(x.t().contiguous().t() for x in state)))


def test_altered_events_are_survived(gpu):
    batch = EventBatch.from_dense(torch.ones(4, 2, 3)).to(gpu.device)
    batch.indices[5], batch.indices[7], batch.offsets[3], batch.offsets[6] = -7, 2**30, -1, 2**40
    weight = torch.ones(2, 3, device=gpu.device, requires_grad=True)
    with gpu.on():
        spikes, _ = src_linear(batch, weight, -6.0)
        (grad,) = torch.autograd.grad(spikes.sum(), weight)
    assert spikes.isfinite().all() and grad.isfinite().all()


def test_a_bad_constant_is_refused(gpu):
    with gpu.on(), pytest.raises(ValueError, match=r"rho: expected finite values > 0 with a finite reciprocal, got 0"):
        src(torch.zeros(2, 1, 3, device=gpu.device), -6.0, rho=0.0)


def test_a_build_without_kernels_says_how_to_get_them(monkeypatch):
    def missing():
        raise ImportError("No module named 'srcell._cuda'")

    monkeypatch.setattr(_gpu, "is_gpu", lambda device: True)
    monkeypatch.setattr(_gpu, "cuda_module", missing)
    with pytest.raises(RuntimeError, match=r"current: is on cpu, for which this build .* SRCELL_CUDA=ON pip install"):
        src(torch.zeros(2, 1, 3), -6.0)


def six_neurons(device):
    bias = torch.full((6,), -6.0, device=device, requires_grad=True)
    return make_layer({"bias": bias}, ("straight_through", True))


@pytest.mark.parametrize("method", ["events", "gemm"])
def test_dense_operator_checks(gpu, method):
    torch.manual_seed(0)
    weight = torch.randn(6, 5, device=gpu.device, requires_grad=True)
    input = (torch.rand(9, 3, 5, device=gpu.device) < 0.3).float().requires_grad_()
    with gpu.on():
        arguments = dense_arguments(input, weight, method, False, six_neurons(gpu.device))
        torch.library.opcheck(torch.ops.srcell.src_dense.default, *arguments)


@pytest.mark.parametrize("half", [False, True])
def test_scan_operator_checks(gpu, half):
    current = torch.randn(9, 3, 6, device=gpu.device, dtype=torch.float16 if half else torch.float32).requires_grad_()
    with gpu.on():
        layer = six_neurons(gpu.device)
        options = {**layer.options, "save": True, "trace_integrator": True, "half_spikes": half}
        torch.library.opcheck(torch.ops.srcell.src.default, (current, *layer.forward), options)


def test_events_operator_checks(gpu):
    torch.manual_seed(0)
    weight = torch.randn(6, 5, device=gpu.device, requires_grad=True)
    events = EventBatch.from_dense((torch.rand(9, 3, 5) < 0.3).float()).to(gpu.device)
    with gpu.on():
        layer = six_neurons(gpu.device)
        arguments = (events.offsets, events.indices, events.values, weight, *layer.forward)
        options = dict(layer.options, steps=9, batch=3, save=True, trace_integrator=False)
        torch.library.opcheck(torch.ops.srcell.src_events.default, arguments, options)


# The gradients of values and weight that are wanted, of events with and without values, in columns and by keys.
@pytest.mark.parametrize("density", [0.3, 0.01])
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("values", [False, True])
def test_wanted_gradients_of_events(gpu, density, wanted, values):
    generator = torch.Generator().manual_seed(4)
    batch = EventBatch.from_dense((torch.rand(40, 3, 20, generator=generator) < density).float())
    numbers = torch.rand(batch.num_events, generator=generator) if values else None
    weight, bias = torch.randn(6, 20, generator=generator), torch.full((6,), -5.0)
    grad = torch.randn(40, 3, 6, generator=generator)

    def run(device):
        layer = make_layer({"bias": bias.to(device)}, ("straight_through", False))
        events = [None if x is None else x.to(device) for x in (batch.offsets, batch.indices, numbers)]
        options = dict(layer.options, steps=40, batch=3)
        ops = torch.ops.srcell
        forward = options | {"save": True, "trace_integrator": False}
        *_, trace, checkpoints = ops.src_events(*events, weight.to(device), *layer.forward, **forward)
        arriving = [grad.to(device), None, None, None]
        arguments = (*arriving, *events, weight.to(device), trace, checkpoints, *layer.backward)
        return ops.src_events_backward(*arguments, **options, output_mask=[*wanted] + [False] * 7)

    with gpu.on():
        got = [x.cpu() for x in run(gpu.device)]
    equal(got, run("cpu"))
    assert (got[0].numel() > 0, got[1].numel() > 0) == wanted


@pytest.mark.parametrize("lateral", [False, True])
def test_half_precision_in_torchs_modes(gpu, lateral):
    """Compiled, under vmap and torch.func.grad, exported: the outputs and gradients of plain calls."""
    generator = torch.Generator().manual_seed(6)
    current = (torch.randn(2, 12, 3, 6, generator=generator) * 2).half().to(gpu.device)
    weight_hh = torch.randn(6, 6, generator=generator).to(gpu.device) / 4 if lateral else None

    def run(current):
        return src(current, -5.0, weight_hh=weight_hh)[0]

    def loss(current):
        return run(current).float().square().sum()

    class Module(torch.nn.Module):
        def forward(self, current):
            return run(current)

    with gpu.on():
        expected = torch.stack([run(x) for x in current])
        gradients = torch.stack([torch.func.grad(loss)(x) for x in current])
        compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
        leaf = current[0].clone().requires_grad_()
        spikes = compiled(leaf)
        (by_current,) = torch.autograd.grad(spikes.float().square().sum(), leaf)
        exported = torch.export.export(Module(), (current[0],)).module()(current[0])
        equal([torch.func.vmap(run)(current), torch.func.vmap(torch.func.grad(loss))(current)], [expected, gradients])
    assert expected.dtype == gradients.dtype == torch.float16 and expected.max() > 0.5
    equal([spikes.detach(), by_current, exported], [expected[0], gradients[0], expected[0]])


def test_half_precision_becomes_onnx(gpu):
    onnxruntime = pytest.importorskip("onnxruntime", reason='pip install "srcell[test]"')
    pytest.importorskip("onnxscript", reason='pip install "srcell[test]"')
    if not EXPORTS_ONNX:
        pytest.skip("torch.onnx.export takes a table from torch 2.6 on")
    from srcell.onnx import translation_table

    bias = torch.full((6,), -5.0, device=gpu.device)
    current = (torch.randn(12, 3, 6, generator=torch.Generator().manual_seed(6)) * 2).half().to(gpu.device)

    class Module(torch.nn.Module):
        def forward(self, current):
            return src(current, bias)[0]

    with gpu.on():
        expected = Module()(current).cpu()
        table = translation_table()
        program = torch.onnx.export(Module(), (current,), dynamo=True, custom_translation_table=table, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (spikes,) = session.run(None, {session.get_inputs()[0].name: current.cpu().numpy()})
    assert expected.dtype == torch.float16 and expected.max() > 0.5
    torch.testing.assert_close(torch.from_numpy(spikes), expected, rtol=0, atol=1e-3)


# Tests that need a card.


@needs_card
def test_gradcheck():
    given = requiring_grad({name: x.cuda() for name, x in make_inputs(5, 12, 2, 3).items()})

    def run(*tensors):
        spikes, state = call(src, dict(zip(given, tensors, strict=True)), surrogate="relu", recurrent_grad=True)
        return spikes, *state

    spikes, _, h, _ = run(*given.values())
    assert spikes.max() > 0.5 and h.abs().min() > 1e-3
    assert torch.autograd.gradcheck(run, tuple(given.values()))


@needs_card
def test_no_call_waits():
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
def test_streams_give_the_same_bits():
    torch.manual_seed(0)
    layer = SRC(300, 500).cuda()
    batches = [rate_encode(torch.rand(32, 300), steps=50, seed=seed).to("cuda") for seed in range(2)]
    expected = [layer(batch)[0] for batch in batches]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in batches]
    got = []
    for stream, batch in zip(streams, batches, strict=True):
        with torch.cuda.stream(stream):
            got.append(layer(batch)[0])
    torch.cuda.synchronize()
    equal(got, expected)


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
def test_another_than_the_current_card():
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
    needed = 4 * steps * batch * neurons * 4  # currents, spikes, and what the comparison makes
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
def test_out_of_memory_is_torchs_error():
    current = torch.zeros(1, 1, 1, device="cuda").expand(2**20, 2**10, 2**10)
    with pytest.raises(torch.OutOfMemoryError):
        src(current, -6.0)
    assert torch.isfinite(src(torch.zeros(2, 1, 3, device="cuda"), -6.0)[0]).all()
