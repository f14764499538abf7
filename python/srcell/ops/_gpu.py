"""A GPU's kernels: launches on the caller's stream, memory from torch's allocator, and no waiting; the importer of
``srcell._cuda``.

Operators use it; it takes tensors that are checked and contiguous.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ._cpu import CPU, Cpu, Rows, core, of_dtype
from ._memory import Optionals, address

if TYPE_CHECKING:
    from ._layer import Layer, LayerGradients


class Gpu:
    """How a GPU runs the kernels of a layer."""

    segment = event_segment = core.segment

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def empty(self, dtype: torch.dtype, *shape: int) -> Tensor:
        """Uninitialised contiguous tensor."""
        return torch.empty(shape, dtype=dtype, device=self.device)

    def launch(self, name: str, *arguments: Any) -> None:
        """Put a kernel on the stream that is current on this device; it gets the addresses of tensors."""
        kernel = getattr(cuda_module(), name)
        with torch.cuda.device(self.device):
            kernel(torch.cuda.current_stream().cuda_stream, *map(plain, arguments))

    def scan_forward(
        self, layer: Layer, outputs: Sequence[Tensor], current: Tensor, checkpoints: Tensor | None
    ) -> None:
        """Fill spikes, state and checkpoints from given currents, of half precision too."""
        arguments = layer.forward_arguments(outputs[0], outputs[1:])
        self.launch(of_dtype("scan_forward", current.dtype), arguments, current, _element(current), checkpoints)

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
        arguments, partials = layer.backward_arguments(arriving, gradients), self._partials(layer, gradients)
        name = of_dtype("scan_backward", current.dtype)
        self.launch(name, arguments, partials, current, _element(current), checkpoints, grad_current)

    def _partials(self, layer: Layer, gradients: LayerGradients) -> Tensor:
        sums = 1 + len(gradients.wanted) if any(x is not None for x in gradients.wanted) else 1
        return self.empty(layer.like.dtype, sums, *layer.sizes[1:])

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
        arguments, weight_t = layer.forward_arguments(outputs[0], outputs[1:]), weight.t().contiguous()
        name = of_dtype("events_forward", weight.dtype)
        self.launch(name, arguments, rows.arguments(weight.shape[1]), None, None, weight_t, *saved, trace_integrator)

    def masked_forward(
        self,
        layer: Layer,
        outputs: Sequence[Tensor],
        input: Tensor,
        mask: Tensor,
        weight: Tensor,
        saved: Optionals,
        trace_integrator: bool,
    ) -> None:
        """The same on a dense input."""
        arguments, weight_t = layer.forward_arguments(outputs[0], outputs[1:]), weight.t().contiguous()
        no_rows = core.EventArguments(0, 0, 0, 0, weight.shape[1])
        name = of_dtype("events_forward", weight.dtype)
        self.launch(name, arguments, no_rows, mask, input, weight_t, *saved, trace_integrator)

    def current_gradient(
        self,
        layer: Layer,
        arriving: Optionals,
        gradients: LayerGradients,
        saved: Sequence[Tensor],
        i0: Tensor | None,
    ) -> Tensor:
        """Fill the gradients of a layer behind events; return that of the currents."""
        dtype = layer.like.dtype
        grad_current = self.empty(dtype, *layer.sizes)
        arguments, partials = layer.backward_arguments(arriving, gradients), self._partials(layer, gradients)
        self.launch(of_dtype("events_backward", dtype), arguments, partials, i0, *saved, grad_current)
        return grad_current

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
        grad_current = self.current_gradient(layer, arriving, gradients, saved, i0)
        grad_values, grad_weight = weight.new_empty(0), weight.new_empty(0)
        arguments = rows.arguments(weight.shape[1])
        keys = torch.full_like(rows.indices, torch.iinfo(torch.int64).max, dtype=torch.int64)
        positions = torch.empty_like(keys)
        if want_values or want_weight:
            self.launch("event_keys", layer.sizes, layer.lengths, arguments, keys, positions)
        if want_values:
            grad_values = self.empty(weight.dtype, rows.indices.numel())
            name, weight_t = of_dtype("event_dots", weight.dtype), weight.t().contiguous()
            self.launch(name, weight.shape[0], arguments, keys, positions, weight_t, grad_current, grad_values)
        if want_weight:
            # A stable sort keeps the events of equal keys, which belong to one segment, in the order of their steps.
            sorted_keys, order = keys.sort(stable=True)
            groups, stride = cuda_module().weight_groups(*layer.sizes[1:]), cuda_module().key_stride(layer.sizes)
            bounds = torch.arange(groups * weight.shape[1] + 1, device=weight.device) * stride
            starts = torch.searchsorted(sorted_keys, bounds)
            by_rows = (starts, order, positions, rows.values, None, None)
            grad_weight = self._weight_gradient(layer, weight, grad_current, by_rows)
        return grad_values, grad_weight

    def masked_weight_gradient(
        self, layer: Layer, input: Tensor, mask: Tensor, weight: Tensor, grad_current: Tensor
    ) -> Tensor:
        """The gradient of the weight from a dense input."""
        steps, batch, inputs = input.shape
        columns = self.empty(torch.int32, batch, -(-steps // core.event_segment), inputs)
        self.launch("mask_columns", (steps, batch, inputs), mask, columns)
        return self._weight_gradient(layer, weight, grad_current, (None, None, None, None, columns, input))

    def _weight_gradient(self, layer: Layer, weight: Tensor, grad_current: Tensor, events: Optionals) -> Tensor:
        grad_weight, name = torch.empty_like(weight), of_dtype("weight_gradient", weight.dtype)
        groups = cuda_module().weight_groups(*layer.sizes[1:])
        partials = self.empty(weight.dtype, groups, weight.shape[1], weight.shape[0])
        self.launch(name, layer.sizes, weight.shape[1], grad_current, *events, partials, grad_weight)
        return grad_weight

    def mask(self, input: Tensor, lengths: Tensor | None, mask: Tensor) -> None:
        """Fill the mask of a dense input: which of its elements are not 0."""
        self.launch(of_dtype("mask_cells", input.dtype), tuple(input.shape), lengths, input, mask)


def _element(current: Tensor) -> Any:
    element = cuda_module().Element
    return {torch.float16: element.float16, torch.bfloat16: element.bfloat16}.get(current.dtype, element.same)


def plain(argument: Any) -> Any:
    """The address of a tensor or of none; anything else as it is."""
    return address(argument) if argument is None or isinstance(argument, Tensor) else argument


def is_gpu(device: torch.device) -> bool:
    """Whether it is one that has these kernels."""
    return device.type == "cuda"


def gpu_of(name: str, x: Tensor) -> Gpu:
    """How the GPU on which an argument is runs the kernels."""
    try:
        cuda_module()
    except ImportError as error:
        raise RuntimeError(
            f"{name}: is on {x.device}, for which this build of srcell has no kernels ({error}); "
            "build it where nvcc is found: SRCELL_CUDA=ON pip install --no-binary srcell srcell"
        ) from error
    return Gpu(x.device)


def backend_of(name: str, x: Tensor) -> Cpu | Gpu:
    """How the device of an argument runs the kernels."""
    return gpu_of(name, x) if is_gpu(x.device) else CPU


@functools.cache
def cuda_module() -> Any:
    """The compiled module of the CUDA kernels, which is loaded when the first tensor on a GPU arrives."""
    return importlib.import_module("srcell._cuda")


def cuda_info() -> str | None:
    """For what the CUDA module was built; None if there is none."""
    try:
        module = cuda_module()
    except ImportError:
        return None
    runtime = module.runtime
    return f"runtime {runtime // 1000}.{runtime % 1000 // 10}, architectures {module.architectures}"
