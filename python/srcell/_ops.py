"""The torch operators, and the only importer of the compiled modules.

The operators of ``torch.ops.srcell`` are declared here, with their implementations for CPUs and GPUs, fake kernels and
autograd formulas:

- ``src``: the recurrence on given currents;
- ``src_events``: a linear synapse on the events of an ``EventBatch``, then the recurrence;
- ``src_dense``: the same on a dense input, whose zeros are skipped where that is the faster way;

and for each its ``_backward``. Tensors are checked, made contiguous and allocated here; below there are addresses and
sizes. Users call ``srcell.functional``, which brings arguments into the form these operators want.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from . import _core

PARAMETERS = ("alpha", "rho", "r", "rs", "zs_hyp", "zs_dep")
STATE = ("i", "h", "hs")
SURROGATES = ("relu", "straight_through")
METHODS = ("auto", "events", "gemm")
HALF = (torch.float16, torch.bfloat16)

# Memory from this size on lies on huge pages and is reused; below it torch's own allocator is the faster one.
_BLOCK_BYTES = 4 << 20
# Scratch from this size on as well: freed memory at the end of the heap goes back to the system, and its pages would be
# made anew in each call.
_SCRATCH_BLOCK_BYTES = 128 << 10

P = ParamSpec("P")
R = TypeVar("R")

Optionals = Sequence[Tensor | None]
Sizes = tuple[int, int, int]
"""T, B and N, or T, B and K."""


class Layer(NamedTuple):
    """What every operator ends with: the initial state, parameters and options of a layer."""

    i0: Tensor | None
    h0: Tensor | None
    hs0: Tensor | None
    bias: Tensor
    constants: Sequence[float]
    """The cell parameters that are no tensors; the values of the others mean nothing."""
    alpha: Tensor | None
    rho: Tensor | None
    r: Tensor | None
    rs: Tensor | None
    zs_hyp: Tensor | None
    zs_dep: Tensor | None
    lengths: Tensor | None
    surrogate: str
    recurrent_grad: bool

    def contiguous(self) -> Layer:
        """The same with contiguous tensors."""
        fields: list[Any] = [contiguous(x) if isinstance(x, Tensor) else x for x in self]
        return Layer(*fields)


# Functions, not properties: torch 2.4 does not compile those of a named tuple.
def initial_state(layer: Layer) -> tuple[Tensor | None, ...]:
    """The state before the first step."""
    return layer.i0, layer.h0, layer.hs0


def cell_parameters(layer: Layer) -> tuple[Tensor | None, ...]:
    """In the order of PARAMETERS."""
    return layer.alpha, layer.rho, layer.r, layer.rs, layer.zs_hyp, layer.zs_dep


class Rows(NamedTuple):
    """The events of an EventBatch."""

    offsets: Tensor
    indices: Tensor
    values: Tensor | None

    def contiguous(self) -> Rows:
        """The same with contiguous tensors."""
        values = None if self.values is None else contiguous(self.values)
        return Rows(contiguous(self.offsets), contiguous(self.indices), values)


_LAYER = (
    "Tensor? i0, Tensor? h0, Tensor? hs0, Tensor bias, float[] constants, "
    + "".join(f"Tensor? {name}, " for name in PARAMETERS)
    + "Tensor? lengths, str surrogate, bool recurrent_grad"
)
_GRADS = "Tensor? grad_spikes, Tensor? grad_i, Tensor? grad_h, Tensor? grad_hs"
_OUTPUTS = "Tensor spikes, Tensor i, Tensor h, Tensor hs"
_LAYER_GRADS = "Tensor i0, Tensor h0, Tensor hs0, Tensor bias, " + ", ".join(f"Tensor {name}" for name in PARAMETERS)
_EVENTS = "Tensor offsets, Tensor indices, Tensor? values, Tensor weight, SymInt steps, SymInt batch"

_library = torch.library.Library("srcell", "DEF")
for _schema in (
    f"src(Tensor current, bool save, {_LAYER}) -> ({_OUTPUTS}, Tensor checkpoints)",
    f"src_backward({_GRADS}, Tensor current, Tensor checkpoints, bool[] wanted, {_LAYER})"
    f" -> (Tensor current, {_LAYER_GRADS})",
    f"src_events({_EVENTS}, bool save, bool trace_integrator, {_LAYER})"
    f" -> ({_OUTPUTS}, Tensor trace, Tensor checkpoints)",
    f"src_events_backward({_GRADS}, {_EVENTS}, Tensor trace, Tensor checkpoints, bool[] wanted, {_LAYER})"
    f" -> (Tensor values, Tensor weight, {_LAYER_GRADS})",
    "src_dense(Tensor input, Tensor weight, str method, bool input_grad_at_events, bool save, bool trace_integrator,"
    f" {_LAYER}) -> ({_OUTPUTS}, Tensor trace, Tensor checkpoints, Tensor mask, Tensor path)",
    f"src_dense_backward({_GRADS}, Tensor input, Tensor weight, Tensor trace, Tensor checkpoints, Tensor mask,"
    f" Tensor path, bool input_grad_at_events, bool[] wanted, {_LAYER})"
    f" -> (Tensor input, Tensor weight, {_LAYER_GRADS})",
    "rest(Tensor bias, Tensor gain) -> Tensor",
):
    _library.define(_schema)


# Checks, which name the argument, what was expected and what came.


def _check_floats(name: str, x: Tensor, dimensions: str, *, half: bool = False) -> None:
    if x.dim() != dimensions.count(",") + 1:
        raise ValueError(f"{name}: expected shape ({dimensions}), got {tuple(x.shape)}")
    if x.dtype not in (torch.float32, torch.float64) and not (half and x.dtype in HALF):
        raise TypeError(f"{name}: expected dtype float32 or float64, got {x.dtype}")


def _check_current(current: Tensor) -> Tensor:
    """Returns a tensor of the dtype that is computed in."""
    _check_floats("current", current, "T, B, N", half=reads_half(current.device))
    return current if current.dtype == work_dtype(current) else current.new_empty(0, dtype=torch.float32)


def _check_tensor(name: str, x: Tensor | None, like: Tensor, of: str, *shapes: tuple[int, ...]) -> None:
    if x is None:
        return
    if x.dtype != like.dtype:
        raise TypeError(f"{name}: expected dtype {like.dtype}, as {of} has, got {x.dtype}")
    if x.device != like.device:
        raise ValueError(f"{name}: expected device {like.device}, as {of} has, got {x.device}")
    if tuple(x.shape) not in shapes:
        expected = " or ".join(str(shape) for shape in shapes)
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(x.shape)}")


def _check_integers(name: str, x: Tensor, dtype: torch.dtype, count: int, like: Tensor, of: str) -> None:
    if x.dtype != dtype:
        raise TypeError(f"{name}: expected dtype {str(dtype).removeprefix('torch.')}, got {x.dtype}")
    if x.device != like.device:
        raise ValueError(f"{name}: expected device {like.device}, as {of} has, got {x.device}")
    if tuple(x.shape) != (count,):
        raise ValueError(f"{name}: expected shape ({count},), got {tuple(x.shape)}")


def _check_layer(layer: Layer, sizes: Sizes, like: Tensor, of: str) -> None:
    _, batch, neurons = sizes
    for name, x in zip(("bias", *PARAMETERS), (layer.bias, *cell_parameters(layer)), strict=True):
        _check_tensor(name, x, like, of, (), (1,), (neurons,))
    for name, x in zip(STATE, initial_state(layer), strict=True):
        _check_tensor(f"{name}0", x, like, of, (batch, neurons))
    if min(sizes) < 0:
        raise ValueError(f"{of}: expected sizes of at least 0, got {sizes}")
    if len(layer.constants) != len(PARAMETERS):
        raise ValueError(f"constants: expected {len(PARAMETERS)} values, got {len(layer.constants)}")
    if layer.lengths is not None:
        _check_integers("lengths", layer.lengths, torch.int64, batch, like, of)
    if layer.surrogate not in SURROGATES:
        raise ValueError(f"surrogate: expected one of {', '.join(SURROGATES)}, got {layer.surrogate!r}")


def _check_grads(grads: Optionals, sizes: Sizes, like: Tensor, of: str) -> None:
    _check_tensor("grad_spikes", grads[0], like, of, sizes)
    for name, x in zip(STATE, grads[1:], strict=True):
        _check_tensor(f"grad_{name}", x, like, of, sizes[1:])


def _check_wanted(wanted: Sequence[bool], synapse: int) -> None:
    """Of a synapse's gradients, and of those of the cell parameters."""
    if len(wanted) != synapse + len(PARAMETERS):
        raise ValueError(f"wanted: expected {synapse + len(PARAMETERS)} values, got {len(wanted)}")


def work_dtype(x: Tensor) -> torch.dtype:
    """What is computed in."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def reads_half(device: torch.device) -> bool:
    """Whether the recurrence takes currents in half precision there as they are."""
    return _is_gpu(device)


def outside_graphs(function: Callable[P, R]) -> Callable[P, R]:
    """A function that hands addresses on, run as it is by torch.compile: tensors that a graph makes live no longer than
    the graph sees them used, and it does not see what an address stands for.
    """
    return cast(Callable[P, R], torch.compiler.disable(function))


# What the kernels take, and how big it is.


def _empty(dtype: torch.dtype, *shape: int, block_bytes: int = _BLOCK_BYTES) -> Tensor:
    """Uninitialised contiguous CPU tensor."""
    size = math.prod(shape) * dtype.itemsize
    if size >= 2**63:
        raise MemoryError(f"srcell: {' * '.join(map(str, shape))} elements of {dtype}")
    if size < block_bytes:
        return torch.empty(shape, dtype=dtype, device="cpu")
    return torch.from_numpy(_core.empty(shape, dtype.itemsize == 8)).view(dtype)


@outside_graphs
def multiply(x: Tensor, factors: Tensor) -> Tensor:
    """``x * factors``, which broadcasts to x, in memory as that of the outputs."""
    if x.dtype not in (torch.float32, torch.float64):
        return x * factors
    return torch.mul(x, factors, out=_empty(x.dtype, *x.shape))


def without_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """(T, B, ...) with zeros past the samples' lengths (B,)."""
    past = torch.arange(x.shape[0], device=x.device)[:, None] >= lengths
    return x.masked_fill(past.view(*x.shape[:2], *[1] * (x.dim() - 2)), 0)


def contiguous(x: Tensor) -> Tensor:
    """The tensor as kernels read it: row-major, each element at a multiple of its size, and meant as it lies there."""
    x = x.resolve_neg().contiguous()
    return x.clone() if has_memory(x) and x.data_ptr() % x.element_size() else x


def has_memory(x: Tensor) -> bool:
    """Whether there are elements that lie in memory: those of meta, fake and wrapped tensors do not."""
    try:
        return not x.is_meta and not isinstance(x, FakeTensor) and (x.numel() == 0 or x.data_ptr() != 0)
    except RuntimeError:  # that of a tensor under vmap
        return False


def _address(x: Tensor | None) -> int:
    """Where a tensor begins, 0 for none. Whoever uses the address holds the tensor as long."""
    if x is None:
        return 0
    address = x.data_ptr()
    if address == 0 and x.numel():
        raise RuntimeError(f"srcell: expected tensors that lie in memory, got a {type(x).__name__} on {x.device}")
    return address


def _addresses(tensors: Optionals) -> list[int]:
    return [_address(x) for x in tensors]


def _contiguous(tensors: Optionals) -> list[Tensor | None]:
    return [None if x is None else contiguous(x) for x in tensors]


def _of_dtype(name: str, dtype: torch.dtype) -> str:
    return name + ("_f64" if dtype == torch.float64 else "_f32")


def _kernel(name: str, dtype: torch.dtype) -> Any:
    return getattr(_core, _of_dtype(name, dtype))


def _parameters(layer: Layer) -> _core.Parameters:
    tensors = (layer.bias, *cell_parameters(layer))
    strides = [0 if x is None or x.numel() == 1 else 1 for x in tensors]
    return _core.Parameters([0.0, *layer.constants], _addresses(tensors), strides)


class _Forward:
    """The outputs of a forward call, and the arguments with which a kernel fills them."""

    def __init__(self, device: _Cpu | _Gpu, layer: Layer, sizes: Sizes, dtype: torch.dtype) -> None:
        self.layer = layer.contiguous()
        self.spikes = device.empty(dtype, *sizes)
        self.state = [device.empty(dtype, *sizes[1:]) for _ in STATE]
        self.arguments = _core.ForwardArguments(
            sizes,
            _address(self.layer.lengths),
            torch.get_num_threads(),
            _parameters(self.layer),
            _addresses(initial_state(self.layer)),
            _address(self.spikes),
            _addresses(self.state),
        )


class _Backward:
    """The gradients of a layer, and the arguments with which a kernel fills them."""

    def __init__(
        self, device: _Cpu | _Gpu, grads: Optionals, layer: Layer, sizes: Sizes, wanted: Sequence[bool]
    ) -> None:
        self.layer, self.grads, self.sizes = layer.contiguous(), _contiguous(grads), sizes
        self.sums = len(PARAMETERS) + 1 if any(wanted) else 1
        initial = [device.empty(layer.bias.dtype, *sizes[1:]) for _ in STATE]
        bias = torch.empty_like(self.layer.bias)
        cell = _wanted_gradients(layer, wanted)
        self.gradients = (*initial, bias, *cell)
        self.arguments = _core.BackwardArguments(
            sizes,
            _address(self.layer.lengths),
            torch.get_num_threads(),
            _parameters(self.layer),
            layer.surrogate == "relu",
            layer.recurrent_grad,
            _address(self.grads[0]),
            _addresses(self.grads[1:]),
            _addresses(initial),
            _address(bias),
            [_address(x) if needed else 0 for x, needed in zip(cell, wanted, strict=True)],
        )


def _wanted_gradients(layer: Layer, wanted: Sequence[bool]) -> list[Tensor]:
    """A tensor for each cell parameter's gradient; of no elements where it is not wanted."""
    return [
        torch.empty_like(x, memory_format=torch.contiguous_format)
        if x is not None and needed
        else layer.bias.new_empty(0)
        for x, needed in zip(cell_parameters(layer), wanted, strict=True)
    ]


def _scan_checkpoints(sizes: Sizes) -> tuple[int, ...]:
    return ((sizes[0] + _core.segment - 1) // _core.segment, 3, *sizes[1:])


def _event_checkpoints(sizes: Sizes, device: torch.device) -> tuple[int, ...]:
    segment = _core.segment if _is_gpu(device) else _core.event_segment
    return ((sizes[0] + segment - 1) // segment, 2, *sizes[1:])


# How each kind of device runs the kernels.


class _Cpu:
    """The CPU: outputs on huge pages, kernels that check what they read."""

    empty = staticmethod(_empty)

    def scan_forward(self, run: _Forward, current: Tensor, checkpoints: Tensor | None) -> None:
        kernel = _kernel("scan_forward", current.dtype)
        kernel(run.arguments, _address(current), _address(checkpoints))

    def scan_backward(self, run: _Backward, current: Tensor, checkpoints: Tensor, grad_current: Tensor) -> None:
        kernel = _kernel("scan_backward", current.dtype)
        kernel(run.arguments, _address(current), _address(checkpoints), _address(grad_current))

    def events_forward(
        self, run: _Forward, events: Rows, weight: Tensor, saved: Sequence[Tensor | None], trace_integrator: bool
    ) -> None:
        kernel = _kernel("events_forward", weight.dtype)
        rows = _event_arguments(events, weight.shape[1])
        kernel(run.arguments, rows, _address(weight), *_addresses(saved), trace_integrator)

    def events_backward(
        self, run: _Backward, events: Rows, weight: Tensor, saved: Sequence[Tensor], wanted: Sequence[bool]
    ) -> tuple[Tensor, Tensor]:
        """The gradients of values and weight, where wanted."""
        want_values, want_weight = wanted
        grad_current = _empty(weight.dtype, *run.sizes) if want_values else None
        grad_weight = self.weight_gradient(run, events, weight, saved, grad_current, want_weight)
        grad_values = weight.new_empty(0)
        if grad_current is not None:
            grad_values = _empty(weight.dtype, events.indices.numel())
            self.event_dots(run, events, weight, grad_current, grad_values, None)
        return grad_values, grad_weight

    def weight_gradient(
        self,
        run: _Backward,
        events: Rows,
        weight: Tensor,
        saved: Sequence[Tensor],
        grad_current: Tensor | None,
        want_weight: bool,
    ) -> Tensor:
        """Run the backward pass."""
        grad_weight = torch.empty_like(weight) if want_weight else weight.new_empty(0)
        kernel = _kernel("events_backward", weight.dtype)
        addresses = [_address(run.layer.i0), *_addresses(saved), _address(grad_current)]
        rows = _event_arguments(events, weight.shape[1])
        kernel(run.arguments, rows, *addresses, _address(grad_weight) if want_weight else 0)
        return grad_weight

    def event_dots(
        self,
        run: _Backward,
        events: Rows,
        weight: Tensor,
        grad_current: Tensor,
        grad_values: Tensor | None,
        grad_input: Tensor | None,
    ) -> None:
        """Fill the gradients of event values, or those of a dense input at its events."""
        weight_t = weight.t().contiguous()
        _kernel("event_dots", weight.dtype)(
            run.sizes,
            _address(run.layer.lengths),
            torch.get_num_threads(),
            _event_arguments(events, weight.shape[1]),
            _address(weight_t),
            _address(grad_current),
            _address(grad_values),
            _address(grad_input),
        )


_CPU = _Cpu()


class _Gpu:
    """A GPU: kernels on the caller's stream, memory from torch's allocator, and no waiting."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def empty(self, dtype: torch.dtype, *shape: int) -> Tensor:
        """Uninitialised contiguous tensor."""
        return torch.empty(shape, dtype=dtype, device=self.device)

    def launch(self, name: str, *arguments: Any) -> None:
        """Put a kernel on the stream that is current on this device; it gets the addresses of tensors."""
        kernel = getattr(_cuda(), name)
        with torch.cuda.device(self.device):
            kernel(torch.cuda.current_stream().cuda_stream, *map(_plain, arguments))

    def scan_forward(self, run: _Forward, current: Tensor, checkpoints: Tensor | None) -> None:
        kernel, element = _of_dtype("scan_forward", current.dtype), self._element(current)
        self.launch(kernel, run.arguments, current, element, checkpoints)

    def scan_backward(self, run: _Backward, current: Tensor, checkpoints: Tensor, grad_current: Tensor) -> None:
        kernel, partials = _of_dtype("scan_backward", current.dtype), self._partials(run, checkpoints.dtype)
        self.launch(kernel, run.arguments, partials, current, self._element(current), checkpoints, grad_current)

    @staticmethod
    def _element(current: Tensor) -> Any:
        element = _cuda().Element
        return {torch.float16: element.float16, torch.bfloat16: element.bfloat16}.get(current.dtype, element.same)

    def _partials(self, run: _Backward, dtype: torch.dtype) -> Tensor:
        return self.empty(dtype, run.sums, *run.sizes[1:])

    def events_forward(
        self, run: _Forward, events: Rows, weight: Tensor, saved: Sequence[Tensor | None], trace_integrator: bool
    ) -> None:
        rows = _event_arguments(events, weight.shape[1])
        kernel, weight_t = _of_dtype("events_forward", weight.dtype), weight.t().contiguous()
        self.launch(kernel, run.arguments, rows, None, None, weight_t, *saved, trace_integrator)

    def masked_forward(
        self,
        run: _Forward,
        input: Tensor,
        mask: Tensor,
        weight: Tensor,
        saved: Sequence[Tensor | None],
        trace_integrator: bool,
    ) -> None:
        """The same on a dense input."""
        no_rows = _core.EventArguments(0, 0, 0, 0, weight.shape[1])
        kernel, weight_t = _of_dtype("events_forward", weight.dtype), weight.t().contiguous()
        self.launch(kernel, run.arguments, no_rows, mask, input, weight_t, *saved, trace_integrator)

    def current_gradient(self, run: _Backward, saved: Sequence[Tensor]) -> Tensor:
        """Run the backward pass behind events, up to the gradient of the currents."""
        dtype = saved[0].dtype
        grad_current = self.empty(dtype, *run.sizes)
        kernel, partials = _of_dtype("events_backward", dtype), self._partials(run, dtype)
        self.launch(kernel, run.arguments, partials, run.layer.i0, *saved, grad_current)
        return grad_current

    def events_backward(
        self, run: _Backward, events: Rows, weight: Tensor, saved: Sequence[Tensor], wanted: Sequence[bool]
    ) -> tuple[Tensor, Tensor]:
        """The gradients of values and weight, where wanted."""
        want_values, want_weight = wanted
        grad_current = self.current_gradient(run, saved)
        grad_values, grad_weight = weight.new_empty(0), weight.new_empty(0)
        rows = _event_arguments(events, weight.shape[1])
        keys = torch.full_like(events.indices, torch.iinfo(torch.int64).max, dtype=torch.int64)
        positions = torch.empty_like(keys)
        if want_values or want_weight:
            self.launch("event_keys", run.sizes, run.layer.lengths, rows, keys, positions)
        if want_values:
            grad_values = self.empty(weight.dtype, events.indices.numel())
            kernel, weight_t = _of_dtype("event_dots", weight.dtype), weight.t().contiguous()
            self.launch(kernel, weight.shape[0], rows, keys, positions, weight_t, grad_current, grad_values)
        if want_weight:
            # A stable sort keeps the events of equal keys, which belong to one segment, in the order of their steps.
            sorted_keys, order = keys.sort(stable=True)
            groups, stride = _cuda().weight_groups(*run.sizes[1:]), _cuda().key_stride(run.sizes)
            bounds = torch.arange(groups * weight.shape[1] + 1, device=weight.device) * stride
            starts = torch.searchsorted(sorted_keys, bounds)
            by_rows = (starts, order, positions, events.values, None, None)
            grad_weight = self._weight_gradient(run, weight, grad_current, by_rows)
        return grad_values, grad_weight

    def masked_weight_gradient(
        self, run: _Backward, input: Tensor, mask: Tensor, weight: Tensor, grad_current: Tensor
    ) -> Tensor:
        """The gradient of the weight from a dense input."""
        steps, batch, inputs = input.shape
        columns = self.empty(torch.int32, batch, -(-steps // _core.event_segment), inputs)
        self.launch("mask_columns", (steps, batch, inputs), mask, columns)
        return self._weight_gradient(run, weight, grad_current, (None, None, None, None, columns, input))

    def _weight_gradient(self, run: _Backward, weight: Tensor, grad_current: Tensor, events: Optionals) -> Tensor:
        grad_weight, kernel = torch.empty_like(weight), _of_dtype("weight_gradient", weight.dtype)
        partials = self.empty(weight.dtype, _cuda().weight_groups(*run.sizes[1:]), weight.shape[1], weight.shape[0])
        self.launch(kernel, run.sizes, weight.shape[1], grad_current, *events, partials, grad_weight)
        return grad_weight

    def mask(self, input: Tensor, lengths: Tensor | None) -> Tensor:
        """Which cells of a dense input are not 0."""
        mask = self.empty(torch.int64, *_mask_shape(input))
        self.launch(_of_dtype("mask_cells", input.dtype), tuple(input.shape), lengths, input, mask)
        return mask


def _plain(argument: Any) -> Any:
    """The address of a tensor or of none; anything else as it is."""
    return _address(argument) if argument is None or isinstance(argument, Tensor) else argument


def _is_gpu(device: torch.device) -> bool:
    return device.type == "cuda"


def _device_of(name: str, x: Tensor) -> _Cpu | _Gpu:
    """How the device of an argument runs the kernels."""
    if not _is_gpu(x.device):
        return _CPU
    try:
        _cuda()
    except ImportError as error:
        raise RuntimeError(
            f"{name}: is on {x.device}, for which this build of srcell has no kernels ({error}); "
            "build it where nvcc is found: SRCELL_CUDA=ON pip install --no-binary srcell srcell"
        ) from error
    return _Gpu(x.device)


@functools.cache
def _cuda() -> Any:
    """The compiled module of the CUDA kernels, which is loaded when the first tensor on a GPU arrives."""
    return importlib.import_module("._cuda", __package__)


# What the fake kernels and the autograd formulas share.


def _fake_outputs(like: Tensor, sizes: Sizes) -> list[Tensor]:
    return [like.new_empty(sizes), *(like.new_empty(sizes[1:]) for _ in STATE)]


def _fake_gradients(layer: Layer, sizes: Sizes, wanted: Sequence[bool]) -> list[Tensor]:
    bias = torch.empty_like(layer.bias, memory_format=torch.contiguous_format)
    return [*(layer.bias.new_empty(sizes[1:]) for _ in STATE), bias, *_wanted_gradients(layer, wanted)]


def _save(ctx: Any, layer: Layer, *tensors: Tensor | None) -> None:
    """Keep what the backward pass of a layer needs; of the initial state that is i0 at most."""
    ctx.set_materialize_grads(False)
    needs_i0 = any(x is not None for x in cell_parameters(layer))
    kept = layer._replace(i0=layer.i0 if needs_i0 else None, h0=None, hs0=None)
    ctx.save_for_backward(*tensors, *(x for x in kept if isinstance(x, Tensor)))
    ctx.layer = [... if isinstance(x, Tensor) else x for x in kept]
    ctx.count = len(tensors)


def _saved(ctx: Any) -> tuple[tuple[Tensor | None, ...], Layer]:
    saved = ctx.saved_tensors  # read once: each time they are unpacked anew, and a checkpoint does so only once
    tensors, of_layer = saved[: ctx.count], iter(saved[ctx.count :])
    return tensors, Layer(*(next(of_layer) if x is ... else x for x in ctx.layer))


def _wanted(ctx: Any, layer: Layer) -> list[bool]:
    """Which gradients of cell parameters are wanted; the layer's arguments are the operator's last."""
    needed = ctx.needs_input_grad[-len(Layer._fields) :][5:11]
    return [x is not None and bool(need) for x, need in zip(cell_parameters(layer), needed, strict=True)]


def _layer_gradients(ctx: Any, gradients: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients of a layer's arguments from the ten that its backward operator returns."""
    needed = ctx.needs_input_grad[-len(Layer._fields) :]
    i0, h0, hs0, bias, *cell = gradients
    all_ = (i0, h0, hs0, bias, None, *cell, None, None, None)
    return tuple(grad if need else None for grad, need in zip(all_, needed, strict=True))


def _no_double_backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    raise RuntimeError("srcell: double backward is not supported")


def _require_saved(ctx: Any, name: str) -> None:
    if not ctx.save:
        raise RuntimeError(f"srcell::{name}: a gradient is wanted of a call with save=False")


# src: given currents.


def _sizes(x: Tensor) -> Sizes:
    steps, batch, width = x.shape
    return steps, batch, width


def _src(current: Tensor, save: bool, *rest: Any) -> tuple[Tensor, ...]:
    layer, work = Layer(*rest), _check_current(current)
    sizes = _sizes(current)
    _check_layer(layer, sizes, work, "current")
    current, device = contiguous(current), _device_of("current", current)
    run = _Forward(device, layer, sizes, work.dtype)
    shape = _scan_checkpoints(sizes)
    checkpoints = device.empty(work.dtype, shape[0] if save else 0, *shape[1:])
    device.scan_forward(run, current, checkpoints if save else None)
    return run.spikes, *run.state, checkpoints


def _src_fake(current: Tensor, save: bool, *rest: Any) -> tuple[Tensor, ...]:
    sizes = _sizes(current)
    shape, like = _scan_checkpoints(sizes), current.new_empty(0, dtype=work_dtype(current))
    return *_fake_outputs(like, sizes), like.new_empty(shape[0] if save else 0, *shape[1:])


def _src_backward(*args: Any) -> tuple[Tensor, ...]:
    grads, (current, checkpoints, wanted), layer = args[:4], args[4:7], Layer(*args[7:])
    work, sizes = _check_current(current), _sizes(current)
    _check_wanted(wanted, 0)
    _check_layer(layer, sizes, work, "current")
    _check_grads(grads, sizes, work, "current")
    _check_tensor("checkpoints", checkpoints, work, "current", _scan_checkpoints(sizes))
    current, checkpoints, device = contiguous(current), contiguous(checkpoints), _device_of("current", current)
    run = _Backward(device, grads, layer, sizes, wanted)
    grad_current = device.empty(current.dtype, *sizes)
    device.scan_backward(run, current, checkpoints, grad_current)
    return grad_current, *run.gradients


def _src_backward_fake(*args: Any) -> tuple[Tensor, ...]:
    (current, _, wanted), layer = args[4:7], Layer(*args[7:])
    sizes = _sizes(current)
    return current.new_empty(sizes), *_fake_gradients(layer, sizes, wanted)


def _src_setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    current, ctx.save, *layer = inputs
    checkpoints = output[4]
    ctx.mark_non_differentiable(checkpoints)
    _save(ctx, Layer(*layer), current, checkpoints)


def _src_autograd(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    _require_saved(ctx, "src")
    (current, checkpoints), layer = _saved(ctx)
    grad_current, *gradients = torch.ops.srcell.src_backward(
        *grads[:4], current, checkpoints, _wanted(ctx, layer), *layer
    )
    return grad_current, None, *_layer_gradients(ctx, gradients)


# src_events: a linear synapse on event rows.


def _event_arguments(events: Rows, inputs: int) -> _core.EventArguments:
    return _core.EventArguments(*_addresses(events), events.indices.numel(), inputs)


def _check_events(events: Rows, weight: Tensor, steps: int, batch: int) -> Sizes:
    """Returns T, B and N."""
    count = events.indices.numel()
    _check_floats("weight", weight, "N, K")
    _check_integers("offsets", events.offsets, torch.int64, steps * batch + 1, weight, "weight")
    _check_integers("indices", events.indices, torch.int32, count, weight, "weight")
    _check_tensor("values", events.values, weight, "weight", (count,))
    return steps, batch, weight.shape[0]


def _src_events(*args: Any) -> tuple[Tensor, ...]:
    events, (weight, steps, batch, save, trace_integrator), layer = Rows(*args[:3]), args[3:8], Layer(*args[8:])
    sizes = _check_events(events, weight, steps, batch)
    _check_layer(layer, sizes, weight, "weight")
    return _run_events(events.contiguous(), contiguous(weight), sizes, save, trace_integrator, layer)


def _run_events(
    events: Rows, weight: Tensor, sizes: Sizes, save: bool, trace_integrator: bool, layer: Layer
) -> tuple[Tensor, ...]:
    device = _device_of("weight", weight)
    run = _Forward(device, layer, sizes, weight.dtype)
    shape = _event_checkpoints(sizes, weight.device)
    trace = device.empty(weight.dtype, math.prod(sizes) if save else 0)
    checkpoints = device.empty(weight.dtype, shape[0] if save else 0, *shape[1:])
    device.events_forward(run, events, weight, (trace, checkpoints) if save else (None, None), trace_integrator)
    return run.spikes, *run.state, trace, checkpoints


def _src_events_fake(*args: Any) -> tuple[Tensor, ...]:
    _, _, _, weight, steps, batch, save, _ = args[:8]
    sizes = steps, batch, weight.shape[0]
    shape = _event_checkpoints(sizes, weight.device)
    trace = weight.new_empty(math.prod(sizes) if save else 0)
    return *_fake_outputs(weight, sizes), trace, weight.new_empty(shape[0] if save else 0, *shape[1:])


def _src_events_backward(*args: Any) -> tuple[Tensor, ...]:
    grads, events, (weight, steps, batch, trace, checkpoints, wanted) = args[:4], Rows(*args[4:7]), args[7:13]
    layer = Layer(*args[13:])
    sizes = _check_events(events, weight, steps, batch)
    _check_layer(layer, sizes, weight, "weight")
    _check_grads(grads, sizes, weight, "weight")
    _check_tensor("trace", trace, weight, "weight", (math.prod(sizes),))
    _check_tensor("checkpoints", checkpoints, weight, "weight", _event_checkpoints(sizes, weight.device))
    _check_wanted(wanted, 2)
    want_values, want_weight, *want_cell = wanted
    events, weight, device = events.contiguous(), contiguous(weight), _device_of("weight", weight)
    run = _Backward(device, grads, layer, sizes, want_cell)
    saved = contiguous(trace), contiguous(checkpoints)
    grad_values, grad_weight = device.events_backward(run, events, weight, saved, (want_values, want_weight))
    return grad_values, grad_weight, *run.gradients


def _src_events_backward_fake(*args: Any) -> tuple[Tensor, ...]:
    (_, indices, _, weight, steps, batch), wanted, layer = args[4:10], args[12], Layer(*args[13:])
    want_values, want_weight, *want_cell = wanted
    grad_values = weight.new_empty(indices.shape[0] if want_values else 0)
    grad_weight = (
        torch.empty_like(weight, memory_format=torch.contiguous_format) if want_weight else weight.new_empty(0)
    )
    return grad_values, grad_weight, *_fake_gradients(layer, (steps, batch, weight.shape[0]), want_cell)


def _src_events_setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *events, ctx.steps, ctx.batch, ctx.save, _ = inputs[:8]
    trace, checkpoints = output[4:]
    ctx.mark_non_differentiable(trace, checkpoints)
    _save(ctx, Layer(*inputs[8:]), *events, trace, checkpoints)


def _src_events_autograd(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    _require_saved(ctx, "src_events")
    (*events, trace, checkpoints), layer = _saved(ctx)
    want_values, want_weight = bool(ctx.needs_input_grad[2]), bool(ctx.needs_input_grad[3])
    wanted = [want_values, want_weight, *_wanted(ctx, layer)]
    values, weight, *gradients = torch.ops.srcell.src_events_backward(
        *grads[:4], *events, ctx.steps, ctx.batch, trace, checkpoints, wanted, *layer
    )
    return (
        *(None, None, values if want_values else None, weight if want_weight else None),
        *(None, None, None, None),
        *_layer_gradients(ctx, gradients),
    )


# src_dense: a linear synapse on a dense input, by event rows or by torch's matrix product.

# The cost model of events_are_faster(), in units of what one multiply-add of torch's product costs per neuron and row:
# an event forwards and backwards, and the currents that the product writes and the recurrence reads again. Fitted to
# the sweep of bench/NOTES.md, where the number of neurons and of threads cancels out.
_EVENT_COST, _CURRENT_COST = 2.0, 60.0
# An event's index is an int32.
_MAX_EVENT_INPUTS = 2**31
# Rows from which the density is estimated.
_SAMPLED_ROWS = 256


def events_are_faster(inputs: int, density: float) -> bool:
    """Whether summing the weights of K inputs of such a density is expected to beat torch's matrix product."""
    return _EVENT_COST * density * inputs < inputs + _CURRENT_COST


def _takes_events(input: Tensor, method: str, lengths: Tensor | None) -> bool:
    if method != "auto":
        return method == "events"
    steps, batch, inputs = input.shape
    if input.numel() == 0:
        return True
    rows = input.view(steps * batch, inputs)
    stride = max(1, rows.shape[0] // _SAMPLED_ROWS)
    sampled = rows[::stride]
    if lengths is not None:
        row = torch.arange(0, rows.shape[0], stride, device=input.device)
        sampled = sampled[row // batch < lengths[row % batch]]
    density = int(sampled.count_nonzero()) / max(sampled.numel(), 1)
    return events_are_faster(inputs, density)


def _check_dense(input: Tensor, weight: Tensor, method: str) -> Sizes:
    """Returns T, B and N."""
    _check_floats("input", input, "T, B, K")
    steps, batch, inputs = input.shape
    _check_floats("weight", weight, "N, K")
    _check_tensor("weight", weight, input, "input", (weight.shape[0], inputs))
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if inputs > _MAX_EVENT_INPUTS and method != "gemm":
        raise ValueError(f"input: expected K of at most 2^31 for events, got {inputs}")
    return steps, batch, weight.shape[0]


def _mask_shape(input: Tensor) -> tuple[int, int]:
    steps, batch, inputs = input.shape
    return batch * steps, (inputs + 63) // 64


def _check_dense_call(args: Sequence[Any]) -> tuple[Tensor, Tensor, Layer, Sizes]:
    """Returns contiguous input, weight and layer, and T, B and N."""
    (input, weight, method), layer = args[:3], Layer(*args[6:])
    sizes = _check_dense(input, weight, method)
    _check_layer(layer, sizes, input, "input")
    return contiguous(input), contiguous(weight), layer.contiguous(), sizes


def _src_dense_cpu(*args: Any) -> tuple[Tensor, ...]:
    input, weight, layer, sizes = _check_dense_call(args)
    method, _, save, trace_integrator = args[2:6]
    path = torch.zeros(2, dtype=torch.int64, device="cpu")  # whether events were taken, whether all of them are 1
    if _takes_events(input, method, layer.lengths):
        mask = _empty(torch.int64, *_mask_shape(input))
        offsets = _empty(torch.int64, mask.shape[0] + 1)
        ones = _mask_events(input, layer.lengths, mask, offsets)
        path[0], path[1] = 1, ones
        events = _list_events(input, mask, offsets, ones)
        *outputs, trace, event_checkpoints = _run_events(events, weight, sizes, save, trace_integrator, layer)
        checkpoints = _dense_checkpoints(input, sizes, save)
        checkpoints.view(-1)[: event_checkpoints.numel()] = event_checkpoints.view(-1)
    else:
        *outputs, trace, checkpoints = _run_product(_CPU, input, weight, sizes, save, layer)
        mask = torch.zeros(_mask_shape(input), dtype=torch.int64, device="cpu")
    if not save:
        trace, mask = trace.new_empty(0), mask.new_empty(0, mask.shape[1])
    return *outputs, trace.view(-1), checkpoints, mask, path


def _src_dense_gpu(*args: Any) -> tuple[Tensor, ...]:
    """Events only where asked for: to look at the density would be to wait. A mask of no rows tells the product."""
    input, weight, layer, sizes = _check_dense_call(args)
    method, _, save, trace_integrator = args[2:6]
    gpu = cast(_Gpu, _device_of("input", input))
    if method == "events":
        mask = gpu.mask(input, layer.lengths)
        trace = gpu.empty(input.dtype, *(sizes if save else (0,)))
        checkpoints = _dense_checkpoints(input, sizes, save)
        run = _Forward(gpu, layer, sizes, input.dtype)
        saved = (trace, checkpoints) if save else (None, None)
        gpu.masked_forward(run, input, mask, weight, saved, trace_integrator)
        outputs = [run.spikes, *run.state]
    else:
        *outputs, trace, checkpoints = _run_product(gpu, input, weight, sizes, save, layer)
    if not save or method != "events":
        mask = input.new_empty(0, _mask_shape(input)[1], dtype=torch.int64)
    trace = trace.view(-1) if save else trace.new_empty(0)
    return *outputs, trace, checkpoints, mask, torch.zeros(2, dtype=torch.int64, device=input.device)


def _dense_checkpoints(like: Tensor, sizes: Sizes, save: bool) -> Tensor:
    """Room for the checkpoints of either way: where those of events will lie first, zeros behind them."""
    shape, used = _scan_checkpoints(sizes), math.prod(_event_checkpoints(sizes, like.device))
    checkpoints = _device_of("input", like).empty(like.dtype, shape[0] if save else 0, *shape[1:])
    checkpoints.view(-1)[used:] = 0
    return checkpoints


def _run_product(
    device: _Cpu | _Gpu, input: Tensor, weight: Tensor, sizes: Sizes, save: bool, layer: Layer
) -> tuple[Tensor, ...]:
    """The outputs, the currents and the checkpoints."""
    current = device.empty(input.dtype, *sizes)
    torch.mm(input.flatten(0, 1), weight.t(), out=current.flatten(0, 1))
    *outputs, checkpoints = _src(current, save, *layer)
    return *outputs, current, checkpoints


def _mask_events(input: Tensor, lengths: Tensor | None, mask: Tensor, offsets: Tensor) -> bool:
    """Fill the mask and the offsets of a dense input, and return whether all of its events are 1."""
    if mask.shape[0] == 0:  # of however many samples or steps, which would all be walked through
        offsets.zero_()
        return True
    ones: bool = _kernel("mask_events", input.dtype)(
        tuple(input.shape),
        _address(lengths),
        torch.get_num_threads(),
        _address(input),
        _address(mask),
        _address(offsets),
    )
    return ones


def _list_events(input: Tensor, mask: Tensor, offsets: Tensor, ones: bool) -> Rows:
    """Offsets, indices and values of the events that the mask stands for."""
    count = int(offsets[-1])
    indices = _empty(torch.int32, count)
    values = None if ones else _empty(input.dtype, count)
    if count == 0:
        return Rows(offsets, indices, values)
    _kernel("list_events", input.dtype)(
        tuple(input.shape),
        torch.get_num_threads(),
        _address(input),
        _address(mask),
        _address(offsets),
        _address(indices),
        _address(values),
    )
    return Rows(offsets, indices, values)


def _src_dense_fake(*args: Any) -> tuple[Tensor, ...]:
    input, weight, method, _, save, _ = args[:6]
    sizes = input.shape[0], input.shape[1], weight.shape[0]
    shape = _scan_checkpoints(sizes)
    rows, words = _mask_shape(input)
    masked = save and (method == "events" or not _is_gpu(input.device))
    return (
        *_fake_outputs(input, sizes),
        input.new_empty(math.prod(sizes) if save else 0),
        input.new_empty(shape[0] if save else 0, *shape[1:]),
        input.new_empty(rows if masked else 0, words, dtype=torch.int64),
        input.new_empty(2, dtype=torch.int64),
    )


def _check_dense_backward(args: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor, Tensor, Layer, Sizes]:
    """Returns contiguous input, weight, trace and checkpoints, the layer, and T, B and N."""
    grads, (input, weight, trace, checkpoints), layer = args[:4], args[4:8], Layer(*args[12:])
    sizes = _check_dense(input, weight, "auto")
    _check_layer(layer, sizes, input, "input")
    _check_grads(grads, sizes, input, "input")
    _check_tensor("trace", trace, input, "input", (math.prod(sizes),))
    _check_tensor("checkpoints", checkpoints, input, "input", _scan_checkpoints(sizes))
    _check_integers("path", args[9], torch.int64, 2, input, "input")
    _check_wanted(args[11], 2)
    mask, (rows, words) = args[8], _mask_shape(input)
    shapes = [(rows, words), (0, words)] if _is_gpu(input.device) else [(rows, words)]
    if mask.dtype != torch.int64 or mask.device != input.device or tuple(mask.shape) not in shapes:
        expected = f"int64 of shape {' or '.join(map(str, shapes))} on {input.device}"
        raise ValueError(f"mask: expected {expected}, got {mask.dtype} of shape {tuple(mask.shape)} on {mask.device}")
    return contiguous(input), contiguous(weight), contiguous(trace), contiguous(checkpoints), layer, sizes


def _src_dense_backward_cpu(*args: Any) -> tuple[Tensor, ...]:
    input, weight, trace, checkpoints, layer, sizes = _check_dense_backward(args)
    grads, (mask, path, at_events, wanted) = args[:4], args[8:12]
    want_input, want_weight, *want_cell = wanted
    took_events, ones = path.tolist()
    if not took_events:
        return _product_backward(_CPU, grads, input, weight, trace.view(sizes), checkpoints, wanted, layer)
    mask = contiguous(mask)
    offsets = _empty(torch.int64, mask.shape[0] + 1)
    _core.count_events(tuple(input.shape), torch.get_num_threads(), _address(mask), _address(offsets))
    events = _list_events(input, mask, offsets, bool(ones))
    run = _Backward(_CPU, grads, layer, sizes, want_cell)
    grad_input, grad_current = input.new_empty(0), _empty(input.dtype, *sizes) if want_input else None
    # The checkpoints of events lie first, so that the address is theirs.
    grad_weight = _CPU.weight_gradient(run, events, weight, (trace, checkpoints), grad_current, want_weight)
    if grad_current is not None:
        grad_input = _empty(input.dtype, *input.shape)
        if at_events:
            _CPU.event_dots(run, events, weight, grad_current, None, grad_input)
        else:
            _kernel("multiply", input.dtype)(
                sizes[0] * sizes[1],
                input.shape[2],
                sizes[2],
                torch.get_num_threads(),
                _address(grad_current),
                _address(weight),
                _address(grad_input),
            )
    return grad_input, grad_weight, *run.gradients


def _src_dense_backward_gpu(*args: Any) -> tuple[Tensor, ...]:
    input, weight, trace, checkpoints, layer, sizes = _check_dense_backward(args)
    grads, (mask, _, at_events, wanted) = args[:4], args[8:12]
    want_input, want_weight, *want_cell = wanted
    gpu = cast(_Gpu, _device_of("input", input))
    if mask.shape[0] == 0:
        return _product_backward(gpu, grads, input, weight, trace.view(sizes), checkpoints, wanted, layer)
    run = _Backward(gpu, grads, layer, sizes, want_cell)
    grad_current = gpu.current_gradient(run, (trace, checkpoints))
    grad_input, grad_weight = input.new_empty(0), weight.new_empty(0)
    if want_weight:
        grad_weight = gpu.masked_weight_gradient(run, input, mask.contiguous(), weight, grad_current)
    if want_input:
        grad_input = gpu.empty(input.dtype, *input.shape)
        torch.mm(grad_current.flatten(0, 1), weight, out=grad_input.flatten(0, 1))
        if at_events:
            grad_input.masked_fill_(input == 0, 0)
    return grad_input, grad_weight, *run.gradients


def _product_backward(
    device: _Cpu | _Gpu,
    grads: Optionals,
    input: Tensor,
    weight: Tensor,
    current: Tensor,
    checkpoints: Tensor,
    wanted: Sequence[bool],
    layer: Layer,
) -> tuple[Tensor, ...]:
    want_input, want_weight, *want_cell = wanted
    by_current, *gradients = _src_backward(*grads, current, checkpoints, want_cell, *layer)
    rows = by_current.flatten(0, 1)
    grad_input, grad_weight = input.new_empty(0), weight.new_empty(0)
    if want_weight:
        summed = input if layer.lengths is None else without_padding(input, layer.lengths)
        grad_weight = torch.mm(rows.t(), summed.flatten(0, 1), out=torch.empty_like(weight))
    if want_input:
        grad_input = device.empty(input.dtype, *input.shape)
        torch.mm(rows, weight, out=grad_input.flatten(0, 1))
    return grad_input, grad_weight, *gradients


def _src_dense_backward_fake(*args: Any) -> tuple[Tensor, ...]:
    (input, weight), wanted, layer = args[4:6], args[11], Layer(*args[12:])
    want_input, want_weight, *want_cell = wanted
    grads = [
        torch.empty_like(x, memory_format=torch.contiguous_format) if want else x.new_empty(0)
        for x, want in ((input, want_input), (weight, want_weight))
    ]
    return *grads, *_fake_gradients(layer, (input.shape[0], input.shape[1], weight.shape[0]), want_cell)


def _src_dense_setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    input, weight, _, ctx.at_events, ctx.save, _ = inputs[:6]
    ctx.mark_non_differentiable(*output[4:])
    _save(ctx, Layer(*inputs[6:]), input, weight, *output[4:])


def _src_dense_autograd(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    _require_saved(ctx, "src_dense")
    tensors, layer = _saved(ctx)
    want_input, want_weight = bool(ctx.needs_input_grad[0]), bool(ctx.needs_input_grad[1])
    wanted = [want_input, want_weight, *_wanted(ctx, layer)]
    grad_input, grad_weight, *gradients = torch.ops.srcell.src_dense_backward(
        *grads[:4], *tensors, ctx.at_events, wanted, *layer
    )
    return (
        *(grad_input if want_input else None, grad_weight if want_weight else None, None, None, None, None),
        *_layer_gradients(ctx, gradients),
    )


for _name, _cpu, _gpu, _fake, _autograd, _setup_context in (
    ("src", _src, _src, _src_fake, _src_autograd, _src_setup_context),
    ("src_backward", _src_backward, _src_backward, _src_backward_fake, _no_double_backward, None),
    ("src_events", _src_events, _src_events, _src_events_fake, _src_events_autograd, _src_events_setup_context),
    (
        "src_events_backward",
        _src_events_backward,
        _src_events_backward,
        _src_events_backward_fake,
        _no_double_backward,
        None,
    ),
    ("src_dense", _src_dense_cpu, _src_dense_gpu, _src_dense_fake, _src_dense_autograd, _src_dense_setup_context),
    (
        "src_dense_backward",
        _src_dense_backward_cpu,
        _src_dense_backward_gpu,
        _src_dense_backward_fake,
        _no_double_backward,
        None,
    ),
):
    _library.impl(_name, _cpu, "CPU")
    _library.impl(_name, _gpu, "CUDA")
    torch.library.register_fake(f"srcell::{_name}", _fake, lib=_library)
    torch.library.register_autograd(f"srcell::{_name}", _autograd, setup_context=_setup_context, lib=_library)


# One operator, because torch 2.4 takes exponential time over the steps of a bisection in a compiled graph.
def _rest(bias: Tensor, gain: Tensor) -> Tensor:
    """The lowest h with h = tanh(gain h + bias), of float64 tensors of one shape."""
    # h - tanh(gain h + b) is negative at -1 and increases from there to the lowest root, or to its first turning point.
    turning = ((-gain.clamp(min=1).sqrt().acosh() - bias) / gain).clamp(-1, 1)
    rising = (gain > 1) & (turning > torch.tanh(gain * turning + bias))
    low, high = torch.full_like(bias, -1), torch.where(rising, turning, torch.ones_like(bias))
    for _ in range(60):
        middle = (low + high) / 2
        below = middle < torch.tanh(gain * middle + bias)
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return torch.where((gain + bias).isnan(), math.nan, (low + high) / 2).contiguous()


_library.impl("rest", _rest, "CompositeExplicitAutograd")
torch.library.register_fake("srcell::rest", lambda bias, gain: bias.new_empty(bias.shape), lib=_library)


def _scratch(*counts: int) -> list[Tensor]:
    """Uninitialised vectors of int32 that live as long as a call."""
    return list(_empty(torch.int32, sum(counts), block_bytes=_SCRATCH_BLOCK_BYTES).split(counts))


@outside_graphs
def count_spikes(spikes: Tensor) -> Tensor:
    """(2, N) int64 of contiguous (T, B, N) on the CPU: each neuron's active cells and upward crossings of 0.5."""
    counts = torch.zeros(2, spikes.shape[2], dtype=torch.int64, device="cpu")
    if spikes.numel() == 0:  # of however many steps, which would all be walked through
        return counts
    count = _kernel("count_spikes", spikes.dtype)
    count(tuple(spikes.shape), torch.get_num_threads(), _address(spikes), _address(counts))
    return counts


def _count_active_pixels(images: Tensor) -> tuple[_core.Images, Tensor, int, int]:
    """The images as the encoders take them, how many active pixels come before each sample, how many there are in all,
    and for how many an encoder's scratch must have room.
    """
    samples, pixels = images.shape
    view = _core.Images(_address(images), samples, pixels, torch.get_num_threads())
    active_before = _empty(torch.int64, samples + 1)
    active, groups = _core.count_active_pixels(view, _address(active_before))
    return view, active_before, active, groups * _core.pixel_group


@outside_graphs
def rate_encode(
    images: Tensor, index: Tensor, steps: int, prefix: int, gain: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Offsets and indices of the events of float32 images (B, K), contiguous; see srcell.encoders.rate_encode."""
    if _is_gpu(images.device):
        return _rate_encode_gpu(images, index, steps, prefix, gain, seed)
    view, active_before, _, room = _count_active_pixels(images)
    drawn_steps = -(-steps // _core.drawn_steps) * _core.drawn_steps
    scratch = _scratch(room, room, room * drawn_steps // 32)  # a bit for each pixel and step
    offsets = _empty(torch.int64, len(images) * (prefix + steps) + 1)
    addresses = _addresses(scratch)
    encoding = _core.RateEncoding(
        view, _address(active_before), _address(index), steps, prefix, gain, seed, addresses, _address(offsets)
    )
    indices = _empty(torch.int32, _core.rate_draw(encoding))
    _core.rate_write(encoding, _address(indices))
    return offsets, indices


def _rate_encode_gpu(
    images: Tensor, index: Tensor, steps: int, prefix: int, gain: float, seed: int
) -> tuple[Tensor, Tensor]:
    """The same on a GPU. It waits, to learn how many events there are."""
    gpu = cast(_Gpu, _device_of("images", images))
    samples, pixels = images.shape
    mask = gpu.empty(torch.int64, samples * steps, -(-pixels // 64))
    counts = gpu.empty(torch.int64, samples * (prefix + steps))
    sizes = (samples, steps, prefix, pixels)
    gpu.launch("rate_mask", (samples, pixels, steps), images, index, gain, seed, mask)
    gpu.launch("count_mask", sizes, mask, counts)
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    wrong = ~((images >= 0) & (images <= 1)).flatten()
    count, any_wrong = torch.stack([offsets[-1], wrong.any()]).tolist()
    if any_wrong:
        sample, pixel = divmod(int(wrong.nonzero()[0]), pixels)
        got = images[sample, pixel].item()
        raise ValueError(f"images: expected values in [0, 1], got {got} in pixel {pixel} of sample {sample}")
    indices = gpu.empty(torch.int32, count)
    gpu.launch("list_mask", sizes, mask, offsets, indices)
    return offsets, indices


@outside_graphs
def latency_encode(images: Tensor, steps: int, prefix: int) -> tuple[Tensor, Tensor]:
    """Offsets and indices of the events of float32 images (B, K), contiguous; see srcell.encoders.latency_encode."""
    view, active_before, events, room = _count_active_pixels(images)
    scratch = _scratch(room, room)
    offsets = _empty(torch.int64, len(images) * (prefix + steps) + 1)
    indices = _empty(torch.int32, events)
    addresses = _addresses(scratch)
    _core.latency_encode(view, _address(active_before), steps, prefix, addresses, _address(offsets), _address(indices))
    return offsets, indices


@outside_graphs
def find_event_fault(
    offsets: Tensor, indices: Tensor, values: Tensor | None, lengths: Tensor | None, shape: tuple[int, int, int]
) -> tuple[str, int] | None:
    """What is wrong first with contiguous parts of an EventBatch, of the right shapes and dtypes, and where."""
    is_double = values is not None and values.dtype == torch.float64
    values_f32, values_f64 = (0, _address(values)) if is_double else (_address(values), 0)
    threads = torch.get_num_threads()
    return _core.find_event_fault(
        _address(offsets), _address(indices), values_f32, values_f64, _address(lengths), *shape, len(indices), threads
    )


def core_info() -> dict[str, Any]:
    """What the compiled module says of itself."""
    return {
        "version": _core.version,
        "isa": _core.isa,
        "isas": _core.available_isas,
        "thread_runtime": _core.thread_runtime(),
        "cuda": _cuda_info(),
    }


def _cuda_info() -> str | None:
    """For what the CUDA module was built; None if there is none."""
    try:
        module = _cuda()
    except ImportError:
        return None
    runtime = module.runtime
    return f"runtime {runtime // 1000}.{runtime % 1000 // 10}, architectures {module.architectures}"
