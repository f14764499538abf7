"""The arguments that all operators of a layer share, their checks, and the declaration of such operators and of their
gradients.

The operators use this; it knows no synapse and runs no kernel. The compiled modules check values, because they read
them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._shared.arguments import check_choice
from .._shared.parameters import PARAMETERS
from .._shared.state import TYPES
from . import _gpu
from ._acting import acting
from ._cpu import core
from ._memory import Optionals, address, contiguous, or_contiguous
from ._operator import Operator, flattened
from ._table import TABLE, Argument, Checked, declared

# Resonant neurons have all parameters, and a q; with delayed recurrent weights there is a past.
STATES: dict[tuple[bool, bool], tuple[str, ...]] = {kind: made._fields for kind, made in TYPES.items()}
STATE = STATES[True, True]
CONSTANTS = len(PARAMETERS) - 1, len(PARAMETERS)  # how many there are without and with resonance
SURROGATES = ("relu", "straight_through")
STARTS = ("zeros", "rest")

# The layer's part of the schemas; a call's record has it as one `LayerArguments`. If one cell parameter is a tensor,
# all are passed as tensors; `constants` are still checked, so that a float among them is checked on a GPU too.
# A backward operator's schema has optional tensors instead of the lists, and of the state only what the gradient needs.
(PARAMETER,) = TABLE["parameter"]
LENGTHS = TABLE["layer"][0]
OUTPUT = {row.name: row for row in TABLE["outputs"]}
OF_STATE = ("i", "past")  # what a gradient needs of the state before the first step
LISTS = {"cell": PARAMETERS, "state": tuple(f"{name}0" for name in OF_STATE)}


def listed(kind: str, names: Iterable[str]) -> str:
    """The part of a schema that has arguments or outputs of these names."""
    return ", ".join(f"{kind}{name}" for name in names)


LAYER = f"Tensor bias, Tensor[] cell, Tensor[] state, {declared(TABLE['layer'])}"
LAYER_BACKWARD = f"Tensor bias, {listed('Tensor? ', (*LISTS['cell'], *LISTS['state']))}, {declared(TABLE['layer'])}"
OPTIONS = "float[] constants, str surrogate, bool recurrent_grad, str lateral_surrogate, int past_steps"
# Programs exported by srcell 0.2 have none of these, those of 0.3 the first two.
DEFAULTED = "float? bias_max=None, int channels=0, bool[] clamped=[], bool autapses=True, str start='zeros'"
OUTPUTS = listed("Tensor ", ("spikes", *STATE))
SAVED = TABLE["kept"][:2]
GRAD_OUTPUTS = listed("Tensor? grad_", ("spikes", *STATE))
GRADIENTS = ("weight_hh", "factors_hh", *(f"{x}0" for x in STATE), "bias", *PARAMETERS)
# The arguments of a layer whose gradient is made only if its flag in ``output_mask`` is set.
WANTED = ("weight_hh", "factors_hh", "past", *PARAMETERS)


class LayerArguments(NamedTuple):
    """The layer's part of a call, ``call.layer``; its fields have the names in LAYER and OPTIONS.

    In a call that goes directly to C++, floats may stand beside tensors in ``cell``, where ``constants`` has them too,
    and the state is None or a tuple. Before ``functional.layer.converted``, bias, state and lengths are as users gave
    them.

    Delays of recurrent weights are those of ``ops.delay``, with ``first_hh`` (N,) and ``factors_hh`` (N, terms), and no
    term takes more than ``past_steps`` steps; it is 0 without delays. A state without past starts from zeros there.

    A bias above ``bias_max`` acts as ``bias_max``, and its gradient is 0 if a descent step would raise it further. In
    the same way parameters of the cell whose flag in ``clamped`` is set act clamped to their domains; there are at most
    as many flags as ``constants``. The neurons of each of ``channels`` have the same parameters, which may be
    (channels,), so the sign of their gradients' sum counts; 0 without channels. Without ``autapses`` the diagonal of
    ``weight_hh`` acts as 0 and has no gradient. A layer without a state starts from zeros, or at ``"rest"``, the silent
    fixed point of its parameters, which has no gradient.
    """

    bias: Tensor
    cell: Sequence[Any]
    state: Any
    lengths: Any
    weight_hh: Tensor | None
    first_hh: Tensor | None
    factors_hh: Tensor | None
    constants: Sequence[float]
    surrogate: str
    recurrent_grad: bool
    lateral_surrogate: str
    past_steps: int
    bias_max: float | None = None
    channels: int = 0
    clamped: Sequence[bool] = ()
    autapses: bool = True
    start: str = "zeros"


SHARED = ("layer", LayerArguments)
OF_OPERATOR = core.Way(False, False, False)


def resonates(layer: LayerArguments) -> bool:
    """Whether the neurons have all parameters, and a q."""
    return len(layer.constants) == len(PARAMETERS)


def states_of(layer: LayerArguments) -> tuple[str, ...]:
    """The names of the state's tensors."""
    return STATES[resonates(layer), layer.past_steps > 0]


def check_mask(mask: Sequence[bool], expected: int) -> Sequence[bool]:
    """Return the ``output_mask`` of a backward call; raise unless it has that many flags."""
    if len(mask) != expected:
        raise ValueError(f"output_mask: expected {expected} values, got {len(mask)}")
    return mask


def checked_layer(checked: Checked, layer: LayerArguments, *, backward: bool = False) -> Checked:
    """Check the layer of a call whose synapse is checked, except for values, which fake tensors do not have.

    A backward call's state is OF_STATE.
    """
    steps, batch, neurons = checked["TBN"]
    if steps < 0 or batch < 0 or neurons < 0:  # min() would guard an exported graph on their order
        raise ValueError(f"{checked.leader}: expected sizes of at least 0, got {(steps, batch, neurons)}")
    with_sizes(checked, layer)
    if len(layer.constants) not in CONSTANTS:
        raise ValueError(f"constants: expected {CONSTANTS[0]} or {CONSTANTS[1]} values, got {len(layer.constants)}")
    checked.one(PARAMETER, layer.bias)
    if len(layer.cell) not in (0, len(layer.constants)):
        raise ValueError(f"cell: expected 0 or {len(layer.constants)} tensors, got {len(layer.cell)}")
    for name, x in zip(PARAMETERS, layer.cell, strict=False):
        checked.one(PARAMETER, x, name)
    state = OF_STATE if backward else states_of(layer)
    if not backward and len(layer.state) not in (0, len(state), len(state) - (layer.past_steps > 0)):
        raise ValueError(f"state: expected 0 or {len(state)} tensors, got {len(layer.state)}")
    for name, x in zip(state, layer.state, strict=False):
        checked.one(OUTPUT[name], x, f"{name}0" if backward else f"state.{name}")
    checked.rows(TABLE["layer"], layer)
    _check_options(layer, neurons)
    return checked


def with_sizes(checked: Checked, layer: LayerArguments) -> Checked:
    """Add the sizes that a layer's options give."""
    checked.letters.update(P=layer.past_steps, C=layer.channels or checked.letters["N"])
    return checked


def _check_options(layer: LayerArguments, neurons: int) -> None:
    """Check the arguments of a layer that are no tensors, and that no two exclude each other."""
    for name, chosen in (("surrogate", layer.surrogate), ("lateral_surrogate", layer.lateral_surrogate)):
        check_choice(name, chosen, SURROGATES)
    if layer.past_steps < 0 or (layer.past_steps == 0) != (layer.first_hh is None):
        raise ValueError(f"past_steps: expected at least 1 with first_hh, and 0 without, got {layer.past_steps}")
    for name, needed in (("first_hh", "weight_hh"), ("factors_hh", "first_hh")):
        if getattr(layer, name) is not None and getattr(layer, needed) is None:
            raise ValueError(f"{name}: expected {needed} beside it, got None")
    if layer.factors_hh is not None and layer.factors_hh.shape[1] < 1:
        raise ValueError(f"factors_hh: expected at least one term, got shape {tuple(layer.factors_hh.shape)}")
    if layer.bias_max is not None and math.isnan(layer.bias_max):
        raise ValueError(f"bias_max: expected a number or None, got {layer.bias_max}")
    if layer.channels < 0 or (layer.channels and isinstance(neurons, int) and neurons % layer.channels):
        raise ValueError(f"channels: expected 0 or a divisor of {neurons} neurons, got {layer.channels}")
    if len(layer.clamped) > len(layer.constants):
        raise ValueError(f"clamped: expected at most {len(layer.constants)} flags, got {len(layer.clamped)}")
    check_choice("start", layer.start, STARTS)


def on_cpu(kernel: Callable[..., Any], check: Callable[[Any], Any], call: Any, *options: Any) -> Any:
    """Run a kernel of srcell._core, which reads a call as it is, checks it, and makes its outputs.

    It refuses by None. ``check``, which fake tensors go through too, then says why.
    """
    made = kernel(call, *options, torch.get_num_threads())
    if made is None:
        check(call)
        for x in flattened(flattened(call)):
            if isinstance(x, Tensor):
                address(x)
        raise RuntimeError("srcell: expected dense tensors on the CPU")
    return made


def keep(call: Any) -> dict[str, Any]:
    """Keep what the gradient needs of the initial state beside a trace: OF_STATE, i only for those of parameters."""
    state = dict(zip(states_of(call.layer), call.layer.state, strict=False))
    kept = [state.get("i") if call.layer.cell else None, state.get("past")]
    return {"state": kept if kept[1] is not None else [x for x in kept if x is not None]}


def options_of_gradient(call: Any, needs: Any) -> dict[str, Any]:
    """The options of a call whose gradient is needed."""
    return {"save": True, "trace_integrator": any(needs.cell)}


class Operators(NamedTuple):
    """The operators of layers after one kind of synapse."""

    forward: Operator
    backward: Operator
    gradient: Callable[..., dict[str, Any]]
    """That of the forward operator."""
    wanted: Sequence[str]
    """The names of the synapse's tensors that have a gradient."""


def declare(
    name: str,
    options: str = "",
    *,
    wanted: Sequence[str],
    kept: Sequence[Argument] = SAVED,
    forwards: str = "",
    defaulted: str = "",
    keep: Callable[[Any], dict[str, Any]] = keep,
    options_of_gradient: Callable[[Any, Any], dict[str, Any]] = options_of_gradient,
) -> Operators:
    """Declare a forward operator, which runs a layer after a synapse, its backward operator and its gradient.

    The forward operator returns spikes, the state, and what is kept. The backward operator takes the gradients of the
    outputs, the synapse's tensors, what was kept, and the layer; it returns the gradients of ``wanted``, and GRADIENTS.
    The gradient, a call of the backward operator, is registered.

    Args:
        name: of the forward operator, and of its synapse's arguments in the table; the name of the backward operator
            ends in ``_backward``.
        options: schema of the options that both take besides the layer's, without defaults.
        wanted: names of the synapse's tensors that have a gradient; ``output_mask`` begins with a flag for each.
        kept: rows of the outputs that are kept for the gradient.
        forwards: schema of the options that only the forward operator takes.
        defaulted: schema of further options that both take, with defaults: programs exported before have none of them.
        keep: see ``Operator.gradient``.
        options_of_gradient: ``options`` of ``Operator.gradient``.

    """
    shared = f"{options}, {OPTIONS}" if options else OPTIONS
    flags = ", ".join(filter(None, ["bool save, bool trace_integrator", forwards, defaulted, DEFAULTED]))
    mask = ", ".join(filter(None, ["bool[] output_mask", defaulted, DEFAULTED]))
    synapse, saved = declared(TABLE[name]), declared(kept)
    forward = Operator(f"{name}({synapse}, {LAYER}, *, {shared}, {flags}) -> ({OUTPUTS}, {saved})", SHARED)
    backward = Operator(
        f"{name}_backward({GRAD_OUTPUTS}, {synapse}, {saved}, {LAYER_BACKWARD}, *, {shared}, {mask})"
        f" -> ({listed('Tensor ', (*wanted, *GRADIENTS))})",
        SHARED,
        LISTS,
    )
    of_outputs = [*backward.record._fields[: 1 + len(STATE)], *(row.name for row in kept)]

    @forward.gradient(keep, options_of_gradient, outputs=1 + len(STATE))
    def gradient(call: Any, saved: Sequence[Tensor], grads: Optionals, needs: Any) -> dict[str, Any]:
        of_cell = [*needs.cell, *[False] * (len(PARAMETERS) - len(needs.cell))]
        names = states_of(call.layer)[: len(needs.state)]
        of_past = "past" in names and needs.state[-1]
        mask = [*(getattr(needs, name) for name in wanted), needs.weight_hh, needs.factors_hh, of_past, *of_cell]
        given = dict(zip(of_outputs, [*grads, *saved], strict=True))
        made = backward.with_arguments_of(call, **given, output_mask=mask)
        weight_hh, factors_hh, *of_layer = made[len(wanted) :]
        state, (bias, *cell) = of_layer[: len(STATE)], of_layer[len(STATE) :]
        return {
            **dict(zip(wanted, made, strict=False)),
            "weight_hh": weight_hh,
            "factors_hh": factors_hh,
            "state": [state[STATE.index(name)] for name in names],
            "bias": bias,
            "cell": cell[: len(needs.cell)],
        }

    return Operators(forward, backward, gradient, wanted)


def _contiguous(argument: Any) -> Any:
    if isinstance(argument, list):
        return [_contiguous(x) for x in argument]
    return contiguous(argument) if isinstance(argument, Tensor) else argument


def all_contiguous(record: Any) -> Any:
    """A record with its tensors and lists of tensors contiguous."""
    return type(record)(*map(_contiguous, record))


def layer_on_gpu(checked: Checked, given: LayerArguments, *, backward: bool = False) -> _gpu.Layer:
    """The layer of a checked call on a GPU, with the values that it computes with."""
    sizes = checked["TBN"]
    given = all_contiguous(acting(given, sizes, at_rest=not backward))
    struct = core.layer_on_gpu(given, sizes, checked.dtype == torch.float64, backward)
    turn = _gpu.gpu_of(checked.leader, given.bias).make_turn(struct, given.bias) if resonates(given) else None
    return _gpu.Layer(sizes, given, struct, turn)


def saved_shapes(checked: Checked, layer: LayerArguments, traced: bool) -> list[tuple[int, ...]]:
    """The shapes of the trace and of the checkpoints that a layer keeps for its gradient.

    Checkpoints are the state before every segment. After events and with recurrent weights there is a trace, and
    checkpoints then lack i.
    """
    segment = core.event_segment if traced and not _gpu.is_gpu(layer.bias) else core.segment
    states = len(STATES[resonates(layer), False])
    checked.letters.update(X=int(traced), G=-(-checked.letters["T"] // segment), Q=states - traced)
    return [checked.shape(row) for row in SAVED]


def checked_backward(call: Any, checked: Checked, *, synapse: int, or_dtype: torch.dtype | None = None) -> Checked:
    """Check the layer of a backward call, and the gradients of its outputs.

    The gradient of spikes may have ``or_dtype``; ``synapse`` is the number of the synapse's flags in ``output_mask``.
    """
    checked_layer(checked, call.layer, backward=True)
    check_mask(call.output_mask, synapse + len(WANTED))
    for row, x in zip(OUTPUT.values(), grads_of(call), strict=True):
        checked.one(row, x, f"grad_{row.name}", or_dtype=or_dtype if row.name == "spikes" else None)
    return checked


def grads_of(call: Any) -> list[Tensor | None]:
    """The gradients of the outputs that a backward call has; what the layer does not have is ignored."""
    names = ("spikes", *states_of(call.layer))
    return [x if name in names else None for name, x in zip(OUTPUT, call, strict=False)]


def checked_saved(call: Any, checked: Checked, traced: bool) -> Checked:
    """Check trace and checkpoints of a backward call."""
    saved_shapes(checked, call.layer, traced)
    return checked.rows(SAVED, call)


def backward_on_gpu(call: Any, checked: Checked, saved: Sequence[Tensor]) -> tuple[_gpu.Backward, list[Tensor | None]]:
    """The arguments of the backward kernels on a GPU for a checked call, and the gradients that they fill."""
    layer = layer_on_gpu(checked, call.layer, backward=True)
    gradients = empty_gradients(call._replace(layer=layer.given), checked)  # of the values that the layer computes with
    grads = [or_contiguous(x) for x in grads_of(call)]
    return (layer, grads, [contiguous(x) for x in saved], gradients), gradients


# Outputs: for kernels on a GPU, and as shapes for fake kernels. Those on a CPU are made by srcell._core.


def empty_outputs(layer: LayerArguments, checked: Checked, dtype: torch.dtype | None = None) -> list[Any]:
    """Spikes, perhaps of another dtype, and STATE, None for what the layer does not have."""
    spikes = layer.bias.new_empty(checked.shape(OUTPUT["spikes"]), dtype=dtype)
    return [spikes, *empty_state(layer, checked, states_of(layer))]


def empty_state(layer: LayerArguments, checked: Checked, names: Sequence[str]) -> list[Tensor | None]:
    """Tensors for STATE, None for all but these names."""
    with_sizes(checked, layer)
    return [layer.bias.new_empty(checked.shape(OUTPUT[name])) if name in names else None for name in STATE]


def empty_saved(layer: LayerArguments, checked: Checked, save: bool, traced: bool) -> list[Tensor | None]:
    """Trace and checkpoints, if they are to be saved."""
    return [layer.bias.new_empty(shape) if save else None for shape in saved_shapes(checked, layer, traced)]


def empty_gradients(call: Any, checked: Checked) -> list[Tensor | None]:
    """Tensors for GRADIENTS, None for those of WANTED that are not wanted."""
    layer: LayerArguments = call.layer
    flags = dict(zip(WANTED, call.output_mask[-len(WANTED) :], strict=True))
    of_past = flags.pop("past")
    names = [name for name in states_of(layer) if name != "past" or of_past]
    tensors = layer.weight_hh, layer.factors_hh, *layer.cell, *[None] * (len(PARAMETERS) - len(layer.cell))
    weight, factors, *cell = empty_like(tensors, flags.values())
    return [weight, factors, *empty_state(layer, checked, names), layer.bias.new_empty(layer.bias.shape), *cell]


def empty_like(tensors: Optionals, wanted: Iterable[bool]) -> list[Tensor | None]:
    """Uninitialised contiguous tensors of the same shapes and dtypes; None for what is None or not wanted."""
    pairs = zip(tensors, wanted, strict=True)
    return [x.new_empty(x.shape) if want and x is not None else None for x, want in pairs]
