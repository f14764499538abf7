"""``integer_src``: a linear synapse of integers on events or on a dense input of 0 and 1, then integer neurons.

Its gradient is the surrogate gradient of csrc/integer_surrogate-inl.h, with respect to a dense input and to ``latent``,
the float weights that were rounded to the integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from . import _gpu
from ._cpu import core, rows_of
from ._layer import STATE, Like, Sizes, check_integers, check_optional, check_tensor, on_cpu
from ._memory import address, addresses, contiguous, or_contiguous
from ._operator import Gradients, Operator

CONSTANTS: tuple[tuple[str, int], ...] = core.integer_constants

EVENTS = "Tensor? offsets, Tensor? indices, Tensor? input"

integer_src = Operator(
    f"integer_src({EVENTS}, Tensor weight, Tensor? latent, Tensor? scale, Tensor[] state, Tensor? lengths, *,"
    " SymInt steps, SymInt batch, int[] cell, float rho, bool floats, bool save)"
    " -> (Tensor spikes, Tensor i, Tensor h, Tensor hs, Tensor clamped, Tensor slopes)"
)


def layer_on_gpu(call: Any) -> _gpu.IntegerLayer:
    """The layer of a checked call on a GPU, with its input."""
    sizes, state = check_arguments(call), [contiguous(x) for x in getattr(call, "state", ())]
    lengths = or_contiguous(call.lengths)
    return _gpu.IntegerLayer(
        sizes,
        None if call.offsets is None else rows_of(call),
        or_contiguous(call.input),
        contiguous(call.weight),
        or_contiguous(call.scale),
        state,
        lengths,
        getattr(call, "rho", 1.0),
        core.IntegerLayer(sizes, address(lengths), list(call.cell), addresses(state)),
    )


@integer_src.kernel("CPU", "CUDA")
def forward(call: Any) -> tuple[Any, ...]:
    """The kernel. Spikes are float32 with ``floats``, otherwise uint8; ``save`` keeps the slopes for the gradient."""
    if not _gpu.is_gpu(call.weight.device):
        *made, clamped, slopes = on_cpu(core.integer_src, forward_fake, call)
        return *made, torch.tensor(clamped, dtype=torch.int64, device="cpu"), slopes
    *outputs, clamped, slopes = forward_fake(call)
    gpu, layer = _gpu.gpu_of("weight", call.weight), layer_on_gpu(call)
    gpu.integer_forward(layer, outputs, slopes if call.save else None, clamped.zero_(), floats=call.floats)
    return *outputs, clamped, slopes


def check_arguments(call: Any) -> Sizes:
    """Check everything but values, which fake tensors do not have; return T, B and N."""
    check_cell(call.cell)
    weight, rows = call.weight, call.steps * call.batch
    if weight.dim() != 2:
        raise ValueError(f"weight: expected shape (N, K), got {tuple(weight.shape)}")
    if weight.dtype != torch.int16:
        raise TypeError(f"weight: expected dtype torch.int16, got {weight.dtype}")
    like, of_floats = Like("weight", weight.dtype, weight.device), Like("a float tensor", torch.float32, weight.device)
    neurons, inputs = weight.shape
    if (call.offsets is None) != (call.indices is None) or (call.offsets is None) == (call.input is None):
        raise ValueError("input: expected offsets and indices, or a dense input")
    if call.offsets is not None:
        check_integers("offsets", call.offsets, torch.int64, rows + 1, like)
        check_integers("indices", call.indices, torch.int32, call.indices.numel(), like)
    check_optional("input", call.input, of_floats, (call.steps, call.batch, inputs))
    check_optional("scale", call.scale, of_floats, ())
    state = getattr(call, "state", ())
    if len(state) not in (0, 3):
        raise ValueError(f"state: expected 0 or 3 tensors, got {len(state)}")
    for name, x in zip(STATE, state, strict=False):
        check_tensor(f"state.{name}", x, like, (call.batch, neurons))
    if call.lengths is not None:
        check_integers("lengths", call.lengths, torch.int64, call.batch, like)
    return call.steps, call.batch, neurons


@integer_src.fake
def forward_fake(call: Any) -> tuple[Tensor, ...]:
    """The outputs' shapes."""
    sizes, weight = check_arguments(call), call.weight
    check_optional("latent", call.latent, Like("a float tensor", torch.float32, weight.device), tuple(weight.shape))
    if call.save and not (call.floats and call.scale is not None):
        raise ValueError("scale: expected a tensor, and floats=True, with save=True")
    spikes = weight.new_empty(sizes, dtype=torch.float32 if call.floats else torch.uint8)
    ended = [weight.new_empty(sizes[1:]) for _ in range(3)]
    slopes = weight.new_empty(sizes if call.save else (0,), dtype=torch.float32)
    return spikes, *ended, weight.new_empty((), dtype=torch.int64), slopes


def keep(call: Any) -> dict[str, Any]:
    """Keep everything but the float weights and the state, which the gradient does not need."""
    return {"latent": None, "state": []}


@integer_src.gradient(keep, lambda call, needs: {"save": True}, outputs=1)
def gradient(call: Any, saved: Sequence[Tensor], grads: Sequence[Tensor | None], needs: Any) -> Gradients:
    """The gradients of a dense input and of the float weights."""
    if grads[0] is None:
        return {}
    synapse = (call.offsets, call.indices, call.input, call.weight, call.scale, call.lengths)
    options = {name: getattr(call, name) for name in ("steps", "batch", "cell")}
    input, latent = integer_src_backward(
        grads[0], *synapse, saved[-1], **options, output_mask=[needs.input, needs.latent]
    )
    return {"input": input, "latent": latent}


integer_src_backward = Operator(
    f"integer_src_backward(Tensor grad_spikes, {EVENTS}, Tensor weight, Tensor scale, Tensor? lengths, Tensor slopes,"
    " *, SymInt steps, SymInt batch, int[] cell, bool[] output_mask) -> (Tensor input, Tensor latent)"
)


@integer_src_backward.kernel("CPU", "CUDA")
def backward(call: Any) -> tuple[Tensor, ...]:
    """The kernel; ``output_mask`` tells which gradients are wanted."""
    weight, slopes, (want_input, want_latent) = call.weight, call.slopes, call.output_mask
    if not _gpu.is_gpu(weight.device):
        grad_current, grad_latent = on_cpu(core.integer_src_backward, check_backward, call)
    else:
        grad_spikes, slopes = check_backward(call)
        grad_current = slopes.new_empty(slopes.shape) if want_input else None
        grad_latent = slopes.new_empty(weight.shape) if want_latent else None
        gpu = _gpu.gpu_of("weight", weight)
        gpu.integer_backward(layer_on_gpu(call), grad_spikes, slopes, grad_current, grad_latent)
    return (
        grad_current @ weight.to(slopes.dtype) if want_input else slopes.new_empty(0),
        grad_latent.mul_(call.scale) if want_latent else slopes.new_empty(0),
    )


def check_backward(call: Any) -> list[Tensor]:
    """Check a backward call; return the gradient of the spikes and the slopes, contiguous."""
    sizes, like = check_arguments(call), Like("a float tensor", torch.float32, call.weight.device)
    given = {"grad_spikes": call.grad_spikes, "slopes": call.slopes}
    return [contiguous(check_tensor(name, x, like, sizes)) for name, x in given.items()]


@integer_src_backward.fake
def backward_fake(call: Any) -> tuple[Tensor, ...]:
    """The gradients' shapes."""
    want_input, want_latent = call.output_mask
    sizes = (call.steps, call.batch, call.weight.shape[1])
    grad_input = call.slopes.new_empty(sizes if want_input else (0,))
    return grad_input, call.slopes.new_empty(tuple(call.weight.shape) if want_latent else (0,))


def check_cell(cell: Sequence[int]) -> None:
    """Raise unless the constants are integers with which every value of a neuron fits in 16 bits."""
    for (name, _), value in zip(CONSTANTS, cell, strict=False):
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(f"cell.{name}: expected an int, got {type(value).__name__}")
    try:
        core.check_integer_cell(list(cell))
    except TypeError:  # from pybind11, for integers of more than 64 bits
        raise ValueError(f"cell: expected {len(CONSTANTS)} integers of at most 64 bits, got {tuple(cell)!r}") from None
