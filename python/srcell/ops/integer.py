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
from ._cpu import core
from ._layer import OF_OPERATOR, STATE, all_contiguous, check_mask, on_cpu
from ._memory import address, contiguous
from ._operator import Gradients, Operator
from ._table import TABLE, Argument, Checked, declared

CONSTANTS: tuple[tuple[str, int], ...] = core.integer_constants

ROWS = {row.name: row for row in TABLE["integer_src"]}
GRAD_SPIKES, SLOPES = TABLE["integer_src_backward"]
SYNAPSE = [ROWS[name] for name in ("offsets", "indices", "input", "weight")]
BACKWARD = [GRAD_SPIKES, *SYNAPSE, ROWS["scale"]._replace(optional=False), ROWS["lengths"], SLOPES]

integer_src = Operator(
    f"integer_src({declared(ROWS.values())}, *, SymInt steps, SymInt batch, int[] cell, float rho, bool floats,"
    " bool save)"
    " -> (Tensor spikes, Tensor i, Tensor h, Tensor hs, Tensor clamped, Tensor slopes)",
    entry=core.integer_src,
)


def layer_on_gpu(call: Any) -> _gpu.Layer:
    """The layer of a call on a GPU."""
    sizes, given = (call.steps, call.batch, call.weight.shape[0]), all_contiguous(call)
    state = [address(x) for x in getattr(given, "state", ())]
    return _gpu.Layer(sizes, given, core.IntegerLayer(sizes, address(given.lengths), list(call.cell), state))


@integer_src.kernel("CPU", "CUDA")
def forward(call: Any) -> Any:
    """The kernel. Spikes are float32 with ``floats``, otherwise uint8; ``save`` keeps the slopes for the gradient."""
    if not _gpu.is_gpu(call.weight):
        return on_cpu(core.integer_src, checked_forward, call, OF_OPERATOR)
    *outputs, clamped, slopes = forward_fake(call)
    gpu, layer = _gpu.gpu_of("weight", call.weight), layer_on_gpu(call)
    gpu.integer_forward(layer, outputs, slopes if call.save else None, clamped.zero_())
    return *outputs, clamped, slopes


def checked_call(call: Any, rows: Sequence[Argument]) -> Checked:
    """A call whose tensors and constants are checked."""
    check_cell(call.cell)
    checked = Checked(T=call.steps, B=call.batch).rows(rows, call)
    if (call.offsets is None) != (call.indices is None) or (call.offsets is None) == (call.input is None):
        raise ValueError("input: expected offsets and indices, or a dense input")
    return checked


def checked_forward(call: Any) -> Checked:
    """A checked call."""
    checked = checked_call(call, [*ROWS.values()])
    if len(call.state) not in (0, 3):
        raise ValueError(f"state: expected 0 or 3 tensors, got {len(call.state)}")
    for name, x in zip(STATE, call.state, strict=False):
        checked.one(ROWS["state"], x, f"state.{name}")
    if call.save and not (call.floats and call.scale is not None):
        raise ValueError("scale: expected a tensor, and floats=True, with save=True")
    return checked


@integer_src.fake
def forward_fake(call: Any) -> tuple[Tensor, ...]:
    """The outputs' shapes."""
    sizes, weight = checked_forward(call)["TBN"], call.weight
    spikes = weight.new_empty(sizes, dtype=torch.float32 if call.floats else torch.uint8)
    ended = [weight.new_empty(sizes[1:]) for _ in range(3)]
    slopes = weight.new_empty(sizes if call.save else (0,), dtype=torch.float32)
    return spikes, *ended, weight.new_empty((), dtype=torch.int64), slopes


@integer_src.gradient(lambda call: {"latent": None, "state": []}, lambda call, needs: {"save": True})
def gradient(call: Any, saved: Sequence[Tensor], grads: Sequence[Tensor], needs: Any) -> Gradients:
    """The gradients of a dense input and of the float weights, which need neither these nor the state."""
    given = {"grad_spikes": grads[0], "slopes": saved[-1], "output_mask": [needs.input, needs.latent]}
    input, latent = integer_src_backward.with_arguments_of(call, **given)
    return {"input": input, "latent": latent}


def backward_on_cpu(call: Any, way: core.Way, threads: int) -> Any:
    """The gradients, as an entry of C++ returns them."""
    made = core.integer_src_backward(call, way, threads)
    return finished(call, *made) if made else made


def finished(call: Any, grad_current: Tensor | None, grad_latent: Tensor | None) -> tuple[Tensor | None, ...]:
    """The gradients of a dense input and of the float weights, from those of the currents and the integer weights."""
    want_input, want_latent = call.output_mask
    grad_input = grad_current @ call.weight.to(grad_current.dtype) if want_input and grad_current is not None else None
    return grad_input, grad_latent.mul_(call.scale) if want_latent and grad_latent is not None else None


integer_src_backward = Operator(
    f"integer_src_backward({declared(BACKWARD)}, *, SymInt steps, SymInt batch, int[] cell, bool[] output_mask)"
    " -> (Tensor input, Tensor latent)",
    entry=backward_on_cpu,
)


@integer_src_backward.kernel("CPU", "CUDA")
def backward(call: Any) -> Any:
    """The kernel; ``output_mask`` tells which gradients are wanted."""
    if not _gpu.is_gpu(call.weight):
        return on_cpu(backward_on_cpu, checked_backward, call, OF_OPERATOR)
    checked_backward(call)
    _, want_latent = call.output_mask
    given = layer_on_gpu(call), contiguous(call.grad_spikes), contiguous(call.slopes)
    return finished(call, *_gpu.gpu_of("weight", call.weight).integer_backward(*given, want_weight=want_latent))


def checked_backward(call: Any) -> Checked:
    """A checked backward call."""
    check_mask(call.output_mask, 2)
    return checked_call(call, BACKWARD)


@integer_src_backward.fake
def backward_fake(call: Any) -> list[Tensor | None]:
    """The gradients' shapes."""
    checked_backward(call)
    shapes = (call.steps, call.batch, call.weight.shape[1]), call.weight.shape
    wanted = zip(shapes, call.output_mask, strict=True)
    return [call.slopes.new_empty(shape) if want else None for shape, want in wanted]


def check_cell(cell: Sequence[int]) -> None:
    """Raise unless the constants are integers with which every value of a neuron fits in 16 bits."""
    for (name, _), value in zip(CONSTANTS, cell, strict=False):
        if type(value) is not int and (isinstance(value, bool) or not isinstance(value, Integral)):
            raise TypeError(f"cell.{name}: expected an int, got {type(value).__name__}")
    try:
        core.check_integer_cell(list(cell))
    except TypeError:  # from pybind11, for integers of more than 64 bits
        raise ValueError(f"cell: expected {len(CONSTANTS)} integers of at most 64 bits, got {tuple(cell)!r}") from None
