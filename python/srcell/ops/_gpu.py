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

from .._parameters import PARAMETERS
from ._cpu import EventRows, core, mask_shape
from ._memory import Optionals, address, addresses


class Layer(NamedTuple):
    """The layer of a call, as kernels take it."""

    sizes: tuple[int, ...]
    """T, B and N."""
    like: Any
    """The argument whose dtype and device all tensors have, a ``Like``."""
    given: Any
    """The ``LayerArguments``, checked and contiguous: kernels use the addresses of their tensors."""
    struct: core.Layer
    """The struct that kernels take, with these addresses."""
    turn: Tensor | None
    """Of resonant neurons: their turn, whose address the struct has."""


class IntegerLayer(NamedTuple):
    """The layer of integer neurons of a call with its input, checked and contiguous.

    Attributes:
        sizes: T, B and N.
        rows: the events, or None for a dense input.
        input, weight, scale, state, lengths: as in the schema; kept alive while kernels have their addresses.
        rho: as in the schema.
        struct: the layer as kernels take it.

    """

    sizes: tuple[int, ...]
    rows: EventRows | None
    input: Tensor | None
    weight: Tensor
    scale: Tensor | None
    state: list[Tensor]
    lengths: Tensor | None
    rho: float
    struct: core.IntegerLayer


class Forward(NamedTuple):
    """What forward kernels fill, unless None: ``outputs`` (spikes, STATE) and ``saved`` (trace, checkpoints)."""

    layer: Layer
    outputs: Sequence[Any]
    saved: Optionals
    trace_integrator: bool


class Backward(NamedTuple):
    """What backward kernels take (``grads`` of spikes and STATE; ``saved``) and fill (GRADIENTS, unless None)."""

    layer: Layer
    grads: Optionals
    saved: Optionals
    gradients: Optionals

    @property
    def sums(self) -> int:
        """The number of gradients per neuron to sum over time: the bias's alone, or those of all parameters."""
        wanted = any(x is not None for x in self.gradients[OF_CELL:])
        return 1 + len(self.layer.given.constants) if wanted else 1


OF_CELL = -len(PARAMETERS)  # where the gradients of cell parameters begin


class Gpu:
    """Runs the kernels of a layer on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @staticmethod
    def empty(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Uninitialised contiguous tensor on the GPU of ``like``, of its dtype unless another is given."""
        return like.new_empty(*shape, dtype=dtype)

    def launch(self, name: str, *arguments: Any) -> None:
        """Launch a kernel on the device's current stream; tensors are passed as their addresses."""
        kernel = getattr(cuda_module(), name)
        with torch.cuda.device(self.device):
            queue = torch.cuda.current_device(), torch.cuda.current_stream().cuda_stream
            kernel(queue, *map(plain, arguments))

    def make_turn(self, struct: core.Layer, bias: Tensor) -> Tensor:
        """The turn of resonant neurons, (2, 1) or (2, N); the struct then has its address."""
        turn = self.empty(bias, 2, struct.turns)
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

    def scan_backward(self, run: Backward, current: Tensor | None, grad_current: Tensor) -> None:
        """Fill the gradients of a layer and of its currents; ``current`` is None if there is a trace."""
        layer, grads, saved, gradients = run
        partials = self.empty(layer.given.bias, run.sums, *layer.sizes[1:])
        if layer.given.weight_hh is None:
            assert current is not None
            by_current = (current, *_elements(current, grads[0]), saved, grad_current)
            return self.launch("scan_backward", layer.struct, grads, gradients, partials, *by_current)
        weight_t, grad_weight_hh = layer.given.weight_hh.t().contiguous(), gradients[0]
        rows = cuda_module().lateral_rows(layer.turn is not None)
        scratch = self.empty(layer.given.bias, rows, *layer.sizes[1:])
        # The input of the recurrent weights: at step t the spikes of step t-1.
        elements = None if grad_weight_hh is None else self.empty(layer.given.bias, *layer.sizes)
        of_factors = None if gradients[1] is None else self.empty(gradients[1], layer.sizes[1], *gradients[1].shape)
        by_step = (weight_t, scratch, grad_current, elements, of_factors)
        self.launch("lateral_backward", layer.struct, grads, gradients, partials, saved, *by_step)
        if elements is not None and grad_weight_hh is not None and layer.given.past_steps:
            groups = cuda_module().weight_groups(*layer.sizes[1:])
            sums = self.empty(elements, groups, *weight_t.shape)
            self.launch("delayed_weight", layer.struct, elements, grad_current, sums, grad_weight_hh)
        elif elements is not None and grad_weight_hh is not None:
            mask = self.empty(elements, *mask_shape(elements), dtype=torch.int64)
            self.fill_mask(elements, None, mask)
            grad_weight_hh.copy_(
                self.masked_weight_gradient(layer, elements, mask, layer.given.weight_hh, grad_current)
            )

    def events_forward(self, run: Forward, rows: EventRows, weight: Tensor) -> None:
        """Fill spikes, state, trace and checkpoints after a linear synapse on events."""
        self._synapse_forward(run, (rows.for_kernels(weight.shape[1]), None, None), weight)

    def dense_forward(self, run: Forward, input: Tensor, mask: Tensor | None, weight: Tensor) -> None:
        """``events_forward`` on the nonzero elements of a contiguous dense input; fill their mask, if one is given."""
        mask = self.empty(input, *mask_shape(input), dtype=torch.int64) if mask is None else mask
        self.fill_mask(input, run.layer.given.lengths, mask)
        self._synapse_forward(run, (core.EventRows(0, 0, 0, 0, weight.shape[1]), mask, input), weight)

    def _synapse_forward(
        self, run: Forward, events: tuple[core.EventRows, Tensor | None, Tensor | None], weight: Tensor
    ) -> None:
        (layer, outputs, *kept), weight_t = run, weight.t().contiguous()
        if layer.given.weight_hh is not None:
            self.launch("event_currents", layer.struct, *events, weight_t, outputs[0])
            return self.scan_forward(run, outputs[0])
        self.launch("events_forward", layer.struct, outputs, *events, weight_t, *kept)

    def _current_gradient(self, run: Backward) -> Tensor:
        """Fill the gradients of a layer on events; return the gradient of its currents."""
        layer, grads, saved, gradients = run
        grad_current = self.empty(layer.given.bias, *layer.sizes)
        if layer.given.weight_hh is not None:
            self.scan_backward(run, None, grad_current)
        else:
            partials = self.empty(layer.given.bias, run.sums, *layer.sizes[1:])
            self.launch("events_backward", layer.struct, grads, gradients, partials, saved, grad_current)
        return grad_current

    def events_backward(
        self, run: Backward, rows: EventRows, weight: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Fill the gradients of a layer; return the gradients of values and weight, None if not wanted."""
        grad_current = self._current_gradient(run)
        want_values, want_weight = wanted
        return self.synapse_gradients(
            run.layer, rows, weight, grad_current, want_values=want_values, want_weight=want_weight
        )

    def dense_backward(
        self, run: Backward, input: Tensor, mask: Tensor, weight: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """``events_backward`` on a dense input; ``wanted`` ends with whether its gradient is needed only at events."""
        want_input, want_weight, at_events = wanted
        grad_current = self._current_gradient(run)
        grad_input = grad_weight = None
        if want_weight:
            grad_weight = self.masked_weight_gradient(run.layer, input, mask, weight, grad_current)
        if want_input:
            grad_input = self.empty(input, *input.shape)
            torch.mm(grad_current.flatten(0, 1), weight, out=grad_input.flatten(0, 1))
            if at_events:
                grad_input.masked_fill_(input == 0, 0)
        return grad_input, grad_weight

    def synapse_gradients(
        self,
        layer: Layer | IntegerLayer,
        rows: EventRows,
        weight: Tensor,
        grad_current: Tensor,
        *,
        want_values: bool,
        want_weight: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of values and weight, from the gradient of the currents; None if not wanted."""
        grad_values = grad_weight = None
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
            grad_values = self.empty(weight, count)
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
        self, layer: Layer | IntegerLayer, input: Tensor, mask: Tensor, weight: Tensor, grad_current: Tensor
    ) -> Tensor:
        """The gradient of the weight, from a dense input and its mask."""
        inputs = input.shape[2]
        columns = self.empty(input, *self._columns_shape(layer, inputs), dtype=torch.int32)
        self.launch("mask_columns", dense_rows(input, None, mask), columns)
        no_rows = core.EventRows(0, 0, 0, 0, inputs)
        return self._weight_gradient(layer, weight, no_rows, grad_current, columns=columns, elements=input)

    @staticmethod
    def _columns_shape(layer: Layer | IntegerLayer, inputs: int) -> tuple[int, int, int]:
        """The shape of columns: a word for each segment of each input of a sample."""
        steps, batch, _ = layer.sizes
        return batch, -(-steps // core.event_segment), inputs

    def _weight_gradient(
        self,
        layer: Layer | IntegerLayer,
        weight: Tensor,
        rows: core.EventRows,
        grad_current: Tensor,
        *,
        starts: Tensor | None = None,
        positions: Tensor | None = None,
        values: Tensor | None = None,
        counts: Tensor | None = None,
        columns: Tensor | None = None,
        elements: Tensor | None = None,
    ) -> Tensor:
        """The gradient of the weight, from one of three forms of the events.

        Sorted events: ``starts``, ``positions``, ``values``; columns of event rows: ``counts``; columns of a dense
        input: ``columns``, ``elements``.
        """
        grad_weight = torch.empty_like(weight)
        groups = cuda_module().weight_groups(*layer.sizes[1:])
        partials = self.empty(weight, groups, weight.shape[1], weight.shape[0])
        events = (starts, positions, values, counts, columns, elements)
        is_double = weight.dtype == torch.float64
        self.launch(
            "weight_gradient", is_double, layer.struct.shape, rows, grad_current, *events, partials, grad_weight
        )
        return grad_weight

    def integer_forward(
        self, layer: IntegerLayer, outputs: Sequence[Tensor], slopes: Tensor | None, clamped: Tensor, *, floats: bool
    ) -> None:
        """Fill spikes, state and slopes of integer neurons; add up how often an i was clamped."""
        weight_t = layer.weight.t().contiguous()
        synapse = (*self._integer_events(layer)[1:], weight_t, layer.scale, layer.rho)
        self.launch("integer_forward", layer.struct, outputs, floats, *synapse, slopes, clamped)

    def _integer_events(self, layer: IntegerLayer) -> tuple[Tensor | None, core.EventRows, Tensor | None]:
        """The mask of a dense input, which the caller must keep alive, and the kernel's arguments: rows and mask."""
        inputs = layer.weight.shape[1]
        if layer.rows is not None:
            return None, layer.rows.for_kernels(inputs), None
        assert layer.input is not None
        mask = self.empty(layer.input, *mask_shape(layer.input), dtype=torch.int64)
        self.fill_mask(layer.input, layer.lengths, mask)
        return mask, core.EventRows(0, 0, 0, 0, inputs), mask

    def integer_backward(
        self,
        layer: IntegerLayer,
        grad_spikes: Tensor,
        slopes: Tensor,
        grad_current: Tensor | None,
        grad_weight: Tensor | None,
    ) -> None:
        """Fill the gradients of the currents and of the integer weights, unless they are None."""
        made = self.empty(slopes, *layer.sizes) if grad_current is None else grad_current
        self.launch("integer_backward", layer.struct, slopes, grad_spikes, made)
        if grad_weight is None:
            return
        if layer.rows is not None:
            _, found = self.synapse_gradients(layer, layer.rows, grad_weight, made, want_values=False, want_weight=True)
            assert found is not None
        else:
            assert layer.input is not None
            mask, *_ = self._integer_events(layer)
            assert mask is not None
            found = self.masked_weight_gradient(layer, layer.input, mask, grad_weight, made)
        grad_weight.copy_(found)

    def fill_mask(self, input: Tensor, lengths: Tensor | None, mask: Tensor) -> None:
        """Fill the mask of a dense input: which of its elements are not 0."""
        self.launch("mask_elements", dense_rows(input, lengths, mask))


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
    return addresses(argument) if lists else argument


def is_gpu(device: torch.device) -> bool:
    """Whether the device is of the type that the CUDA kernels run on."""
    return device.type == "cuda"


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
