"""The CPU's kernels: memory on huge pages, and the calls of ``srcell._core``, whose importer this is.

Operators use it; it takes tensors that are checked and contiguous, and holds them while a kernel runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import _core
from ._memory import Optionals, address, addresses

if TYPE_CHECKING:
    from ._layer import Layer, LayerGradients, Sizes

core = _core

# Memory from this size on lies on huge pages and is reused; below it torch's own allocator is the faster one.
BLOCK_BYTES = 4 << 20
# Scratch from this size on as well: freed memory at the end of the heap goes back to the system, and its pages would be
# made anew in each call.
SCRATCH_BLOCK_BYTES = 128 << 10


def empty(dtype: torch.dtype, *shape: int, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """Uninitialised contiguous CPU tensor."""
    size = math.prod(shape) * dtype.itemsize
    if size < block_bytes:
        return torch.empty(shape, dtype=dtype, device="cpu")
    if size >= 2**63:
        raise MemoryError(f"srcell: {' * '.join(map(str, shape))} elements of {dtype}")
    return torch.from_numpy(core.empty(shape, dtype.itemsize == 8)).view(dtype)


def scratch(*counts: int) -> list[Tensor]:
    """Uninitialised vectors of int32 that live as long as a call."""
    return list(empty(torch.int32, sum(counts), block_bytes=SCRATCH_BLOCK_BYTES).split(counts))


def kernel(name: str, dtype: torch.dtype) -> Any:
    """The kernel of that name for numbers of that dtype."""
    return getattr(core, of_dtype(name, dtype))


def of_dtype(name: str, dtype: torch.dtype) -> str:
    """A kernel's whole name."""
    return name + ("_f64" if dtype == torch.float64 else "_f32")


class Rows:
    """The events of an EventBatch, or those of a dense input.

    Attributes:
        offsets, indices, values: as in an EventBatch, contiguous.

    """

    __slots__ = ("indices", "offsets", "values")

    def __init__(self, offsets: Tensor, indices: Tensor, values: Tensor | None) -> None:
        self.offsets, self.indices, self.values = offsets, indices, values

    def arguments(self, inputs: int) -> core.EventArguments:
        """As kernels take them."""
        tensors = self.offsets, self.indices, self.values
        return core.EventArguments(*addresses(tensors), self.indices.numel(), inputs)


class Cpu:
    """How the CPU runs the kernels of a layer."""

    segment = core.segment
    event_segment = core.event_segment
    empty = staticmethod(empty)

    def scan_forward(
        self, layer: Layer, outputs: Sequence[Tensor], current: Tensor, checkpoints: Tensor | None
    ) -> None:
        """Fill spikes, state and checkpoints from given currents."""
        arguments = layer.forward_arguments(outputs[0], outputs[1:])
        kernel("scan_forward", current.dtype)(arguments, address(current), address(checkpoints))

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
        arguments = layer.backward_arguments(arriving, gradients)
        run = kernel("scan_backward", current.dtype)
        run(arguments, address(current), address(checkpoints), address(grad_current))

    def events_forward(
        self,
        layer: Layer,
        outputs: Sequence[Tensor],
        rows: Rows,
        weight: Tensor,
        saved: Optionals,
        trace_integrator: bool,
    ) -> None:
        """Fill spikes and state behind a linear synapse on events, and trace and checkpoints unless they are None."""
        arguments = layer.forward_arguments(outputs[0], outputs[1:])
        run = kernel("events_forward", weight.dtype)
        run(arguments, rows.arguments(weight.shape[1]), address(weight), *addresses(saved), trace_integrator)

    def events_backward(
        self,
        layer: Layer,
        arriving: Optionals,
        gradients: LayerGradients,
        rows: Rows,
        weight: Tensor,
        saved: Sequence[Tensor],
        i0: Tensor | None,
        *,
        want_values: bool,
        want_weight: bool,
    ) -> tuple[Tensor, Tensor]:
        """Fill the gradients of a layer; return those of values and weight, of no elements where not wanted."""
        grad_current = empty(weight.dtype, *layer.sizes) if want_values else None
        grad_weight = self.weight_gradient(
            layer, arriving, gradients, rows, weight, saved, i0, grad_current, want_weight=want_weight
        )
        grad_values = weight.new_empty(0)
        if grad_current is not None:
            grad_values = empty(weight.dtype, rows.indices.numel())
            self.event_dots(layer, rows, weight, grad_current, grad_values, None)
        return grad_values, grad_weight

    def weight_gradient(
        self,
        layer: Layer,
        arriving: Optionals,
        gradients: LayerGradients,
        rows: Rows,
        weight: Tensor,
        saved: Sequence[Tensor],
        i0: Tensor | None,
        grad_current: Tensor | None,
        *,
        want_weight: bool,
    ) -> Tensor:
        """Fill the gradients of a layer and, where it is given, of the currents; return that of the weight."""
        grad_weight = torch.empty_like(weight) if want_weight else weight.new_empty(0)
        arguments = layer.backward_arguments(arriving, gradients)
        kernel("events_backward", weight.dtype)(
            arguments,
            rows.arguments(weight.shape[1]),
            address(i0),
            *addresses(saved),
            address(grad_current),
            address(grad_weight) if want_weight else 0,
        )
        return grad_weight

    def event_dots(
        self,
        layer: Layer,
        rows: Rows,
        weight: Tensor,
        grad_current: Tensor,
        grad_values: Tensor | None,
        grad_input: Tensor | None,
    ) -> None:
        """Fill the gradients of event values, or those of a dense input at its events."""
        weight_t = weight.t().contiguous()
        kernel("event_dots", weight.dtype)(
            layer.sizes,
            address(layer.lengths),
            torch.get_num_threads(),
            rows.arguments(weight.shape[1]),
            address(weight_t),
            address(grad_current),
            address(grad_values),
            address(grad_input),
        )

    def mask(self, input: Tensor, lengths: Tensor | None, mask: Tensor, offsets: Tensor) -> bool:
        """Fill the mask and the offsets of a dense input, and return whether all of its events are 1."""
        if mask.shape[0] == 0:  # of however many samples or steps, which would all be walked through
            offsets.zero_()
            return True
        ones: bool = kernel("mask_events", input.dtype)(
            tuple(input.shape),
            address(lengths),
            torch.get_num_threads(),
            address(input),
            address(mask),
            address(offsets),
        )
        return ones

    def rows_of(self, input: Tensor, mask: Tensor, offsets: Tensor, ones: bool) -> Rows:
        """The events that the mask of a dense input stands for."""
        count = int(offsets[-1])
        indices = empty(torch.int32, count)
        values = None if ones else empty(input.dtype, count)
        if count:
            kernel("list_events", input.dtype)(
                tuple(input.shape),
                torch.get_num_threads(),
                address(input),
                address(mask),
                address(offsets),
                address(indices),
                address(values),
            )
        return Rows(offsets, indices, values)

    def offsets_of(self, sizes: Sizes, mask: Tensor) -> Tensor:
        """The offsets of a mask's rows."""
        offsets = empty(torch.int64, mask.shape[0] + 1)
        core.count_events(sizes, torch.get_num_threads(), address(mask), address(offsets))
        return offsets

    def input_gradient(self, grad_current: Tensor, weight: Tensor, grad_input: Tensor) -> None:
        """Fill the gradient of a dense input from that of the currents."""
        steps, batch, neurons = grad_current.shape
        kernel("multiply", weight.dtype)(
            steps * batch,
            weight.shape[1],
            neurons,
            torch.get_num_threads(),
            address(grad_current),
            address(weight),
            address(grad_input),
        )


CPU = Cpu()
