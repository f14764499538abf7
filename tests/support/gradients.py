"""Gradients of a call on inputs of ``support.inputs``, and measures of how far two results are apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import srcell
from support.inputs import STATE, Inputs, Outputs, call, noise


def make_output_gradients(seed: int, outputs: Outputs) -> list[Tensor]:
    """Random incoming gradients of the spikes and of the final i, h, hs."""
    tensors = (outputs[0], *outputs[1])
    return [noise(seed + k, *x.shape, dtype=x.dtype) for k, x in enumerate(tensors)]


def requiring_grad(inputs: Inputs) -> Inputs:
    return {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}


def gradients(
    function: Callable[..., Outputs], inputs: Inputs, arriving: list[Tensor | None], **options: Any
) -> Inputs:
    """The gradient of every input, given the incoming ones of spikes, i, h, hs; None for no incoming gradient."""
    leaves = requiring_grad(inputs)
    spikes, state = call(function, leaves, **options)
    pairs = [(x, g) for x, g in zip((spikes, *state), arriving, strict=True) if g is not None]
    made = torch.autograd.grad(
        [x for x, _ in pairs], list(leaves.values()), [g for _, g in pairs], allow_unused=True, materialize_grads=True
    )
    return dict(zip(leaves, made, strict=True))


def largest(x: Tensor) -> float:
    return x.abs().max().item() if x.numel() else 0.0


def relative_error(x: Tensor, expected: Tensor) -> float:
    """The largest error relative to the largest element, or to 1 if that is larger.

    With recurrent_grad=True gradients reach 1e4 and more, and a small element is a difference of large terms, so that
    its rounding error is that of the terms. The lower limit of 1 is the size of the incoming gradients.
    """
    return largest(x - expected) / max(1.0, largest(expected))


def assert_same_gradients(ours: Inputs, expected: Inputs) -> None:
    for name, expectation in expected.items():
        error = relative_error(ours[name], expectation)
        assert error <= 1e-12, f"{name}: {error:.2e}"


def moved_by_one_ulp(x: Tensor, seed: int) -> Tensor:
    """Each element replaced by its floating-point neighbour above or below, at random."""
    signs = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nextafter(x, torch.inf * signs.to(x.dtype))


def membrane(inputs: Inputs, **options: Any) -> Tensor:
    """h[t] of every step, (T, B, N)."""
    h = []
    inputs = {name: x.detach() for name, x in inputs.items()}
    for c in inputs["current"].split(1):
        _, state = call(srcell.src, {**inputs, "current": c}, **options)
        inputs |= zip(STATE, state, strict=True)
        h.append(state.h)
    return torch.stack(h)
