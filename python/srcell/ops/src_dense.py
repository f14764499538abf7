"""``src_dense``: a linear synapse or a convolution on a dense input, then the recurrence.

The synapse adds the weights of the nonzero inputs one by one, or uses torch's product, whichever is asked for or
expected to be faster. The backward operator uses the same method as the forward operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .._shared.arguments import check_choice, has_memory
from . import _convolution, _gpu, _layer, _product
from ._acting import of_arguments
from ._convolution import checked_synapse, convolve, convolve_backward, places
from ._cpu import core, empty, mask_shape
from ._direct import Direct
from ._layer import OF_OPERATOR
from ._memory import address, contiguous, zero_padding
from ._product import lowered, multiply
from ._table import TABLE, WORK, Checked
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
    if method != "auto" or _gpu.is_gpu(input):
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


operators = _layer.declare(
    "src_dense",
    "str method, bool input_grad_at_events",
    wanted=["input", "weight"],
    kept=TABLE["kept"],
    defaulted=f"{_convolution.OPTION}, {_product.OPTION}",
    options_of_gradient=options_of_gradient,
)

src_dense, src_dense_backward = operators[:2]
directly = Direct(operators, core.src_dense, core.src_dense_backward)


@src_dense.kernel("CPU", "CUDA")
def forward(call: Any) -> Any:
    """The kernel. With ``save``, events keep a mask and whether all are 1; the product keeps the currents."""
    if _gpu.is_gpu(call.input):
        made = events_on_gpu(call) if call.method == "events" else by_product(call)
    else:
        made = _layer.on_cpu(core.src_dense, checked_call, call, OF_OPERATOR) or by_product(call)
    if not call.save:
        return made
    *outputs, trace, checkpoints, mask, ones = made
    # With "auto" what is kept must suffice for either method.
    shapes = kept_shapes(call, checked_dense(call))
    trace, checkpoints = (_padded(x, *shape) for x, shape in zip((trace, checkpoints), shapes, strict=False))
    return *outputs, trace, checkpoints, mask, mask.new_full((), ones, dtype=torch.bool)


def _padded(x: Tensor, size: int) -> Tensor:
    return functional.pad(x, (0, size - x.numel())) if size != x.numel() else x


def events_on_gpu(call: Any) -> tuple[Any, ...]:
    """The outputs, by events; whether all are 1 is not computed on a GPU."""
    checked, input = checked_call(call), contiguous(call.input)
    refuse_convolution_on_gpu(call)
    outputs = new_outputs(call, checked)
    spikes_and_state, (*saved, mask, _) = outputs[:-4], outputs[-4:]
    layer = _layer.layer_on_gpu(checked, call.layer)
    run = layer, list(spikes_and_state), saved, call.trace_integrator
    _gpu.gpu_of("input", input).dense_forward(run, input, mask, contiguous(call.weight))
    return *outputs[:-1], False if call.save else None


def by_product(call: Any) -> tuple[Any, ...]:
    """The outputs, from currents of torch's product."""
    checked = checked_call(call)
    input, weight = contiguous(call.input), call.weight
    dtype = call.product_dtype
    if call.convolution:
        current = convolve(lowered(input, dtype), lowered(weight, dtype), call.convolution).to(weight.dtype)
    else:
        current = empty(weight, *checked["TBN"])
        multiply(input.flatten(0, 1), weight.t(), dtype, current.flatten(0, 1))
    *outputs, trace, checkpoints = run_src(src.record(current, call.layer, call.save, call.trace_integrator, False))
    if not call.save:
        return *outputs, None, None, None, None
    if not traced(call):
        trace = current.flatten()
    mask = input.new_zeros(kept_shapes(call, checked)[2], dtype=torch.int64)
    return *outputs, trace, checkpoints, mask, False


def checked_dense(call: Any) -> Checked:
    """A call whose synapse and method are checked."""
    checked = checked_synapse("src_dense", call)
    check_choice("method", call.method, METHODS)
    check_choice("product_dtype", call.product_dtype, _product.DTYPES)
    if checked.letters["K"] > _MAX_EVENT_INPUTS and call.method != "gemm":
        raise ValueError(f"input: expected K of at most 2^31 for events, got {checked.letters['K']}")
    return checked


def checked_call(call: Any) -> Checked:
    """A checked call."""
    return _layer.checked_layer(checked_dense(call), call.layer)


def new_outputs(call: Any, checked: Checked) -> tuple[Any, ...]:
    """Tensors for the outputs of a checked call."""
    outputs = _layer.empty_outputs(call.layer, checked)
    if not call.save:
        return *outputs, None, None, None, None
    rows = zip(TABLE["kept"], kept_shapes(call, checked), strict=True)
    return *outputs, *(call.input.new_empty(shape, dtype=checked.dtype_of(row)) for row, shape in rows)


@src_dense.fake
def forward_fake(call: Any) -> tuple[Any, ...]:
    """The outputs' shapes."""
    return new_outputs(call, checked_call(call))


def kept_shapes(call: Any, checked: Checked) -> list[tuple[int, ...]]:
    """The shapes of what is kept for the gradient; for "auto" it suffices for either method.

    The trace may be the product's currents. Checkpoints take more without a trace; there is one after events and with
    recurrent weights. The mask has rows only if the method may be events. A convolution of events keeps neither trace
    nor mask.
    """
    by_events, linear = call.method == "events", not call.convolution
    _layer.saved_shapes(checked, call.layer, (by_events and linear) or traced(call))
    rows, words = mask_shape(call.input)
    masked = linear and (by_events or (call.method == "auto" and not _gpu.is_gpu(call.input)))
    checked.letters.update(X=int(linear or not by_events), R=rows if masked else 0, W=words)
    return [checked.shape(row) for row in TABLE["kept"]]


@src_dense_backward.kernel("CPU", "CUDA")
def backward(call: Any) -> Any:
    """The kernel. ``"auto"`` chooses the same method as forwards, because the input is the same."""
    checked = checked_backward(call)
    input, weight, of_layer = contiguous(call.input), call.weight, call.layer
    trace, checkpoints = call.trace, call.checkpoints
    want_input, want_weight = call.output_mask[:2]
    if takes_events(input, call.method, of_layer.lengths, call.convolution):
        # What is kept suffices for either method; this one needs the beginning.
        (of_trace,), (size,) = _layer.saved_shapes(checked, of_layer, traced=not call.convolution)
        trace, checkpoints = trace[:of_trace], checkpoints[:size]
        if not _gpu.is_gpu(input):
            call = call._replace(trace=trace, checkpoints=checkpoints)
            made = _layer.on_cpu(core.src_dense_backward, checked_backward, call, bool(call.ones), OF_OPERATOR)
            return _after_kernel(call, *made)
        refuse_convolution_on_gpu(call)
        run, gradients = _layer.backward_on_gpu(call, checked, [trace, checkpoints])
        wanted, tensors = (
            (want_input, want_weight, call.input_grad_at_events),
            (contiguous(call.mask), contiguous(weight), call.product_dtype),
        )
        of_synapse = _gpu.gpu_of("input", input).dense_backward(run, input, *tensors, wanted)
        return *of_synapse, *of_arguments(of_layer, gradients)
    current, trace = trace.reshape(checked["TBN"]), trace if traced(call) else trace[:0]
    kept = current, trace, checkpoints, of_layer, [True, *call.output_mask[2:]]
    grad_current, *others = run_src_backward(src_backward.record(*call[: len(_layer.OUTPUT)], *kept))
    summed = input if of_layer.lengths is None else zero_padding(input, of_layer.lengths)
    dtype = call.product_dtype
    if call.convolution:
        current, summed, kernel = (lowered(x, dtype) for x in (grad_current, summed, weight))
        made = convolve_backward(current, summed, kernel, call.convolution, (want_input, want_weight))
        return *(None if x is None else x.to(weight.dtype) for x in made), *others
    grad_input, grad_weight, rows = None, None, lowered(grad_current.flatten(0, 1), dtype)
    if want_weight:
        grad_weight = weight.new_empty(weight.shape)
        multiply(rows.t(), summed.flatten(0, 1), dtype, grad_weight)
    if want_input:
        grad_input = empty(input, *input.shape)
        multiply(rows, weight, dtype, grad_input.flatten(0, 1))
    return grad_input, grad_weight, *others


def _after_kernel(call: Any, grad_input: Tensor | None, *others: Any) -> tuple[Any, ...]:
    """The gradients; the kernel leaves a product in another dtype to torch, and returns the currents' in its place."""
    if grad_input is None or not _leaves_product(call):
        return grad_input, *others
    grad_current, grad_input = grad_input, empty(call.input, *call.input.shape)
    multiply(grad_current.flatten(0, 1), call.weight, call.product_dtype, grad_input.flatten(0, 1))
    return grad_input, *others


def _leaves_product(call: Any) -> bool:
    """Whether the backward kernel leaves the product for the gradient of the input to torch."""
    return bool(call.product_dtype) and not call.input_grad_at_events and not call.convolution


def checked_backward(call: Any) -> Checked:
    """A checked backward call."""
    checked = _layer.checked_backward(call, checked_dense(call), synapse=2)
    kept_shapes(call, checked)
    return checked.rows(TABLE["kept"], call)


@src_dense_backward.fake
def backward_fake(call: Any) -> tuple[Any, ...]:
    """The gradients' shapes."""
    checked = checked_backward(call)
    grads = _layer.empty_like((call.input, call.weight), call.output_mask[:2])
    return *grads, *_layer.empty_gradients(call, checked)
