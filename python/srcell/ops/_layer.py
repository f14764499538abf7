"""A layer's values as every operator takes them, and every check of a tensor's shape, dtype and device, made once.

The kernels of the operators use this; it knows no synapse and runs nothing. Values are checked below, where they are
read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import _gpu
from ._cpu import Cpu, core
from ._memory import Optionals, address, addresses, contiguous

PARAMETERS = core.parameters[1:]  # behind the bias
STATE = ("i", "h", "hs")
SURROGATES = ("relu", "straight_through")
HALF = (torch.float16, torch.bfloat16)
WORK = (torch.float32, torch.float64)

# Parts of the schemas. A cell parameter is a tensor if any is; `constants` are then looked at all the same, so that a
# float beside a tensor is checked on a GPU too.
LAYER = "Tensor bias, Tensor[] cell, Tensor[] state, Tensor? lengths"
CELL = ", ".join(f"Tensor? {name}" for name in PARAMETERS)  # of backward operators, last of the tensors
OPTIONS = "float[] constants, str surrogate, bool recurrent_grad"
OUTPUTS = "Tensor spikes, Tensor i, Tensor h, Tensor hs"
ARRIVING = "Tensor? grad_spikes, Tensor? grad_i, Tensor? grad_h, Tensor? grad_hs"
GRADIENTS = "Tensor i0, Tensor h0, Tensor hs0, Tensor bias, " + ", ".join(f"Tensor {name}" for name in PARAMETERS)

NO_CELL: Optionals = (None,) * len(PARAMETERS)

Sizes = tuple[int, int, int]
"""T, B and N, or T, B and K."""


class Like(NamedTuple):
    """The argument that others must agree with in dtype and device."""

    name: str
    dtype: torch.dtype
    device: torch.device


def work_dtype(x: Tensor) -> torch.dtype:
    """What is computed in."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def check_floats(name: str, x: Tensor, dimensions: str, *, half: bool = False) -> Like:
    """Check a tensor that others are compared with; in half precision it is computed in float32."""
    if x.dim() != dimensions.count(",") + 1:
        raise ValueError(f"{name}: expected shape ({dimensions}), got {tuple(x.shape)}")
    if x.dtype not in WORK and not (half and x.dtype in HALF):
        raise TypeError(f"{name}: expected dtype float32 or float64, got {x.dtype}")
    return Like(name, work_dtype(x), x.device)


def check_tensor(name: str, x: Tensor, like: Like, *shapes: tuple[int, ...]) -> Tensor:
    """A tensor of one of the shapes."""
    if x.dtype != like.dtype:
        raise TypeError(f"{name}: expected dtype {like.dtype}, as {like.name} has, got {x.dtype}")
    _check_device(name, x, like)
    if x.shape not in shapes:
        expected = " or ".join(str(shape) for shape in shapes)
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(x.shape)}")
    return x


def check_optional(name: str, x: Tensor | None, like: Like, *shapes: tuple[int, ...]) -> Tensor | None:
    """The same, or None."""
    return None if x is None else check_tensor(name, x, like, *shapes)


def check_integers(name: str, x: Tensor, dtype: torch.dtype, count: int, like: Like) -> Tensor:
    """A vector of so many integers."""
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
    constants: Sequence[float],
    surrogate: str,
) -> None:
    """Check all but the values of a layer's tensors; fake kernels do so as well."""
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
    if any(size < 0 for size in sizes):  # min() would compare them, and so tie an exported graph to their order
        raise ValueError(f"{like.name}: expected sizes of at least 0, got {sizes}")
    if len(constants) != len(PARAMETERS):
        raise ValueError(f"constants: expected {len(PARAMETERS)} values, got {len(constants)}")
    if lengths is not None:
        check_integers("lengths", lengths, torch.int64, batch, like)
    if surrogate not in SURROGATES:
        raise ValueError(f"surrogate: expected one of {', '.join(SURROGATES)}, got {surrogate!r}")


def check_output_mask(output_mask: Sequence[bool], synapse: int) -> None:
    """It tells which gradients are wanted: so many of a synapse's, and those of the cell parameters."""
    if len(output_mask) != synapse + len(PARAMETERS):
        raise ValueError(f"output_mask: expected {synapse + len(PARAMETERS)} values, got {len(output_mask)}")


class Layer:
    """The values of a layer, checked and contiguous.

    Attributes:
        sizes: T, B and N.
        like: what has the dtype and the device of all of them.
        bias, cell, state, lengths: as in the schemas, the tensors whose addresses the struct has.
        struct: the layer as kernels take it.

    """

    __slots__ = ("bias", "cell", "lengths", "like", "sizes", "state", "struct")

    def __init__(
        self,
        sizes: Sizes,
        like: Like,
        bias: Tensor,
        cell: Optionals,
        state: Sequence[Tensor],
        lengths: Tensor | None,
        *,
        constants: Sequence[float],
        surrogate: str,
        recurrent_grad: bool,
    ) -> None:
        check_layer(sizes, like, bias, cell, state, lengths, constants, surrogate)
        self.sizes, self.like = sizes, like
        self.bias, self.state = contiguous(bias), [contiguous(x) for x in state]
        self.cell = [None if x is None else contiguous(x) for x in cell]
        self.lengths = None if lengths is None else contiguous(lengths)
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
        """The addresses of the state before the first step."""
        return addresses(self.state) or (0, 0, 0)


def empty_outputs(layer: Layer, backend: Cpu | _gpu.Gpu) -> list[Tensor]:
    """Room for spikes, i, h and hs."""
    return [backend.empty(layer.bias, *layer.sizes), *(backend.empty(layer.bias, *layer.sizes[1:]) for _ in STATE)]


class LayerGradients:
    """Room for the gradients of a layer's values.

    Attributes:
        wanted: the ten tensors of GRADIENTS, None for those of cell parameters that are not wanted.
        all: the same, of no elements where they are not wanted.

    """

    __slots__ = ("all", "wanted")

    def __init__(self, layer: Layer, output_mask: Sequence[bool], empty: Callable[..., Tensor]) -> None:
        state = [empty(layer.bias, *layer.sizes[1:]) for _ in STATE]
        cell = layer.cell or NO_CELL
        wanted = [empty_like(x) if want and x is not None else None for x, want in zip(cell, output_mask, strict=True)]
        self.wanted: Optionals = [*state, empty_like(layer.bias), *wanted]
        self.all = [layer.bias.new_empty(0) if x is None else x for x in self.wanted]

    @property
    def sums(self) -> int:
        """How many of a neuron's gradients are summed over time: the bias's alone, or those of all parameters."""
        return 1 if all(x is None for x in self.wanted[4:]) else 1 + len(PARAMETERS)


def check_arriving(arriving: Optionals, sizes: Sizes, like: Like) -> list[Tensor | None]:
    """The gradients of spikes, i, h and hs, contiguous."""
    spikes, *state = arriving
    check_optional("grad_spikes", spikes, like, sizes)
    for name, x in zip(STATE, state, strict=True):
        check_optional(f"grad_{name}", x, like, sizes[1:])
    return [None if x is None else contiguous(x) for x in arriving]


# Shapes, for fake kernels.


def fake_outputs(like: Tensor, steps: int, batch: int, neurons: int) -> list[Tensor]:
    """Spikes, i, h and hs."""
    return [like.new_empty(steps, batch, neurons), *(like.new_empty(batch, neurons) for _ in STATE)]


def fake_gradients(
    bias: Tensor, cell: Optionals, batch: int, neurons: int, output_mask: Sequence[bool]
) -> list[Tensor]:
    """The ten tensors of GRADIENTS."""
    state = [bias.new_empty(batch, neurons) for _ in STATE]
    given = cell or NO_CELL
    wanted = [
        empty_like(x) if want and x is not None else bias.new_empty(0)
        for x, want in zip(given, output_mask, strict=True)
    ]
    return [*state, empty_like(bias), *wanted]


def empty_like(x: Tensor) -> Tensor:
    """Of the shape and dtype of a tensor, contiguous."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)
