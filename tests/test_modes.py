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
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.func import functionalize
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from conftest import Wrapped, make_currents, make_linear_inputs, noise
from srcell import SRC, EventBatch, SRCConv2d, latency_encode, leaky_readout, rate_encode, src, src_linear
from srcell.functional import count_spikes, scale_neurons


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
        except ValueError as error:
            assert "expected a tensor that holds values, got a FakeTensor" in str(error)
            assert name in ("rate_encode", "latency_encode")
        else:
            assert [x.shape for x in parts(result)] == [x.shape for x in parts(expected)]


@pytest.mark.parametrize("name", CALLS)
def test_functionalized_they_give_the_same_or_an_error(name: str) -> None:
    function, args = CALLS[name]
    try:
        result = functionalize(lambda *x: parts(function(*x)))(*args)
    except ValueError as error:
        assert "expected a tensor that holds values" in str(error)
        assert name in ("rate_encode", "latency_encode")
    else:
        assert all(map(torch.equal, result, parts(function(*args))))


@pytest.mark.parametrize("name", CALLS)
def test_tensors_that_wrap_others_give_the_same_or_an_error(name: str) -> None:
    function, args = CALLS[name]
    try:
        result = function(*map(Wrapped, args))
    except ValueError as error:
        assert "expected a tensor that holds values, got a Wrapped" in str(error)
        assert name in ("rate_encode", "latency_encode")
    else:
        unwrapped = [x.inner if isinstance(x, Wrapped) else x for x in parts(result)]
        assert all(map(torch.equal, unwrapped, parts(function(*args))))


def test_no_address_of_0_reaches_the_core_for_a_tensor_with_elements() -> None:
    from srcell import _ops

    assert _ops._address(None) == 0
    with pytest.raises(RuntimeError, match="expected tensors that lie in memory, got a Tensor on meta"):
        _ops._address(torch.ones(3, device="meta"))


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
