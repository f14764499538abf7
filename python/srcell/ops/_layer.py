"""A layer's values as every operator takes them, and every check of a tensor's shape, dtype and device, made once.

The kernels of the operators use this; it knows no synapse and runs nothing. Values are checked below, where they are
read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ._cpu import core
from ._memory import Optionals, address, addresses, contiguous

PARAMETERS = ("alpha", "rho", "r", "rs", "zs_hyp", "zs_dep")
STATE = ("i", "h", "hs")
SURROGATES = ("relu", "straight_through")
HALF = (torch.float16, torch.bfloat16)
WORK = (torch.float32, torch.float64)

# Parts of the schemas. A cell parameter is a tensor if any is; `constants` are then looked at all the same, so that a
# float beside a tensor is checked on a GPU too.
LAYER = "Tensor bias, Tensor[] cell, Tensor[] state, Tensor? lengths"
OPTIONS = "float[] constants, str surrogate, bool recurrent_grad"
OUTPUTS = "Tensor spikes, Tensor i, Tensor h, Tensor hs"
ARRIVING = "Tensor? grad_spikes, Tensor? grad_i, Tensor? grad_h, Tensor? grad_hs"
GRADIENTS = "Tensor i0, Tensor h0, Tensor hs0, Tensor bias, " + ", ".join(f"Tensor {name}" for name in PARAMETERS)

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
    """A tensor of one of the shapes, contiguous."""
    if x.dtype != like.dtype:
        raise TypeError(f"{name}: expected dtype {like.dtype}, as {like.name} has, got {x.dtype}")
    _check_device(name, x, like)
    if x.shape not in shapes:
        expected = " or ".join(str(shape) for shape in shapes)
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(x.shape)}")
    return contiguous(x)


def check_optional(name: str, x: Tensor | None, like: Like, *shapes: tuple[int, ...]) -> Tensor | None:
    """The same, or None."""
    return None if x is None else check_tensor(name, x, like, *shapes)


def check_integers(name: str, x: Tensor, dtype: torch.dtype, count: int, like: Like) -> Tensor:
    """A vector of so many integers, contiguous."""
    if x.dtype != dtype:
        raise TypeError(f"{name}: expected dtype {str(dtype).removeprefix('torch.')}, got {x.dtype}")
    _check_device(name, x, like)
    if x.shape != (count,):
        raise ValueError(f"{name}: expected shape ({count},), got {tuple(x.shape)}")
    return contiguous(x)


def _check_device(name: str, x: Tensor, like: Like) -> None:
    if x.device != like.device:
        raise ValueError(f"{name}: expected device {like.device}, as {like.name} has, got {x.device}")


def check_output_mask(output_mask: Sequence[bool], synapse: int) -> None:
    """It tells which gradients are wanted: so many of a synapse's, and those of the cell parameters."""
    if len(output_mask) != synapse + len(PARAMETERS):
        raise ValueError(f"output_mask: expected {synapse + len(PARAMETERS)} values, got {len(output_mask)}")


class Layer:
    """The values of a layer, checked and contiguous.

    Attributes:
        sizes: T, B and N.
        like: what has the dtype and the device of all of them.
        bias, cell, state, lengths, constants, surrogate, recurrent_grad: as in the schemas.

    """

    __slots__ = ("bias", "cell", "constants", "lengths", "like", "recurrent_grad", "sizes", "state", "surrogate")

    def __init__(
        self,
        sizes: Sizes,
        like: Like,
        bias: Tensor,
        cell: Sequence[Tensor],
        state: Sequence[Tensor],
        lengths: Tensor | None,
        *,
        constants: Sequence[float],
        surrogate: str,
        recurrent_grad: bool,
    ) -> None:
        _, batch, neurons = sizes
        vectors: tuple[tuple[int, ...], ...] = ((), (1,), (neurons,))
        self.bias = check_tensor("bias", bias, like, *vectors)
        if len(cell) not in (0, len(PARAMETERS)):
            raise ValueError(f"cell: expected 0 or {len(PARAMETERS)} tensors, got {len(cell)}")
        self.cell = [check_tensor(name, x, like, *vectors) for name, x in zip(PARAMETERS, cell, strict=False)]
        if len(state) not in (0, len(STATE)):
            raise ValueError(f"state: expected 0 or {len(STATE)} tensors, got {len(state)}")
        shape = (batch, neurons)
        self.state = [check_tensor(f"{name}0", x, like, shape) for name, x in zip(STATE, state, strict=False)]
        if min(sizes) < 0:
            raise ValueError(f"{like.name}: expected sizes of at least 0, got {sizes}")
        if len(constants) != len(PARAMETERS):
            raise ValueError(f"constants: expected {len(PARAMETERS)} values, got {len(constants)}")
        self.lengths = None if lengths is None else check_integers("lengths", lengths, torch.int64, batch, like)
        if surrogate not in SURROGATES:
            raise ValueError(f"surrogate: expected one of {', '.join(SURROGATES)}, got {surrogate!r}")
        self.sizes, self.like = sizes, like
        self.constants, self.surrogate, self.recurrent_grad = constants, surrogate, recurrent_grad

    def forward_arguments(self, spikes: Tensor, ended: Sequence[Tensor]) -> core.ForwardArguments:
        """What every forward kernel takes, with the outputs that it fills: the spikes, and the state in the end."""
        return core.ForwardArguments(
            self.sizes,
            address(self.lengths),
            torch.get_num_threads(),
            self._parameters(),
            addresses(self.state) or (0, 0, 0),
            address(spikes),
            addresses(ended),
        )

    def backward_arguments(self, arriving: Optionals, gradients: LayerGradients) -> core.BackwardArguments:
        """What every backward kernel takes: gradients that arrive, and those that it fills."""
        return core.BackwardArguments(
            self.sizes,
            address(self.lengths),
            torch.get_num_threads(),
            self._parameters(),
            self.surrogate == "relu",
            self.recurrent_grad,
            address(arriving[0]),
            addresses(arriving[1:]),
            addresses(gradients.state),
            address(gradients.bias),
            addresses(gradients.wanted),
        )

    def _parameters(self) -> core.Parameters:
        tensors = [self.bias, *(self.cell or (None,) * len(PARAMETERS))]
        strides = [0 if x is None or x.numel() == 1 else 1 for x in tensors]
        return core.Parameters([0.0, *self.constants], addresses(tensors), strides)


class LayerGradients:
    """Room for the gradients of a layer's values.

    Attributes:
        state: of the state before the first step, three tensors (B, N).
        bias: like the bias.
        wanted: of each cell parameter, None where it is not wanted.
        all: the ten tensors of GRADIENTS; those that are not wanted have no elements.

    """

    __slots__ = ("all", "bias", "state", "wanted")

    def __init__(self, layer: Layer, output_mask: Sequence[bool], empty: Callable[..., Tensor]) -> None:
        self.state = [empty(layer.like.dtype, *layer.sizes[1:]) for _ in STATE]
        self.bias = empty_like(layer.bias)
        cell: Optionals = layer.cell or (None,) * len(PARAMETERS)
        self.wanted = [
            empty_like(x) if want and x is not None else None for x, want in zip(cell, output_mask, strict=True)
        ]
        self.all = (*self.state, self.bias, *(layer.bias.new_empty(0) if x is None else x for x in self.wanted))


def check_arriving(arriving: Optionals, sizes: Sizes, like: Like) -> list[Tensor | None]:
    """The gradients of spikes, i, h and hs, contiguous."""
    spikes, *state = arriving
    checked = [check_optional(f"grad_{name}", x, like, sizes[1:]) for name, x in zip(STATE, state, strict=True)]
    return [check_optional("grad_spikes", spikes, like, sizes), *checked]


# Shapes, for fake kernels.


def fake_outputs(like: Tensor, steps: int, batch: int, neurons: int) -> list[Tensor]:
    """Spikes, i, h and hs."""
    return [like.new_empty(steps, batch, neurons), *(like.new_empty(batch, neurons) for _ in STATE)]


def fake_gradients(
    bias: Tensor, cell: Sequence[Tensor], batch: int, neurons: int, output_mask: Sequence[bool]
) -> list[Tensor]:
    """The ten tensors of GRADIENTS."""
    state = [bias.new_empty(batch, neurons) for _ in STATE]
    given: Optionals = cell or (None,) * len(PARAMETERS)
    wanted = [
        empty_like(x) if want and x is not None else bias.new_empty(0)
        for x, want in zip(given, output_mask, strict=True)
    ]
    return [*state, empty_like(bias), *wanted]


def empty_like(x: Tensor) -> Tensor:
    """Of the shape and dtype of a tensor, contiguous."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)
