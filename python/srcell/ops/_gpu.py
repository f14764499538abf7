"""The GPU backend: calls the CUDA kernels of ``srcell._cuda`` on the caller's stream, without synchronising.

Operators use it; it takes checked, contiguous tensors.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._shared.parameters import PARAMETERS
from ._cpu import EventRows, core, mask_shape, rows_of
from ._memory import Optionals, address
from ._product import multiply


class Layer(NamedTuple):
    """The layer of a call, of neurons or of integer neurons, as kernels take it."""

    sizes: tuple[int, ...]
    """T, B and N."""
    given: Any
    """The ``LayerArguments``, of integer neurons the call, checked and contiguous: kernels use the addresses of their
    tensors.
    """
    struct: Any
    """The struct that kernels take, with these addresses."""
    turn: Tensor | None = None
    """Of resonant neurons: their turn, whose address the struct has."""


Forward = tuple[Layer, Sequence[Any], Optionals, bool]
"""A layer; what its forward kernels fill, unless None: outputs (spikes, STATE), and what is kept (trace, checkpoints);
and ``trace_integrator``.
"""
Backward = tuple[Layer, Optionals, Optionals, Optionals]
"""A layer, the gradients of spikes and STATE, what was kept, and GRADIENTS, which backward kernels fill unless None."""

OF_CELL = -len(PARAMETERS)  # where the gradients of cell parameters begin


class Gpu:
    """Runs the kernels of a layer on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def launch(self, name: str, *arguments: Any) -> None:
        """Launch a kernel on the device's current stream; tensors are passed as their addresses."""
        kernel = getattr(cuda_module(), name)
        with torch.cuda.device(self.device):
            queue = torch.cuda.current_device(), torch.cuda.current_stream().cuda_stream
            kernel(queue, *map(plain, arguments))

    def make_turn(self, struct: core.Layer, bias: Tensor) -> Tensor:
        """The turn of resonant neurons, (2, 1) or (2, N); the struct then has its address."""
        turn = bias.new_empty(2, struct.turns)
        struct.device_turn = address(turn)
        self.launch("make_turn", struct)
        return turn

    def scan_forward(self, run: Forward, current: Tensor) -> None:
        """Fill spikes, state, trace and checkpoints from given currents.

        Without recurrent weights the currents may be half precision; with recurrent weights they may not, but they may
        lie in the memory of the spikes.
        """
        layer, outputs, saved, trace_integrator = run
        if layer.given.weight_hh is None:
            elements = _elements(current, outputs[0])
            return self.launch("scan_forward", layer.struct, outputs, current, *elements, saved)
        weight_t = layer.given.weight_hh.t().contiguous()
        self.launch("lateral_forward", layer.struct, outputs, current, weight_t, saved, trace_integrator)

    def current_gradient(self, run: Backward, current: Tensor | None = None) -> Tensor:
        """Fill the gradients of a layer; return that of its currents, which are given unless there is a trace."""
        layer, grads, saved, gradients = run
        bias = layer.given.bias
        grad_current: Tensor = bias.new_empty(layer.sizes, dtype=None if current is None else current.dtype)
        # Sums over time: the gradient of the bias alone, or those of all parameters.
        of_cell = any(x is not None for x in gradients[OF_CELL:])
        partials = bias.new_empty(1 + len(layer.given.constants) * of_cell, *layer.sizes[1:])
        filled = layer.struct, grads, gradients, partials
        if layer.given.weight_hh is None:
            if current is None:
                self.launch("events_backward", *filled, saved, grad_current)
            else:
                self.launch("scan_backward", *filled, current, *_elements(current, grads[0]), saved, grad_current)
            return grad_current
        weight_t, (grad_weight_hh, grad_factors, *_) = layer.given.weight_hh.t().contiguous(), gradients
        scratch = bias.new_empty(cuda_module().lateral_rows(layer.turn is not None), *layer.sizes[1:])
        # The input of the recurrent weights: at step t the spikes of step t-1.
        elements = None if grad_weight_hh is None else bias.new_empty(layer.sizes)
        of_factors = None if grad_factors is None else bias.new_empty(layer.sizes[1], *grad_factors.shape)
        self.launch("lateral_backward", *filled, saved, weight_t, scratch, grad_current, elements, of_factors)
        if elements is not None and grad_weight_hh is not None:
            if layer.given.past_steps:
                sums = bias.new_empty(cuda_module().weight_groups(*layer.sizes[1:]), *weight_t.shape)
                self.launch("delayed_weight", layer.struct, elements, grad_current, sums, grad_weight_hh)
            else:
                mask = self.fill_mask(elements, None)
                grad_weight_hh.copy_(self.masked_weight_gradient(layer, elements, mask, grad_weight_hh, grad_current))
        return grad_current

    def dense_forward(self, run: Forward, input: Tensor, mask: Tensor | None, weight: Tensor) -> None:
        """``events_forward`` on the nonzero elements of a contiguous dense input; fill their mask, if one is given."""
        mask = self.fill_mask(input, run[0].given.lengths, mask)
        self.events_forward(run, (core.EventRows(0, 0, 0, 0, weight.shape[1]), mask, input), weight)

    def events_forward(self, run: Forward, events: Sequence[Any], weight: Tensor) -> None:
        """Fill spikes, state, trace and checkpoints after a linear synapse; the events are rows, or mask and input."""
        (layer, outputs, *kept), weight_t = run, weight.t().contiguous()
        if layer.given.weight_hh is not None:
            self.launch("event_currents", layer.struct, *events, weight_t, outputs[0])
            return self.scan_forward(run, outputs[0])
        self.launch("events_forward", layer.struct, outputs, *events, weight_t, *kept)

    def events_backward(
        self, run: Backward, rows: EventRows, weight: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Fill the gradients of a layer; return the gradients of values and weight, None if not wanted."""
        return self.synapse_gradients(run[0], rows, weight, self.current_gradient(run), wanted)

    def dense_backward(
        self, run: Backward, input: Tensor, mask: Tensor, weight: Tensor, product_dtype: str, wanted: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """``events_backward`` on a dense input; ``wanted`` ends with whether its gradient is needed only at events."""
        want_input, want_weight, at_events = wanted
        grad_current = self.current_gradient(run)
        grad_input = grad_weight = None
        if want_weight:
            grad_weight = self.masked_weight_gradient(run[0], input, mask, weight, grad_current)
        if want_input:
            grad_input = input.new_empty(*input.shape)
            multiply(grad_current.flatten(0, 1), weight, product_dtype, grad_input.flatten(0, 1))
            if at_events:
                grad_input.masked_fill_(input == 0, 0)
        return grad_input, grad_weight

    def synapse_gradients(
        self, layer: Layer, rows: EventRows, weight: Tensor, grad_current: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of values and weight, from the gradient of the currents; None if not wanted."""
        grad_values, grad_weight, (want_values, want_weight) = None, None, wanted
        if not (want_values or want_weight):
            return grad_values, grad_weight
        count, inputs = rows.indices.shape[0], weight.shape[1]
        events, columns_shape = rows.for_kernels(inputs), self._columns_shape(layer, inputs)
        # Columns need no sort; use them from four events per five words of columns on (bench/NOTES.md).
        by_columns = want_weight and rows.values is None and 4 * math.prod(columns_shape) <= 5 * count
        if by_columns:
            counts = torch.zeros(*columns_shape, 4, dtype=torch.int32, device=weight.device)
            self.launch("event_columns", layer.struct.shape, events, counts)
            grad_weight = self._weight_gradient(layer, weight, events, grad_current, counts=counts)
            if not want_values:
                return grad_values, grad_weight
        groups, stride = cuda_module().weight_groups(*layer.sizes[1:]), cuda_module().key_stride(layer.struct.shape)
        narrow = groups * inputs * stride < torch.iinfo(torch.int32).max
        dtype = torch.int32 if narrow else torch.int64
        by_keys = want_weight and not by_columns
        keys = torch.full_like(rows.indices, torch.iinfo(dtype).max, dtype=dtype) if by_keys else None
        positions = torch.full_like(rows.indices, -1, dtype=torch.int64)
        self.launch("event_keys", layer.struct.shape, events, keys, narrow, positions)
        if want_values:
            grad_values = weight.new_empty(count)
            weight_t = weight.t().contiguous()
            self.launch("event_dots", layer.struct, events, positions, weight_t, grad_current, grad_values)
        if keys is not None:
            # Events with equal keys belong to one segment; a stable sort keeps them in the order of their steps.
            sorted_keys, order = keys.sort(stable=True)
            bounds = torch.arange(groups * inputs + 1, dtype=dtype, device=weight.device) * stride
            starts = torch.searchsorted(sorted_keys, bounds)
            values = None if rows.values is None else rows.values[order]
            in_order = {"starts": starts, "positions": positions[order], "values": values}
            grad_weight = self._weight_gradient(layer, weight, events, grad_current, **in_order)
        return grad_values, grad_weight

    def masked_weight_gradient(
        self, layer: Layer, input: Tensor, mask: Tensor, weight: Tensor, grad_current: Tensor
    ) -> Tensor:
        """The gradient of the weight, from a dense input and its mask."""
        inputs = input.shape[2]
        columns = input.new_empty(*self._columns_shape(layer, inputs), dtype=torch.int32)
        self.launch("mask_columns", dense_rows(input, None, mask), columns)
        no_rows = core.EventRows(0, 0, 0, 0, inputs)
        return self._weight_gradient(layer, weight, no_rows, grad_current, columns=columns, elements=input)

    @staticmethod
    def _columns_shape(layer: Layer, inputs: int) -> tuple[int, int, int]:
        """The shape of columns: a word for each segment of each input of a sample."""
        steps, batch, _ = layer.sizes
        return batch, -(-steps // core.event_segment), inputs

    def _weight_gradient(
        self, layer: Layer, weight: Tensor, rows: core.EventRows, grad_current: Tensor, **events: Tensor | None
    ) -> Tensor:
        """The gradient of a weight of this shape and dtype, from one of three forms of the events.

        Sorted events: ``starts``, ``positions``, ``values``; columns of event rows: ``counts``; columns of a dense
        input: ``columns``, ``elements``.
        """
        is_double, made = weight.dtype == torch.float64, torch.empty_like(weight)
        groups = cuda_module().weight_groups(*layer.sizes[1:])
        partials = weight.new_empty(groups, weight.shape[1], weight.shape[0])
        given = [events.get(name) for name in ("starts", "positions", "values", "counts", "columns", "elements")]
        self.launch("weight_gradient", is_double, layer.struct.shape, rows, grad_current, *given, partials, made)
        return made

    def integer_forward(self, layer: Layer, outputs: Sequence[Tensor], slopes: Tensor | None, clamped: Tensor) -> None:
        """Fill spikes, state and slopes of integer neurons; add up how often an i was clamped."""
        given, inputs, mask = layer.given, layer.given.weight.shape[1], None
        if given.input is None:
            rows = rows_of(given).for_kernels(inputs)
        else:
            rows, mask = core.EventRows(0, 0, 0, 0, inputs), self.fill_mask(given.input, given.lengths)
        synapse = rows, mask, given.weight.t().contiguous(), given.scale, given.rho
        self.launch("integer_forward", layer.struct, outputs, given.floats, *synapse, slopes, clamped)

    def integer_backward(
        self, layer: Layer, grad_spikes: Tensor, slopes: Tensor, *, want_weight: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The gradients of the currents and of the integer weights, None if not wanted."""
        given, grad_current = layer.given, slopes.new_empty(slopes.shape)
        self.launch("integer_backward", layer.struct, slopes, grad_spikes, grad_current)
        if not want_weight:
            return grad_current, None
        weight = slopes.new_empty(given.weight.shape)
        if given.input is None:
            return grad_current, self.synapse_gradients(layer, rows_of(given), weight, grad_current, (False, True))[1]
        mask = self.fill_mask(given.input, given.lengths)
        return grad_current, self.masked_weight_gradient(layer, given.input, mask, weight, grad_current)

    def fill_mask(self, input: Tensor, lengths: Tensor | None, mask: Tensor | None = None) -> Tensor:
        """Fill and return the mask of a dense input: which of its elements are not 0."""
        mask = input.new_empty(mask_shape(input), dtype=torch.int64) if mask is None else mask
        self.launch("mask_elements", dense_rows(input, lengths, mask))
        return mask


def _elements(current: Tensor, spikes: Tensor | None) -> tuple[Any, bool]:
    """The element type of the currents, and whether the spikes (or their gradient) have the same half precision."""
    element = cuda_module().Element
    half = {torch.float16: element.float16, torch.bfloat16: element.bfloat16}.get(current.dtype)
    if half is None:
        return element.same, False
    return half, spikes is not None and spikes.dtype == current.dtype


def dense_rows(input: Tensor, lengths: Tensor | None, mask: Tensor) -> core.DenseRows:
    """The struct that kernels take for a dense input; the caller must keep the tensors alive while they run."""
    return core.DenseRows(input.dtype == torch.float64, input.shape, address(lengths), address(input), address(mask))


def plain(argument: Any) -> Any:
    """An argument as a kernel takes it: tensors, None and lists of both as addresses, anything else unchanged."""
    if argument is None or isinstance(argument, Tensor):
        return address(argument)
    lists = isinstance(argument, (list, tuple)) and (argument[0] is None or isinstance(argument[0], Tensor))
    return [address(x) for x in argument] if lists else argument


def is_gpu(x: Tensor | None) -> bool:
    """Whether a tensor is on a device of the type that the CUDA kernels run on."""
    return x is not None and x.device.type == "cuda"


def gpu_of(name: str, x: Tensor) -> Gpu:
    """The backend of the GPU that an argument is on; raise if this build has no CUDA kernels."""
    try:
        cuda_module()
    except ImportError as error:
        raise RuntimeError(
            f"{name}: is on {x.device}, for which this build of srcell has no kernels ({error}); "
            "build it where nvcc is found: SRCELL_CUDA=ON pip install --no-binary srcell srcell"
        ) from error
    return Gpu(x.device)


@functools.cache
def cuda_module() -> Any:
    """The compiled module of the CUDA kernels, loaded when the first tensor on a GPU needs it."""
    return importlib.import_module("srcell._cuda")


def cuda_info() -> str | None:
    """The runtime and architectures that the CUDA module was built for; None without the module."""
    try:
        module = cuda_module()
    except ImportError:
        return None
    runtime = module.runtime
    return f"runtime {runtime // 1000}.{runtime % 1000 // 10}, architectures {module.architectures}"
