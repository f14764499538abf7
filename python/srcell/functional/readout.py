"""``leaky_readout``, ``count_spikes`` and ``scale_neurons``: votes for classes, counts, scaled outputs."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from .._arguments import as_float, describe, require_dense
from .._private import in_forward_mode
from .._pytree import of_tensors
from ..ops._layer import HALF
from ..ops._memory import zero_padding
from ..ops.count import count_spikes as count_spikes_operator
from ..ops.scale import scale
from .layer import autocasts, check_device, check_lengths, check_range_of_lengths, flat_size


def leaky_readout(
    spikes: Tensor,
    num_classes: int,
    *,
    alpha: float = 0.99,
    inhibition: float = -0.1,
    lengths: Tensor | Sequence[int] | None = None,
) -> Tensor:
    """Let neurons vote for classes through one leaky integrator per class.

    Neuron n votes for class ``n % num_classes`` with weight 1 and for every other class with weight ``inhibition``; the
    integrators are ``o[t] = alpha * o[t-1] + R s[t]``, and the result is o at each sample's last step. The constants
    are those of the configuration that the authors' group published with arXiv 2605.10679.

    Args:
        spikes: (T, B, N), N a multiple of ``num_classes``.
        num_classes: C, at least 1.
        alpha: leak of the integrators, in [0, 1].
        inhibition: weight of a vote on the other classes, finite.
        lengths: (B,) integers in [0, T], number of steps of each sample; T for all if absent.

    Returns:
        (B, C), in the dtype of ``spikes``, or float32 if that is half precision.

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

    """
    if not isinstance(spikes, Tensor) or not spikes.is_floating_point():
        raise TypeError(f"spikes: expected a floating-point tensor, got {describe(spikes)}")
    require_dense("spikes", spikes)
    if not isinstance(num_classes, numbers.Integral):
        raise TypeError(f"num_classes: expected an int, got {describe(num_classes)}")
    if not 1 <= num_classes < 2**63:
        raise ValueError(f"num_classes: expected at least 1 and below 2^63, got {num_classes}")
    if spikes.dim() != 3 or spikes.shape[2] % num_classes:
        raise ValueError(f"spikes: expected shape (T, B, N), N a multiple of {num_classes}, got {tuple(spikes.shape)}")
    alpha, inhibition = check_integrators(alpha, inhibition)
    if spikes.dtype in HALF:
        spikes = spikes.float()
    with _full_precision(spikes):
        pooled = _discounted_sum(spikes, alpha, lengths)
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


def _full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A context in which autocast does not lower the precision of matrix products."""
    return torch.autocast(x.device.type, enabled=False) if autocasts(x) else nullcontext()


def _discounted_sum(spikes: Tensor, alpha: float, lengths: Tensor | Sequence[int] | None) -> Tensor:
    """(B, N): the sum of alpha^age * s over each sample's steps, where its last step has age 0."""
    steps, batch, neurons = spikes.shape
    age = torch.arange(steps - 1, -1, -1, device=spikes.device)
    base = torch.full((), alpha, dtype=spikes.dtype, device=spikes.device)
    if lengths is None:
        flat = spikes.reshape(steps, flat_size("spikes", (batch, neurons)))
        return (torch.pow(base, age) @ flat).view(batch, neurons)
    lengths = check_lengths(lengths, batch, spikes.device)
    check_range_of_lengths(lengths, steps)
    ages = age[:, None] - (steps - lengths)
    return torch.einsum("tb,tbn->bn", torch.pow(base, ages.clamp(min=0)), zero_padding(spikes, lengths))


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
    if not isinstance(spikes, Tensor) or not spikes.is_floating_point():
        raise TypeError(f"spikes: expected a floating-point tensor, got {describe(spikes)}")
    require_dense("spikes", spikes)
    if spikes.dim() < 2:
        raise ValueError(f"spikes: expected shape (T, B, ...), got {tuple(spikes.shape)}")
    check_device("spikes", spikes)
    plain = spikes.detach()
    if plain.dtype in HALF:
        plain = plain.float()
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
