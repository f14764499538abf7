"""The bound of a learnt bias, ``bias_max``, acts in every call and in all that is made of a layer; ``constrain_`` only
writes it into the parameters.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import srcell
from srcell import SRC, EventBatch, LeakyReadout, SpikesOnly, SRCCell, SRCConv2d
from srcell.reference import src_reference
from support.inputs import MODES, noise
from support.processes import IsaProcess
from test_bits import digest_all

STEPS, BATCH, INPUTS, NEURONS, BOUND = 40, 3, 6, 12, -4.0

SPIKES = (noise(1, STEPS, BATCH, INPUTS) > 0.4).float()
MAPS = (noise(2, STEPS, BATCH, 2, 6, 6) > 0.7).float()
LENGTHS = torch.tensor([STEPS, 7, 25])

Outputs = tuple[Tensor, Any]


class Kind(NamedTuple):
    """A layer, given its options, and a call of it."""

    make: Callable[..., Any]
    call: Callable[[Any, torch.dtype], Outputs]
    events: bool = True
    """Whether the result has the same bits on every instruction set."""


def linear(**own: Any) -> Callable[..., SRC]:
    return lambda **options: SRC(INPUTS, NEURONS, **own, **options)


def convolved(method: str) -> Callable[..., SRCConv2d]:
    return lambda **options: SRCConv2d(2, NEURONS, 3, method=method, **options)


def on_dense(layer: Any, dtype: torch.dtype) -> Outputs:
    outputs: Outputs = layer(SPIKES.to(dtype))
    return outputs


def on_events(layer: Any, dtype: torch.dtype) -> Outputs:
    outputs: Outputs = layer(EventBatch.from_dense(SPIKES, LENGTHS))
    return outputs


def on_maps(layer: Any, dtype: torch.dtype) -> Outputs:
    outputs: Outputs = layer(MAPS.to(dtype))
    return outputs


def on_events_of_maps(layer: Any, dtype: torch.dtype) -> Outputs:
    outputs: Outputs = layer(EventBatch.from_dense(MAPS.flatten(2), LENGTHS))
    return outputs


def one_step(layer: Any, dtype: torch.dtype) -> Outputs:
    """The last of some steps."""
    state = None
    with torch.no_grad():
        for x in SPIKES[:6].to(dtype):
            _, state = layer(x, state)
    spikes, state = layer(SPIKES[6].to(dtype), state)
    return spikes[None], state


KINDS = {
    "dense": Kind(linear(), on_dense),
    "events": Kind(linear(), on_events),
    "two layers": Kind(linear(num_layers=2), on_events),
    "recurrent": Kind(linear(recurrent=True), on_events),
    "delayed": Kind(linear(recurrent=True, delay_hh=2.5), on_events),
    "resonant": Kind(linear(omega=0.3), on_events),
    "resonant, recurrent": Kind(linear(omega=0.3, recurrent=True), on_dense),
    "at rest": Kind(linear(initial_state="rest"), on_events),
    "with parameters": Kind(linear(learnable=["alpha", "rho", "rs"]), on_events),
    "a cell": Kind(lambda **options: SRCCell(INPUTS, NEURONS, **options), one_step),
    "events of maps": Kind(convolved("auto"), on_events_of_maps),
    "maps, by events": Kind(convolved("events"), on_maps),
    "maps, by torch": Kind(convolved("dense"), on_maps, events=False),
}
kinds = pytest.mark.parametrize("kind", KINDS)
modes = pytest.mark.parametrize(("surrogate", "full_gradient"), MODES)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def biases(layer: nn.Module) -> dict[str, Tensor]:
    return {name: x for name, x in layer.named_parameters() if name.startswith("bias")}


@torch.no_grad()
def beyond(kind: str, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """A layer some of whose biases are beyond the bound."""
    torch.manual_seed(0)
    layer = KINDS[kind].make(dtype=dtype, **options)
    for bias in biases(layer).values():
        bias.copy_(torch.linspace(-6.5, 0, NEURONS)[torch.randperm(NEURONS)])
    return layer


def at_the_bound(layer: Any) -> Any:
    bounded = copy.deepcopy(layer)
    bounded.constrain_()
    return bounded


def differentiated(outputs: Outputs, sign: int) -> tuple[list[Tensor], list[Tensor]]:
    """The outputs that have a gradient, and one for each."""
    found = [(x, sign * noise(3 + k, *x.shape, dtype=x.dtype)) for k, x in enumerate((outputs[0], *outputs[1]))]
    return [x for x, _ in found if x.requires_grad], [grad for x, grad in found if x.requires_grad]


def results(kind: str, layer: Any, dtype: torch.dtype = torch.float32, sign: int = 1) -> dict[str, Tensor]:
    """Spikes, states, and the gradients of the parameters by name."""
    layer.zero_grad()
    spikes, state = KINDS[kind].call(layer, dtype)
    torch.autograd.backward(*differentiated((spikes, state), sign))
    found = {name: x.grad for name, x in layer.named_parameters()}
    return {"spikes": spikes.detach(), **{f"state.{k}": x.detach() for k, x in enumerate(state)}, **found}


def held(raw: Tensor, grad: Tensor, bound: float = BOUND) -> Tensor:
    """Where a bias has no gradient: beyond the bound, if a descent step would raise it."""
    return (raw > bound) & (grad < 0)


def assert_acts_bounded(kind: str, dtype: torch.dtype, **options: Any) -> None:
    layer = beyond(kind, dtype, **options)
    times = {name: torch.zeros(NEURONS, dtype=torch.int64) for name in biases(layer)}
    for sign in (1, -1):
        made, expected = results(kind, layer, dtype, sign), results(kind, at_the_bound(layer), dtype, sign)
        assert made["spikes"].any()
        for name, raw in biases(layer).items():
            zero = held(raw, expected[name])
            times[name] += zero
            assert expected[name][raw > BOUND].all()
            expected[name] = expected[name].masked_fill(zero, 0)
        assert all(torch.equal(x, expected[name]) for name, x in made.items())
    for name, raw in biases(layer).items():
        assert torch.equal(times[name] == 1, raw > BOUND)


@kinds
@modes
def test_a_bias_beyond_the_bound_acts_as_the_bound(kind: str, surrogate: str, full_gradient: bool) -> None:
    """Bit for bit, forwards and backwards, but for the rule of its own gradient."""
    assert_acts_bounded(kind, torch.float32, surrogate=surrogate, full_gradient=full_gradient)


@kinds
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_the_bound_acts_in_every_dtype(kind: str, dtype: torch.dtype) -> None:
    assert_acts_bounded(kind, dtype)


def all_digests(threads: int) -> dict[str, dict[str, str]]:
    """What an ``IsaProcess`` calls."""
    torch.set_num_threads(threads)
    found = {}
    for kind, of in KINDS.items():
        for mode in MODES:
            if of.events:
                layer = beyond(kind, surrogate=mode[0], full_gradient=mode[1])
                found[f"{kind} {mode}"] = digest_all(results(kind, layer))
    return found


def test_the_bound_gives_the_same_bits_on_every_instruction_set(isa_processes: dict[str, IsaProcess]) -> None:
    processes = isa_processes.values()
    found = [process.call("test_bias_bound.all_digests", 1 + k) for k, process in enumerate(processes)]
    assert found[0] and all(x == found[0] for x in found)


@modes
@pytest.mark.parametrize("kind", ["dense", "maps, by torch"])
def test_the_gradient_is_that_of_the_clamped_bias_of_the_reference(
    kind: str, surrogate: str, full_gradient: bool
) -> None:
    options = {"surrogate": surrogate, "full_gradient": full_gradient}
    layer = beyond(kind, torch.float64, **options)
    ((name, raw),) = biases(layer).items()

    bias = raw.detach().clamp(max=BOUND).requires_grad_()
    if kind == "dense":
        each, current = bias, SPIKES.double() @ layer.weight_ih_l0.detach().T
    else:
        each = bias[:, None, None].expand(NEURONS, 4, 4)
        current = F.conv2d(MAPS.double().flatten(0, 1), layer.weight.detach()).unflatten(0, (STEPS, BATCH))
    for sign in (1, -1):
        made = results(kind, layer, torch.float64, sign)[name]
        outputs = src_reference(current, each, **options)
        tensors, grads = differentiated(outputs, sign)
        (plain,) = torch.autograd.grad(tensors, bias, [g.view_as(x) for x, g in zip(tensors, grads, strict=True)])
        zero = held(raw, plain)
        assert torch.equal(made == 0, zero) and not zero.all()
        assert (made - plain)[~zero].abs().max() <= 1e-12 * plain.abs().max()


@kinds
def test_without_a_larger_bias_the_bound_changes_nothing(kind: str) -> None:
    unbounded = beyond(kind, bias_max=math.inf)
    bounded = beyond(kind, bias_max=0.0)
    made, expected = results(kind, bounded), results(kind, unbounded)
    assert all(torch.equal(x, expected[name]) for name, x in made.items())
    lower = results(kind, beyond(kind))
    assert not torch.equal(lower["spikes"], expected["spikes"])


@kinds
def test_a_bias_that_is_not_learnt_is_not_bounded(kind: str) -> None:
    layers = []
    for options in ({"learn_bias": False}, {"bias_max": math.inf}):
        torch.manual_seed(0)
        layers.append(KINDS[kind].make(bias_init=-3.0, **options))
    made, expected = (KINDS[kind].call(layer, torch.float32)[0] for layer in layers)
    assert made.any() and torch.equal(made, expected)


@kinds
def test_nan_is_not_bounded(kind: str) -> None:
    layer = beyond(kind)
    with torch.no_grad():
        for bias in biases(layer).values():
            bias[2] = math.nan
    made = results(kind, layer)
    of_channel = made["spikes"].movedim(2, 0)[2]
    assert of_channel[0].isnan().all() and not made["spikes"].movedim(2, 0)[3].isnan().all()
    assert all(made[name][2].isnan() for name in biases(layer))


@kinds
def test_all_that_reads_a_bias_reads_the_bounded_one(kind: str) -> None:
    layer = beyond(kind)
    bounded = at_the_bound(layer)
    found = []
    for module in (layer, bounded):
        with srcell.record(module) as recording, torch.no_grad():
            KINDS[kind].call(module, torch.float32)
        found.append({name: x.trace()._asdict() for name, x in recording.items()})
    for name, traces in found[1].items():
        assert all(torch.equal(found[0][name][state], x) for state, x in traces.items())


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(SpikesOnly(beyond("dense")), LeakyReadout(4, neurons_per_class=3))


def test_an_exported_file_holds_the_bounded_bias(tmp_path: Path) -> None:
    model, files = network(), []
    for k in range(2):
        files.append(tmp_path / f"{k}.srcell")
        srcell.export(model, files[-1])
        model[0].layer.constrain_()
    assert files[0].read_bytes() == files[1].read_bytes()


def trained(constrain: bool, bias_init: float, steps: int = 12) -> tuple[nn.Sequential, list[float]]:
    """A network and its losses: the loop of README's example, on few samples."""
    torch.manual_seed(0)
    layer = SRC(INPUTS, NEURONS, bias_init=bias_init)
    model = nn.Sequential(SpikesOnly(layer), LeakyReadout(4, neurons_per_class=3))
    optimizer, labels, losses = torch.optim.Adam(model.parameters(), lr=1e-2), torch.arange(BATCH), []
    for _ in range(steps):
        loss = F.cross_entropy(model(SPIKES), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if constrain:
            layer.constrain_()
        losses.append(loss.item())
    return model, losses


def test_constrain_changes_nothing_in_training(tmp_path: Path) -> None:
    """As long as no bias leaves the bound all bits are the same."""
    (plain, losses), (constrained, others) = trained(False, -6.0), trained(True, -6.0)
    assert losses == others and len(set(losses)) == len(losses)
    for name, x in plain.state_dict().items():
        assert torch.equal(x, constrained.state_dict()[name])


def test_training_holds_a_bias_at_its_bound() -> None:
    """It goes beyond by little, and constrain_ then leaves the outputs and the exported bias as they are."""
    model, _ = trained(False, -4.0)
    layer = model[0].layer
    assert (layer.bias_l0 > BOUND).any() and layer.bias_l0.max() < BOUND + 12 * 2e-2
    before = model(SPIKES)
    layer.constrain_()
    assert torch.equal(model(SPIKES), before) and layer.bias_l0.max() == BOUND


def test_a_checkpoint_without_a_bound_leaves_that_of_the_layer() -> None:
    """srcell 0.2 saved none, and the default is not saved."""
    layer = SRC(INPUTS, NEURONS, bias_max=-1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer.load_state_dict(SRC(INPUTS, NEURONS).state_dict())
    assert layer.bias_max == -1.0


@pytest.mark.landing
@pytest.mark.parametrize("kind", ["dense", "events", "recurrent", "at rest", "maps, by torch"])
def test_the_bound_acts_in_a_compiled_call(kind: str) -> None:
    layer = beyond(kind)
    expected = results(kind, copy.deepcopy(layer))
    made = results(kind, torch.compile(layer, backend="aot_eager"))
    for name, x in made.items():
        assert torch.equal(x, expected[name.removeprefix("_orig_mod.")])


@pytest.mark.landing
@pytest.mark.parametrize("maps", [False, True])
def test_the_bound_acts_in_an_exported_program(maps: bool) -> None:
    layer = beyond("maps, by torch" if maps else "dense")
    x = MAPS if maps else SPIKES
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(layer, (x,), dynamic_shapes=({1: batch},)).module()
    fewer = x[:, :2].contiguous()  # torch 2.4 makes a view of what was contiguous when it was exported
    spikes = program(fewer)[0]
    assert spikes.any() and torch.equal(spikes, layer(fewer)[0])


@pytest.mark.parametrize("bias_max", [1e300, math.inf])
def test_a_bound_beyond_the_dtype_is_none(bias_max: float) -> None:
    """Regression: torch clamps to no number that the dtype lacks."""
    layer = beyond("at rest", bias_max=bias_max)
    before = on_events(layer, torch.float32)[0]
    layer.constrain_()
    assert before.any() and torch.equal(on_events(layer, torch.float32)[0], before)
    assert torch.equal(before, on_events(beyond("at rest", bias_max=0.0), torch.float32)[0])
