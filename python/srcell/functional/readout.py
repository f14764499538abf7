"""``leaky_readout``, ``leaky_sums``, ``count_spikes`` and ``scale_neurons``: votes, sums over time, counts, factors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from .._shared.arguments import as_float, as_int, check_bool, require_floats
from .._shared.pytree import of_tensors
from .._shared.torch_private import in_forward_mode
from ..ops._cpu import BLOCK_BYTES
from ..ops._memory import zero_padding
from ..ops._table import Argument, Checked, shape_error
from ..ops.count import count_spikes as count_spikes_operator
from ..ops.project import project
from ..ops.scale import scale
from ..ops.sums import sum_over_time
from .layer import MOST_ELEMENTS, autocasts, check_device, check_lengths, flat_size, in_work_dtype, without_padding
from .terms import can_look

# Whether a program is made for any number of steps; a compiled graph is made anew for each.
_in_program = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # from torch 2.7 on
CHUNK = 32  # steps that `_scan` sums in one matrix product

STATE, STATE_OF_WINDOW = (Argument("state", "float", (shape,)) for shape in (("B", "C"), ("W", "B", "C")))


def leaky_readout(
    spikes: Tensor,
    num_classes: int,
    *,
    alpha: float = 0.99,
    inhibition: float = -0.1,
    lengths: Tensor | Sequence[int] | None = None,
    every_step: bool = False,
) -> Tensor:
    """Let neurons vote for classes through one leaky integrator per class.

    Neuron n votes for class ``n % num_classes`` with weight 1 and for every other class with weight ``inhibition``; the
    integrators are ``o[t] = alpha * o[t-1] + R s[t]``, and the result is o at each sample's last step, or at every
    step. The constants are those of the configuration that the authors' group published with arXiv 2605.10679.

    Args:
        spikes: (T, B, N), N a multiple of ``num_classes``.
        num_classes: C, at least 1.
        alpha: leak of the integrators, in [0, 1].
        inhibition: weight of a vote on the other classes, finite.
        lengths: (B,) integers in [0, T], number of steps of each sample; T for all if absent.
        every_step: return o at every step; 0 past a sample's length. At a sample's last step it equals the result
            without ``every_step`` except for rounding.

    Returns:
        (B, C), or (T, B, C) at every step; in the dtype of ``spikes``, or float32 if that is half precision.

    Raises:
        TypeError: an argument of the wrong type or dtype; the message names it.
        ValueError: a wrong shape or value; the message names the argument.

    Example:
        >>> import torch
        >>> from srcell.functional import leaky_readout
        >>> spikes = torch.zeros(3, 1, 4)
        >>> spikes[0, 0, 1] = spikes[2, 0, 3] = 1.0
        >>> leaky_readout(spikes, 2, alpha=0.5)
        tensor([[-0.1250,  1.2500]])
        >>> leaky_readout(spikes, 2, alpha=0.5, every_step=True)[:, 0]
        tensor([[-0.1000,  1.0000],
                [-0.0500,  0.5000],
                [-0.1250,  1.2500]])

    """
    require_floats("spikes", spikes)
    num_classes = as_int("num_classes", num_classes, MOST_ELEMENTS, minimum=1)
    if spikes.dim() != 3 or spikes.shape[2] % num_classes:
        raise shape_error("spikes", f"(T, B, N), N a multiple of {num_classes}", spikes.shape)
    alpha, inhibition = check_integrators(alpha, inhibition)
    check_bool("every_step", every_step)
    spikes = in_work_dtype(spikes)
    if every_step:
        voted, lengths = without_padding(votes(spikes, num_classes, inhibition), lengths, check_range=True)
        sums, _ = leaky_sums(voted, alpha, lengths=lengths)
        return sums
    pooled = discounted_sum(spikes, alpha, lengths)
    with _full_precision(spikes):
        own = pooled.view(pooled.shape[0], spikes.shape[2] // num_classes, num_classes).sum(1)
        return (1 - inhibition) * own + inhibition * pooled.sum(1, keepdim=True)


def check_integrators(alpha: float, inhibition: float) -> tuple[float, float]:
    """The constants of ``leaky_readout`` as floats, in their ranges."""
    alpha, inhibition = as_float("alpha", alpha), as_float("inhibition", inhibition)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected a value in [0, 1], got {alpha}")
    if not -math.inf < inhibition < math.inf:
        raise ValueError(f"inhibition: expected a finite value, got {inhibition}")
    return alpha, inhibition


def votes(spikes: Tensor, num_classes: int, inhibition: float) -> Tensor:
    """``R s[t]`` of :func:`leaky_readout`: the votes (T, B, C) of spikes (T, B, N) at every step."""
    steps, batch, neurons = spikes.shape
    flat_size("spikes", (batch, neurons))
    own = spikes.reshape(steps, batch, neurons // num_classes, num_classes).sum(2)
    return (1 - inhibition) * own + inhibition * own.sum(2, keepdim=True)


def leaky_sums(
    x: Tensor,
    alpha: float,
    *,
    window: int = 0,
    lengths: Tensor | None = None,
    state: Tensor | None = None,
    return_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Sum over time with a leak, at every step: ``o[t] = alpha * o[t-1] + x[t]``.

    The time is linear in T (times log2 of the window), the memory a few times that of x. The sums go through matrix
    products over steps: a NaN or an infinity at a step also reaches steps before it.

    Args:
        x: (T, B, C), in any floating-point dtype; half precision is summed in float32.
        alpha: leak, in [0, 1], checked by the caller.
        window: number of steps up to t that o[t] sums over; 0 for all.
        lengths: (B,), checked; past them x must be 0. There o is 0, and the state is that of the sample's last step.
        state: from the call on the steps before; no steps before if absent.
        return_state: whether to return the state.

    Returns:
        (T, B, C), and the state for the call on the next steps: o after each sample's last step, (B, C), or with a
        window its last ``window - 1`` elements of x, (window - 1, B, C). It is attached to the graph. None without
        ``return_state``.

    Raises:
        TypeError: the state is not a tensor of the dtype of x, or float32 for half precision.
        ValueError: the state has another shape or device.

    Example:
        >>> import torch
        >>> from srcell.functional.readout import leaky_sums
        >>> leaky_sums(torch.ones(4, 1, 1), 0.5)[0].flatten()
        tensor([1.0000, 1.5000, 1.7500, 1.8750])
        >>> leaky_sums(torch.ones(4, 1, 1), 0.5, window=2)[0].flatten()
        tensor([1.0000, 1.5000, 1.5000, 1.5000])

    """
    x = in_work_dtype(x)
    steps, batch, classes = x.shape
    if state is None and not return_state and not _in_program() and window >= steps:
        window = 0
    shape = (window - 1, batch, classes) if window else (batch, classes)
    if state is None:
        state = x.new_zeros(shape)
    elif not isinstance(state, Tensor):
        raise TypeError(f"state: expected a tensor, got {type(state).__name__}")
    else:
        checked = Checked("x", x.device, x.dtype, W=window - 1, B=batch, C=classes)
        checked.one(STATE_OF_WINDOW if window else STATE, state)
    if window:
        inputs = torch.cat([state, x])
        sums = _window_sums(inputs, alpha, window)
    else:
        with _full_precision(x):
            sums = _scan(x.reshape(steps, batch * classes), alpha, state.reshape(-1)).view(x.shape)
    after = _state_after(inputs if window else sums, state, steps, window, lengths) if return_state else None
    return sums if lengths is None else zero_padding(sums, lengths), after


def _state_after(x: Tensor, state: Tensor, steps: int, window: int, lengths: Tensor | None) -> Tensor:
    """The state of ``leaky_sums`` after the steps, of the inputs with a window and otherwise of the sums.

    It is a copy: a view would keep all of x in memory.
    """
    ends = None if lengths is None else lengths.clamp(0, steps).view(1, -1, 1).expand(1, *x.shape[1:])
    if window:
        rows = torch.arange(window - 1, device=x.device).view(-1, 1, 1)
        return x[steps:].clone() if ends is None else x.gather(0, ends + rows)
    if not steps:
        return state.clone()
    if ends is None:
        return x[-1].clone()
    return torch.where(ends[0] > 0, x.gather(0, (ends - 1).clamp(min=0))[0], state)


def _scan(x: Tensor, alpha: float, before: Tensor) -> Tensor:
    """The leaky sums (T, M) of x (T, M), with the sums ``before`` (M,) the first step.

    Each chunk is summed by a triangular matrix of powers of alpha. Of the sums before the chunks, these are again leaky
    sums, of the chunks' ends and with the leak ``alpha^CHUNK``.
    """
    steps, size = x.shape
    if _in_program():
        return _scan_of_any_length(x, alpha, before)
    if steps <= CHUNK:
        return _sum_chunk(x, alpha, before)
    chunks = -(-steps // CHUNK)
    padded = torch.cat([x, x.new_zeros(chunks * CHUNK - steps, size)]).view(chunks, CHUNK, size)
    lower, decay = _powers(padded[0], alpha)
    sums = torch.bmm(lower.expand(chunks, CHUNK, CHUNK), padded)
    later = _scan(sums[:-1, -1], alpha**CHUNK, before)
    starts = torch.cat([before[None], later])[:, None]
    return torch.addcmul(sums, decay, starts).view(chunks * CHUNK, size)[:steps]


def _scan_of_any_length(x: Tensor, alpha: float, before: Tensor) -> Tensor:
    """``_scan`` in a program for any number of steps: one matrix sums the ends of all chunks, so that the time is
    quadratic in the number of chunks.

    So that torch.export need not know how many chunks there are, the padding has one size, of more chunks than one, and
    the steps are gathered.
    """
    steps, size = x.shape
    chunks = torch.cat([x, x.new_zeros(3 * CHUNK, size)]).unfold(0, CHUNK, CHUNK)  # (chunks, M, CHUNK)
    lower, decay = _powers(x.new_empty(CHUNK, 1), alpha)
    sums = chunks @ lower.T
    later = _sum_chunk(sums[:-1, :, -1], alpha**CHUNK, before)
    starts = torch.cat([before[None], later])[..., None]
    every = torch.addcmul(sums, decay[:, 0], starts).transpose(1, 2).reshape(-1, size)
    return every.index_select(0, torch.arange(steps, device=x.device))


def _sum_chunk(x: Tensor, alpha: float, before: Tensor) -> Tensor:
    lower, decay = _powers(x, alpha)
    return torch.addcmul(lower @ x, decay, before)


def _powers(x: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """The matrix that sums x (T, M) with a leak, (T, T), and what is left of earlier sums at each step, (T, 1)."""
    age = torch.arange(x.shape[0], device=x.device)
    base = torch.full((), alpha, dtype=x.dtype, device=x.device)
    return torch.pow(base, (age[:, None] - age).clamp(min=0)).tril(), torch.pow(base, age + 1)[:, None]


def _window_sums(x: Tensor, alpha: float, window: int) -> Tensor:
    """The leaky sums of ``window`` successive elements: (T, ...) of x (window - 1 + T, ...).

    Sums of 1, 2, 4, ... elements are added up to those of ``window`` elements. Nothing is subtracted, so each summand
    goes through at most 2 log2(window) additions, however long the sequence.
    """
    sums, covered = x, 0
    of_span, span = x, 1
    while True:
        if window & span:
            rest = of_span[covered:]
            sums = torch.add(rest, sums[: rest.shape[0]], alpha=alpha**span) if covered else rest
            covered += span
        if covered == window:
            return sums
        of_span = torch.add(of_span[span:], of_span[:-span], alpha=alpha**span)
        span *= 2


def _full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A context in which autocast does not lower the precision of matrix products."""
    return torch.autocast(x.device.type, enabled=False) if autocasts(x) else nullcontext()


def discounted_sum(spikes: Tensor, alpha: float, lengths: Tensor | Sequence[int] | None, window: int = 0) -> Tensor:
    """(B, N): the sum of alpha^age * s over each sample's last ``window`` steps, or all; its last step has age 0."""
    spikes = in_work_dtype(spikes)
    steps, batch, neurons = spikes.shape
    base = torch.full((), alpha, dtype=spikes.dtype, device=spikes.device)
    # torch's operators are what other programs read: graphs, exported or compiled, have them. Programs for any number
    # of steps read them all.
    in_graph, in_program = torch.compiler.is_compiling() or in_forward_mode(), _in_program()
    read = steps if in_program or not window else min(window, steps)
    step = torch.arange(read, device=spikes.device)
    with _full_precision(spikes):
        if lengths is None:
            age = step.flip(0)
            factors = torch.pow(base, age)
            if in_program and window:
                spikes = torch.where((age < window)[:, None, None], spikes, 0)
            size = flat_size("spikes", (batch, neurons))
            if size and read and spikes.requires_grad and not in_graph:
                summed: Tensor = sum_over_time(spikes, factors)
                return summed
            return (factors @ spikes[steps - read :].reshape(read, size)).view(batch, neurons)
        ends = check_lengths(lengths, batch, spikes.device, steps)
        if in_graph or not (can_look(spikes) and spikes.nbytes >= BLOCK_BYTES):
            ages = ends - 1 - torch.arange(steps, device=spikes.device)[:, None]
            valid = (ages >= 0) & (ages < (window or steps))
            factors = torch.pow(base, ages.clamp(min=0))
            return torch.einsum("tb,tbn->bn", factors, torch.where(valid[..., None], spikes, 0))
        if read < steps:  # the last steps of each sample; those before its first have a factor of 0
            rows = (ends - read + step[:, None]).clamp(min=0) * batch + torch.arange(batch)
            spikes = spikes.flatten(0, 1).index_select(0, rows.flatten()).view(read, batch, neurons)
            valid, ages = step[:, None] >= read - ends, (read - 1 - step)[:, None].expand(read, batch)
        else:
            valid, ages = step[:, None] < ends, (ends - 1 - step[:, None]).clamp(min=0)
        factors = torch.pow(base, ages).masked_fill(~valid, 0)
        sums: Tensor = sum_over_time(spikes, factors)
        if not bool(sums.isfinite().all()):  # perhaps through a padding of NaN, which must not count
            sums = sum_over_time(torch.where(valid[..., None], spikes, 0), factors)
        return sums


def projected(spikes: Tensor, weight: Tensor, lengths: Tensor | None = None) -> Tensor:
    """The product (T, B, C) of spikes (T, B, N) and a weight (C, N), 0 past the lengths (B,)."""
    if lengths is not None:
        made = projected(spikes, weight) if can_look(spikes) and spikes.nbytes >= BLOCK_BYTES else None
        if made is None or not bool(made.isfinite().all()):  # a NaN in the padding must not reach the weight's gradient
            made = projected(zero_padding(spikes, lengths), weight)
        return zero_padding(made, lengths)
    plain = torch.compiler.is_compiling() or in_forward_mode() or autocasts(spikes) or spikes.dtype != weight.dtype
    learns = spikes.requires_grad and torch.is_grad_enabled()
    if plain or not learns or spikes.nbytes < BLOCK_BYTES or not weight.numel():
        return torch.nn.functional.linear(spikes, weight)
    result: Tensor = project(spikes, weight)
    return result


@of_tensors
class SpikeCounts(NamedTuple):
    r"""Counts of each neuron over all steps and samples: two int64 tensors (\*F)."""

    events: Tensor
    """Elements (step, sample) in which the neuron is active, s > 0."""
    spikes: Tensor
    """Upward crossings of 0.5; a first step above it counts as one."""


def count_spikes(spikes: Tensor) -> SpikeCounts:
    r"""Count each neuron's active elements and its spikes.

    Args:
        spikes: (T, B, \*F), the output of ``src``, ``src_linear`` or a layer; any floating-point dtype.

    Raises:
        TypeError: ``spikes`` is not a floating-point tensor.
        ValueError: it has fewer than two dimensions.

    Source: the project's definition of events and spikes.

    Example:
        >>> import torch
        >>> from srcell.functional import count_spikes
        >>> counts = count_spikes(torch.tensor([0.0, 0.3, 0.9, 1.0, 0.1, 0.0, 0.8]).view(7, 1, 1))
        >>> counts.events, counts.spikes
        (tensor([5]), tensor([2]))

    """
    require_floats("spikes", spikes)
    if spikes.dim() < 2:
        raise shape_error("spikes", "(T, B, ...)", spikes.shape)
    check_device("spikes", spikes)
    plain = in_work_dtype(spikes.detach())
    steps, batch, *neurons = plain.shape
    flat = plain.reshape(steps, batch, flat_size("spikes", neurons))
    events, crossings = count_spikes_operator(flat)
    return SpikeCounts(events.view(neurons), crossings.view(neurons))


def scale_neurons(spikes: Tensor, factors: Tensor) -> Tensor:
    r"""Compute ``spikes * factors``, where each neuron of each sample has one factor for all steps.

    Args:
        spikes: (T, B, \*F).
        factors: (B, \*F), of the same dtype and device; they get no gradient.

    Example:
        >>> import torch
        >>> from srcell.functional.readout import scale_neurons
        >>> scale_neurons(torch.ones(2, 1, 3), torch.tensor([[0.0, 2.0, 1.0]]))[1]
        tensor([[0., 2., 1.]])

    """
    if in_forward_mode():  # the operator does not support it
        return spikes * factors.detach()
    result: Tensor = scale(spikes, factors.detach())
    return result
