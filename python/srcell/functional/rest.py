"""``rest_state``: the silent fixed point of a neuron."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._shared.arguments import as_float, require_dense
from .._shared.parameters import TABLE
from .._shared.state import AnyState, state_type
from ..ops._table import device_error
from ..ops.rest import rest
from .layer import Parameter, check_device, is_resonant


def rest_state(
    bias: Parameter,
    *,
    alpha: Parameter = 0.9,
    rho: Parameter = 3.0,
    r: Parameter = 2.0,
    rs: Parameter = -7.0,
    zs_hyp: Parameter = 0.9,
    zs_dep: Parameter = 0.0,
    omega: Parameter = 0.0,
) -> AnyState:
    """Find the silent fixed point without input: i = 0 and the lowest h = hs with h = tanh((r + rs) h + bias).

    Args:
        bias: a float or a tensor.
        alpha: accepted, as in :func:`src`, but unused: the fixed point does not depend on it.
        rho: unused.
        r: a float or a tensor that broadcasts with bias, as is rs.
        rs: negative feedback.
        zs_hyp: unused.
        zs_dep: unused.
        omega: unless it is the constant 0, the state has a q, which is 0.

    Returns:
        The state, of the broadcast shape of bias, r and rs; float32 unless the bias is float64. It carries no gradient.
        For a bias above about -4.9 the fixed point exists but is unstable.

    Raises:
        TypeError: bias, r or rs is neither a number nor a floating-point tensor.
        ValueError: a number among them is not finite, or their shapes or devices do not match.

    Example:
        >>> from srcell.functional import rest_state
        >>> round(rest_state(-6.0).h.item(), 5)
        -0.90269

    """
    dtype = bias.dtype if isinstance(bias, Tensor) and bias.dtype == torch.float64 else torch.float32
    b, gain = _resting_point(bias, r, rs)
    h = rest(b, gain).to(dtype)
    if not isinstance(omega, Tensor) and not abs(as_float("omega", omega)) <= TABLE["omega"].most:
        raise ValueError(f"omega: expected a number in [-pi, pi], got {omega}")
    state = state_type(is_resonant(omega), False)
    return state(torch.zeros_like(h), h, h.clone(), *(torch.zeros_like(h) for _ in state._fields[3:]))


def _resting_point(bias: Parameter, r: Parameter, rs: Parameter) -> tuple[Tensor, Tensor]:
    """Bias and r + rs, on which the fixed point depends, in float64 and broadcast to one shape."""
    given = {"bias": bias, "r": r, "rs": rs}
    devices = [x.device for x in given.values() if isinstance(x, Tensor)]
    device = devices[0] if devices else torch.device("cpu")
    doubles: list[Tensor] = []
    for name, value in given.items():
        if isinstance(value, Tensor):
            if not value.is_floating_point():
                raise TypeError(f"{name}: expected a floating-point dtype, got {value.dtype}")
            require_dense(name, value)
            check_device(name, value)
            if value.device != device:
                raise device_error(name, f"{device}, as the tensor before it has", value)
            double = value.detach().to(torch.float64)  # torch 2.4 cannot export torch.no_grad
        else:
            number = as_float(name, value)
            if not -math.inf < number < math.inf:  # math.isfinite() would break the graph of a compiled call
                raise ValueError(f"{name}: expected a finite value, got {number}")
            double = torch.full((), number, dtype=torch.float64, device=device)
        try:
            doubles = list(torch.broadcast_tensors(*doubles, double)) if doubles else [double]
        except RuntimeError:
            expected = tuple(doubles[0].shape)
            got = tuple(double.shape)
            raise ValueError(f"{name}: expected a shape that broadcasts with {expected}, got {got}") from None
    b, r_, rs_ = doubles
    return b, r_ + rs_
