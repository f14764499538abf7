"""``src``: the recurrence on given currents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _gpu, _layer
from ._acting import of_arguments
from ._cpu import core
from ._direct import Direct
from ._layer import OF_OPERATOR, STATE
from ._memory import contiguous


def traced(call: Any) -> bool:
    """Whether a trace is kept, which has what the gradient needs of the currents."""
    return call.layer.weight_hh is not None


def keep(call: Any) -> dict[str, Any]:
    """Keep the currents; with recurrent weights only their shape, because the trace has what the gradient needs."""
    if not traced(call):  # the checkpoints have the initial state
        return {"state": []}
    return {"current": call.current.new_empty(()).expand(call.current.shape), **_layer.keep(call)}


src, src_backward, gradient = _layer.declare(
    "src", "Tensor current", wanted=["current"], forwards="bool half_spikes=False", keep=keep
)


directly = Direct(src, src_backward, gradient, ["current"], core.src, core.src_backward)


@src.kernel("CPU", "CUDA")
def forward(call: Any) -> tuple[Any, ...]:
    """The kernel.

    ``save`` is set if a gradient may be needed; without it trace and checkpoints are empty. With ``half_spikes`` the
    spikes have the dtype of half-precision currents.
    """
    if not _gpu.is_gpu(call.current.device):
        return _layer.on_cpu(core.src, forward_fake, call, OF_OPERATOR)
    (spikes, *ended), like, dtype = forward_fake(call), check_current(call), spikes_dtype(call)
    layer, current = _layer.layer_on_gpu(tuple(call.current.shape), like, call.layer), contiguous(call.current)
    if traced(call):  # these kernels work in the dtype of the computation
        current = current.to(like.dtype)
        spikes = spikes if dtype == like.dtype else current.new_empty(current.shape)
    run = layer, [spikes, *ended[: len(STATE)]], ended[len(STATE) :], call.trace_integrator
    _gpu.gpu_of("current", current).scan_forward(run, current)
    return spikes.to(dtype), *ended


def check_current(call: Any) -> _layer.Like:
    """Check the currents' dimensions and dtype."""
    return _layer.check_floats("current", call.current, "T, B, N", half=_gpu.is_gpu(call.current.device))


def spikes_dtype(call: Any) -> torch.dtype:
    """The dtype of the spikes."""
    return call.current.dtype if call.half_spikes else _layer.work_dtype(call.current)


@src.fake
def forward_fake(call: Any) -> tuple[Any, ...]:
    """The outputs' shapes."""
    sizes = call.current.shape
    _layer.check_layer(sizes, check_current(call), call.layer)
    outputs = _layer.empty_outputs(call.layer, sizes, spikes_dtype(call))
    return *outputs, *_layer.empty_saved(call.layer, sizes, call.save, traced(call))


@src_backward.kernel("CPU", "CUDA")
def backward(call: Any) -> tuple[Any, ...]:
    """The kernel; ``output_mask`` tells which gradients of current and of WANTED are wanted."""
    current = call.current
    if not _gpu.is_gpu(current.device):
        return _layer.on_cpu(core.src_backward, check_backward, call, OF_OPERATOR)
    grads, saved = check_backward(call)
    layer = _layer.layer_on_gpu(current.shape, check_current(call), call.layer, backward=True)
    if traced(call):
        grads = [None if x is None else x.to(layer.given.bias.dtype) for x in grads]
    given = None if traced(call) else contiguous(current)
    gradients = _layer.gradients_on_gpu(call, layer, 1)
    run = layer, grads, saved, gradients
    grad_current = _gpu.gpu_of("current", current).current_gradient(run, given)
    made = of_arguments(call.layer, gradients)
    return grad_current.to(current.dtype) if call.output_mask[0] else None, *made


def check_backward(call: Any) -> tuple[list[Tensor | None], list[Tensor]]:
    """Check a backward call; return the gradients of its outputs, and trace and checkpoints."""
    current, like, sizes = call.current, check_current(call), tuple(call.current.shape)
    grads = _layer.check_backward(call, sizes, like, synapse=1, or_dtype=current.dtype)
    return grads, _layer.saved_of(call, sizes, like, traced=traced(call))


@src_backward.fake
def backward_fake(call: Any) -> tuple[Any, ...]:
    """The gradients' shapes."""
    current = call.current
    made = _layer.empty_gradients(call, current.shape, 1)
    return current.new_empty(current.shape) if call.output_mask[0] else None, *made
