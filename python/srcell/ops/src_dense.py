"""``src_dense``: a linear synapse or a convolution on a dense input, then the recurrence.

The synapse adds the weights of the nonzero inputs one by one, or uses torch's product, whichever is asked for or
expected to be faster. The backward operator uses the same method as the forward operator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from . import _gpu, _layer
from ._acting import of_arguments
from ._convolution import OPTION, convolve, convolve_backward, places, synapse_sizes
from ._cpu import core, empty, mask_shape
from ._direct import Direct
from ._layer import OF_OPERATOR, SAVED, WORK
from ._memory import address, contiguous, has_memory, zero_padding
from .src import backward as run_src_backward
from .src import forward as run_src
from .src import src, src_backward, traced
from .src_events import refuse_convolution_on_gpu

METHODS = ("auto", "events", "gemm")

# An event's index is an int32.
_MAX_EVENT_INPUTS = 2**31


def takes_events(input: Tensor, method: str, lengths: Tensor | None, convolution: Sequence[int] = ()) -> bool:
    """Whether to sum a contiguous input (T, B, K) by events; on a CPU "auto" measures the density of some rows.

    ``events_are_faster`` of csrc/bindings/layer.cpp has the cost model.
    """
    if method != "auto" or _gpu.is_gpu(input.device):
        return method == "events"
    ends = None if lengths is None else contiguous(lengths.to(torch.int64))
    sizes = input.dtype == torch.float64, input.shape, address(ends), address(input)
    return core.takes_events(*sizes, places(convolution))


def resolved(input: Tensor, lengths: Tensor | None, convolution: Sequence[int] = ()) -> str:
    """The method that "auto" stands for; still "auto" if a tensor is not valid or cannot be read."""
    valid = input.dim() == 3 and input.dtype in WORK and (lengths is None or lengths.shape == input.shape[1:2])
    if not valid or not has_memory(input) or not (lengths is None or has_memory(lengths)):
        return "auto"
    return "events" if takes_events(contiguous(input), "auto", lengths, convolution) else "gemm"


def options_of_gradient(call: Any, needs: Any) -> dict[str, Any]:
    """The options of a call whose gradient is needed, with "auto" resolved: its backward call uses the same method.

    A call that already has ``save`` comes from the call at an outer level of a transform. That one could not resolve
    "auto", so this one must not.
    """
    options = _layer.options_of_gradient(call, needs)
    if call.method == "auto" and not call.save:
        options["method"] = resolved(call.input, call.layer.lengths, call.convolution)
    return options


src_dense, src_dense_backward, gradient = _layer.declare(
    "src_dense",
    "Tensor input, Tensor weight",
    "str method, bool input_grad_at_events",
    wanted=["input", "weight"],
    kept=f"{SAVED}, Tensor mask, Tensor ones",
    defaulted=OPTION,
    options_of_gradient=options_of_gradient,
)


directly = Direct(src_dense, src_dense_backward, gradient, ["input", "weight"], core.src_dense, core.src_dense_backward)


@src_dense.kernel("CPU", "CUDA")
def forward(call: Any) -> tuple[Any, ...]:
    """The kernel. With ``save``, events keep a mask and whether all are 1; the product keeps the currents."""
    if _gpu.is_gpu(call.input.device):
        made = events_on_gpu(call) if call.method == "events" else by_product(call)
    else:
        made = _layer.on_cpu(core.src_dense, forward_fake, call, OF_OPERATOR) or by_product(call)
    if not call.save:
        return made
    *outputs, trace, checkpoints, mask, ones = made
    # With "auto" what is kept must suffice for either method.
    shapes = kept_shapes(call, check_synapse(call)[0])
    trace, checkpoints = _padded(trace, *shapes["trace"]), _padded(checkpoints, *shapes["checkpoints"])
    return *outputs, trace, checkpoints, mask, mask.new_full((), ones, dtype=torch.bool)


def _padded(x: Tensor, shape: tuple[int, ...], _: torch.dtype) -> Tensor:
    missing = shape[0] - x.numel()
    return functional.pad(x, (0, missing)) if missing else x


def events_on_gpu(call: Any) -> tuple[Any, ...]:
    """The outputs, by events; on a GPU nobody knows whether all of them are 1."""
    outputs, input, (sizes, like) = forward_fake(call), contiguous(call.input), check_synapse(call)
    refuse_convolution_on_gpu(call)
    spikes_and_state, (*saved, mask, _) = outputs[:-4], outputs[-4:]
    layer = _layer.layer_on_gpu(sizes, like, call.layer)
    run = layer, list(spikes_and_state), saved, call.trace_integrator
    _gpu.gpu_of("input", input).dense_forward(run, input, mask, contiguous(call.weight))
    return *outputs[:-1], False if call.save else None


def by_product(call: Any) -> tuple[Any, ...]:
    """The outputs, from currents of torch's product."""
    sizes, like = check_synapse(call)
    _layer.check_layer(sizes, like, call.layer)
    input, weight = contiguous(call.input), call.weight
    if call.convolution:
        current = convolve(input, weight, call.convolution)
    else:
        current = empty(weight, *sizes)
        torch.mm(input.flatten(0, 1), weight.t(), out=current.flatten(0, 1))
    *outputs, trace, checkpoints = run_src(src.record(current, call.layer, call.save, call.trace_integrator, False))
    if not call.save:
        return *outputs, None, None, None, None
    if not traced(call):
        trace = current.flatten()
    shape, _ = kept_shapes(call, current.shape)["mask"]
    mask = input.new_zeros(shape, dtype=torch.int64)
    return *outputs, trace, checkpoints, mask, False


def check_synapse(call: Any) -> tuple[_layer.Sizes, _layer.Like]:
    """Check input, weight and method; return T, B and N, and what the other arguments must have."""
    like = _layer.check_floats("input", call.input, "T, B, K")
    _layer.check_floats("weight", call.weight)
    (steps, batch, inputs), (expected, neurons) = call.input.shape, synapse_sizes(call)
    shape = call.weight.shape if call.convolution else (neurons, inputs)
    _layer.check_tensor("weight", call.weight, like, tuple(shape))
    if inputs != expected:
        raise ValueError(f"input: expected shape (T, B, {expected}), got {tuple(call.input.shape)}")
    if call.method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {call.method!r}")
    if inputs > _MAX_EVENT_INPUTS and call.method != "gemm":
        raise ValueError(f"input: expected K of at most 2^31 for events, got {inputs}")
    return (steps, batch, neurons), like


@src_dense.fake
def forward_fake(call: Any) -> tuple[Any, ...]:
    """The outputs' shapes."""
    sizes, like = check_synapse(call)
    _layer.check_layer(sizes, like, call.layer)
    outputs = _layer.empty_outputs(call.layer, sizes)
    if not call.save:
        return *outputs, None, None, None, None
    kept = kept_shapes(call, sizes).values()
    return *outputs, *(call.input.new_empty(shape, dtype=dtype) for shape, dtype in kept)


def kept_shapes(call: Any, sizes: _layer.Sizes) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """The shapes and dtypes of what is kept for the gradient; for "auto" it suffices for either method.

    The trace may be the product's currents. Checkpoints take more without a trace; there is one after events and with
    recurrent weights. The mask has rows only if the method may be events. A convolution of events keeps neither trace
    nor mask.
    """
    rows, words = mask_shape(call.input)
    by_events = call.method == "events" and not call.convolution
    _, checkpoints = _layer.saved_sizes(call.layer, sizes, by_events or traced(call))
    masked = by_events or (call.method == "auto" and not call.convolution and not _gpu.is_gpu(call.input.device))
    trace = 0 if call.method == "events" and call.convolution else math.prod(sizes)
    return {
        "trace": ((trace,), call.input.dtype),
        "checkpoints": ((checkpoints,), call.input.dtype),
        "mask": ((rows if masked else 0, words), torch.int64),
        "ones": ((), torch.bool),
    }


@src_dense_backward.kernel("CPU", "CUDA")
def backward(call: Any) -> tuple[Any, ...]:
    """The kernel. ``"auto"`` chooses the same method as forwards, because the input is the same."""
    (sizes, like), input, weight, of_layer = check_synapse(call), contiguous(call.input), call.weight, call.layer
    grads, (trace, checkpoints, mask, ones) = check_backward(call)
    want_input, want_weight = call.output_mask[:2]
    if takes_events(input, call.method, of_layer.lengths, call.convolution):
        of_trace, size = _layer.saved_sizes(of_layer, sizes, traced=not call.convolution)
        trace, checkpoints = trace[:of_trace], checkpoints[:size]  # of those that suffice for either method
        if not _gpu.is_gpu(input.device):
            call = call._replace(trace=trace, checkpoints=checkpoints)
            return _layer.on_cpu(core.src_dense_backward, check_backward, call, bool(ones), OF_OPERATOR)
        refuse_convolution_on_gpu(call)
        layer = _layer.layer_on_gpu(sizes, like, of_layer, backward=True)
        gradients = _layer.gradients_on_gpu(call, layer, 2)
        run = layer, grads, (trace, checkpoints), gradients
        wanted = want_input, want_weight, call.input_grad_at_events
        of_synapse = _gpu.gpu_of("input", input).dense_backward(run, input, mask, contiguous(weight), wanted)
        return *of_synapse, *of_arguments(of_layer, gradients)
    current, trace = trace.view(sizes), trace if traced(call) else trace[:0]
    kept = current, trace, checkpoints, of_layer, [True, *call.output_mask[2:]]
    grad_current, *others = run_src_backward(src_backward.record(*grads, *kept))
    summed = input if of_layer.lengths is None else zero_padding(input, of_layer.lengths)
    if call.convolution:
        return *convolve_backward(grad_current, summed, weight, call.convolution, (want_input, want_weight)), *others
    grad_input, grad_weight, rows = None, None, grad_current.flatten(0, 1)
    if want_weight:
        grad_weight = torch.mm(rows.t(), summed.flatten(0, 1), out=weight.new_empty(weight.shape))
    if want_input:
        grad_input = empty(input, *input.shape)
        torch.mm(rows, weight, out=grad_input.flatten(0, 1))
    return grad_input, grad_weight, *others


def check_backward(call: Any) -> tuple[list[Tensor | None], list[Tensor]]:
    """Check a backward call; return the gradients of its outputs and what the forward operator kept."""
    sizes, like = check_synapse(call)
    shapes, device = kept_shapes(call, sizes), call.input.device
    for name, (shape, dtype) in shapes.items():
        x = getattr(call, name)
        if (x.shape, x.dtype, x.device) != (shape, dtype, device):
            got = f"{x.dtype} of shape {tuple(x.shape)} on {x.device}"
            raise ValueError(f"{name}: expected {dtype} of shape {shape} on {device}, got {got}")
    grads = _layer.check_backward(call, sizes, like, synapse=2)
    return grads, [contiguous(getattr(call, name)) for name in shapes]


@src_dense_backward.fake
def backward_fake(call: Any) -> tuple[Any, ...]:
    """The gradients' shapes."""
    grads = _layer.empty_like((call.input, call.weight), call.output_mask[:2])
    return *grads, *_layer.empty_gradients(call, check_synapse(call)[0], 2)
