"""``src``: the recurrence on given currents."""

from __future__ import annotations

from typing import Any

import torch

from . import _gpu, _layer
from ._acting import of_arguments
from ._cpu import core
from ._direct import Direct
from ._layer import OF_OPERATOR, STATE
from ._memory import contiguous
from ._table import TABLE, Checked, work_dtype


def traced(call: Any) -> bool:
    """Whether a trace is kept, which has what the gradient needs of the currents."""
    return call.layer.weight_hh is not None


def keep(call: Any) -> dict[str, Any]:
    """Keep the currents; with recurrent weights only their shape, because the trace has what the gradient needs."""
    if not traced(call):  # the checkpoints have the initial state
        return {"state": []}
    return {"current": call.current.new_empty(()).expand(call.current.shape), **_layer.keep(call)}


operators = _layer.declare("src", wanted=["current"], forwards="bool half_spikes=False", keep=keep)
src, src_backward = operators[:2]
directly = Direct(operators, core.src, core.src_backward)


@src.kernel("CPU", "CUDA")
def forward(call: Any) -> Any:
    """The kernel.

    ``save`` is set if a gradient may be needed; without it trace and checkpoints are empty. With ``half_spikes`` the
    spikes have the dtype of half-precision currents.
    """
    if not _gpu.is_gpu(call.current):
        return _layer.on_cpu(core.src, checked_call, call, OF_OPERATOR)
    checked, dtype = checked_call(call), spikes_dtype(call)
    spikes, *ended = new_outputs(call, checked)
    layer, current = _layer.layer_on_gpu(checked, call.layer), contiguous(call.current)
    if traced(call):  # these kernels work in the dtype of the computation
        current = current.to(checked.dtype)
        spikes = spikes if dtype == checked.dtype else current.new_empty(current.shape)
    run = layer, [spikes, *ended[: len(STATE)]], ended[len(STATE) :], call.trace_integrator
    _gpu.gpu_of("current", current).scan_forward(run, current)
    return spikes.to(dtype), *ended


def checked_current(call: Any) -> Checked:
    """A call whose currents are checked."""
    return Checked(half=_gpu.is_gpu(call.current)).rows(TABLE["src"], call)


def checked_call(call: Any) -> Checked:
    """A checked call."""
    return _layer.checked_layer(checked_current(call), call.layer)


def spikes_dtype(call: Any) -> torch.dtype:
    """The dtype of the spikes."""
    return call.current.dtype if call.half_spikes else work_dtype(call.current)


def new_outputs(call: Any, checked: Checked) -> tuple[Any, ...]:
    """Tensors for the outputs of a checked call."""
    outputs = _layer.empty_outputs(call.layer, checked, spikes_dtype(call))
    return *outputs, *_layer.empty_saved(call.layer, checked, call.save, traced(call))


@src.fake
def forward_fake(call: Any) -> tuple[Any, ...]:
    """The outputs' shapes."""
    return new_outputs(call, checked_call(call))


@src_backward.kernel("CPU", "CUDA")
def backward(call: Any) -> Any:
    """The kernel; ``output_mask`` tells which gradients of current and of WANTED are wanted."""
    current = call.current
    if not _gpu.is_gpu(current):
        return _layer.on_cpu(core.src_backward, checked_backward, call, OF_OPERATOR)
    checked = checked_backward(call)
    if traced(call) and call.grad_spikes is not None:  # these kernels work in the dtype of the computation
        call = call._replace(grad_spikes=call.grad_spikes.to(checked.dtype))
    run, gradients = _layer.backward_on_gpu(call, checked, [call.trace, call.checkpoints])
    given = None if traced(call) else contiguous(current)
    grad_current = _gpu.gpu_of("current", current).current_gradient(run, given)
    made = of_arguments(call.layer, gradients)
    return grad_current.to(current.dtype) if call.output_mask[0] else None, *made


def checked_backward(call: Any) -> Checked:
    """A checked backward call."""
    checked = _layer.checked_backward(call, checked_current(call), synapse=1, or_dtype=call.current.dtype)
    return _layer.checked_saved(call, checked, traced(call))


@src_backward.fake
def backward_fake(call: Any) -> tuple[Any, ...]:
    """The gradients' shapes."""
    current, made = call.current, _layer.empty_gradients(call, checked_backward(call))
    return current.new_empty(current.shape) if call.output_mask[0] else None, *made
