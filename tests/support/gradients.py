"""Gradients of a call on inputs of ``support.inputs``, and measures of how far two results are apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from srcell._shared.state import AnyState
from support.inputs import Inputs, Outputs, call, noise


def make_output_gradients(seed: int, outputs: Outputs) -> list[Tensor]:
    """Random grad_outputs for the spikes and the final state."""
    tensors = (outputs[0], *outputs[1])
    return [noise(seed + k, *x.shape, dtype=x.dtype) for k, x in enumerate(tensors)]


def requiring_grad(inputs: Inputs) -> Inputs:
    return {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}


def gradients(
    function: Callable[..., Outputs], inputs: Inputs, grad_outputs: Sequence[Tensor | None], **options: Any
) -> Inputs:
    """The gradient of every input, given the grad_outputs of spikes and state; a grad_output may be None."""
    leaves = requiring_grad(inputs)
    spikes, state = call(function, leaves, **options)
    pairs = [(x, g) for x, g in zip((spikes, *state), grad_outputs, strict=True) if g is not None]
    made = torch.autograd.grad(
        [x for x, _ in pairs], list(leaves.values()), [g for _, g in pairs], allow_unused=True, materialize_grads=True
    )
    return dict(zip(leaves, made, strict=True))


def results(
    function: Callable[..., Outputs],
    inputs: Inputs,
    seed: int = 0,
    *,
    grad_outputs: Sequence[Tensor | None] | None = None,
    **options: Any,
) -> dict[str, Tensor]:
    """The spikes, the final state and the gradient of every input, by name. The grad_outputs are random unless they
    are given.
    """
    with torch.no_grad():
        spikes, state = call(function, inputs, **options)
    made = gradients(function, inputs, grad_outputs or make_output_gradients(seed, (spikes, state)), **options)
    return {"spikes": spikes, **state._asdict(), **{f"gradient of {name}": x for name, x in made.items()}}


def largest(x: Tensor) -> float:
    return x.abs().max().item() if x.numel() else 0.0


def relative_error(x: Tensor, expected: Tensor) -> float:
    """The largest error relative to the largest element, or to 1 if that is larger.

    With full_gradient=True gradients reach 1e4 and more, and a small element is a difference of large terms, so its
    rounding error is as large as that of the terms. The lower limit of 1 is the size of the grad_outputs.
    """
    return largest(x - expected) / max(1.0, largest(expected))


def assert_close(made: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Assert errors of at most 1e-12 in results that spike."""
    assert made.keys() == expected.keys() and expected["spikes"].count_nonzero() > 0
    for name, expectation in expected.items():
        error = relative_error(made[name], expectation)
        assert error <= 1e-12, f"{name}: {error:.2e}"


def assert_equal(made: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Assert equal bits in results that spike."""
    assert made.keys() == expected.keys() and expected["spikes"].count_nonzero() > 0
    assert [name for name in expected if not torch.equal(made[name], expected[name])] == []


def moved_by_one_ulp(x: Tensor, seed: int) -> Tensor:
    """Each element replaced by its floating-point neighbour above or below, at random."""
    signs = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nextafter(x, torch.inf * signs.to(x.dtype))


def membrane(function: Callable[..., Outputs], inputs: Inputs) -> Tensor:
    """h[t] of every step, (T, B, N): the final h of sequences that end at t."""
    steps, batch, _ = call(function, inputs)[0].shape
    return torch.stack([call(function, inputs, lengths=[t] * batch)[1].h for t in range(1, steps + 1)])


def in_pieces(function: Callable[..., Outputs], ends: Sequence[int]) -> Callable[..., Outputs]:
    """``src`` or its reference as calls on pieces of the sequence, which pass the state on."""

    def pieces(current: Tensor, bias: Tensor, state: AnyState, *, lengths: Tensor, **options: Any) -> Outputs:
        spikes = []
        for begin, end in pairwise([0, *ends]):
            left = (lengths - begin).clamp(0, end - begin)
            made, state = function(current[begin:end], bias, state, lengths=left, **options)
            spikes.append(made)
        return torch.cat(spikes), state

    return pieces
