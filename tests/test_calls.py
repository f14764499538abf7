"""Calls of a layer that go to C++ as they are: what is read there, what is refused, how many frames a call enters."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import srcell
from srcell import SRC, EventBatch, SRCCell, SRCConv2d, integer_src_linear
from support.calls import in_process
from support.events import misaligned, negated
from support.inputs import noise
from support.modes import FunctionsSeen, OperatorsSeen

STEPS, BATCH, INPUTS, NEURONS = 40, 3, 5, 4
PACKAGE = str(Path(srcell.__file__).parent)


def frames_of(call: Callable[[], Any]) -> int:
    """How many frames of srcell a call enters, those of generated code included."""
    entered = []

    def profile(frame: Any, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and (name.startswith((PACKAGE, "<"))):
            entered.append(frame.f_code.co_name)

    call()
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return len(entered)


def frames_of_steps() -> list[int]:
    """Frames of a step of a cell, of a layer on the events of one step, and of both with their gradients."""
    cell, layer, x = SRCCell(784, 100), SRC(784, 100), (torch.rand(1, 784) < 0.03).float()
    events = EventBatch.from_dense(x[None])
    with torch.no_grad():
        (_, state), (_, stacked) = cell(x), layer(events)
        plain = [frames_of(lambda: cell(x, state)), frames_of(lambda: layer(events, stacked))]
    learning = [lambda: cell(x, state)[0].sum().backward(), lambda: layer(events, stacked)[0].sum().backward()]
    return plain + [frames_of(call) for call in learning]


RECURRENT = {"recurrent": True, "autapses": False}
KINDS = {
    "alpha": {"learnable": ("alpha",)},
    "resonant": {"omega": 0.2},
    "first": {"batch_first": True},
    "recurrent": RECURRENT,
    "delays": {**RECURRENT, "delay_hh": 2.5, "max_delay": 4},
    "initial": {**RECURRENT, "learn_initial_state": True},
}


def kinds_of_layers() -> list[tuple[torch.nn.Module, Tensor]]:
    """Layers, each with an input of few events and with a dense one; two layers are the last."""
    sequences = SRC.for_sequences(8, 8, learnable=("omega", "alpha"))
    layers = [*(SRC(8, 8, **options) for options in KINDS.values()), sequences]
    few, many = (torch.rand(5, 5, 64) < 0.03).float(), torch.rand(5, 5, 64)
    made: list[tuple[torch.nn.Module, Tensor]] = [(layer, x[..., :8]) for layer in layers for x in (few, many)]
    made += [(SRCConv2d(1, 4, 3, padding=1), x.unflatten(2, (1, 8, 8))) for x in (few, many)]
    return [*made, (SRC(8, 8, 2), few[..., :8])]


def frames_of_kinds() -> list[int]:
    """Frames of layers of other kinds, and of two layers, without and with gradients."""
    made = []
    for layer, x in kinds_of_layers():
        with torch.no_grad():
            made.append(frames_of(lambda layer=layer, x=x: layer(x)))
        made.append(frames_of(lambda layer=layer, x=x: layer(x)[0].sum().backward()))
    return made


def frames_of_others() -> list[int]:
    """Frames of integer neurons, of a fixed delay of events and of one that keeps a state."""
    x, weight, delays = (torch.rand(5, 5, 64) < 0.03).float(), torch.ones(8, 64, dtype=torch.int16), torch.rand(64)
    events, fixed = EventBatch.from_dense(x), srcell.Delay(64, 3, learnable=False)
    integers = [lambda given=given: integer_src_linear(given, weight) for given in (x, events)]
    others = lambda: srcell.delay(events, delays, max_delay=2), lambda: fixed(events, return_state=False)
    return [frames_of(call) for call in (*integers, *others, lambda: fixed(events))]


def test_a_step_enters_few_frames() -> None:
    """In a process of its own: what other tests compiled may make later calls go through torch's dispatcher."""
    groups = "frames_of_steps", "frames_of_kinds", "frames_of_others"
    code = "import test_calls\n" + "\n".join(f"print(*test_calls.{group}())" for group in groups)
    made = in_process(code, PYTHONPATH=os.pathsep.join(sys.path))
    steps, kinds, others = (list(map(int, line.split())) for line in made.splitlines())
    most = (6, 6, 10, 10), (15, 22) * (len(kinds) // 2 - 1) + (30, 44), (15, 15, 17, 15, 23)
    for frames, limits in zip((steps, kinds, others), most, strict=True):
        assert all(x <= limit for x, limit in zip(frames, limits, strict=True)), made


class Named(torch.Tensor):
    """A subclass without a dispatch of its own."""


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "a subclass": lambda x: x.as_subclass(Named),
    "a parameter": lambda x: torch.nn.Parameter(x, requires_grad=False),
    "negated": negated,
    "negated, row-major": lambda x: torch._neg_view(-x),  # that of torch.complex has strides
    "misaligned": misaligned,
    "transposed": lambda x: x.mT.contiguous().mT if x.dim() > 1 else torch.stack([x, x], -1)[..., 0],
    "inference": lambda x: inference_copy(x),
}


def inference_copy(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x.clone()


def given() -> dict[str, Tensor]:
    return {
        "input": (noise(1, STEPS, BATCH, INPUTS, dtype=torch.float32) > 0.2).float() * 1.5,
        "weight": noise(2, NEURONS, INPUTS, dtype=torch.float32) * 20,
        "bias": torch.full((NEURONS,), -4.5),
        "state": noise(3, BATCH, NEURONS, dtype=torch.float32),
        "weight_hh": noise(4, NEURONS, NEURONS, dtype=torch.float32),
    }


def run(x: dict[str, Tensor]) -> list[Tensor]:
    state = (x["state"], x["state"] * 0.5, x["state"] * 0.25) if type(x["state"]) is Tensor else (x["state"],) * 3
    recurrent = srcell.src_linear(x["input"], x["weight"], x["bias"], state, weight_hh=x["weight_hh"], method="events")
    plain = srcell.src_linear(x["input"], x["weight"], x["bias"], state)
    given_currents = srcell.src(x["input"], -4.5)
    return [spikes for spikes, _ in (recurrent, plain, given_currents)] + [*recurrent[1], *plain[1]]


@pytest.mark.parametrize("name", FORMS)
@torch.no_grad()
def test_every_form_of_a_tensor_gives_the_same_bits(name: str) -> None:
    plain = given()
    plain["state"] = plain["state"].as_subclass(torch.Tensor)
    for argument, x in plain.items():
        if argument == "state":
            continue
        expected, found = run(plain), run(plain | {argument: FORMS[name](x)})
        assert all(map(torch.equal, found, expected)), argument
        assert expected[0].any()


def test_outputs_are_ordinary_tensors() -> None:
    x = given()
    with torch.no_grad():
        made = run(x)
    assert all(type(out) is Tensor and not out.is_inference() for out in made)
    assert len({out.untyped_storage().data_ptr() for out in made}) == len(made)
    made[0].resize_(STEPS + 1, BATCH, NEURONS)
    with torch.inference_mode():
        assert all(out.is_inference() for out in run(x))
    large, _ = srcell.src(torch.zeros(20, 300, 200), -6.0)  # on huge pages
    assert large.shape == (20, 300, 200) and not large.any()


@torch.no_grad()
def test_layers_read_negated_and_inference_states() -> None:
    layer, x = SRC(INPUTS, NEURONS), given()
    spikes, state = layer(x["input"])
    expected = layer(x["input"], state)
    for form in (negated, inference_copy):
        found = layer(x["input"], tuple(form(part) for part in state))
        assert torch.equal(found[0], expected[0]) and all(map(torch.equal, found[1], expected[1]))
    assert spikes.shape == (STEPS, BATCH, NEURONS)


CELLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tensors": {
        "alpha": torch.linspace(0.5, 0.99, NEURONS),
        "rho": 2.5,
        "learnable": ["zs_hyp"],
        "full_gradient": True,
    },
    "resonant": {"omega": 0.3},
    "recurrent": {"recurrent": True, "recurrent_surrogate": "straight_through"},
    "delayed": {"recurrent": True, "delay_hh": 2.0},
    "at rest": {"initial_state": "rest"},
    "float64": {"dtype": torch.float64},
    "half precision": {"dtype": torch.bfloat16},
}


def outputs_of(call: Callable[[], tuple[Tensor, Any]]) -> tuple[list[Tensor], type]:
    spikes, state = call()
    return [spikes, *state], type(state)


@pytest.mark.parametrize("name", CELLS)
@torch.no_grad()
def test_a_call_at_once_gives_what_the_dispatcher_gives(name: str) -> None:
    """A mode sends every call through the dispatcher; gradients and the recorder send it through the operator."""
    options = CELLS[name]
    cell, layer = SRCCell(INPUTS, NEURONS, **options), SRC(INPUTS, NEURONS, **options)
    x = given()["input"].to(cell.weight_ih.dtype)
    events = EventBatch.from_dense(x.float() if x.dtype == torch.bfloat16 else x)
    in_time = EventBatch.from_dense(
        events.to_dense() * (torch.arange(STEPS) < 7)[:, None, None], torch.full((BATCH,), 7)
    )
    _, state = cell(x[0])
    _, stacked = layer(x)
    calls: list[Callable[[], tuple[Tensor, Any]]] = [
        lambda: cell(x[0]),
        lambda: cell(x[1], state),
        lambda: cell(x[1, 0], type(state)(*(part[0] for part in state))),
        lambda: cell(x[1].double().to(x.dtype), tuple(state)),
        lambda: layer(x),
        lambda: layer(x, stacked, torch.tensor([3, 0, STEPS])),
        lambda: layer(x, stacked, [3, 0, STEPS]),
        lambda: layer(x[:, 0], type(stacked)(*(part[:, 0] for part in stacked))),
        lambda: layer(events, stacked),
        lambda: layer(in_time),
        lambda: layer(x[:0], stacked),
        lambda: layer(x[:, :0]),
    ]
    for k, call in enumerate(calls):
        expected, kind = outputs_of(call)
        with FunctionsSeen():
            watched, kind_watched = outputs_of(call)
        with torch.enable_grad():
            learning, _ = outputs_of(call)
        assert kind is kind_watched
        for found in (watched, learning):
            assert all(map(torch.equal, found, expected)), k
            assert [out.shape for out in found] == [out.shape for out in expected]


def test_invalid_calls_say_the_same_at_once_and_through_the_dispatcher() -> None:
    cell, layer, x = SRCCell(INPUTS, NEURONS), SRC(INPUTS, NEURONS), given()["input"]
    with torch.no_grad():
        _, state = cell(x[0])
        _, stacked = layer(x)
    in_time = EventBatch.from_dense(x, torch.full((BATCH,), STEPS))
    altered = EventBatch.from_dense(x)
    altered.shape = (STEPS, BATCH, 2**70)
    bad: list[Callable[[], Any]] = [
        lambda: cell(x),
        lambda: cell(x[0].double()),
        lambda: cell(x[0, :, :2]),
        lambda: cell(x[0].numpy()),
        lambda: cell(x[0], state[:2]),
        lambda: cell(x[0], stacked),
        lambda: cell(x[0], [*state]),
        lambda: cell(x[0], ()),
        lambda: cell(x[0], (None,) * 3),
        lambda: layer(x, (stacked[0], None, stacked[2])),
        lambda: srcell.src_linear(x, layer.weight_ih_l0, layer.bias_l0, delay_width=2**63),
        lambda: srcell.src_linear(x, layer.weight_ih_l0, layer.bias_l0, alpha=torch.full((NEURONS,), 0.9), rho=1e300),
        lambda: srcell.src_linear(altered, layer.weight_ih_l0, layer.bias_l0),
        lambda: cell(x[0], tuple(part[:1] for part in state)),
        lambda: cell(x[0], tuple(part.double() for part in state)),
        lambda: cell(in_time),
        lambda: layer(x, state),
        lambda: layer(x, stacked, torch.tensor([0, -1, 0])),
        lambda: layer(x, stacked, torch.tensor([0, STEPS + 1, 0])),
        lambda: layer(x, stacked, torch.tensor([0, 1])),
        lambda: layer(x, stacked, torch.zeros(BATCH)),
        lambda: layer(in_time, stacked, torch.full((BATCH,), STEPS)),
        lambda: layer(EventBatch.from_dense(x[..., :2])),
        lambda: srcell.src_linear(x, layer.weight_ih_l0, layer.bias_l0, max_delay=3),
        lambda: srcell.src_linear(x, layer.weight_ih_l0, layer.bias_l0, delay_width=2),
        lambda: srcell.src_linear(x, layer.weight_ih_l0, layer.bias_l0, full_gradient=None),
        lambda: srcell.src_linear(x, layer.weight_ih_l0, layer.bias_l0, surrogate="none"),
        lambda: srcell.src_linear(x, layer.weight_ih_l0, layer.bias_l0, alpha=1.5),
        lambda: srcell.src_linear(x, layer.weight_ih_l0, layer.bias_l0, alpha=float("nan")),
        lambda: srcell.src_linear(x, layer.weight_ih_l0, layer.bias_l0, rho=torch.zeros(NEURONS)),
        lambda: srcell.src_linear(x, layer.weight_ih_l0, layer.bias_l0, omega=4.0),
        lambda: srcell.src_linear(x[0], layer.weight_ih_l0, layer.bias_l0),
        lambda: srcell.src_linear(x, layer.weight_ih_l0[0], layer.bias_l0),
        lambda: srcell.src_linear(x, layer.weight_ih_l0, layer.bias_l0[:2]),
        lambda: srcell.src_linear(x, layer.weight_ih_l0, "bias"),
    ]
    for k, call in enumerate(bad):
        said: list[tuple[type[Exception], str]] = []
        for watch in (torch.no_grad(), FunctionsSeen()):
            with watch, pytest.raises((TypeError, ValueError)) as caught:
                call()
            said.append((caught.type, str(caught.value)))
        assert said[0] == said[1], k


def test_an_altered_batch_is_refused_at_once() -> None:
    layer, x = SRC(INPUTS, NEURONS), given()["input"]
    events = EventBatch.from_dense(x)
    events.indices[7] = INPUTS
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match=r"^indices: expected values in \[0, 5\), got 5 at position 7"),
    ):
        layer(events)


def test_tensors_that_need_a_gradient_get_one_at_once() -> None:
    """Of all tensors of a call, any alone may need a gradient."""
    x = given()
    state = [torch.zeros(BATCH, NEURONS) for _ in range(3)]
    alpha = torch.full((NEURONS,), 0.9)
    for learnt in (x["input"], x["weight"], x["bias"], x["weight_hh"], alpha, *state):
        learnt.requires_grad_()
        spikes, ended = srcell.src_linear(
            x["input"], x["weight"], x["bias"], tuple(state), alpha=alpha, weight_hh=x["weight_hh"], full_gradient=True
        )
        (grad,) = torch.autograd.grad(spikes.sum() + ended.i.sum() + ended.h.sum(), learnt)
        assert grad.any()
        learnt.requires_grad_(False)


@pytest.mark.parametrize("name", [name for name in CELLS if name != "half precision"])
@pytest.mark.parametrize("input", ["step", "dense", "events", "in time"])
def test_gradients_at_once_are_those_of_the_operators(name: str, input: str) -> None:
    """The operators make them under a mode and, after a call at once, under vmap or to be differentiated again."""
    options = {**CELLS[name], **({} if name == "tensors" else {"surrogate": "relu"})}
    module: Any = (SRCCell if input == "step" else SRC)(INPUTS, NEURONS, **options)
    dense = given()["input"].to(module.state_dict()["weight_ih" if input == "step" else "weight_ih_l0"].dtype)
    x: Any = {
        "step": dense[0].requires_grad_(),
        "dense": dense.requires_grad_(),
        "events": EventBatch.from_dense(dense.detach()),
        "in time": EventBatch.from_dense(dense.detach()[:, :1], torch.full((1,), STEPS)),
    }[input]
    with torch.no_grad():
        _, before = module(x)
    state = type(before)(*(part.clone().requires_grad_() for part in before))
    learnt = [*module.parameters(), *state, *([x] if isinstance(x, Tensor) else [])]

    def outputs() -> list[Tensor]:
        spikes, ended = module(x, state)
        return [spikes, *ended]

    def gradients(made: list[Tensor], **kwargs: Any) -> list[Tensor | None]:
        weights = [noise(k, *out.shape, dtype=out.dtype) for k, out in enumerate(made)]
        found = torch.autograd.grad(made, learnt, weights, allow_unused=True, **kwargs)
        return [None if x is None else x.detach() for x in found]

    def same(found: list[Tensor | None], expected: list[Tensor | None]) -> bool:
        pairs = zip(found, expected, strict=True)
        return all((a is None and b is None) or torch.equal(a, b) for a, b in pairs)  # type: ignore[arg-type]

    with FunctionsSeen():
        expected = gradients(outputs())
    made = outputs()
    assert same(gradients(made, retain_graph=True), expected)
    assert same(gradients(made, create_graph=True), expected)
    grads = [noise(k, *out.shape, dtype=out.dtype) for k, out in enumerate(made)]
    batched = torch.autograd.grad(
        made, learnt, [torch.stack([g, -g]) for g in grads], is_grads_batched=True, retain_graph=True, allow_unused=True
    )
    assert same([None if x is None else x[0] for x in batched], expected)
    (first,) = torch.autograd.grad(made[0].sum(), learnt[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="double backward is not supported"):
        first.sum().backward()


@pytest.mark.parametrize("name", [name for name in CELLS if name != "half precision"])
def test_a_call_at_once_may_be_repeated_by_the_operators(name: str) -> None:
    """torch.utils.checkpoint compares what both keep, in number, order, shape and dtype."""
    options = {**CELLS[name], **({} if name == "tensors" else {"surrogate": "relu"})}
    cell, layer = SRCCell(INPUTS, NEURONS, **options), SRC(INPUTS, NEURONS, **options)
    x = given()["input"].to(cell.weight_ih.dtype)
    events = EventBatch.from_dense(x, torch.full((BATCH,), STEPS))
    with torch.no_grad():
        (_, state), (_, stacked) = cell(x[0]), layer(x)
    calls: list[tuple[Any, ...]] = [(cell, x[0]), (cell, x[0], state), (layer, x), (layer, x, stacked), (layer, events)]
    for module, *arguments in calls:
        found = []
        for forward, backward in ((False, False), (True, False), (False, True)):
            with OperatorsSeen() if forward else contextlib.nullcontext():
                spikes, _ = checkpoint(module, *arguments, use_reentrant=False)
            with OperatorsSeen() if backward else contextlib.nullcontext():
                found.append(torch.autograd.grad(spikes.sum(), [*module.parameters()], allow_unused=True))
        for gradients in found[1:]:
            assert all(a is b is None or torch.equal(a, b) for a, b in zip(gradients, found[0], strict=True))


@pytest.mark.parametrize("kind", [FunctionsSeen, OperatorsSeen])
def test_a_mode_sees_what_else_goes_at_once(kind: type[FunctionsSeen | OperatorsSeen]) -> None:
    layer, x = SRC(INPUTS, NEURONS), given()["input"]
    for input in (x, EventBatch.from_dense(x)):
        with kind() as mode:
            layer(input)
        assert any(name.startswith("srcell.src_") for name in mode.seen), mode.seen


class Counting(torch.nn.Module):
    """A parametrisation that counts its evaluations."""

    count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x * 1


@pytest.mark.parametrize("options", [*CELLS.values(), {"num_layers": 2}], ids=[*CELLS, "two layers"])
def test_a_call_evaluates_a_parametrised_weight_once(options: dict[str, Any]) -> None:
    layer = SRC(INPUTS, NEURONS, **options)
    torch.nn.utils.parametrize.register_parametrization(layer, "weight_ih_l0", Counting())
    (counting,) = layer.parametrizations["weight_ih_l0"]
    x = given()["input"].to(layer.weight_ih_l0.dtype)
    for input in (x, x.bool(), x[:, 0], EventBatch.from_dense(x.float()), torch.rand_like(x)):
        counting.count = 0
        layer(input)
        assert counting.count == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_of_a_few_events_is_that_of_all_inputs(dtype: torch.dtype) -> None:
    """Of few events only the inputs that occur are added up, with the same bits and zeros elsewhere."""
    few = torch.zeros(3, 2, 64, dtype=dtype)
    few[[0, 0, 1, 2, 2], [0, 1, 1, 0, 1], [5, 5, 63, 0, 5]] = torch.tensor([1, 2, 1, -1.5, 1], dtype=dtype)
    weight = noise(3, NEURONS, 64, dtype=dtype) * 20
    lateral = noise(4, NEURONS, NEURONS, dtype=dtype)

    def gradients(x: Tensor, weight: Tensor) -> Tensor:
        weight = weight.clone().requires_grad_()
        spikes, state = srcell.src_linear(x, weight, -5.0, weight_hh=lateral, method="events")
        (grad,) = torch.autograd.grad(spikes.sum() + state.i.sum(), weight)
        return grad

    found, used = gradients(few, weight), [0, 5, 63]
    assert torch.equal(found[:, used], gradients(few[..., used], weight[:, used])) and found[:, used].any()
    others = torch.ones(64, dtype=torch.bool).index_fill(0, torch.tensor(used), False)
    assert not found[:, others].any()
    none = gradients(torch.zeros_like(few), weight)
    assert none.shape == weight.shape and not none.any()


@pytest.mark.parametrize(
    "lengths", [torch.zeros(BATCH + 1, dtype=torch.int64), torch.zeros(BATCH, dtype=torch.int64, device="meta")]
)
def test_lengths_of_the_product_are_checked(lengths: Tensor) -> None:
    """Regression: torch's own errors, of the padding that is set to 0 before the product."""
    x = given()
    with pytest.raises(ValueError, match=r"^lengths: expected"):
        srcell.src_linear(x["input"], x["weight"], x["bias"], lengths=lengths, method="gemm")


def test_a_start_at_rest_of_more_neurons_than_there_is_memory() -> None:
    """Regression: the number of neurons overflowed, and the process ended."""
    layer = SRC(1, 6, initial_state="rest", learnable=["r"])
    with pytest.raises(MemoryError):
        layer(torch.zeros(1).expand(0, 2**62, 1))
