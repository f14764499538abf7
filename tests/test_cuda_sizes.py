"""The CUDA kernels at the sizes that they are made for: full blocks, all of the shared memory, every float32.

What a card is to run first (`bench/gpu.sh`). Without a card they run on the host, as those of test_cuda.py do, but for
the tests that only a card can answer.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from srcell import SRC, EventBatch, SRCState, integer_src_linear
from srcell.functional import src, src_linear
from support.gpu import check_against_the_cpu, equal, leaves, needs_card, training_step

pytestmark = pytest.mark.landing

NAMES = ("alpha", "rho", "r", "rs", "zs_hyp", "zs_dep")
CONSTANTS = (0.9, 3.0, 2.0, -7.0, 0.9, 0.0)


def spikes_of(generator, steps, batch, inputs, density):
    return (torch.rand(steps, batch, inputs, generator=generator) < density).float()


# Blocks of 512 threads and 98 KB of weights; the most weights that fit in an H100's shared memory, and one too many; a
# block of one warp for each tile of neurons; the usual layer.
@pytest.mark.parametrize("way", ["EventBatch", "mask"])
@pytest.mark.parametrize(
    ("batch", "neurons", "inputs", "steps", "density"),
    [
        (256, 512, 784, 40, 0.03),
        (16, 512, 1816, 40, 0.1),
        (16, 512, 1817, 40, 0.1),
        (1, 100, 784, 220, 0.03),
        (256, 100, 784, 40, 0.03),
    ],
)
def test_layers_are_the_cpus(gpu, way, batch, neurons, inputs, steps, density):
    generator = torch.Generator().manual_seed(batch + inputs)
    dense = spikes_of(generator, steps, batch, inputs, density)
    events = EventBatch.from_dense(dense)
    weight = torch.randn(neurons, inputs, generator=generator) * 3 / inputs**0.5
    cell = [torch.full((neurons,), x) for x in CONSTANTS]
    given = leaves(weight, torch.full((neurons,), -5.0), *cell)

    def run(weight, bias, *cell):
        if way == "mask":
            x, method = dense.to(weight.device), "events"
        else:
            rows = events.offsets.to(weight.device), events.indices.to(weight.device)
            x, method = EventBatch(*rows, shape=events.shape), "auto"
        parameters = dict(zip(NAMES, cell, strict=True))
        spikes, final = src_linear(x, weight, bias, **parameters, recurrent_grad=True, method=method)
        return spikes, *final

    (spikes, *_), grads = check_against_the_cpu(gpu, run, given)
    assert 0 < spikes.count_nonzero() < spikes.numel() / 2 and all(x.any() for x in grads)


def test_more_keys_than_32_bits_hold(gpu):
    """Segments of inputs of samples: more than 2^31."""
    steps, inputs, count = 64_000, 1_100_000, 3_000
    generator = torch.Generator().manual_seed(11)
    rows = torch.randint(steps, (count,), generator=generator).sort().values
    indices = torch.randint(inputs, (count,), generator=generator, dtype=torch.int32)
    indices[::3] = inputs - 1
    values, weight = torch.rand(count, generator=generator) + 1, torch.full((1, inputs), 3.0)

    def run(values, weight):
        offsets = torch.searchsorted(rows, torch.arange(steps + 1)).to(weight.device)
        events = EventBatch(offsets, indices.to(weight.device), values, shape=(steps, 1, inputs))
        return src_linear(events, weight, -5.0)[:1]

    (spikes,), (_, by_weight) = check_against_the_cpu(gpu, run, leaves(values, weight))
    assert spikes.max() > 0.5 and by_weight[0, -1]


@pytest.mark.parametrize(("batch", "neurons", "steps"), [(256, 512, 40), (1, 100, 220)])
def test_scans_are_the_cpus(gpu, batch, neurons, steps):
    generator = torch.Generator().manual_seed(batch)
    current = torch.randn(steps, batch, neurons, generator=generator) * 2
    cell = [torch.full((), x) for x in CONSTANTS]

    def run(current, bias, *cell):
        spikes, final = src(current, bias, **dict(zip(NAMES, cell, strict=True)), recurrent_grad=True)
        return spikes, *final

    (spikes, *_), grads = check_against_the_cpu(gpu, run, leaves(current, torch.full((neurons,), -5.0), *cell))
    assert spikes.any() and all(x.any() for x in grads)


@pytest.mark.parametrize(("batch", "neurons", "steps"), [(20, 130, 40), pytest.param(256, 512, 40, marks=needs_card)])
def test_lateral_layers_are_the_cpus(gpu, batch, neurons, steps):
    generator = torch.Generator().manual_seed(batch)
    events = EventBatch.from_dense(spikes_of(generator, steps, batch, 784, 0.03))
    weight = torch.randn(neurons, 784, generator=generator) * 3 / 28
    lateral = torch.randn(neurons, neurons, generator=generator) / neurons**0.5

    def run(weight, lateral, bias):
        rows = events.offsets.to(weight.device), events.indices.to(weight.device)
        spikes, final = src_linear(EventBatch(*rows, shape=events.shape), weight, bias, weight_hh=lateral)
        return spikes, *final

    (spikes, *_), grads = check_against_the_cpu(gpu, run, leaves(weight, lateral, torch.full((neurons,), -5.0)))
    assert spikes.any() and all(x.any() for x in grads)


@pytest.mark.parametrize(("batch", "neurons", "inputs"), [(256, 512, 784), (1, 100, 784), (16, 512, 1817)])
def test_integer_layers_are_the_cpus(gpu, batch, neurons, inputs):
    generator = torch.Generator().manual_seed(batch)
    dense = spikes_of(generator, 40, batch, inputs, 0.03)
    events = EventBatch.from_dense(dense)
    weight = torch.randint(-256, 256, (neurons, inputs), generator=generator).to(torch.int16)

    def run(device):
        rows = events.offsets.to(device), events.indices.to(device)
        spikes, state = integer_src_linear(EventBatch(*rows, shape=events.shape), weight.to(device))
        return [x.cpu() for x in (spikes, *state)]

    with gpu.on():
        got = run(gpu.device)
    expected = run("cpu")
    equal(got, expected)
    assert expected[0].any()


def floats(first, count):
    """The float32 with the bits `first`, `first` + 1, ..."""
    return torch.arange(first, first + count).to(torch.int32).view(torch.float32)


def layer_and_events(inputs, neurons, batch, steps=40):
    generator = torch.Generator().manual_seed(inputs)
    torch.manual_seed(inputs)
    layer = SRC(inputs, neurons)
    events = EventBatch.from_dense(spikes_of(generator, steps, batch, inputs, 0.05))
    return layer, events


@needs_card
def test_a_captured_layer_is_the_cpus():
    layer, events = layer_and_events(784, 512, 256)
    expected = [x.clone() for x in training_step(layer, events)]  # moving the layer moves its gradients
    assert expected[0].any() and len(expected) > 1
    layer, events = layer.cuda().requires_grad_(), events.to("cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            training_step(layer, events)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = training_step(layer, events)
    for x in made:
        x.fill_(7)
    graph.replay()
    torch.cuda.synchronize()
    equal([x.cpu() for x in made], expected)


@needs_card
def test_threads_and_streams_with_different_layers():
    # The first needs more shared memory than the second: neither may lower what the other has asked for.
    works = [layer_and_events(784, 512, 256), layer_and_events(500, 512, 256)]
    expected = [[x.clone() for x in training_step(*work)] for work in works]
    on_card = [(layer.cuda(), events.to("cuda")) for layer, events in works]
    barrier = threading.Barrier(2, timeout=10)

    def run(number):
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(50):
                barrier.wait()
                made = training_step(*on_card[number])
            return [x.cpu() for x in made]  # the last step's

    torch.cuda.synchronize()
    with ThreadPoolExecutor(2) as pool:
        for made, wanted in zip(pool.map(run, range(2)), expected, strict=True):
            equal(made, wanted)


def check_the_bits(got, expected):
    for x, y in zip(got, expected, strict=True):
        # The bits of NaN are nobody's promise.
        equal(*([torch.where(z == z, z.view(torch.int32), 0)] for z in (x, y)))


# h = tanh(r h0) and hs - h0 = -q h0 with q = sigmoid(10 (h0 - 1/2)): every float32 through both, as h0.
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=needs_card)])
def test_the_elementary_functions_are_the_cpus(gpu, every):
    count = 2**24 if every else 2**10  # on the host, the first of each 2^20
    parameters = dict(rho=1.0, r=1.0, rs=0.0, zs_hyp=0.0, zs_dep=1.0)

    def run(h):
        nothing = torch.zeros_like(h)
        with torch.no_grad():
            _, final = src(nothing[None], 0.0, SRCState(nothing, h, nothing), **parameters)
        return [x.cpu() for x in final[1:]]

    for first in range(-(2**31), 2**31, 2**24 if every else 2**20):
        h = floats(first, count)[None]
        with gpu.on():
            got = run(h.to(gpu.device))
        check_the_bits(got, run(h))


# The gradient of zs_dep is -q h0, whose bits show those of a q that is too small for hs, down to where it vanishes.
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=needs_card)])
def test_small_sigmoids_are_the_cpus(gpu, every):
    count = 2**22 if every else 2**10
    parameters = dict(rho=1.0, r=1.0, rs=0.0, zs_hyp=0.0)

    def run(h):
        nothing, zs_dep = torch.zeros_like(h), torch.ones_like(h[0]).requires_grad_()
        _, final = src(
            nothing[None], 0.0, SRCState(nothing, h, nothing), **parameters, zs_dep=zs_dep, recurrent_grad=True
        )
        return [x.cpu() for x in torch.autograd.grad(final.hs.sum(), zs_dep)]

    smallest = 1.0
    for first in range(-(2**31) + 0x3F800000, -(2**31) + 0x41400000, 2**22 if every else 2**18):  # -1 to -12
        h = floats(first, count)[None]
        with gpu.on():
            got = run(h.to(gpu.device))
        expected = run(h)
        check_the_bits(got, expected)
        smallest = min([smallest, *expected[0][expected[0] > 0].tolist()])
    assert smallest < 2e-38  # denormal
