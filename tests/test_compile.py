"""torch.compile and torch.export: functions, layers and encoders give the results of eager mode."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo.config
from torch import Tensor, nn

from srcell import (
    SRC,
    EventBatch,
    IntegerSRC,
    LeakyReadout,
    SpikesOnly,
    SRCCell,
    SRCConv2d,
    SRCState,
    latency_encode,
    leaky_readout,
    rate_encode,
    rest_state,
    src,
    src_linear,
)
from srcell.functional import SpikeCounts, count_spikes
from support.calls import NEW_TORCH, OUTSIDE_LAYERS, assert_same, in_process, spikes
from support.gradients import make_output_gradients, requiring_grad
from support.inputs import BATCH, NEURONS, STEPS, Outputs, call, make_inputs, make_linear_inputs, noise, with_values
from support.layers import make, make_layer, make_spikes
from support.linear import assert_equal_outputs, densified, on_dense, tensors_of

X = torch.zeros(3, 2, 4)
backends = pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.release)])


# Functions


@backends
@pytest.mark.parametrize("with_all", [True, False])
def test_compiled_as_a_full_graph_src_is_what_it_is_in_eager_mode(
    backend: str, with_all: bool, request: pytest.FixtureRequest
) -> None:
    if backend == "inductor":
        request.getfixturevalue("inductor")
    torch._dynamo.reset()
    inputs = make_inputs(12, STEPS, BATCH, NEURONS, dtype=torch.float32)
    arriving = [*make_output_gradients(12, call(src, inputs))]
    lengths = torch.tensor([30, 0, 17])

    def full(*tensors: Tensor) -> tuple[Tensor, SRCState]:
        return call(src, dict(zip(inputs, tensors, strict=True)), recurrent_grad=True, lengths=lengths)

    def plain(*tensors: Tensor) -> tuple[Tensor, SRCState]:
        return src(tensors[0], tensors[1])

    function = full if with_all else plain
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    results = []
    for f in (function, compiled):
        leaves = [x.clone().requires_grad_() for x in inputs.values()]
        spikes, state = f(*leaves)
        used = leaves if with_all else leaves[:2]
        results.append([spikes, *state, *torch.autograd.grad([spikes, *state], used, arriving)])
        with torch.no_grad():
            results[-1].append(f(*inputs.values())[0])
    for eager, made in zip(*results, strict=True):
        assert torch.equal(made, eager)
        assert made.stride() == eager.stride()


@pytest.mark.parametrize("with_values_", [True, False], ids=["values", "ones"])
@backends
def test_compiled_as_a_full_graph_it_is_what_it_is_in_eager_mode(
    backend: str, with_values_: bool, request: pytest.FixtureRequest
) -> None:
    if backend == "inductor":
        request.getfixturevalue("inductor")
    torch._dynamo.reset()
    events, inputs = make_linear_inputs(8, 40, 3, 20, inputs=6, dtype=torch.float32)
    lengths = torch.tensor([40, 0, 17])
    options: dict[str, Any] = {"recurrent_grad": True, "lengths": lengths}
    names = [name for name in inputs if with_values_ or name != "values"]

    def function(batch: EventBatch, *tensors: Tensor) -> Outputs:
        given = {name: x for name, x in zip(names, tensors, strict=True) if name != "values"}
        return call(lambda *args, **options: src_linear(batch, *args, **options), given, **options)

    results = []
    for f in (function, torch.compile(function, fullgraph=True, backend=backend)):
        leaves = {name: inputs[name].clone().requires_grad_() for name in names}
        batch = with_values(events, leaves.get("values"))
        outputs = tensors_of(f(batch, *leaves.values()))
        arriving = make_output_gradients(8, (outputs[0], SRCState(*outputs[1:])))
        results.append([*outputs, *torch.autograd.grad(outputs, [*leaves.values()], arriving)])
        with torch.no_grad():
            results[-1] += tensors_of(f(with_values(events, batch.values), *leaves.values()))
    assert results[0][0].count_nonzero() > 0
    for eager, made in zip(*results, strict=True):
        assert torch.equal(made, eager)
        assert made.stride() == eager.stride()


@pytest.mark.landing
def test_one_graph_serves_batches_of_other_sizes() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(src_linear, fullgraph=True, backend="aot_eager", dynamic=True)
    for steps, batch in ((20, 3), (33, 2), (7, 5)):
        events, inputs = make_linear_inputs(9, steps, batch, 6, inputs=4, dtype=torch.float32)
        for given in (events, events.to_dense()):
            assert_equal_outputs(compiled(given, inputs["weight"], -6.0), src_linear(given, inputs["weight"], -6.0))


@pytest.mark.landing
@pytest.mark.parametrize("full", [False, True])
def test_compiled_on_a_dense_input_auto_is_auto(full: bool) -> None:
    torch._dynamo.reset()
    events, inputs = make_linear_inputs(8, 40, 3, 100, inputs=200, dtype=torch.float32)
    inputs = densified(events, inputs)
    if full:
        inputs["input"] = torch.ones_like(inputs["input"])
    compiled = torch.compile(on_dense("auto"), fullgraph=True, backend="aot_eager")
    results = []
    for function in (on_dense("auto"), compiled):
        leaves = requiring_grad(inputs)
        outputs = tensors_of(call(function, leaves))
        results.append([*outputs, *torch.autograd.grad(outputs[0].sum(), [leaves["weight"], leaves["input"]])])
    assert results[0][0].count_nonzero() > 0
    assert all(map(torch.equal, *results))


@pytest.mark.landing
@pytest.mark.parametrize("name", OUTSIDE_LAYERS)
def test_compiled_they_give_what_they_give_in_eager_mode(name: str) -> None:
    """Regression: compiled encoders read freed memory, scratch and offsets that the graph had released."""
    function, args = OUTSIDE_LAYERS[name]
    compiled = torch.compile(lambda *x: function(*(t + 0 for t in x)), backend="eager")
    for _ in range(3):
        assert_same(compiled(*args), function(*args))


@backends
def test_compiled_integer_neurons_are_what_they_are_in_eager_mode(backend: str, request: pytest.FixtureRequest) -> None:
    if backend == "inductor":
        request.getfixturevalue("inductor")
    torch._dynamo.reset()
    layer = IntegerSRC(6, 4, weight_bits=6, initial_state="rest")
    x = spikes().requires_grad_()
    compiled = torch.compile(layer, fullgraph=NEW_TORCH, backend=backend)
    results = []
    for f in (layer, compiled):
        outputs, state = f(x, lengths=torch.tensor([30, 17]))
        grads = torch.autograd.grad(outputs.square().sum(), [x, layer.weight_ih_l0])
        results.append([outputs, *state, *grads])
    assert all(map(torch.equal, *results)) and results[0][0].any()


@pytest.mark.landing
@pytest.mark.parametrize("encode", ["rate_encode(x, seed=1)", "latency_encode(x)"])
def test_an_encoder_alone_can_be_compiled(encode: str) -> None:
    code = (
        "import torch, srcell\n"
        f"encode = lambda x: srcell.{encode}\n"
        "x = torch.rand(3, 6)\n"
        "print(all(torch.compile(encode, backend='eager')(x) == encode(x) for _ in range(5)))"
    )
    assert in_process(code) == "True"


@pytest.mark.parametrize(
    "function",
    [
        lambda x: src(X, x)[0],
        lambda x: src(X, -6.0, rho=-x)[0],
        lambda x: rest_state(x).h,
        lambda x: leaky_readout(X + 1, 2, inhibition=x),
        lambda x: leaky_readout(X + 1, 2, alpha=-x / 8),
    ],
)
def test_the_checks_of_numbers_break_no_graph(function: Callable[[float], Tensor]) -> None:
    """From the second value on torch traces the float as a symbol of unknown value."""
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    for value in (-6.0, -5.5, -5.0):
        assert torch.equal(compiled(value), function(value))


# Layers


def test_a_compiled_module_is_the_module() -> None:
    torch._dynamo.reset()
    layer = make_layer(6, 8, 2, initial_state="rest")
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = make_spikes(13, STEPS, BATCH, 6)
    results = []
    for module in (layer, compiled):
        layer.zero_grad()
        spikes, state = module(x, lengths=torch.tensor([30, 0, 17]))
        (spikes.sum() + state.i.sum()).backward()
        results.append([spikes, *state, *(p.grad.clone() for p in layer.parameters())])
    assert results[0][0].count_nonzero() > 0
    assert all(map(torch.equal, *results))


def test_bounded_parameters_compile_whole() -> None:
    layer = make("SRC", learnable=["alpha", "rho"])
    nn.init.constant_(layer.alpha_l0, 1.25)
    x = (noise(5, 20, 2, 3) > 0).float()
    layer(x)[0].sum().backward()
    expected = layer.alpha_l0.grad.clone()
    layer.zero_grad()
    torch.compile(layer, fullgraph=True, backend="aot_eager")(x)[0].sum().backward()
    assert torch.equal(layer.alpha_l0.grad, expected)


AT_REST = {"initial_state": "rest", "learnable": ["rho"]}
ALL_LEARNT = {"learn_initial_state": True, "learnable": ["alpha", "rho", "r", "zs_hyp"], "recurrent_grad": True}


@pytest.mark.landing
@pytest.mark.parametrize(
    ("kind", "dynamic", "options"),
    [
        ("SRC", True, AT_REST),
        ("SRCCell", True, AT_REST),
        ("SRCConv2d", True, AT_REST),
        ("SRC", False, AT_REST),
        ("SRC", True, ALL_LEARNT),
        ("SRC", True, {**AT_REST, "learnable": ["alpha", "rho", "r"]}),
    ],
)
def test_layers_with_learnt_parameters_compile_for_any_sizes(kind: str, dynamic: bool, options: dict[str, Any]) -> None:
    """Regression: a layer at rest clamped rho twice, and torch could not pass the bound on to both graphs."""
    torch._dynamo.reset()
    layer = make(kind, **options)
    compiled = torch.compile(layer, dynamic=dynamic, fullgraph=NEW_TORCH, backend="aot_eager")
    for steps, batch in ((10, 3), (4, 2)):
        x = (noise(5, steps, batch, 3) > 0).float()
        x = x[0] if kind == "SRCCell" else x[..., None, None] if kind == "SRCConv2d" else x
        assert_same(compiled(x), layer(x))


class OnEvents(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = SRC(6, 4)

    def forward(self, events: EventBatch) -> Tensor:
        return self.layer(events)[0]


@pytest.mark.landing
@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)
def test_an_encoder_before_a_layer_compiles_whole() -> None:
    model = OnEvents()
    for encode in (lambda x: rate_encode(x, 30, seed=3), lambda x: latency_encode(x, 30)):
        compiled = torch.compile(lambda x, encode=encode: model(encode(x)), fullgraph=NEW_TORCH, backend="aot_eager")
        for seed in (1, 2):
            x = noise(seed, 3, 6, dtype=torch.float32).abs()
            assert_same(compiled(x), model(encode(x)))


# Export


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_layer_runs_any_number_of_steps(strict: bool) -> None:
    layer = SRC(6, 4, 2)
    steps = {"input": {0: torch.export.Dim("steps", min=1)}}
    exported = torch.export.export(layer, (spikes(),), dynamic_shapes=steps, strict=strict).module()
    for count in (1, 2, 15, 16, 17, 30, 100):
        x = (noise(6, count, 2, 6) > 0.5).float()
        assert_same(exported(x)[0], layer(x)[0])


class Counted(nn.Module):
    """What returns a named tuple itself."""

    def forward(self, x: Tensor) -> SpikeCounts:
        return count_spikes(x)


SAVED: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "SRC": lambda: (SRC(6, 4, 2, lateral=True, initial_state="rest", learnable=["rho"]), spikes()),
    "SRCCell": lambda: (SRCCell(6, 4), spikes()[0]),
    "SRCConv2d": lambda: (SRCConv2d(1, 2, 3), spikes().view(30, 2, 1, 3, 2).repeat(1, 1, 1, 1, 2)),
    "IntegerSRC": lambda: (IntegerSRC(6, 4), spikes()),
    "count_spikes": lambda: (Counted(), spikes()),
}


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_program_loads_and_gives_the_same(name: str) -> None:
    layer, x = SAVED[name]()
    file = io.BytesIO()
    torch.export.save(torch.export.export(layer, (x,)), file)
    file.seek(0)
    made, expected = torch.export.load(file).module()(x), layer(x)
    assert_same(made, expected)
    assert type(made[-1]) is type(expected[-1])


def test_states_are_saved_and_loaded_without_pickled_code() -> None:
    for state in (SRC(6, 4)(spikes())[1], IntegerSRC(6, 4)(spikes())[1], count_spikes(spikes())):
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        assert_same(torch.load(file, weights_only=True), state)


class Encoded(nn.Module):
    """An encoder, a layer and a readout in one graph."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.readout = SpikesOnly(SRC(6, 20)), LeakyReadout(5, neurons_per_class=4)

    def forward(self, images: Tensor) -> Tensor:
        return self.readout(self.layer(rate_encode(images, 30, seed=3)))


@pytest.mark.landing
@pytest.mark.parametrize(
    "strict",
    [False, pytest.param(True, marks=pytest.mark.skipif(not NEW_TORCH, reason="torch 2.4 cannot trace __new__"))],
)
def test_an_exported_network_takes_any_number_of_samples(strict: bool) -> None:
    model = nn.Sequential(SpikesOnly(SRC(6, 20)), LeakyReadout(5, neurons_per_class=4))
    steps, batch = torch.export.Dim("steps", min=1), torch.export.Dim("batch", min=1)
    shapes = ({0: steps, 1: batch},)
    exported = torch.export.export(model, (spikes(),), dynamic_shapes=shapes, strict=strict).module()
    for sizes in ((1, 1), (30, 2), (40, 5)):
        x = (noise(6, *sizes, 6) > 0.5).float()
        assert_same(exported(x), model(x))
    encoded, images = Encoded(), noise(7, 4, 6, dtype=torch.float32).abs()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        exported = torch.export.export(encoded, (images,), dynamic_shapes=({0: batch},), strict=strict).module()
    for samples in (1, 4, 7):
        x = noise(8, samples, 6, dtype=torch.float32).abs()
        assert_same(exported(x), encoded(x))


def test_an_event_batch_goes_through_export() -> None:
    model, events = OnEvents(), EventBatch.from_dense(spikes(), torch.tensor([30, 17]))
    exported = torch.export.export(model, (events,), strict=False).module()
    assert_same(exported(events), model(events))
