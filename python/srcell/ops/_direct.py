"""Calls of a layer on a CPU that go to C++ past torch's dispatcher, and their gradients.

Layers and functions try this first, with the record that the operators take. In it numbers may stand beside tensors in
``cell``, and the entries of C++ are those that the operators' kernels call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._shared.parameters import PARAMETERS
from .._shared.state import TYPES
from ._cpu import core
from ._layer import CONSTANTS, STATE, STATES, WANTED, LayerArguments, Operators, states_of
from ._operator import DIRECT

ONE_STEP = core.Way(True, True, False)  # the input and the spikes have no T
STACKED = core.Way(True, False, True)  # the states have a dimension of 1 before B
_ONES = torch.tensor(False, device="cpu"), torch.tensor(True, device="cpu")
_OPTIONS = LayerArguments._fields.index("constants")  # where the options of a layer begin


class Direct:
    """Layers after one kind of synapse.

    Args:
        operators: run such a layer where torch's dispatcher must see it.
        entry: of C++, for a call of the operator.
        backward_entry: the same of the backward operator.

    """

    def __init__(
        self,
        operators: Operators,
        entry: Callable[..., Any],
        backward_entry: Callable[..., Any],
    ) -> None:
        self.operator, backward, self.gradient, self.wanted = operators
        fields, behind = self.operator.record._fields, backward.record._fields
        self.entry, self.backward_entry = entry, backward_entry
        self.at = fields.index("layer")
        # The fields after the layer in a backward call: the place of each in the forward call, None for output_mask.
        self.behind = [fields.index(x) if x in fields else None for x in behind[behind.index("layer") + 1 :]]
        self.flags = len(self.wanted) + len(WANTED)

    def __call__(self, call: tuple[Any, ...], way: core.Way = DIRECT) -> Any:
        """The spikes and the state of a call, the fields of the operator's record.

        None if torch's dispatcher must see the call, or if something needs to be converted or is not valid; False if
        torch's product is to be used.
        """
        made = self.entry(call, way, torch.get_num_threads())
        if not made or len(made) == 2:
            return made
        spikes, *ended = _Made.apply(self, call, way, made, *made[2])  # type: ignore[no-untyped-call]
        layer = call[self.at]
        return spikes, TYPES[len(layer.constants) == CONSTANTS[1], layer.past_steps > 0](*ended)


class _Made(torch.autograd.Function):
    """A direct call that needs a gradient; C++ has made its outputs. It keeps what the operator keeps, in its order:
    torch compares both if one repeats the other, as torch.utils.checkpoint may do.
    """

    @staticmethod
    def forward(ctx: Any, direct: Direct, call: Sequence[Any], way: core.Way, made: Sequence[Any], *_: Tensor) -> Any:
        outputs, saved, _learnt, ctx.places, ctx.flags = made
        layer, synapse = call[direct.at], [*call[: direct.at]]
        bias, cell, state = layer.bias, [*layer.cell], layer.state
        for k, x in enumerate(cell):  # loops, because comprehensions enter frames
            if not isinstance(x, Tensor):
                cell[k] = torch.full((), x, dtype=bias.dtype, device="cpu")
        i0 = past = None
        if state:
            i0 = state[0] if cell else None
            if len(state) > len(STATES[len(layer.constants) == CONSTANTS[1], False]):
                past = state[-1]
        if way.stacked:
            past, i0 = None if past is None else past.squeeze(0), None if i0 is None else i0.squeeze(0)
        kept = [i0, past] if past is not None else [] if i0 is None else [i0]
        if len(direct.wanted) == 1:  # currents; with recurrent weights the trace has what the gradient needs of them
            if layer.weight_hh is None:
                kept = []
            else:
                synapse[0] = synapse[0].new_empty(()).expand(synapse[0].shape)
        if way.one_step:
            synapse[0] = synapse[0].unsqueeze(0)
        ctx.ones = saved[3:]
        if ctx.ones:
            saved = *saved[:3], _ONES[saved[3]]
        ctx.set_materialize_grads(False)
        ctx.direct, ctx.way, ctx.options = direct, way, layer[_OPTIONS:]
        ctx.behind, ctx.counts = call[direct.at + 1 :], (len(cell), len(kept))
        ctx.save_for_backward(*synapse, bias, *cell, *kept, *layer[3:_OPTIONS], *saved)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        for grad in grads:
            if grad is not None:
                break
        else:
            return (None,) * len(ctx.needs_input_grad)
        direct, kept, needs = ctx.direct, ctx.saved_tensors, ctx.needs_input_grad[4:]
        at, (cells, states) = direct.at, ctx.counts
        of_state = at + 1 + cells
        behind = of_state + states
        tensors = kept[at], [*kept[at + 1 : of_state]], [*kept[of_state:behind]], *kept[behind : behind + _OPTIONS - 3]
        layer = tuple.__new__(LayerArguments, (*tensors, *ctx.options))
        synapse, saved = kept[:at], kept[behind + _OPTIONS - 3 :]
        flags = [False] * direct.flags
        for flag, need in zip(ctx.flags, needs, strict=True):
            if need and flag >= 0:
                flags[flag] = True
        of_outputs = [*grads, *[None] * (1 + len(STATE) - len(grads))]
        if layer.past_steps and len(grads) < len(of_outputs):  # no q
            of_outputs[-2:] = None, grads[-1]
        made = None
        if not torch.compiler.is_compiling():  # compiled autograd
            further = []
            for place in direct.behind:
                further.append(flags if place is None else ctx.behind[place - at - 1])
            record = (*of_outputs, *synapse, *saved, layer, *further)
            made = direct.backward_entry(record, *ctx.ones, ctx.way, torch.get_num_threads())
        if made is None:
            made = _through_dispatcher(ctx, synapse, layer, saved, of_outputs, flags)
        found: list[Tensor | None] = []
        for place, need in zip(ctx.places, needs, strict=True):
            found.append(made[place] if need else None)
        return None, None, None, None, *found


def _through_dispatcher(
    ctx: Any,
    synapse: Sequence[Tensor | None],
    layer: LayerArguments,
    saved: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    flags: Sequence[bool],
) -> list[Tensor | None]:
    """What the backward entry returns, where torch's dispatcher must see how it is made."""
    direct, way, spikes, *ended = ctx.direct, ctx.way, *grads
    if way.one_step and spikes is not None:
        spikes = spikes.unsqueeze(0)
    if way.stacked:
        ended = [None if x is None else x.squeeze(0) for x in ended]
    of_synapse = len(direct.wanted)
    of_cell = flags[of_synapse + len(WANTED) - len(PARAMETERS) :][: len(layer.cell)]
    call = direct.operator.record(*synapse, layer, *ctx.behind)
    call = call._replace(save=True, trace_integrator=any(of_cell))
    if "method" in call._fields:
        call = call._replace(method="events")
    names = states_of(layer)
    needed = {**dict(zip((*direct.wanted, *WANTED[:2]), flags, strict=False)), "bias": True}
    lists = {"cell": of_cell, "state": [True] * (len(names) - 1) + [flags[of_synapse + 2] or "past" not in names]}
    needs = direct.operator.needs(*[lists.get(x, needed.get(x, False)) for x in direct.operator.needs._fields])
    made = direct.gradient(call, saved, [spikes, *ended], needs)
    states = dict(zip(names, made["state"], strict=True))
    if way.stacked:
        states = {name: None if x is None else x.unsqueeze(0) for name, x in states.items()}
    if way.one_step and made.get("input") is not None:
        made["input"] = made["input"].squeeze(0)
    of_layer = [made["weight_hh"], made["factors_hh"], *(states.get(name) for name in STATE), made["bias"]]
    return [*(made[name] for name in direct.wanted), *of_layer, *made["cell"]]
