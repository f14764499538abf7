"""``src_events``: a linear synapse or a convolution on the events of an EventBatch, then the recurrence."""

from __future__ import annotations

from typing import Any

from . import _gpu, _layer
from ._acting import of_arguments
from ._convolution import OPTION, checked_synapse
from ._cpu import core, rows_of
from ._direct import Direct
from ._layer import OF_OPERATOR
from ._memory import contiguous
from ._table import Checked

operators = _layer.declare(
    "src_events",
    "SymInt steps, SymInt batch",
    wanted=["values", "weight"],
    defaulted=OPTION,
)

src_events, src_events_backward = operators[:2]
directly = Direct(operators, core.src_events, core.src_events_backward)


@src_events.kernel("CPU", "CUDA")
def forward(call: Any) -> Any:
    """The kernel; with ``trace_integrator`` the trace holds i, which the gradients of cell parameters need.

    A convolution keeps no trace; it has no kernels on a GPU.
    """
    weight = call.weight
    if not _gpu.is_gpu(weight):
        return _layer.on_cpu(core.src_events, checked_call, call, OF_OPERATOR)
    checked = checked_call(call)
    outputs = new_outputs(call, checked)
    refuse_convolution_on_gpu(call)
    run = _layer.layer_on_gpu(checked, call.layer), outputs[:-2], outputs[-2:], call.trace_integrator
    rows, gpu = rows_of(call), _gpu.gpu_of("weight", weight)
    gpu.events_forward(run, (rows.for_kernels(weight.shape[1]), None, None), contiguous(weight))
    return outputs


def checked_events(call: Any) -> Checked:
    """A call whose synapse is checked."""
    return checked_synapse("src_events", call, T=call.steps, B=call.batch)


def checked_call(call: Any) -> Checked:
    """A checked call."""
    return _layer.checked_layer(checked_events(call), call.layer)


def refuse_convolution_on_gpu(call: Any) -> None:
    """Raise for a convolution of events on a GPU."""
    if call.convolution:
        raise RuntimeError(
            f"weight: is on {call.weight.device}, where srcell has no convolution of events: use torch's"
        )


def new_outputs(call: Any, checked: Checked) -> tuple[Any, ...]:
    """Tensors for the outputs of a checked call."""
    saved = _layer.empty_saved(call.layer, checked, call.save, traced=not call.convolution)
    return *_layer.empty_outputs(call.layer, checked), *saved


@src_events.fake
def forward_fake(call: Any) -> tuple[Any, ...]:
    """The outputs' shapes."""
    return new_outputs(call, checked_call(call))


@src_events_backward.kernel("CPU", "CUDA")
def backward(call: Any) -> Any:
    """The kernel; ``output_mask`` tells which gradients of values, weight and WANTED are wanted."""
    weight = call.weight
    if not _gpu.is_gpu(weight):
        return _layer.on_cpu(core.src_events_backward, checked_backward, call, OF_OPERATOR)
    refuse_convolution_on_gpu(call)
    run, gradients = _layer.backward_on_gpu(call, checked_backward(call), [call.trace, call.checkpoints])
    gpu = _gpu.gpu_of("weight", weight)
    of_synapse = gpu.events_backward(run, rows_of(call), contiguous(weight), call.output_mask[:2])
    return *of_synapse, *of_arguments(call.layer, gradients)


def checked_backward(call: Any) -> Checked:
    """A checked backward call."""
    checked = _layer.checked_backward(call, checked_events(call), synapse=2)
    return _layer.checked_saved(call, checked, traced=not call.convolution)


@src_events_backward.fake
def backward_fake(call: Any) -> tuple[Any, ...]:
    """The gradients' shapes."""
    checked = checked_backward(call)
    weight, (want_values, want_weight) = call.weight, call.output_mask[:2]
    grad_values = weight.new_empty(call.indices.shape) if want_values else None
    grad_weight = weight.new_empty(weight.shape) if want_weight else None
    return grad_values, grad_weight, *_layer.empty_gradients(call, checked)
