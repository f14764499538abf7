"""The layer's arguments that all operators share, and the checks of a tensor's shape, dtype and device.

The operators use this; it knows no synapse and runs no kernel. Values are checked in the compiled modules, which read
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _gpu
from ._cpu import Cpu, core
from ._memory import Optionals, address, addresses, contiguous

PARAMETERS = core.parameters[1:]  # the bias comes first
STATE = ("i", "h", "hs")
SURROGATES = ("relu", "straight_through")
HALF = (torch.float16, torch.bfloat16)
WORK = (torch.float32, torch.float64)

# Parts of the schemas. If one cell parameter is a tensor, all are passed as tensors; `constants` are still checked, so
# that the value of a float among them is checked on a GPU too.
LAYER = "Tensor bias, Tensor[] cell, Tensor[] state, Tensor? lengths, Tensor? weight_hh"
CELL = ", ".join(f"Tensor? {name}" for name in PARAMETERS)  # in backward operators, after the other tensors
OPTIONS = "float[] constants, str surrogate, bool recurrent_grad, str lateral_surrogate"
OUTPUTS = "Tensor spikes, Tensor i, Tensor h, Tensor hs"
ARRIVING = "Tensor? grad_spikes, Tensor? grad_i, Tensor? grad_h, Tensor? grad_hs"
GRADIENTS = "Tensor weight_hh, Tensor i0, Tensor h0, Tensor hs0, Tensor bias, " + ", ".join(
    f"Tensor {name}" for name in PARAMETERS
)

NO_CELL: Optionals = (None,) * len(PARAMETERS)

Sizes = tuple[int, int, int]
"""T, B and N, or T, B and K."""


class Like(NamedTuple):
    """The argument whose dtype and device the others must have."""

    name: str
    dtype: torch.dtype
    device: torch.device


def work_dtype(x: Tensor) -> torch.dtype:
    """The dtype of the computation: float64 for float64, otherwise float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def check_floats(name: str, x: Tensor, dimensions: str, *, half: bool = False) -> Like:
    """Check a tensor's dimensions and dtype; return what other arguments must have, which is float32 for half."""
    if x.dim() != dimensions.count(",") + 1:
        raise ValueError(f"{name}: expected shape ({dimensions}), got {tuple(x.shape)}")
    if x.dtype not in WORK and not (half and x.dtype in HALF):
        raise TypeError(f"{name}: expected dtype float32 or float64, got {x.dtype}")
    return Like(name, work_dtype(x), x.device)


def check_tensor(name: str, x: Tensor, like: Like, *shapes: tuple[int, ...]) -> Tensor:
    """The tensor; raise unless it has the dtype and device of ``like`` and one of the shapes."""
    if x.dtype != like.dtype:
        raise TypeError(f"{name}: expected dtype {like.dtype}, as {like.name} has, got {x.dtype}")
    _check_device(name, x, like)
    if x.shape not in shapes:
        expected = " or ".join(str(shape) for shape in shapes)
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(x.shape)}")
    return x


def check_optional(name: str, x: Tensor | None, like: Like, *shapes: tuple[int, ...]) -> Tensor | None:
    """``check_tensor``, or None for None."""
    return None if x is None else check_tensor(name, x, like, *shapes)


def check_integers(name: str, x: Tensor, dtype: torch.dtype, count: int, like: Like) -> Tensor:
    """The tensor; raise unless it is a vector of ``count`` integers."""
    if x.dtype != dtype:
        raise TypeError(f"{name}: expected dtype {str(dtype).removeprefix('torch.')}, got {x.dtype}")
    _check_device(name, x, like)
    if x.shape != (count,):
        raise ValueError(f"{name}: expected shape ({count},), got {tuple(x.shape)}")
    return x


def _check_device(name: str, x: Tensor, like: Like) -> None:
    if x.device != like.device:
        raise ValueError(f"{name}: expected device {like.device}, as {like.name} has, got {x.device}")


def check_layer(
    sizes: Sizes,
    like: Like,
    bias: Tensor,
    cell: Optionals,
    state: Sequence[Tensor],
    lengths: Tensor | None,
    weight_hh: Tensor | None,
    constants: Sequence[float],
    surrogate: str,
    lateral_surrogate: str,
) -> None:
    """Check all but the values of a layer's tensors, which fake tensors do not have."""
    _, batch, neurons = sizes
    vectors: tuple[tuple[int, ...], ...] = ((neurons,), (), (1,))
    check_tensor("bias", bias, like, *vectors)
    if len(cell) not in (0, len(PARAMETERS)):
        raise ValueError(f"cell: expected 0 or {len(PARAMETERS)} tensors, got {len(cell)}")
    for name, x in zip(PARAMETERS, cell, strict=False):
        if x is not None:
            check_tensor(name, x, like, *vectors)
    if len(state) not in (0, len(STATE)):
        raise ValueError(f"state: expected 0 or {len(STATE)} tensors, got {len(state)}")
    shape = (batch, neurons)
    for name, x in zip(STATE, state, strict=False):
        check_tensor(f"state.{name}", x, like, shape)
    if any(size < 0 for size in sizes):  # min() would guard an exported graph on their order
        raise ValueError(f"{like.name}: expected sizes of at least 0, got {sizes}")
    if len(constants) != len(PARAMETERS):
        raise ValueError(f"constants: expected {len(PARAMETERS)} values, got {len(constants)}")
    if lengths is not None:
        check_integers("lengths", lengths, torch.int64, batch, like)
    if surrogate not in SURROGATES:
        raise ValueError(f"surrogate: expected one of {', '.join(SURROGATES)}, got {surrogate!r}")
    if lateral_surrogate not in SURROGATES:
        raise ValueError(f"lateral_surrogate: expected one of {', '.join(SURROGATES)}, got {lateral_surrogate!r}")
    if weight_hh is not None:
        check_tensor("weight_hh", weight_hh, like, (neurons, neurons))


def check_output_mask(output_mask: Sequence[bool], synapse: int) -> None:
    """Check the length of ``output_mask``: flags for the gradients of a synapse, weight_hh and cell parameters."""
    expected = synapse + 1 + len(PARAMETERS)
    if len(output_mask) != expected:
        raise ValueError(f"output_mask: expected {expected} values, got {len(output_mask)}")


def output_mask_of(ctx: Any, *synapse: bool) -> list[bool]:
    """The flags of a backward operator: those of its synapse, then those of a layer's tensors that need a gradient."""
    _, needs_cell, _, _, needs_weight_hh = ctx.needs[-5:]
    return [*synapse, needs_weight_hh, *(needs_cell or [False] * len(PARAMETERS))]


class Layer:
    """A layer's arguments, checked and contiguous.

    Attributes:
        sizes: T, B and N.
        like: the argument whose dtype and device all have.
        bias, cell, state, lengths, weight_hh: as in the schemas; kept alive while kernels have their addresses.
        lateral_relu: whether ``lateral_surrogate`` is "relu".
        struct: the layer as kernels take it, but for weight_hh.

    """

    __slots__ = ("bias", "cell", "lateral_relu", "lengths", "like", "sizes", "state", "struct", "weight_hh")

    def __init__(
        self,
        sizes: Sizes,
        like: Like,
        bias: Tensor,
        cell: Optionals,
        state: Sequence[Tensor],
        lengths: Tensor | None,
        weight_hh: Tensor | None,
        *,
        constants: Sequence[float],
        surrogate: str,
        recurrent_grad: bool,
        lateral_surrogate: str,
    ) -> None:
        check_layer(sizes, like, bias, cell, state, lengths, weight_hh, constants, surrogate, lateral_surrogate)
        self.sizes, self.like = sizes, like
        self.bias, self.state = contiguous(bias), [contiguous(x) for x in state]
        self.cell = [None if x is None else contiguous(x) for x in cell]
        self.lengths = None if lengths is None else contiguous(lengths)
        self.weight_hh = None if weight_hh is None else contiguous(weight_hh)
        self.lateral_relu = lateral_surrogate == "relu"
        given = (self.bias, *(self.cell or NO_CELL))
        self.struct = core.Layer(
            like.dtype == torch.float64,
            not _gpu.is_gpu(like.device),
            sizes,
            address(self.lengths),
            torch.get_num_threads(),
            [0.0, *constants],
            addresses(given),
            [0 if x is None or x.numel() == 1 else 1 for x in given],
            surrogate == "relu",
            recurrent_grad,
        )

    def initial(self) -> Sequence[int]:
        """The addresses of the state before the first step; 0 stands for zeros."""
        return addresses(self.state) or (0, 0, 0)


def empty_outputs(layer: Layer, backend: Cpu | _gpu.Gpu, spikes_dtype: torch.dtype | None = None) -> list[Tensor]:
    """Uninitialised tensors for spikes, i, h and hs."""
    spikes = backend.empty(layer.bias, *layer.sizes, dtype=spikes_dtype)
    return [spikes, *(backend.empty(layer.bias, *layer.sizes[1:]) for _ in STATE)]


class LayerGradients:
    """Uninitialised tensors for the gradients of a layer's arguments.

    Attributes:
        weight_hh: that of the lateral weights, or None if it is not wanted.
        wanted: the tensors of GRADIENTS behind it, None for those of cell parameters that are not wanted.
        all: weight_hh and those, with an empty tensor for each None.

    """

    __slots__ = ("all", "wanted", "weight_hh")

    def __init__(self, layer: Layer, output_mask: Sequence[bool], empty: Callable[..., Tensor]) -> None:
        state = [empty(layer.bias, *layer.sizes[1:]) for _ in STATE]
        cell = layer.cell or NO_CELL
        wanted = [
            empty_like(x) if want and x is not None else None
            for x, want in zip((layer.weight_hh, *cell), output_mask, strict=True)
        ]
        self.weight_hh = wanted[0]
        self.wanted: Optionals = [*state, empty_like(layer.bias), *wanted[1:]]
        self.all = [layer.bias.new_empty(0) if x is None else x for x in (self.weight_hh, *self.wanted)]

    @property
    def sums(self) -> int:
        """How many of a neuron's gradients are summed over time: the bias's alone, or those of all parameters."""
        return 1 if all(x is None for x in self.wanted[4:]) else 1 + len(PARAMETERS)


def check_arriving(
    arriving: Optionals, sizes: Sizes, like: Like, or_dtype: torch.dtype | None = None
) -> list[Tensor | None]:
    """Check the incoming gradients of spikes, which may be of ``or_dtype``, i, h and hs; return them contiguous."""
    spikes, *state = arriving
    if spikes is not None:
        of_spikes = like._replace(dtype=or_dtype) if spikes.dtype == or_dtype else like
        check_tensor("grad_spikes", spikes, of_spikes, sizes)
    for name, x in zip(STATE, state, strict=True):
        check_optional(f"grad_{name}", x, like, sizes[1:])
    return [None if x is None else contiguous(x) for x in arriving]


# Shapes, for fake kernels.


def fake_outputs(like: Tensor, steps: int, batch: int, neurons: int) -> list[Tensor]:
    """Spikes, i, h and hs."""
    return [like.new_empty(steps, batch, neurons), *(like.new_empty(batch, neurons) for _ in STATE)]


def fake_gradients(
    bias: Tensor, weight_hh: Tensor | None, cell: Optionals, batch: int, neurons: int, output_mask: Sequence[bool]
) -> list[Tensor]:
    """The tensors of GRADIENTS."""
    state = [bias.new_empty(batch, neurons) for _ in STATE]
    wanted = [
        empty_like(x) if want and x is not None else bias.new_empty(0)
        for x, want in zip((weight_hh, *(cell or NO_CELL)), output_mask, strict=True)
    ]
    return [wanted[0], *state, empty_like(bias), *wanted[1:]]


def empty_like(x: Tensor) -> Tensor:
    """An uninitialised contiguous tensor of the same shape and dtype."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)
