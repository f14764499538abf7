"""Promise 6, torch's modes: under default devices, fake tensors, functional transforms, checkpointing and saved-tensor
hooks a call gives the eager result or raises a Python error, and reads no invalid memory. Compilation is tested in
test_compile.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.func import functionalize
from torch.utils.checkpoint import checkpoint

from srcell import SRC, EventBatch, src, src_linear
from support.calls import CALLS, NEW_TORCH, assert_same, parts, spikes
from support.inputs import make_currents, make_linear_inputs, noise
from support.wrapped import Wrapped


@pytest.mark.parametrize("name", CALLS)
def test_a_default_device_does_not_reach_below_a_call(name: str) -> None:
    """Regression: scratch was allocated on the default device; on meta it had no memory, a crash."""
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
        except DynamicOutputShapeException:  # the number of events depends on the data
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
    """A checkpoint unpacks each saved tensor only once."""
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
