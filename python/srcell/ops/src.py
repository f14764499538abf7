"""``src``: the recurrence on given currents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _gpu, _layer
from ._cpu import core
from ._memory import Optionals, contiguous

OPERATORS = _layer.declare("src", "Tensor current", wanted=["current"], forwards="bool half_spikes=False")
src, src_backward = OPERATORS.forward, OPERATORS.backward


@src.kernel("CPU", "CUDA")
def forward(call: Any) -> tuple[Tensor | None, ...]:
    """The kernel.

    ``save`` is set if a gradient may be needed; without it trace and checkpoints are empty. With ``half_spikes`` the
    spikes have the dtype of half-precision currents.
    """
    if not _gpu.is_gpu(call.current.device):
        made: tuple[Tensor | None, ...] | None = core.src(call, torch.get_num_threads())
        return made or _layer.refuse(forward_fake, call)
    layer = _layer.checked_layer(call.current.shape, check_current(call), call.layer)
    current, dtype = contiguous(call.current), spikes_dtype(call)
    if layer.given.weight_hh is None:
        outputs, saved = run_scan(layer, current, call, dtype)
    else:
        (spikes, *state), saved = run_scan(layer, current.to(layer.like.dtype), call, layer.like.dtype)
        outputs = [spikes.to(dtype), *state]
    return *outputs, *saved


def check_current(call: Any) -> _layer.Like:
    """Check the currents' dimensions and dtype."""
    return _layer.check_floats("current", call.current, "T, B, N", half=_gpu.is_gpu(call.current.device))


def spikes_dtype(call: Any) -> torch.dtype:
    """The dtype of the spikes."""
    return call.current.dtype if call.half_spikes else _layer.work_dtype(call.current)


def run_scan(layer: _layer.Layer, current: Tensor, call: Any, dtype: torch.dtype) -> tuple[list[Any], Optionals]:
    """Run a checked layer on contiguous currents; return spikes (of ``dtype``) and state, and trace and checkpoints."""
    backend = _gpu.backend_of("current", current)
    outputs = _layer.empty_outputs(layer, backend, dtype)
    saved = _layer.empty_saved(layer, backend, call.save, traced=layer.given.weight_hh is not None)
    backend.scan_forward(_layer.Forward(layer, outputs, saved, call.trace_integrator), current)
    return outputs, saved


@src.fake
def forward_fake(call: Any) -> tuple[Tensor | None, ...]:
    """The outputs' shapes."""
    sizes = call.current.shape
    _layer.check_layer(sizes, check_current(call), call.layer)
    spikes, *ended = _layer.fake_outputs(call.layer, *sizes)
    return (
        spikes.to(spikes_dtype(call)),
        *ended,
        *_layer.fake_saved(call.layer, sizes, call.save, call.layer.weight_hh is not None),
    )


@src_backward.kernel("CPU", "CUDA")
def backward(call: Any) -> tuple[Tensor | None, ...]:
    """The kernel; ``output_mask`` tells which gradients of current and of WANTED are wanted."""
    current, like = call.current, check_current(call)
    _layer.check_output_mask(call.output_mask, 1)
    layer = _layer.checked_layer(current.shape, like, call.layer, backward=True)
    traced = layer.given.weight_hh is not None
    grads, saved = _layer.grads_of(call, layer.sizes, like, current.dtype), _layer.saved_of(call, layer, traced)
    given = None if traced else contiguous(current)
    if traced:  # these kernels work in the dtype of the computation
        grads = [None if x is None else x.to(like.dtype) for x in grads]
    want_current, *layer_mask = call.output_mask
    grad_current, gradients = run_scan_backward(layer, grads, given, saved, layer_mask)
    return grad_current.to(current.dtype) if want_current else None, *gradients


def run_scan_backward(
    layer: _layer.Layer,
    grads: Optionals,
    current: Tensor | None,
    saved: Optionals,
    output_mask: Sequence[bool],
) -> tuple[Tensor, Optionals]:
    """The gradients of the currents, in their dtype, and of a checked layer; with a trace ``current`` is None."""
    like = layer.given.bias if current is None else current
    backend = _gpu.backend_of("current", like)
    gradients, grad_current = _layer.empty_gradients(layer, output_mask, backend), backend.empty(like, *layer.sizes)
    backend.scan_backward(_layer.Backward(layer, grads, saved, gradients), current, grad_current)
    return grad_current, gradients


@src_backward.fake
def backward_fake(call: Any) -> tuple[Tensor | None, ...]:
    """The gradients' shapes."""
    current, (want_current, *layer_mask) = call.current, call.output_mask
    _, batch, neurons = current.shape
    made = _layer.fake_gradients(call, batch, neurons, layer_mask)
    return current.new_empty(current.shape) if want_current else None, *made


def keep_current(call: Any) -> dict[str, Any]:
    """Keep the currents; with recurrent weights only their shape, because the trace has what the gradient needs."""
    if call.layer.weight_hh is None:  # the checkpoints have the initial state
        return {"state": []}
    return {"current": call.current.new_empty(()).expand(call.current.shape), **_layer.keep(call)}


_layer.differentiate(OPERATORS, keep=keep_current)
