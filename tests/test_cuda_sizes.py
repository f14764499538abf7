"""The CUDA kernels at full size: full blocks, all of the shared memory, every float32.

`bench/gpu.sh` runs these tests first. Without a GPU they run on the host, as in test_cuda.py, except the tests that
need a real GPU.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from srcell import SRC, SRCState
from srcell.functional import src
from support.gpu import check_integer_layer, check_layer, equal, make_case, needs_card, training_step

pytestmark = pytest.mark.landing

# (B, N, K, T) and the input density.
SIZES = [
    (256, 512, 784, 40, 0.03),  # blocks of 512 threads and 98 KB of weights
    (16, 512, 1816, 40, 0.1),  # the most weights that fit in an H100's shared memory
    (16, 512, 1817, 40, 0.1),  # one too many
    (1, 100, 784, 220, 0.03),  # a block of one warp for each tile of neurons
    (256, 100, 784, 40, 0.03),  # the usual layer
]
CASES = [
    *[(kind, *size) for size in SIZES for kind in ("EventBatch", "dense")],
    *[("currents", 256, 512, 0, 40, 0), ("currents", 1, 100, 0, 220, 0)],
    ("recurrent", 20, 130, 784, 40, 0.03),
    ("resonant", 256, 512, 784, 40, 0.03),
    ("resonant", 16, 512, 1817, 40, 0.1),
    pytest.param("recurrent", 256, 512, 784, 40, 0.03, marks=needs_card),
]


@pytest.mark.parametrize(("kind", "batch", "neurons", "inputs", "steps", "density"), CASES)
def test_layers_are_bit_identical_to_the_cpu(gpu, kind, batch, neurons, inputs, steps, density):
    given, x = make_case(
        "EventBatch" if kind in ("recurrent", "resonant") else kind,
        (steps, batch, neurons),
        inputs,
        density=density,
        cell="scalars" if kind == "currents" else "per neuron",
        recurrent=kind == "recurrent",
        resonant=kind == "resonant",
    )
    method = {"method": "events"} if kind == "dense" else {}
    (spikes, *_), grads = check_layer(gpu, given, x, full_gradient=True, **method)
    assert 0 < spikes.count_nonzero() < spikes.numel() / 2 and all(x.any() for x in grads.values())


@pytest.mark.parametrize(("batch", "neurons", "inputs"), [(256, 512, 784), (1, 100, 784), (16, 512, 1817)])
def test_integer_layers_are_bit_identical_to_the_cpu(gpu, batch, neurons, inputs):
    _, events = make_case("EventBatch", (40, batch, neurons), inputs, density=0.03)
    generator = torch.Generator().manual_seed(batch)
    check_integer_layer(gpu, events, torch.randint(-256, 256, (neurons, inputs), generator=generator).to(torch.int16))


def layer_and_events(inputs, neurons, batch):
    torch.manual_seed(inputs)
    _, events = make_case("EventBatch", (40, batch, neurons), inputs, density=0.05)
    return SRC(inputs, neurons), events


@needs_card
def test_a_captured_layer_is_bit_identical_to_the_cpu():
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
def test_threads_and_streams_run_different_layers():
    # The first layer needs more shared memory than the second layer, and neither may lower the limit that the other has
    # set.
    works = [layer_and_events(784, 512, 256), layer_and_events(500, 512, 256)]
    expected = [[x.clone() for x in training_step(*work)] for work in works]
    on_card = [(layer.cuda(), events.to("cuda")) for layer, events in works]
    barrier = threading.Barrier(2, timeout=10)

    def run(number):
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(50):
                barrier.wait()
                made = training_step(*on_card[number])
            return [x.cpu() for x in made]  # of the last step

    torch.cuda.synchronize()
    with ThreadPoolExecutor(2) as pool:
        for made, wanted in zip(pool.map(run, range(2)), expected, strict=True):
            equal(made, wanted)


def tanh_and_sigmoid(h):
    """h = tanh(r h0), and hs - h0 = -q h0 with q = sigmoid(10 (h0 - 1/2))."""
    zeros = torch.zeros_like(h)
    with torch.no_grad():
        _, final = src(zeros[None], 0.0, SRCState(zeros, h, zeros), rho=1.0, r=1.0, rs=0.0, zs_hyp=0.0, zs_dep=1.0)
    return final[1:]


def small_sigmoid(h):
    """The gradient of zs_dep, -q h0, which shows the bits of a q too small to change hs, down to a q of 0."""
    zeros, zs_dep = torch.zeros_like(h), torch.ones_like(h[0]).requires_grad_()
    cell = {"rho": 1.0, "r": 1.0, "rs": 0.0, "zs_hyp": 0.0, "zs_dep": zs_dep}
    _, final = src(zeros[None], 0.0, SRCState(zeros, h, zeros), **cell, full_gradient=True)
    return torch.autograd.grad(final.hs.sum(), zs_dep)


# h0 takes every float32 value; for small sigmoids, every value from -1 to -12. On the host only the first 2^10 values
# of each 16th of a piece are tested.
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=needs_card)])
@pytest.mark.parametrize(
    ("function", "first", "last", "piece"),
    [
        (tanh_and_sigmoid, -(2**31), 2**31, 2**24),
        (small_sigmoid, -(2**31) + 0x3F800000, -(2**31) + 0x41400000, 2**22),
    ],
)
def test_the_elementary_functions_are_bit_identical_to_the_cpu(gpu, function, first, last, piece, every):
    stride, count = (piece, piece) if every else (piece // 16, 2**10)
    smallest = 1.0
    for start in range(first, last, stride):
        h = torch.arange(start, start + count).to(torch.int32).view(torch.float32)[None]
        with gpu.on():
            got = [x.cpu() for x in function(h.to(gpu.device))]
        expected = function(h)
        for x, y in zip(got, expected, strict=True):
            # The bits of NaN are not promised.
            equal(*([torch.where(z == z, z.view(torch.int32), 0)] for z in (x, y)))
        smallest = min([smallest, *(x[x > 0].min().item() for x in expected if (x > 0).any())])
    assert smallest < 2e-38  # denormal
