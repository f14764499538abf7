"""``IntegerCell`` and ``IntegerState``: the constants and the state of integer neurons, for the whole package.

The numbers are those of the hardware of arXiv 2605.10679. The file stays here because pickles name it, and what
``torch.load`` accepts with ``weights_only`` is known by that name.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from ._shared.pytree import of_tensors


class IntegerCell(NamedTuple):
    """The constants of an integer neuron; the defaults are the hardware's. docs/integer.md has the equations.

    h, hs and u = x + r * h + rs * hs + bias are in units of 2^-fraction_bits; x is the drive. Every value of a neuron
    must fit in 16 bits. So the largest absolute values of the drive, r * h, rs * hs and bias must add up to at most
    32767. zs_hyp and zs_dep must be at most 2^fraction_bits, and slope less than 1.5 * 2^slope_shift.

    Example:
        >>> from srcell import IntegerCell
        >>> IntegerCell(bias=-5000).zs_hyp
        900

    """

    leak_shift_a: int = 4
    """In each step i loses i >> leak_shift_a ..."""
    leak_shift_b: int = 5
    """... and i >> leak_shift_b. Both shifts are 1 to 15."""
    i_max: int = 30000
    """i is clamped to [-i_max, i_max]; at most 32766."""
    drive_high: int = 1023
    """The drive x where i > 0."""
    drive_low: int = -1024
    """The drive x where i <= 0."""
    gate_threshold: int = 500
    """zs_hyp acts where h is below this threshold, zs_dep elsewhere."""
    zs_hyp: int = 900
    """The share of hs kept from step to step at rest, in units of 2^-fraction_bits."""
    zs_dep: int = 100
    """The share of hs kept during a spike, in the same units."""
    fraction_bits: int = 10
    """The number of fractional bits of h, hs and u, 0 to 15."""
    r: int = 2
    """Weight of h in u."""
    rs: int = -8
    """Weight of hs in u."""
    bias: int = -6000
    """Excitability."""
    slope: int = 3
    """h is (slope * u) >> slope_shift ..."""
    slope_shift: int = 2
    """The shift, 0 to 15."""
    h_min: int = -1024
    """... clamped to [h_min, h_max]."""
    h_max: int = 1023
    """The largest h."""
    hs_min: int = -800
    """hs is clamped to [hs_min, hs_max]."""
    hs_max: int = 1023
    """The largest hs."""
    spike_threshold: int = 512
    """A neuron spikes where h >= spike_threshold."""


@of_tensors
class IntegerState(NamedTuple):
    """The state of integer neurons after a step: three int16 tensors (B, N)."""

    i: Tensor
    """The leaky input integrator."""
    h: Tensor
    """The fast state."""
    hs: Tensor
    """The slow state."""

    def to(self, *args: Any, **kwargs: Any) -> IntegerState:
        """Call each tensor's ``to``: move the state to another device."""
        return IntegerState(*(x.to(*args, **kwargs) for x in self))
