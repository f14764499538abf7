"""Promise 6, of torch's modes: under compilation, default devices, fake tensors, functional transforms, checkpointing
and hooks on saved tensors a call gives the eager result or a Python error, and reads no memory that is not there.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo.config
from torch import Tensor
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.func import functionalize
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from conftest import Wrapped, make_currents, make_linear_inputs, noise
from srcell import SRC, EventBatch, SRCConv2d, latency_encode, leaky_readout, rate_encode, src, src_linear
from srcell.functional import count_spikes, scale_neurons

# Torch 2.4 breaks its graphs at objects of a class, and runs no operator of lists under vmap.
NEW_TORCH = hasattr(torch.library, "register_vmap")


def images() -> Tensor:
    return noise(1, 3, 6, dtype=torch.float32).abs()


def spikes() -> Tensor:
    return (noise(2, 30, 2, 6, dtype=torch.float32) > 0.5).float()


def make_batch(offsets: Tensor, indices: Tensor) -> EventBatch:
    return EventBatch(offsets, indices, shape=(2, 1, 3))


# Functions of tensors that hand addresses to the core by themselves, not through an operator.
OUTSIDE_OPERATORS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "rate_encode": (lambda x: rate_encode(x, seed=1), (images(),)),
    "latency_encode": (latency_encode, (images(),)),
    "count_spikes": (count_spikes, (spikes(),)),
    "scale_neurons": (scale_neurons, (spikes(), torch.tensor([[0.0, 2.0, 1.0, 0.5, 1.0, 1.0]] * 2))),
    "EventBatch": (make_batch, (torch.tensor([0, 1, 2]), torch.tensor([0, 2], dtype=torch.int32))),
}
# And what goes through one; the weights are there before any mode is.
_LAYER, _MAPS = SRC(6, 4), SRCConv2d(1, 2, 3)
THROUGH_OPERATORS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "src": (lambda x: src(x, -6.0), (spikes(),)),
    "src_linear": (lambda x, w: src_linear(x, w, -6.0, method="events"), (spikes(), noise(3, 4, 6).float())),
    "SRC": (_LAYER, (spikes(),)),
    "SRCConv2d": (lambda x: _MAPS(x.view(30, 2, 1, 2, 3).repeat(1, 1, 1, 2, 2)), (spikes(),)),
    "leaky_readout": (lambda x: leaky_readout(x, 3, lengths=[30, 17]), (spikes(),)),
}
CALLS = OUTSIDE_OPERATORS | THROUGH_OPERATORS


# What opcheck is given of the operators that run no layer: their positional and keyword-only arguments.
OUTSIDE_LAYERS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "rate_encode": ((images(), torch.arange(3)), dict(steps=7, prefix=2, gain=0.5, seed=-1)),
    "latency_encode": ((images(),), dict(steps=7, prefix=2)),
    "count_spikes": ((spikes(),), {}),
    "scale": ((spikes().requires_grad_(), torch.ones(2, 6)), {}),
    "rest": ((torch.full((3,), -6.0).double(), torch.full((3,), -5.0).double()), {}),
    "find_event_fault": (
        (torch.tensor([0, 1, 2]), torch.tensor([0, 2], dtype=torch.int32), None, None),
        dict(steps=2, batch=1, inputs=3),
    ),
}


def parts(result: Any) -> list[Tensor]:
    return list(pytree.tree_leaves(result))


def assert_same(result: Any, expected: Any) -> None:
    assert type(result) is type(expected)
    assert len(parts(result)) == len(parts(expected)) > 0
    assert all(map(torch.equal, parts(result), parts(expected)))


def in_process(code: str, *arguments: str) -> str:
    """What a process of its own prints, which may crash alone."""
    made = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=600)
    assert made.returncode == 0, f"status {made.returncode}\n{made.stderr[-2000:]}"
    return made.stdout.strip()


@pytest.mark.parametrize("name", OUTSIDE_OPERATORS)
def test_compiled_they_give_what_they_give_in_eager_mode(name: str) -> None:
    """Encoders read freed memory there: scratch and offsets that the graph had no more use for."""
    function, args = OUTSIDE_OPERATORS[name]
    compiled = torch.compile(lambda *x: function(*(t + 0 for t in x)), backend="eager")
    for _ in range(3):
        assert_same(compiled(*args), function(*args))


@pytest.mark.parametrize("encode", ["rate_encode(x, seed=1)", "latency_encode(x)"])
def test_an_encoder_alone_can_be_compiled(encode: str) -> None:
    code = (
        "import torch, srcell\n"
        f"encode = lambda x: srcell.{encode}\n"
        "x = torch.rand(3, 6)\n"
        "print(all(torch.compile(encode, backend='eager')(x) == encode(x) for _ in range(5)))"
    )
    assert in_process(code) == "True"


@pytest.mark.parametrize("name", CALLS)
def test_a_default_device_does_not_reach_below_a_call(name: str) -> None:
    """Scratch made on a default device of meta had no memory; a crash."""
    function, args = CALLS[name]
    expected = function(*args)
    with torch.device("meta"):
        assert_same(function(*args), expected)


@pytest.mark.parametrize("name", CALLS)
def test_fake_tensors_give_shapes_or_an_error(name: str) -> None:
    function, args = CALLS[name]
    expected = function(*args)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        try:
            result = function(*map(mode.from_tensor, args))
        except DynamicOutputShapeException:  # of as many events as only the call knows
            assert name in ("rate_encode", "latency_encode")
        else:
            assert [x.shape for x in parts(result)] == [x.shape for x in parts(expected)]


@pytest.mark.parametrize("name", CALLS)
def test_functionalized_they_give_the_same(name: str) -> None:
    function, args = CALLS[name]
    result = functionalize(lambda *x: parts(function(*x)))(*args)
    assert all(map(torch.equal, result, parts(function(*args))))


@pytest.mark.parametrize("name", CALLS)
def test_tensors_that_wrap_others_give_the_same(name: str) -> None:
    function, args = CALLS[name]
    result = function(*map(Wrapped, args))
    unwrapped = [x.inner if isinstance(x, Wrapped) else x for x in parts(result)]
    assert all(map(torch.equal, unwrapped, parts(function(*args))))


class OnEvents(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = SRC(6, 4)

    def forward(self, events: EventBatch) -> Tensor:
        return self.layer(events)[0]


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_layer_runs_any_number_of_steps(strict: bool) -> None:
    layer = SRC(6, 4, 2)
    steps = {"input": {0: torch.export.Dim("steps", min=1)}}
    exported = torch.export.export(layer, (spikes(),), dynamic_shapes=steps, strict=strict).module()
    for count in (1, 2, 15, 16, 17, 30, 100):
        x = (noise(6, count, 2, 6) > 0.5).float()
        assert_same(exported(x)[0], layer(x)[0])


def test_an_event_batch_goes_through_export() -> None:
    model, events = OnEvents(), EventBatch.from_dense(spikes(), torch.tensor([30, 17]))
    exported = torch.export.export(model, (events,), strict=False).module()
    assert_same(exported(events), model(events))


@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)
def test_an_encoder_before_a_layer_compiles_whole() -> None:
    model = OnEvents()
    for encode in (lambda x: rate_encode(x, 30, seed=3), lambda x: latency_encode(x, 30)):
        compiled = torch.compile(lambda x, encode=encode: model(encode(x)), fullgraph=NEW_TORCH, backend="aot_eager")
        for seed in (1, 2):
            x = noise(seed, 3, 6, dtype=torch.float32).abs()
            assert_same(compiled(x), model(encode(x)))


@pytest.mark.skipif(not NEW_TORCH, reason="torch 2.4 has no vmap of operators of lists")
def test_models_side_by_side_are_trained_as_each_alone() -> None:
    models = [SRC(6, 4, learnable=["alpha"]) for _ in range(3)]
    parameters, _ = torch.func.stack_module_state(models)
    x = spikes()
    made = torch.func.vmap(lambda p: torch.func.functional_call(models[0], p, (x,))[0])(parameters)
    made.sum().backward()
    for k, model in enumerate(models):
        expected = model(x)[0]
        expected.sum().backward()
        assert torch.equal(made[k], expected)
        for name, parameter in model.named_parameters():
            assert torch.equal(parameters[name].grad[k], parameter.grad), name


@pytest.mark.parametrize("name", OUTSIDE_LAYERS)
def test_opcheck_of_what_is_no_layer(name: str) -> None:
    torch.library.opcheck(getattr(torch.ops.srcell, name), *OUTSIDE_LAYERS[name])


def test_importing_the_package_leaves_torchs_compiler_alone() -> None:
    """It takes longer to import than all else together."""
    code = "import sys, torch; had = set(sys.modules); import srcell; print('torch._dynamo' in set(sys.modules) - had)"
    assert in_process(code) == "False"


def test_no_address_of_0_reaches_the_core_for_a_tensor_with_elements() -> None:
    from srcell.ops._memory import address

    assert address(None) == 0
    with pytest.raises(RuntimeError, match="expected tensors that lie in memory, got a Tensor on meta"):
        address(torch.ones(3, device="meta"))


def gradients_of(function: Callable[..., Any], *args: Tensor) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in args]
    output, state = function(*leaves)
    (output.sum() + state.i.sum()).backward()
    return [x.grad for x in leaves if x.grad is not None]


EVENTS, SYNAPSE = make_linear_inputs(4, 20, 3, 5, inputs=6)
DIFFERENTIABLE: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "src": (lambda c, b: src(c, b, alpha=torch.tensor(0.9).double()), (make_currents(1, 20, 3, 5), SYNAPSE["bias"])),
    "events": (
        lambda v, w: src_linear(EventBatch(EVENTS.offsets, EVENTS.indices, v, shape=EVENTS.shape), w, -6.0),
        (SYNAPSE["values"], SYNAPSE["weight"]),
    ),
    "dense as events": (
        lambda x, w: src_linear(x, w, -6.0, method="events"),
        (EVENTS.to_dense(torch.float64), SYNAPSE["weight"]),
    ),
    "dense by the product": (
        lambda x, w: src_linear(x, w, -6.0, lengths=[20, 7, 0]),
        (1 + noise(5, 20, 3, 6), SYNAPSE["weight"]),
    ),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_a_checkpoint_gives_the_same_gradients(name: str) -> None:
    """It unpacks what was saved just once."""
    function, args = DIFFERENTIABLE[name]
    expected = gradients_of(function, *args)
    assert all(grad.count_nonzero() > 0 for grad in expected)
    result = gradients_of(lambda *x: checkpoint(function, *x, use_reentrant=False), *args)
    assert all(map(torch.equal, result, expected))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_what_is_saved_is_unpacked_once(name: str) -> None:
    function, args = DIFFERENTIABLE[name]
    packed, unpacked = [], []
    with saved_tensors_hooks(lambda x: packed.append(1) or x, lambda x: unpacked.append(1) or x):
        gradients_of(function, *args)
    assert len(unpacked) == len(packed) > 0
    with save_on_cpu():
        assert all(map(torch.equal, gradients_of(function, *args), gradients_of(function, *args)))
