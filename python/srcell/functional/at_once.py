"""``at_once``: a layer after a linear synapse, on a CPU, by one call of C++ and one for its gradient.

``synapse`` and the layers try it first; what it leaves goes the longer way through ``layer`` and the operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from .._state import AnyState, ResonantState, SRCState
from ..events import EventBatch
from ..ops import src_dense, src_events
from ..ops._cpu import core
from ..ops._layer import STATE
from .layer import Cell, Lateral, UserArguments, layer_of


def at_once(
    input: Tensor | EventBatch,
    weight: Tensor,
    given: UserArguments,
    lengths: Tensor | Sequence[int] | None,
    method: str = "auto",
    *,
    input_grad_at_events: bool = False,
    one_step: bool = False,
    stacked: bool = False,
) -> tuple[Tensor, AnyState] | None:
    """``linear`` by one call of C++, or None for a call that is not as plain: it then needs conversions, torch's
    dispatcher or the product, or is not valid.

    The input and the spikes of ``one_step`` lack T; the states of a ``stacked`` layer have a dimension of 1 before B.
    """
    if torch.compiler.is_compiling():
        return None
    threads = torch.get_num_threads()
    made = core.src_linear(input, weight, given, lengths, method, input_grad_at_events, one_step, stacked, threads)
    if made is None or len(made) == 2:
        plain: tuple[Tensor, AnyState] | None = made
        return plain
    call, learnable, outputs, kept = made
    spikes, *ended = _Learnt.apply(call, outputs, kept, *learnable)  # type: ignore[no-untyped-call]
    return spikes, (ResonantState if len(ended) == 4 else SRCState)(*ended)


class _Learnt(torch.autograd.Function):
    """A call ``at_once`` that needs a gradient; C++ has made its outputs, and lists what to keep."""

    @staticmethod
    def forward(ctx: Any, call: core.LinearCall, outputs: Sequence[Tensor], kept: Sequence[Any], *_: Tensor) -> Any:
        ctx.set_materialize_grads(False)
        ctx.call = call
        ctx.save_for_backward(*kept)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        kept, needs = ctx.saved_tensors, ctx.needs_input_grad[3:]
        made = core.src_linear_backward(ctx.call, kept, grads, needs, torch.get_num_threads())
        return None, None, None, *(_by_operator(ctx.call, kept, grads, needs) if made is None else made)


def _by_operator(
    call: core.LinearCall, kept: Sequence[Any], grads: Sequence[Tensor | None], needs: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of a call ``at_once`` where torch's dispatcher must see how they are made."""
    of_input, offsets, indices, values, weight, lengths, weight_hh, i0, *saved, mask, bias = kept[:12]
    parameters, input, (spikes, *ended) = kept[12:], of_input, grads
    if call.one_step:
        input, spikes = input.unsqueeze(0), None if spikes is None else spikes.unsqueeze(0)
    if call.stacked:
        i0, *ended = (None if x is None else x.squeeze(0) for x in (i0, *ended))
    tensors = iter(parameters)
    cell = Cell(*[next(tensors) if x is None else x for x in call.cell])
    lateral = Lateral(weight_hh, call.lateral_surrogate)
    given = UserArguments(bias, None, cell, call.surrogate, call.recurrent_grad, lateral)
    layer = layer_of(weight, (call.batch, weight.shape[0]), given, lengths)
    layer = layer._replace(state=[] if i0 is None else [i0])

    flags = [False, *needs] if input is None else list(needs)
    recurrent = [flags.pop()] if weight_hh is not None else []
    first = len(flags) - len(parameters)
    wanted_parameters = iter(flags[first:])
    wanted = SimpleNamespace(
        input=flags[0],
        values=False,
        weight=flags[1],
        bias=flags[2],
        cell=[x is None and next(wanted_parameters) for x in call.cell[: len(layer.cell)]],
        state=flags[3:first],
        weight_hh=any(recurrent),
        factors_hh=False,
    )
    record = SimpleNamespace(weight=weight, layer=layer)
    grads = [spikes, *ended, *[None] * (len(STATE) - len(ended))]
    if input is None:
        record.offsets, record.indices, record.values = offsets, indices, values
        record.steps, record.batch = call.steps, call.batch
        made = src_events.gradient(record, saved, grads, wanted)
    else:
        record.input, record.method, record.input_grad_at_events = input, "events", call.at_events
        ones = mask.new_full((), call.ones, dtype=torch.bool)
        made = src_dense.gradient(record, [*saved, mask, ones], grads, wanted)

    by_parameter = [grad for grad, x in zip(made["cell"], call.cell, strict=False) if x is None]
    state = [grad.unsqueeze(0) if call.stacked else grad for grad in made["state"]]
    found = [(made["weight"], weight), (made["bias"], bias), *((grad, grad) for grad in state)]
    found += [*zip(by_parameter, parameters, strict=True)]
    found = found if input is None else [(made["input"], of_input), *found]
    found += [(made["weight_hh"], weight_hh)] * len(recurrent)
    return [grad.view(x.shape) if need else None for (grad, x), need in zip(found, needs, strict=True)]
