"""The CPU backend: allocation on huge pages, and the calls of ``srcell._core``, which only this file imports.

Operators use it; it takes checked, contiguous tensors and keeps them alive while a kernel runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import _core
from ._memory import Optionals, address, addresses

if TYPE_CHECKING:
    from ._layer import Layer, LayerGradients
    from .integer import IntegerLayer

core = _core

# Allocations from this size on lie on huge pages and are reused; below it torch's own allocator is faster.
BLOCK_BYTES = 4 << 20
# The same for scratch, from a smaller size on: malloc returns freed memory at the end of the heap to the system, and
# each call would fault its pages in again.
SCRATCH_BLOCK_BYTES = 128 << 10


def empty(like: Tensor, *shape: int, dtype: torch.dtype | None = None, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """Uninitialised contiguous CPU tensor, of the dtype of ``like`` unless another is given."""
    dtype = dtype or like.dtype
    size = math.prod(shape) * dtype.itemsize
    if size < block_bytes:
        return like.new_empty(*shape, dtype=dtype)
    if size >= 2**63:
        raise MemoryError(f"srcell: {' * '.join(map(str, shape))} elements of {dtype}")
    if dtype.itemsize < 4:  # blocks hold elements of 4 or 8 bytes
        count = math.prod(shape)
        return torch.from_numpy(core.empty((-(-size // 4),), False)).view(dtype)[:count].view(shape)
    return torch.from_numpy(core.empty(shape, dtype.itemsize == 8)).view(dtype)


def scratch(like: Tensor, *counts: int) -> list[Tensor]:
    """Uninitialised int32 vectors of the given sizes, for use within one call."""
    return list(empty(like, sum(counts), dtype=torch.int32, block_bytes=SCRATCH_BLOCK_BYTES).split(counts))


class EventRows:
    """The events of an EventBatch, or those of a dense input.

    Attributes:
        offsets, indices, values: as in an EventBatch, contiguous.

    """

    __slots__ = ("indices", "offsets", "values")

    def __init__(self, offsets: Tensor, indices: Tensor, values: Tensor | None) -> None:
        self.offsets, self.indices, self.values = offsets, indices, values

    def for_kernels(self, inputs: int) -> core.EventRows:
        """The struct that kernels take; the caller must keep this object alive while they run."""
        count = self.indices.shape[0]
        return core.EventRows(address(self.offsets), address(self.indices), address(self.values), count, inputs)


class Cpu:
    """Runs the kernels of a layer on the CPU."""

    segment = core.segment
    event_segment = core.event_segment
    empty = staticmethod(empty)

    def scan_forward(
        self, layer: Layer, outputs: Sequence[Tensor], current: Tensor, checkpoints: Tensor | None
    ) -> None:
        """Fill spikes, state and checkpoints from given currents."""
        core.scan_forward(layer.struct, layer.initial(), addresses(outputs), address(current), address(checkpoints))

    def scan_backward(
        self,
        layer: Layer,
        arriving: Optionals,
        gradients: LayerGradients,
        current: Tensor,
        checkpoints: Tensor,
        grad_current: Tensor,
    ) -> None:
        """Fill the gradients of a layer and of its currents."""
        core.scan_backward(
            layer.struct,
            addresses(arriving),
            addresses(gradients.wanted),
            address(current),
            address(checkpoints),
            address(grad_current),
        )

    def events_forward(
        self,
        layer: Layer,
        outputs: Sequence[Tensor],
        rows: EventRows,
        weight: Tensor,
        saved: Optionals,
        trace_integrator: bool,
    ) -> None:
        """Fill spikes and state after a linear synapse on events, and trace and checkpoints unless they are None."""
        if layer.weight_hh is not None:
            return self.lateral_forward(layer, outputs, (rows, weight), None, saved, trace_integrator)
        trace, checkpoints = saved
        core.events_forward(
            layer.struct,
            layer.initial(),
            addresses(outputs),
            rows.for_kernels(weight.shape[1]),
            address(weight),
            address(trace),
            address(checkpoints),
            trace_integrator,
        )

    def lateral_forward(
        self,
        layer: Layer,
        outputs: Sequence[Tensor],
        events: tuple[EventRows, Tensor] | None,
        current: Tensor | None,
        saved: Optionals,
        trace_integrator: bool,
    ) -> None:
        """Fill spikes and state of a layer with lateral weights, after a linear synapse on events or given currents.

        The trace is (B, T, N); it and the checkpoints are those of events, unless they are None.
        """
        rows, weight = events or (None, None)
        trace, checkpoints = saved
        core.lateral_forward(
            layer.struct,
            layer.initial(),
            addresses(outputs),
            None if rows is None or weight is None else rows.for_kernels(weight.shape[1]),
            address(weight),
            address(current),
            address(layer.weight_hh),
            address(trace),
            address(checkpoints),
            trace_integrator,
        )

    def lateral_backward(
        self,
        layer: Layer,
        arriving: Optionals,
        gradients: LayerGradients,
        rows: tuple[EventRows, int] | None,
        saved: Sequence[Tensor],
        i0: Tensor | None,
        grad_current: Tensor | None,
        grad_weight: Tensor | None,
    ) -> None:
        """Fill the gradients of a layer with lateral weights; ``rows`` has the events and K, None of given currents."""
        trace, checkpoints = saved
        core.lateral_backward(
            layer.struct,
            addresses(arriving),
            addresses(gradients.wanted),
            None if rows is None else rows[0].for_kernels(rows[1]),
            address(i0),
            address(trace),
            address(checkpoints),
            address(layer.weight_hh),
            layer.lateral_relu,
            address(grad_current),
            address(grad_weight),
            address(gradients.weight_hh),
        )

    def events_backward(
        self,
        layer: Layer,
        arriving: Optionals,
        gradients: LayerGradients,
        rows: EventRows,
        weight: Tensor,
        saved: Sequence[Tensor],
        i0: Tensor | None,
        *,
        want_values: bool,
        want_weight: bool,
    ) -> tuple[Tensor, Tensor]:
        """Fill the gradients of a layer; return those of values and weight, empty if not wanted."""
        grad_current = empty(weight, *layer.sizes) if want_values else None
        grad_weight = self.weight_gradient(
            layer, arriving, gradients, rows, weight, saved, i0, grad_current, want_weight=want_weight
        )
        grad_values = weight.new_empty(0)
        if grad_current is not None:
            grad_values = empty(weight, rows.indices.shape[0])
            self.event_dots(layer, rows, weight, grad_current, grad_values, None)
        return grad_values, grad_weight

    def weight_gradient(
        self,
        layer: Layer,
        arriving: Optionals,
        gradients: LayerGradients,
        rows: EventRows,
        weight: Tensor,
        saved: Sequence[Tensor],
        i0: Tensor | None,
        grad_current: Tensor | None,
        *,
        want_weight: bool,
    ) -> Tensor:
        """Fill the gradients of a layer and, if given, of the currents; return the weight's, empty if not wanted."""
        grad_weight = torch.empty_like(weight) if want_weight else weight.new_empty(0)
        if layer.weight_hh is not None:
            wanted = grad_weight if want_weight else None
            kept = (rows, weight.shape[1])
            self.lateral_backward(layer, arriving, gradients, kept, saved, i0, grad_current, wanted)
            return grad_weight
        trace, checkpoints = saved
        core.events_backward(
            layer.struct,
            addresses(arriving),
            addresses(gradients.wanted),
            rows.for_kernels(weight.shape[1]),
            address(i0),
            address(trace),
            address(checkpoints),
            address(grad_current),
            address(grad_weight) if want_weight else 0,
        )
        return grad_weight

    def integer_forward(
        self, layer: IntegerLayer, outputs: Sequence[Tensor], slopes: Tensor | None, *, floats: bool
    ) -> Tensor:
        """Fill spikes, state and slopes of integer neurons; return how often an i was clamped."""
        assert layer.rows is not None
        clamped = core.integer_forward(
            layer.sizes,
            address(layer.lengths),
            torch.get_num_threads(),
            layer.cell,
            addresses(layer.state) or (0, 0, 0),
            addresses(outputs),
            floats,
            layer.rows.for_kernels(layer.weight.shape[1]),
            address(layer.weight),
            address(layer.scale),
            layer.rho,
            address(slopes),
        )
        return torch.tensor(clamped, dtype=torch.int64, device="cpu")

    def integer_backward(
        self,
        layer: IntegerLayer,
        grad_spikes: Tensor,
        slopes: Tensor,
        grad_current: Tensor | None,
        grad_weight: Tensor | None,
    ) -> None:
        """Fill the gradients of the currents and of the integers of the weight, unless they are None."""
        assert layer.rows is not None
        core.integer_backward(
            layer.sizes,
            address(layer.lengths),
            torch.get_num_threads(),
            layer.cell,
            layer.rows.for_kernels(layer.weight.shape[1]),
            address(slopes),
            address(grad_spikes),
            address(grad_current),
            address(grad_weight),
        )

    def event_dots(
        self,
        layer: Layer,
        rows: EventRows,
        weight: Tensor,
        grad_current: Tensor,
        grad_values: Tensor | None,
        grad_input: Tensor | None,
    ) -> None:
        """Fill the gradients of event values, or those of a dense input at its events."""
        weight_t = weight.t().contiguous()
        core.event_dots(
            layer.struct,
            rows.for_kernels(weight.shape[1]),
            address(weight_t),
            address(grad_current),
            address(grad_values),
            address(grad_input),
        )

    def events_of(self, input: Tensor, lengths: Tensor | None) -> tuple[EventRows, Tensor, bool]:
        """The events of a contiguous dense input, the mask of its nonzero elements, and whether all events are 1."""
        rows, words = mask_shape(input)
        mask, offsets = empty(input, rows, words, dtype=torch.int64), empty(input, rows + 1, dtype=torch.int64)
        if rows == 0:  # T or B may still be huge, and the kernel loops over both
            offsets.zero_()
            return EventRows(offsets, empty(input, 0, dtype=torch.int32), None), mask, True
        dense = dense_rows(input, lengths, mask, offsets)
        count, ones = core.mask_events(dense)
        return self._list(dense, input, offsets, count, ones), mask, ones

    def events_of_mask(self, input: Tensor, mask: Tensor, *, ones: bool) -> EventRows:
        """The events of a contiguous dense input, from the mask that ``events_of`` made."""
        offsets = empty(mask, mask.shape[0] + 1)
        dense = dense_rows(input, None, mask, offsets)
        return self._list(dense, input, offsets, core.count_events(dense), ones)

    def _list(self, dense: core.DenseRows, input: Tensor, offsets: Tensor, count: int, ones: bool) -> EventRows:
        indices = empty(input, count, dtype=torch.int32)
        values = None if ones else empty(input, count)
        if count:
            core.list_events(dense, address(indices), address(values))
        return EventRows(offsets, indices, values)

    def input_gradient(self, grad_current: Tensor, weight: Tensor, grad_input: Tensor) -> None:
        """Fill the gradient of a dense input from that of the currents."""
        steps, batch, neurons = grad_current.shape
        core.multiply(
            weight.dtype == torch.float64,
            steps * batch,
            weight.shape[1],
            neurons,
            torch.get_num_threads(),
            address(grad_current),
            address(weight),
            address(grad_input),
        )


def mask_shape(input: Tensor) -> tuple[int, int]:
    """Shape of the mask: a row for each step of each sample, with a bit for each input, in words of 64."""
    steps, batch, inputs = input.shape
    return batch * steps, -(-inputs // 64)


def dense_rows(
    input: Tensor, lengths: Tensor | None, mask: Tensor, offsets: Tensor | None, on_host: bool = True
) -> core.DenseRows:
    """The struct of a dense input that kernels take; the caller must keep the tensors alive while they run."""
    return core.DenseRows(
        input.dtype == torch.float64,
        on_host,
        input.shape,
        address(lengths),
        torch.get_num_threads(),
        address(input),
        address(mask),
        address(offsets),
    )


CPU = Cpu()
