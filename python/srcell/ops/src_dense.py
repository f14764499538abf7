"""``src_dense``: a linear synapse on a dense input, then the recurrence.

The synapse adds the weights of the nonzero inputs one by one, or uses torch's matrix product, whichever is asked for or
expected to be faster. The backward operator uses the same method as the forward operator.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from . import _gpu, _layer
from ._cpu import core, mask_shape
from ._dense import check_dense_synapse, takes_events
from ._layer import SAVED, WORK
from ._memory import contiguous, has_memory, zero_padding
from .src import run_scan_backward

OPERATORS = _layer.declare(
    "src_dense",
    "Tensor input, Tensor weight",
    "str method, bool input_grad_at_events",
    wanted=["input", "weight"],
    kept=f"{SAVED}, Tensor mask, Tensor ones",
)
src_dense, src_dense_backward = OPERATORS.forward, OPERATORS.backward


@src_dense.kernel("CPU", "CUDA")
def forward(call: Any) -> tuple[Tensor | None, ...]:
    """The kernel. With ``save``, events keep a mask and whether all are 1; the product keeps the currents."""
    # With "auto" and ``save`` what is kept must suffice for either method.
    if not _gpu.is_gpu(call.input.device) and not (call.save and call.method == "auto"):
        made = core.src_dense(call, torch.get_num_threads())
        if made is None:
            return _layer.refuse(forward_fake, call)
        if made is not False:
            *made, ones = made
            return *made, made[-1].new_full((), ones, dtype=torch.bool) if call.save else None
        call = call._replace(method="gemm")
    (sizes, like), input, weight = check_synapse(call), contiguous(call.input), contiguous(call.weight)
    layer, backend = _layer.checked_layer(sizes, like, call.layer), _gpu.backend_of("input", input)
    outputs, by_events = _layer.empty_outputs(layer, backend), takes_events(input, call.method, layer.given.lengths)
    if not call.save:
        run = _layer.Forward(layer, outputs, (None, None), False)
        if by_events:
            backend.dense_forward(run, input, None, weight)
        else:
            backend.scan_forward(run, multiply(input, weight, backend.empty(layer.given.bias, *sizes)))
        return *outputs, None, None, None, None
    trace, checkpoints = (backend.empty(layer.given.bias, size) for size in kept_sizes(call, sizes))
    saved = traced_part(layer, trace, checkpoints)
    if by_events:
        if saved[1] is not checkpoints:
            checkpoints[saved[1].numel() :] = 0
        mask = backend.empty(input, *mask_shape(input), dtype=torch.int64)
        ones = backend.dense_forward(_layer.Forward(layer, outputs, saved, call.trace_integrator), input, mask, weight)
        return *outputs, trace, checkpoints, mask, mask.new_full((), ones, dtype=torch.bool)
    lateral = layer.given.weight_hh is not None
    current = multiply(input, weight, backend.empty(layer.given.bias, *sizes) if lateral else trace.view(sizes))
    saved = saved if lateral else (trace[:0], checkpoints)
    backend.scan_forward(_layer.Forward(layer, outputs, saved, call.trace_integrator), current)
    shapes = kept_shapes(call, sizes)
    unused = (input.new_zeros(shape, dtype=dtype) for shape, dtype in (shapes["mask"], shapes["ones"]))
    return *outputs, trace, checkpoints, *unused


def check_synapse(call: Any) -> tuple[_layer.Sizes, _layer.Like]:
    """Check input, weight and method; return T, B and N, and what the other arguments must have."""
    like = check_dense_synapse(call.input, call.weight, call.method)
    return (*call.input.shape[:2], call.weight.shape[0]), like


def multiply(input: Tensor, weight: Tensor, current: Tensor) -> Tensor:
    """Fill and return the currents of a contiguous input, by torch's matrix product."""
    torch.mm(input.flatten(0, 1), weight.t(), out=current.flatten(0, 1))
    return current


def kept_sizes(call: Any, sizes: _layer.Sizes) -> tuple[int, int]:
    """Elements of the trace, or of the product's currents, and of the checkpoints; for "auto" enough for either method.

    Checkpoints take more without a trace; there is a trace after events and with recurrent weights.
    """
    traced = call.method == "events" or call.layer.weight_hh is not None
    return math.prod(sizes), _layer.saved_sizes(_gpu.is_gpu(call.input.device), sizes, call.layer, traced)[1]


def traced_part(layer: _layer.Layer, trace: Tensor, checkpoints: Tensor) -> tuple[Tensor, Tensor]:
    """The trace, and the part of the checkpoints that is used beside a trace; "auto" allocates for either method."""
    size = _layer.saved_sizes(_gpu.is_gpu(layer.like.device), layer.sizes, layer.given, traced=True)[1]
    return trace, checkpoints if checkpoints.numel() == size else checkpoints[:size]


@src_dense.fake
def forward_fake(call: Any) -> tuple[Tensor | None, ...]:
    """The outputs' shapes."""
    sizes, like = check_synapse(call)
    _layer.check_layer(sizes, like, call.layer)
    outputs = _layer.fake_outputs(call.layer, *sizes)
    if not call.save:
        return *outputs, None, None, None, None
    kept = kept_shapes(call, sizes).values()
    return *outputs, *(call.input.new_empty(shape, dtype=dtype) for shape, dtype in kept)


def kept_shapes(call: Any, sizes: _layer.Sizes) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """The shapes and dtypes of what is kept for the gradient; the mask has rows only if the method may be events."""
    (rows, words), (trace, checkpoints) = mask_shape(call.input), kept_sizes(call, sizes)
    masked = call.method == "events" or (call.method == "auto" and not _gpu.is_gpu(call.input.device))
    return {
        "trace": ((trace,), call.input.dtype),
        "checkpoints": ((checkpoints,), call.input.dtype),
        "mask": ((rows if masked else 0, words), torch.int64),
        "ones": ((), torch.bool),
    }


@src_dense_backward.kernel("CPU", "CUDA")
def backward(call: Any) -> tuple[Tensor | None, ...]:
    """The kernel. ``"auto"`` chooses the same method as forwards, because the input is the same."""
    (sizes, like), input, weight = check_synapse(call), contiguous(call.input), contiguous(call.weight)
    _layer.check_output_mask(call.output_mask, 2)
    want_input, want_weight, *layer_mask = call.output_mask
    layer, backend = _layer.checked_layer(sizes, like, call.layer, backward=True), _gpu.backend_of("input", input)
    grads, (trace, checkpoints, mask, ones) = _layer.grads_of(call, sizes, like), kept_of(call, sizes)
    by_events = takes_events(input, call.method, layer.given.lengths)
    traced = by_events or layer.given.weight_hh is not None
    saved = traced_part(layer, trace, checkpoints) if traced else (trace[:0], checkpoints)
    if by_events:
        run = _layer.Backward(layer, grads, saved, _layer.empty_gradients(layer, layer_mask, backend))
        events = input, mask, not _gpu.is_gpu(input.device) and bool(ones)
        wanted = want_input, want_weight, call.input_grad_at_events
        return *backend.dense_backward(run, *events, weight, wanted), *run.gradients
    current = None if traced else trace.view(sizes)
    grad_current, gradients_of_layer = run_scan_backward(layer, grads, current, saved, layer_mask)
    grad_input, grad_weight, rows = None, None, grad_current.flatten(0, 1)
    if want_weight:
        summed = input if layer.given.lengths is None else zero_padding(input, layer.given.lengths)
        grad_weight = torch.mm(rows.t(), summed.flatten(0, 1), out=torch.empty_like(weight))
    if want_input:
        grad_input = backend.empty(input, *input.shape)
        torch.mm(rows, weight, out=grad_input.flatten(0, 1))
    return grad_input, grad_weight, *gradients_of_layer


def kept_of(call: Any, sizes: _layer.Sizes) -> list[Tensor]:
    """What the forward operator kept, from a backward call, checked and contiguous."""
    device, kept = call.input.device, []
    for name, (shape, dtype) in kept_shapes(call, sizes).items():
        x = getattr(call, name)
        if (x.shape, x.dtype, x.device) != (shape, dtype, device):
            got = f"{x.dtype} of shape {tuple(x.shape)} on {x.device}"
            raise ValueError(f"{name}: expected {dtype} of shape {shape} on {device}, got {got}")
        kept.append(contiguous(x))
    return kept


@src_dense_backward.fake
def backward_fake(call: Any) -> tuple[Tensor | None, ...]:
    """The gradients' shapes."""
    wanted = zip((call.input, call.weight), call.output_mask[:2], strict=True)
    grads = [_layer.empty_like(x) if want else None for x, want in wanted]
    return *grads, *_layer.fake_gradients(call, call.input.shape[1], call.weight.shape[0], call.output_mask[2:])


def options_of_dense_gradient(call: Any, needs: Any) -> dict[str, Any]:
    """The options of a call whose gradient is needed, with "auto" resolved: its backward call uses the same method.

    A call that already has ``save`` comes from the call at an outer level of a transform. That one could not resolve
    "auto", so this one must not.
    """
    options, input, lengths = _layer.options_of_gradient(call, needs), call.input, call.layer.lengths
    valid = input.dim() == 3 and input.dtype in WORK and (lengths is None or lengths.shape == input.shape[1:2])
    readable = has_memory(input) and (lengths is None or has_memory(lengths))
    if call.method == "auto" and valid and not call.save and readable:
        options["method"] = "events" if takes_events(contiguous(input), "auto", lengths) else "gemm"
    return options


gradient = _layer.differentiate(OPERATORS, options=options_of_dense_gradient)
