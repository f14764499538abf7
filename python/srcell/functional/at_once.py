"""``at_once``: a layer after a linear synapse, on a CPU, by one call of C++ and one for its gradient.

``synapse`` and the layers try it first; what it leaves goes the longer way through ``layer`` and the operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._parameters import PARAMETERS
from .._state import TYPES, AnyState, SRCState
from ..events import EventBatch
from ..ops import _gpu, src_dense, src_events
from ..ops._cpu import core
from ..ops._layer import STATE, states_of
from .layer import Recurrence, UserArguments, layer_of


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
    if torch.compiler.is_compiling() or _gpu.is_gpu(weight.device):
        return None
    threads = torch.get_num_threads()
    made = core.src_linear(input, weight, given, lengths, method, input_grad_at_events, one_step, stacked, threads)
    if made is None or len(made) == 2:
        plain: tuple[Tensor, AnyState] | None = made
        return plain
    call, learnt, outputs, kept = made
    spikes, *ended = _Learnt.apply(call, outputs, kept, *learnt)  # type: ignore[no-untyped-call]
    return spikes, TYPES[len(ended) > len(SRCState._fields), False](*ended)


class _Learnt(torch.autograd.Function):
    """A call ``at_once`` that needs a gradient; C++ has made its outputs, and lists what to keep."""

    @staticmethod
    def forward(ctx: Any, call: core.LinearCall, outputs: Sequence[Tensor], kept: Sequence[Any], *_: Tensor) -> Any:
        ctx.set_materialize_grads(False)
        ctx.call = call
        ctx.save_for_backward(*_as_operators_keep(call, kept))
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        for grad in grads:  # a loop, because all() would enter a frame
            if grad is not None:
                break
        else:
            return (None,) * len(ctx.needs_input_grad)
        kept, needs, made = ctx.saved_tensors, ctx.needs_input_grad[3:], None
        if not torch.compiler.is_compiling():  # compiled autograd
            made = core.src_linear_backward(ctx.call, kept, grads, needs, torch.get_num_threads())
        return None, None, None, *(_by_operator(ctx.call, kept, grads, needs) if made is None else made)


_ONES = torch.tensor(False, device="cpu"), torch.tensor(True, device="cpu")


def _as_operators_keep(call: core.LinearCall, kept: Sequence[Any]) -> list[Any]:
    """What a call keeps, in the shapes in which the operators of ``srcell.ops`` keep it.

    torch compares them if a call is made at once and repeated by the operators, or the other way round, as
    torch.utils.checkpoint may do.
    """
    input, *before = kept[:6]
    of_cell, (i0, *others, ones) = [*kept[6:-7]], kept[-7:]
    if input is not None:
        input, ones = input.unsqueeze(0) if call.one_step else input, _ONES[call.ones]
    if i0 is not None and call.stacked:
        i0 = i0.squeeze(0)
    for k, x in enumerate(of_cell):
        if x is None:
            of_cell[k] = torch.full((), call.cell[k], dtype=before[-1].dtype, device="cpu")
    return [input, *before, *of_cell, i0, *others, ones]


def _by_operator(
    call: core.LinearCall, kept: Sequence[Any], grads: Sequence[Tensor | None], needs: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of a call ``at_once`` where torch's dispatcher must see how they are made."""
    input, offsets, indices, values, weight, bias, *of_cell, i0, lengths, weight_hh = kept[:-4]
    saved = kept[-4:]  # trace, checkpoints, mask and ones
    spikes, *ended = grads
    if call.one_step and spikes is not None:
        spikes = spikes.unsqueeze(0)
    if call.stacked:
        ended = [None if x is None else x.squeeze(0) for x in ended]
    grads = [spikes, *ended, *[None] * (len(STATE) - len(ended))]
    cell = [of_cell[k] if number is None else number for k, number in enumerate(call.cell)]
    recurrence = Recurrence(weight_hh, call.recurrent_surrogate)
    given = UserArguments(bias, None, cell, call.surrogate, call.full_gradient, recurrence, call.bias_max)
    layer = layer_of(weight, (call.batch, weight.shape[0]), given, lengths)
    layer = layer._replace(state=[] if i0 is None else [i0])

    wanted = {name for name, need in zip(call.learnt, needs, strict=True) if need}
    cell_needs = [name in wanted for name in PARAMETERS[: len(layer.cell)]]
    flags = {"cell": cell_needs, "state": [True] * len(states_of(layer))}
    saving = {"save": True, "trace_integrator": any(cell_needs)}
    if input is None:
        operator, gradient, saved = src_events.src_events, src_events.gradient, saved[:2]
        sizes = {"steps": call.steps, "batch": call.batch}
        record = operator.record(offsets, indices, values, weight, layer, **sizes, **saving)
    else:
        operator, gradient = src_dense.src_dense, src_dense.gradient
        method = {"method": "events", "input_grad_at_events": call.at_events}
        record = operator.record(input, weight, layer, **method, **saving)
    made = gradient(record, saved, grads, operator.needs(*[flags.get(x, x in wanted) for x in operator.needs._fields]))
    found = made | dict(zip(PARAMETERS, made["cell"], strict=False))
    found |= {name: x.unsqueeze(0) if call.stacked else x for name, x in zip(STATE, made["state"], strict=False)}
    if "input" in wanted and call.one_step:
        found["input"] = found["input"].squeeze(0)
    return [found[name] if name in wanted else None for name in call.learnt]
