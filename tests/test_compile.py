"""torch.compile and torch.export: functions, layers and encoders give the results of eager mode."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
import torch._dynamo.config
from torch import Tensor, nn

from srcell import (
    SRC,
    Delay,
    EventBatch,
    IntegerSRC,
    LeakyReadout,
    LinearReadout,
    Sequential,
    SpikesOnly,
    SRCCell,
    SRCConv2d,
    latency_encode,
    leaky_readout,
    rate_encode,
    rest_state,
    src,
    src_linear,
)
from srcell.functional import SpikeCounts, count_spikes
from srcell.models import Classifier, IntegerClassifier, SRCClassifier, SRCConvClassifier
from support.calls import (
    NEW_TORCH,
    OUTSIDE_LAYERS,
    assert_same,
    assert_same_when_loaded,
    spikes,
    with_gradients,
)
from support.inputs import BATCH, NEURONS, STEPS, Outputs, call, make_inputs, make_linear_inputs, noise, with_values
from support.layers import make, make_layer, make_spikes
from support.linear import densified, on_dense

X = torch.zeros(3, 2, 4)
LENGTHS = torch.tensor([30, 0, 17])

# Outputs and gradients


class Compiled(NamedTuple):
    """A function or a module, and arguments that are or contain tensors."""

    function: Callable[..., Any]
    args: Sequence[Any]
    fullgraph: bool = True


def src_case(**options: Any) -> Compiled:
    inputs = make_inputs(12, STEPS, BATCH, NEURONS, dtype=torch.float32)
    return Compiled(lambda *x: call(src, dict(zip(inputs, x, strict=True)), **options), [*inputs.values()])


def events_case(ones: bool) -> Compiled:
    events, inputs = make_linear_inputs(8, STEPS, BATCH, 20, inputs=6, dtype=torch.float32)
    values = inputs.pop("values")
    events = with_values(events, None if ones else values)

    def function(events: EventBatch, *tensors: Tensor) -> Outputs:
        inputs_ = dict(zip(inputs, tensors, strict=True))
        return call(partial(src_linear, events), inputs_, full_gradient=True, lengths=LENGTHS)

    return Compiled(function, [events, *inputs.values()])


def auto_case(full: bool) -> Compiled:
    events, inputs = make_linear_inputs(8, 40, 3, 100, inputs=200, dtype=torch.float32)
    inputs = densified(events, inputs)
    if full:
        inputs["input"] = torch.ones_like(inputs["input"])
    return Compiled(lambda *x: call(on_dense("auto"), dict(zip(inputs, x, strict=True))), [*inputs.values()])


def bounded_layer() -> SRC:
    layer: SRC = make("SRC", learnable=["alpha", "rho"])
    nn.init.constant_(layer.alpha_l0, 1.25)
    return layer


COMPILED: dict[str, Callable[[], Compiled]] = {
    "src": lambda: Compiled(src, src_case().args[:2]),
    "src with every argument": lambda: src_case(full_gradient=True, lengths=LENGTHS),
    "src_linear on events with values": lambda: events_case(ones=False),
    "src_linear on events of ones": lambda: events_case(ones=True),
    "SRC": lambda: Compiled(
        make_layer(6, 8, 2, initial_state="rest"), [make_spikes(13, STEPS, BATCH, 6), None, LENGTHS]
    ),
    "SRC with delays": lambda: Compiled(
        SRC(6, 8, recurrent=True, delay_hh=torch.linspace(0, 4, 8), max_delay=4, learnable=["delay_hh"]),
        [make_spikes(13, STEPS, BATCH, 6), None, LENGTHS],
        fullgraph=NEW_TORCH,
    ),
    "SRC with bounded parameters": lambda: Compiled(
        bounded_layer(), [(noise(5, 20, 2, 3) > 0).float()], fullgraph=NEW_TORCH
    ),
    "IntegerSRC": lambda: Compiled(
        IntegerSRC(6, 4, weight_bits=6, initial_state="rest"), [spikes(), None, LENGTHS[::2]]
    ),
}
IN_LANDING = {
    "src_linear on a sparse input": lambda: auto_case(full=False),
    "src_linear on an input of ones": lambda: auto_case(full=True),
}


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.release)])
@pytest.mark.parametrize("name", [*COMPILED, *(pytest.param(name, marks=pytest.mark.landing) for name in IN_LANDING)])
def test_compiled_calls_give_the_eager_outputs_and_gradients(
    name: str, backend: str, request: pytest.FixtureRequest
) -> None:
    if backend == "inductor":
        request.getfixturevalue("inductor")
    torch._dynamo.reset()
    function, args, fullgraph = (COMPILED | IN_LANDING)[name]()
    parameters = [*function.parameters()] if isinstance(function, nn.Module) else []
    compiled = torch.compile(function, fullgraph=fullgraph, backend=backend)
    expected = with_gradients(function, args, parameters)
    assert expected[0].count_nonzero() > 0
    for made, eager in zip(with_gradients(compiled, args, parameters), expected, strict=True):
        assert torch.equal(made, eager)
        assert made.stride() == eager.stride()


# One graph for several inputs


def assert_compiled_agrees(function: Callable[..., Any], calls: Iterable[Sequence[Any]], **options: Any) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(function, **options)
    for arguments in calls:
        assert_same(compiled(*arguments), function(*arguments))


@pytest.mark.landing
def test_one_graph_serves_batches_of_other_sizes() -> None:
    calls = []
    for steps, batch in ((20, 3), (33, 2), (7, 5)):
        events, inputs = make_linear_inputs(9, steps, batch, 6, inputs=4, dtype=torch.float32)
        calls += [(given, inputs["weight"], -6.0) for given in (events, events.to_dense())]
    assert_compiled_agrees(src_linear, calls, fullgraph=True, backend="aot_eager", dynamic=True)


@pytest.mark.landing
@pytest.mark.parametrize("name", OUTSIDE_LAYERS)
def test_compiled_calls_outside_layers_give_the_eager_result(name: str) -> None:
    """Regression: compiled encoders read freed memory, scratch and offsets that the graph had released."""
    function, args = OUTSIDE_LAYERS[name]
    for called in (function, lambda *x: function(*(t + 0 for t in x))):
        assert_compiled_agrees(called, [args] * 5, backend="eager")


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
def test_checks_of_numbers_break_no_graph(function: Callable[[float], Tensor]) -> None:
    """From the second value on torch traces the float as a symbol of unknown value."""
    assert_compiled_agrees(function, [(-6.0,), (-5.5,), (-5.0,)], backend="eager", fullgraph=True)


AT_REST = {"initial_state": "rest", "learnable": ["rho"]}
ALL_LEARNT = {"learn_initial_state": True, "learnable": ["alpha", "rho", "r", "zs_hyp"], "full_gradient": True}


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
    inputs = [(noise(5, steps, batch, 3) > 0).float() for steps, batch in ((10, 3), (4, 2))]
    reshape = {"SRCCell": lambda x: x[0], "SRCConv2d": lambda x: x[..., None, None]}.get(kind, lambda x: x)
    layer = make(kind, **options)
    calls = [(reshape(x),) for x in inputs]
    assert_compiled_agrees(layer, calls, dynamic=dynamic, fullgraph=NEW_TORCH, backend="aot_eager")


@pytest.mark.landing
@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)
def test_an_encoder_before_a_layer_compiles_as_one_graph() -> None:
    model, calls = SpikesOnly(SRC(6, 4)), [(noise(seed, 3, 6, dtype=torch.float32).abs(),) for seed in (1, 2)]
    for encode in (lambda x: rate_encode(x, 30, seed=3), lambda x: latency_encode(x, 30)):
        assert_compiled_agrees(
            lambda x, encode=encode: model(encode(x)), calls, fullgraph=NEW_TORCH, backend="aot_eager"
        )


# Export


def assert_exported_agrees(
    module: nn.Module, example: Any, shapes: Any = None, others: Iterable[Any] = (), strict: bool = False
) -> None:
    """Assert that an exported module gives the module's results, on the example and on other inputs."""
    exported = torch.export.export(module, (example,), dynamic_shapes=shapes, strict=strict).module()
    for x in (example, *others):
        assert_same(exported(x), module(x))


STEPS_DIM, BATCH_DIM = torch.export.Dim("steps", min=1), torch.export.Dim("batch", min=1)


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_layer_runs_any_number_of_steps(strict: bool) -> None:
    others = [(noise(6, count, 2, 6) > 0.5).float() for count in (1, 2, 15, 16, 17, 100)]
    assert_exported_agrees(SRC(6, 4, 2), spikes(), {"input": {0: STEPS_DIM}}, others, strict)


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
    others = [(noise(6, *sizes, 6) > 0.5).float() for sizes in ((1, 1), (40, 5))]
    assert_exported_agrees(model, spikes(), ({0: STEPS_DIM, 1: BATCH_DIM},), others, strict)
    images = [noise(8, samples, 6, dtype=torch.float32).abs() for samples in (4, 1, 7)]
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        assert_exported_agrees(Encoded(), images[0], ({0: BATCH_DIM},), images, strict)


def network_for_lengths() -> Sequential:
    inner = nn.Sequential(nn.Linear(8, 8), SpikesOnly(SRC(8, 10, recurrent=True)))
    return Sequential(SRC(6, 8, 2), nn.Dropout(0.0), inner, LeakyReadout(5, neurons_per_class=2))


def test_the_lengths_of_a_sequential_stay_in_one_graph() -> None:
    network, shorter = network_for_lengths(), torch.tensor([12, 0])
    calls: list[tuple[Any, ...]] = [(spikes(), torch.tensor([30, 17])), (spikes(), shorter)]
    assert not torch.equal(network(*calls[0]), network(*calls[1]))
    assert_compiled_agrees(network, calls, fullgraph=True, backend="aot_eager")
    batches = [(EventBatch.from_dense(x, lengths),) for x, lengths in calls]
    assert_compiled_agrees(network, batches, fullgraph=True, backend="aot_eager")


READERS: dict[str, Callable[[], nn.Module]] = {
    "votes": lambda: LeakyReadout(2, 3),
    "votes at every step": lambda: LeakyReadout(2, 3, every_step=True),
    "linear": lambda: LinearReadout(6, 2),
    "linear at every step": lambda: LinearReadout(6, 2, every_step=True),
    "window": lambda: LinearReadout(6, 2, window=5),
    "window at every step": lambda: LinearReadout(6, 2, window=40, every_step=True),
    "classifier": lambda: SRCClassifier(6, [5], 2, recurrent=True, readout="linear"),
    "delays": lambda: SRCClassifier(6, [5], 2, input_delay=4, recurrent=True, recurrent_delay=3, omega=0.3),
    "maps": lambda: SRCConvClassifier((1, 6, 6), [4], [], num_classes=2),
    "integers": lambda: IntegerClassifier(6, [5], 2),
}


class WithLengths(nn.Module):
    """A module that takes lengths, and options."""

    def __init__(self, module: nn.Module, **options: Any) -> None:
        super().__init__()
        self.module, self.options = module, options

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Any:
        return self.module(x, lengths=lengths, **self.options)


@pytest.mark.landing
@pytest.mark.skipif(not NEW_TORCH, reason="torch 2.4 fixes the sizes of a program")
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", READERS)
def test_every_readout_and_network_is_exported_for_any_number_of_steps(name: str, strict: bool) -> None:
    """Regression: readouts at every step, or with a window, fixed the number of steps."""
    torch.manual_seed(0)
    network = READERS[name]().eval()
    module = WithLengths(network, every_step=isinstance(network, Classifier) or "every" in name)
    sizes = (1, 6, 6) if name == "maps" else (6,)
    example, *others = [
        (noise(6, steps, batch, *sizes) > 0.5).float()
        for steps, batch in ((20, 3), (1, 1), (2, 3), (32, 2), (65, 4), (200, 2))
    ]
    for with_lengths in (False, True):
        given = (example, torch.tensor([9, 20, 0]))[: 1 + with_lengths]
        shapes = ({0: STEPS_DIM, 1: BATCH_DIM}, {0: BATCH_DIM})[: 1 + with_lengths]
        program = torch.export.export(module, given, dynamic_shapes=shapes, strict=strict).module()
        for x in others:
            lengths = (torch.arange(x.shape[1]) * 7 % x.shape[0],) if with_lengths else ()
            torch.testing.assert_close(program(x, *lengths), module(x, *lengths), rtol=1e-5, atol=1e-5)


def test_the_lengths_of_a_sequential_go_through_export() -> None:
    network, others = network_for_lengths(), [EventBatch.from_dense(spikes(), torch.tensor([30, 17]))]
    assert_exported_agrees(network, others[0])
    exported = torch.export.export(network, (spikes(), torch.tensor([30, 17]))).module()
    for lengths in ([30, 17], [5, 0]):
        assert_same(exported(spikes(), torch.tensor(lengths)), network(spikes(), torch.tensor(lengths)))


def test_an_event_batch_goes_through_export() -> None:
    assert_exported_agrees(SpikesOnly(SRC(6, 4)), EventBatch.from_dense(spikes()))


def test_a_program_takes_a_state_as_a_tuple() -> None:
    layer = SRC(6, 4, recurrent=True, delay_hh=1.5, omega=0.3)
    state = tuple(layer(spikes())[1])
    exported = torch.export.export(layer, (spikes(), state)).module()
    x, (_, later) = spikes().flip(0), layer(spikes().flip(0))
    assert not torch.equal(layer(x, later)[0], layer(x)[0])
    assert_same(exported(x, tuple(later)), layer(x, later))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: SRC(6, 4),
        lambda: SRC(6, 4, recurrent=True, delay_hh=1.5),
        lambda: IntegerSRC(6, 4),
        lambda: Delay(6, 3),
        lambda: Sequential(nn.Unflatten(2, (1, 3, 2)), SRCConv2d(1, 2, 2)),
        lambda: Sequential(SRC(6, 10), LeakyReadout(5, 2)),
    ],
)
def test_torch_jit_trace_is_refused_with_what_to_use(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(RuntimeError, match=r"^srcell::\w+: torch.jit.trace is not supported: use torch.export.export"):
        torch.jit.trace(make(), (spikes(),), check_trace=False)


class Counted(nn.Module):
    """A module that returns a named tuple itself."""

    def forward(self, x: Tensor) -> SpikeCounts:
        return count_spikes(x)


SAVED: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "SRC": lambda: (SRC(6, 4, 2, recurrent=True, initial_state="rest", learnable=["rho"]), spikes()),
    "SRC with delays": lambda: (SRC(6, 4, recurrent=True, delay_hh=1.5, omega=0.3), spikes()),
    "SRCCell": lambda: (SRCCell(6, 4), spikes()[0]),
    "SRCConv2d": lambda: (SRCConv2d(1, 2, 3), spikes().view(30, 2, 1, 3, 2).repeat(1, 1, 1, 1, 2)),
    "IntegerSRC": lambda: (IntegerSRC(6, 4), spikes()),
    "count_spikes": lambda: (Counted(), spikes()),
}


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_program_gives_the_same_results_when_loaded(name: str) -> None:
    if name == "IntegerSRC" and not NEW_TORCH:
        pytest.skip("torch 2.4 exports no module that changes a buffer")
    assert_same_when_loaded(*SAVED[name]())


def test_states_are_saved_and_loaded_without_pickled_code() -> None:
    for state in (SRC(6, 4)(spikes())[1], IntegerSRC(6, 4)(spikes())[1], count_spikes(spikes())):
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        assert_same(torch.load(file, weights_only=True), state)
