"""The arguments that all operators of a layer share, and the checks of a tensor's shape, dtype and device.

The operators use this; it knows no synapse and runs no kernel. The compiled modules check values, because they read
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
from ._operator import Operator

PARAMETERS = core.parameters[1:]  # the bias comes first
STATE = ("i", "h", "hs", "q")  # of resonant neurons; the others have no omega and no q, which come last in either list
PLAIN_STATE = STATE[:-1]
CONSTANTS = len(PARAMETERS) - 1, len(PARAMETERS)  # how many there are without and with resonance
SURROGATES = ("relu", "straight_through")
HALF = (torch.float16, torch.bfloat16)
WORK = (torch.float32, torch.float64)

# The layer's part of the schemas; a call's record has it as one `LayerArguments`. If one cell parameter is a tensor,
# all are passed as tensors; `constants` are still checked, so that a float among them is checked on a GPU too. A
# backward operator's schema has optional tensors instead of the lists, and of the state only what the gradient needs.
LAYER = "Tensor bias, Tensor[] cell, Tensor[] state, Tensor? lengths, Tensor? weight_hh"
LISTS = {"cell": PARAMETERS, "state": ("i0",)}
LAYER_BACKWARD = ", ".join(
    ["Tensor bias", *(f"Tensor? {name}" for name in (*PARAMETERS, "i0", "lengths", "weight_hh"))]
)
OPTIONS = "float[] constants, str surrogate, bool recurrent_grad, str lateral_surrogate"
OUTPUTS = ", ".join(f"Tensor {name}" for name in ("spikes", *STATE))
SAVED = "Tensor trace, Tensor checkpoints"
GRAD_OUTPUTS = ", ".join(f"Tensor? grad_{name}" for name in ("spikes", *STATE))
GRADIENTS = ", ".join(f"Tensor {name}" for name in ("weight_hh", *(f"{x}0" for x in STATE), "bias", *PARAMETERS))


class LayerArguments(NamedTuple):
    """The layer's part of a call, ``call.layer``; its fields have the names in LAYER and OPTIONS."""

    bias: Tensor
    cell: list[Tensor]
    state: list[Tensor]
    lengths: Tensor | None
    weight_hh: Tensor | None
    constants: list[float]
    surrogate: str
    recurrent_grad: bool
    lateral_surrogate: str


SHARED = ("layer", LayerArguments)


def resonates(layer: LayerArguments) -> bool:
    """Whether the neurons have an omega and a q."""
    return len(layer.constants) == len(PARAMETERS)


def states_of(layer: LayerArguments) -> tuple[str, ...]:
    """The names of the state's tensors."""
    return STATE if resonates(layer) else PLAIN_STATE


def padded(tensors: Sequence[Tensor | None], count: int) -> list[Tensor | None]:
    """The tensors, and None for those that are missing at the end."""
    return [*tensors, *[None] * (count - len(tensors))]


Sizes = tuple[int, ...]
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
    """Check a tensor's dimensions and dtype; return what other arguments must have: beside half precision, float32."""
    if x.dim() != dimensions.count(",") + 1:
        raise ValueError(f"{name}: expected shape ({dimensions}), got {tuple(x.shape)}")
    if x.dtype not in WORK and not (half and x.dtype in HALF):
        raise TypeError(f"{name}: expected dtype float32 or float64, got {x.dtype}")
    return Like(name, work_dtype(x), x.device)


def check_tensor(name: str, x: Tensor, like: Like, *shapes: tuple[int, ...]) -> Tensor:
    """Return the tensor; raise unless it has the dtype and device of ``like`` and one of the shapes."""
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
    """Return the tensor; raise unless it is a vector of ``count`` integers of this dtype on the device of ``like``."""
    if x.dtype != dtype:
        raise TypeError(f"{name}: expected dtype {str(dtype).removeprefix('torch.')}, got {x.dtype}")
    _check_device(name, x, like)
    if x.shape != (count,):
        raise ValueError(f"{name}: expected shape ({count},), got {tuple(x.shape)}")
    return x


def _check_device(name: str, x: Tensor, like: Like) -> None:
    if x.device != like.device:
        raise ValueError(f"{name}: expected device {like.device}, as {like.name} has, got {x.device}")


def check_layer(sizes: Sizes, like: Like, layer: LayerArguments, *, backward: bool = False) -> None:
    """Check a call's layer, except for values, which fake tensors do not have; a backward call's state is i alone."""
    _, batch, neurons = sizes
    if len(layer.constants) not in CONSTANTS:
        raise ValueError(f"constants: expected {CONSTANTS[0]} or {CONSTANTS[1]} values, got {len(layer.constants)}")
    state = ("i",) if backward else states_of(layer)
    vectors: tuple[tuple[int, ...], ...] = ((neurons,), (), (1,))
    check_tensor("bias", layer.bias, like, *vectors)
    if len(layer.cell) not in (0, len(layer.constants)):
        raise ValueError(f"cell: expected 0 or {len(layer.constants)} tensors, got {len(layer.cell)}")
    for name, x in zip(PARAMETERS, layer.cell, strict=False):
        if x is None:
            raise ValueError(f"{name}: expected a tensor, as for the parameters after it, got None")
        check_tensor(name, x, like, *vectors)
    if len(layer.state) not in (0, len(state)):
        raise ValueError(f"state: expected 0 or {len(state)} tensors, got {len(layer.state)}")
    for name, x in zip(state, layer.state, strict=False):
        check_tensor(f"{name}0" if backward else f"state.{name}", x, like, (batch, neurons))
    if sizes[0] < 0 or batch < 0 or neurons < 0:  # min() would guard an exported graph on their order
        raise ValueError(f"{like.name}: expected sizes of at least 0, got {sizes}")
    if layer.lengths is not None:
        check_integers("lengths", layer.lengths, torch.int64, batch, like)
    for name, chosen in (("surrogate", layer.surrogate), ("lateral_surrogate", layer.lateral_surrogate)):
        if chosen not in SURROGATES:
            raise ValueError(f"{name}: expected one of {', '.join(SURROGATES)}, got {chosen!r}")
    if layer.weight_hh is not None:
        check_tensor("weight_hh", layer.weight_hh, like, (neurons, neurons))


def check_output_mask(output_mask: Sequence[bool], synapse: int) -> None:
    """Check the length of ``output_mask``: flags for the gradients of a synapse, weight_hh and cell parameters."""
    expected = synapse + 1 + len(PARAMETERS)
    if len(output_mask) != expected:
        raise ValueError(f"output_mask: expected {expected} values, got {len(output_mask)}")


def keep(call: Any) -> dict[str, Any]:
    """Keep what the gradient needs of the initial state beside a trace: i, for the gradients of cell parameters."""
    return {"state": call.layer.state[:1] if call.layer.cell else []}


def options_of_gradient(call: Any, needs: Any) -> dict[str, Any]:
    """The options of a call whose gradient is needed."""
    return {"save": True, "trace_integrator": any(needs.cell)}


def differentiate(
    forward: Operator,
    backward: Operator,
    synapse: Sequence[str],
    *,
    wanted: Sequence[str],
    shared: Sequence[str] = (),
    keep: Callable[[Any], dict[str, Any]] = keep,
    options: Callable[[Any, Any], dict[str, Any]] = options_of_gradient,
) -> None:
    """Register the gradient of an operator that runs a layer: a call of its backward operator.

    Args:
        forward: returns spikes, the state, and the saved outputs.
        backward: takes the gradients of the outputs, the synapse's tensors, the saved outputs, and the layer; returns
            the gradients of ``wanted``, and GRADIENTS.
        synapse: names of the tensor arguments before the layer's.
        wanted: the names among them that have a gradient; ``output_mask`` begins with a flag for each.
        shared: names of the options that both operators take besides the layer's.
        keep: see ``Operator.gradient``.
        options: see ``Operator.gradient``.

    """

    def gradient(call: Any, saved: Sequence[Tensor], grads: Optionals, needs: Any) -> dict[str, Any]:
        of_cell = [*needs.cell, *[False] * (len(PARAMETERS) - len(needs.cell))]
        mask = [*(getattr(needs, name) for name in wanted), needs.weight_hh, *of_cell]
        tensors, taken = (getattr(call, name) for name in synapse), {name: getattr(call, name) for name in shared}
        made = backward(*grads, *tensors, *saved, call.layer, **taken, output_mask=mask)
        weight_hh, *state = made[len(wanted) : len(wanted) + 1 + len(STATE)]
        bias, *cell = made[len(wanted) + 1 + len(STATE) :]
        of_layer = {"weight_hh": weight_hh, "state": state[: len(needs.state)], "bias": bias}
        return {**dict(zip(wanted, made, strict=False)), **of_layer, "cell": cell[: len(needs.cell)]}

    forward.gradient(keep, options, outputs=1 + len(STATE))(gradient)


class Layer(NamedTuple):
    """The layer of a call, as kernels take it."""

    sizes: Sizes
    """T, B and N."""
    like: Like
    """The argument whose dtype and device all tensors have."""
    given: LayerArguments
    """The arguments, checked and contiguous; keep them alive while kernels use the addresses of their tensors."""
    struct: core.Layer
    """The struct that kernels take, with these addresses."""
    turn: Tensor | None
    """Of resonant neurons on a GPU, their turn, whose address the struct has; on the CPU the struct holds it."""


def checked_layer(sizes: Sizes, like: Like, given: LayerArguments, *, backward: bool = False) -> Layer:
    """Check a call's layer, as ``check_layer`` does, and make it contiguous."""
    check_layer(sizes, like, given, backward=backward)
    given = given._replace(
        bias=contiguous(given.bias),
        cell=[contiguous(x) for x in given.cell],
        state=[contiguous(x) for x in given.state],
        lengths=None if given.lengths is None else contiguous(given.lengths),
        weight_hh=None if given.weight_hh is None else contiguous(given.weight_hh),
    )
    parameters, sizes = [given.bias, *given.cell], tuple(sizes)
    struct = core.Layer(
        like.dtype == torch.float64,
        not _gpu.is_gpu(like.device),
        sizes,
        address(given.lengths),
        torch.get_num_threads(),
        given.constants,
        addresses(parameters),
        [0 if x.numel() == 1 else 1 for x in parameters],
        addresses(given.state),
        given.surrogate == "relu",
        given.recurrent_grad,
        address(given.weight_hh),
        given.lateral_surrogate == "relu",
    )
    on_gpu = _gpu.is_gpu(like.device) and resonates(given)
    turn = _gpu.gpu_of(like.name, given.bias).make_turn(struct, given.bias) if on_gpu else None
    return Layer(sizes, like, given, struct, turn)


def empty_outputs(layer: Layer, backend: Cpu | _gpu.Gpu, spikes_dtype: torch.dtype | None = None) -> list[Any]:
    """Uninitialised tensors for spikes, i, h, hs and, unless None, q."""
    bias, plane = layer.given.bias, layer.sizes[1:]
    spikes = backend.empty(bias, *layer.sizes, dtype=spikes_dtype)
    state = [backend.empty(bias, *plane) for _ in PLAIN_STATE]
    return [spikes, *state, backend.empty(bias, *plane) if resonates(layer.given) else None]


class Forward(NamedTuple):
    """What forward kernels fill, unless None: ``outputs`` (spikes, i, h, hs, q) and ``saved`` (trace, checkpoints)."""

    layer: Layer
    outputs: list[Any]
    saved: Optionals
    trace_integrator: bool


class Backward(NamedTuple):
    """What backward kernels take (``grads`` of spikes, i, h, hs, q; ``saved``) and fill (GRADIENTS, unless None)."""

    layer: Layer
    grads: Optionals
    saved: Optionals
    gradients: Optionals

    @property
    def sums(self) -> int:
        """The number of gradients per neuron to sum over time: the bias's alone, or those of all parameters."""
        wanted = any(x is not None for x in self.gradients[2 + len(STATE) :])
        return 1 + len(self.layer.given.constants) if wanted else 1


def empty_gradients(layer: Layer, output_mask: Sequence[bool], backend: Cpu | _gpu.Gpu) -> Optionals:
    """Uninitialised tensors for GRADIENTS, None for unwanted gradients of recurrent weights and cell parameters."""
    state = [backend.empty(layer.given.bias, *layer.sizes[1:]) for _ in states_of(layer.given)]
    weight_hh, *cell = wanted_like((layer.given.weight_hh, *layer.given.cell), output_mask)
    return [weight_hh, *padded(state, len(STATE)), empty_like(layer.given.bias), *cell]


def wanted_like(tensors: Sequence[Tensor | None], output_mask: Sequence[bool]) -> list[Tensor | None]:
    """An uninitialised tensor like each, None if it is missing or its flag in ``output_mask`` is not set."""
    pairs = zip(padded(tensors, len(output_mask)), output_mask, strict=True)
    return [empty_like(x) if want and x is not None else None for x, want in pairs]


def saved_sizes(on_gpu: bool, sizes: Sizes, layer: LayerArguments, traced: bool) -> tuple[int, int]:
    """Elements of the trace and of the checkpoints that a layer keeps for its gradient.

    Checkpoints are the state before every segment. After events and with recurrent weights there is a trace, and
    checkpoints then lack i.
    """
    steps, batch, neurons = sizes
    states = len(states_of(layer))
    segment = core.event_segment if traced and not on_gpu else core.segment
    segments = (steps + segment - 1) // segment
    if traced:
        return steps * batch * neurons, segments * (states - 1) * batch * neurons
    return 0, segments * states * batch * neurons


def empty_saved(layer: Layer, backend: Cpu | _gpu.Gpu, save: bool, traced: bool) -> Optionals:
    """Uninitialised trace and checkpoints, if they are to be saved."""
    if not save:
        return [None, None]
    sizes = saved_sizes(_gpu.is_gpu(layer.like.device), layer.sizes, layer.given, traced)
    return [backend.empty(layer.given.bias, size) for size in sizes]


def fake_saved(layer: LayerArguments, sizes: Sizes, save: bool, traced: bool) -> Optionals:
    """Tensors of the shapes of ``empty_saved``, for fake kernels."""
    if not save:
        return [None, None]
    like = layer.bias
    return [like.new_empty(size) for size in saved_sizes(_gpu.is_gpu(like.device), sizes, layer, traced)]


def saved_of(call: Any, layer: Layer, traced: bool) -> list[Tensor]:
    """The trace and checkpoints of a backward call, checked and contiguous."""
    sizes = saved_sizes(_gpu.is_gpu(layer.like.device), layer.sizes, layer.given, traced)
    given = {"trace": call.trace, "checkpoints": call.checkpoints}
    return [
        contiguous(check_tensor(name, x, layer.like, (size,)))
        for (name, x), size in zip(given.items(), sizes, strict=True)
    ]


def grads_of(call: Any, sizes: Sizes, like: Like, or_dtype: torch.dtype | None = None) -> list[Tensor | None]:
    """A call's grad_outputs, checked and contiguous: for spikes, which may have ``or_dtype``, and for the state."""
    spikes, *state = given = call[: 1 + len(STATE)]
    if spikes is not None:
        of_spikes = like if or_dtype is None or spikes.dtype != or_dtype else like._replace(dtype=or_dtype)
        check_tensor("grad_spikes", spikes, of_spikes, sizes)
    expected = states_of(call.layer)
    for name, x in zip(expected, state, strict=False):
        check_optional(f"grad_{name}", x, like, sizes[1:])
    return padded([None if x is None else contiguous(x) for x in given[: 1 + len(expected)]], len(given))


# Shapes, for fake kernels.


def fake_outputs(layer: LayerArguments, steps: int, batch: int, neurons: int) -> list[Any]:
    """Spikes, i, h, hs and, unless None, q."""
    state = [layer.bias.new_empty(batch, neurons) for _ in states_of(layer)]
    return [layer.bias.new_empty(steps, batch, neurons), *padded(state, len(STATE))]


def fake_gradients(call: Any, batch: int, neurons: int, output_mask: Sequence[bool]) -> Optionals:
    """Tensors of the shapes of GRADIENTS, None for gradients that are not wanted."""
    layer: LayerArguments = call.layer
    state = [layer.bias.new_empty(batch, neurons) for _ in states_of(layer)]
    weight_hh, *cell = wanted_like((layer.weight_hh, *layer.cell), output_mask)
    return [weight_hh, *padded(state, len(STATE)), empty_like(layer.bias), *cell]


def empty_like(x: Tensor) -> Tensor:
    """An uninitialised contiguous tensor of the same shape and dtype."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)
