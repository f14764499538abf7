"""The Spiking Recurrent Cell in eager PyTorch, line by line as arXiv 2306.03623 states it: the reference for the tests
and the equations in their most readable form. It runs with any dtype on any device; autograd computes the gradients. It
is slow by design: only tests and readers call it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._shared.renamed import renamed
from ._shared.state import AnyState, state_type


def _spike(h: Tensor, surrogate: str) -> Tensor:
    """``max(h, 0)`` with its own gradient, or with that of ``h``."""
    if surrogate == "relu":
        return torch.relu(h)
    if surrogate == "straight_through":
        return h - h.detach().clamp(max=0)
    raise ValueError(f"surrogate: expected 'relu' or 'straight_through', got {surrogate!r}")


@renamed("width")
def delay_reference(x: Tensor, delay: Tensor, *, delay_width: int = 1, lengths: Sequence[int] | None = None) -> Tensor:
    r"""Dense reference of :func:`srcell.delay`: (T, B, K) and delays (K,) or (K, M) to (T, B, K M).

    With W = ``delay_width``, output t is the sum over u of ``max(0, W - |u - d|) / W^2`` times input t - u, from u = 0
    on; the weights are scaled to the sum 1 where some lie before. At a whole delay the derivative is the right-hand
    one.

    Example:
        >>> import torch
        >>> from srcell.reference import delay_reference
        >>> delay_reference(torch.tensor([1.0, 0, 0, 0])[:, None, None], torch.tensor([1.25])).flatten()
        tensor([0.0000, 0.7500, 0.2500, 0.0000])

    """
    steps, columns = x.shape[0], []
    for k, delays in enumerate(delay.unbind()):
        for d in delays.reshape(-1).unbind():
            terms = _terms(d, delay_width)
            padded = torch.cat([torch.zeros_like(x), x])[:, :, k]
            shifted = [padded[steps - min(u, steps) : 2 * steps - min(u, steps)] for u in terms]
            columns.append(torch.stack([w * y for w, y in zip(terms.values(), shifted, strict=True)]).sum(0))
    made = torch.stack(columns, -1) if columns else x
    if lengths is not None:
        made = made * (torch.arange(steps)[:, None] < torch.as_tensor(lengths))[:, :, None]
    return made


def _terms(d: Tensor, width: int) -> dict[int, Tensor]:
    """The weight of each number of steps u in the interpolation of a delay."""
    whole = int(d.detach().floor())
    rest, terms = d - whole, range(whole - width + 1, whole + width + 1)
    weights = [width - abs(u - whole) + (-rest if u <= whole else rest) for u in terms]
    kept = {u: weight for u, weight in zip(terms, weights, strict=True) if u >= 0}
    mass = torch.stack([*kept.values()]).sum() if len(kept) < 2 * width else width**2
    return {u: weight / mass for u, weight in kept.items()}


@renamed("lateral_surrogate", "recurrent_grad")
def src_reference(
    current: Tensor,
    bias: Tensor,
    state: AnyState | Sequence[Tensor] | None = None,
    *,
    alpha: float | Tensor = 0.9,
    rho: float | Tensor = 3.0,
    r: float | Tensor = 2.0,
    rs: float | Tensor = -7.0,
    zs_hyp: float | Tensor = 0.9,
    zs_dep: float | Tensor = 0.0,
    omega: float | Tensor = 0.0,
    surrogate: str = "straight_through",
    full_gradient: bool = False,
    lengths: Tensor | Sequence[int] | None = None,
    weight_hh: Tensor | None = None,
    recurrent_surrogate: str = "relu",
    delay_hh: float | Tensor | None = None,
    max_delay: int | None = None,
    delay_width: int = 1,
) -> tuple[Tensor, AnyState]:
    r"""Run the cell over the input currents ``c[t]``; autograd differentiates every step.

    Args:
        current: (T, B, \*F), floating point of any precision.
        bias: excitability ``b``, broadcasts to F, as do ``alpha`` to ``omega``.
        state: the state before the first step, three tensors (B, \*F), or four with ``omega``; with ``delay_hh`` also
            the past, (B, max_delay + delay_width, \*F); zeros if absent.
        omega: unless it is the constant 0, the integrator is the complex number i + j q and turns by omega in a step.
        surrogate: the gradient of the output: ``"relu"`` is ds/dh = [h > 0], ``"straight_through"`` is ds/dh = 1.
        full_gradient: True is full backpropagation through time; False stops gradients at ``h[t-1]`` and ``hs[t-1]``,
            so that they flow through time only along the integrator ``i``.
        lengths: (B,) number of steps of each sample. Later steps leave the sample's state unchanged, emit 0 and get no
            gradient.
        weight_hh: recurrent weights (N, N) of the N neurons F: neuron n also receives weight_hh[n, m] times
            the spike of neuron m at step t-1.
        recurrent_surrogate: ds/dh on the path through ``weight_hh``, "relu" or "straight_through". Gradients flow along
            this path through time whatever ``full_gradient`` is.
        delay_hh: delays of the spikes on this path, beside the one step that they take anyway: of neuron m arrives
            ``sum over u of max(0, delay_width - |u - d[m]|) / delay_width^2`` times its spike of step t-1-u, with the
            weights of :func:`delay_reference` where some u would lie before 0.
        max_delay: the largest delay allowed.
        delay_width: half-width of the interpolation.

    Returns:
        The spikes ``s`` (T, B, \*F) and the state after each sample's last step.

    Example:
        >>> import torch
        >>> from srcell.functional import rest_state
        >>> from srcell.reference import src_reference
        >>> bias = torch.full((1,), -6.0, dtype=torch.float64)
        >>> current = torch.zeros(3, 1, 1, dtype=torch.float64)
        >>> current[0] = 100.0
        >>> spikes, state = src_reference(current, bias, [s.expand(1, 1) for s in rest_state(bias)], alpha=0.0)
        >>> [round(s, 6) for s in spikes.flatten().tolist()]
        [0.907548, 0.972363, 0.0]

    """
    resonant = isinstance(omega, Tensor) or omega != 0
    steps, batch, *shape = current.shape
    if (delay_hh is None) != (max_delay is None):
        raise ValueError(f"max_delay: expected it with delay_hh, and only with it, got {max_delay}")
    past_steps = 0 if max_delay is None else max_delay + delay_width
    if state is None:
        state = [current.new_zeros(batch, *shape)] * (4 if resonant else 3)
    state = list(state)
    if resonant:
        w = torch.as_tensor(omega, dtype=current.dtype)
        a, b = alpha * torch.cos(w), alpha * torch.sin(w)
    if past_steps:
        if len(state) == 3 + resonant:
            state.append(current.new_zeros(batch, past_steps, *shape))
        delays, zero = torch.as_tensor(delay_hh, dtype=current.dtype).expand(shape).reshape(-1), current.new_zeros(())
        terms = [_terms(d, delay_width) for d in delays.unbind()]
        columns = [torch.stack([of.get(u, zero) for u in range(past_steps + 1)]) for of in terms]
        made = torch.stack(columns, -1) if columns else current.new_zeros(past_steps + 1, 0)
        weights = made.view(past_steps + 1, *shape).flip(0)  # of the spikes of the steps before, in their order
    spikes = []
    for t, c in enumerate(current.unbind(0)):  # unbind, because indexing has a backward that is quadratic in T
        i, h, hs, *rest = state
        h_before, hs_before = (h, hs) if full_gradient else (h.detach(), hs.detach())
        active = None if lengths is None else t < torch.as_tensor(lengths, device=current.device)
        c = _where(active, c, 0.0)

        if weight_hh is not None:
            arrived = _spike(h, recurrent_surrogate)
            if past_steps:
                sent = torch.cat([rest[-1], arrived[:, None]], 1)
                arrived, rest[-1] = (weights * sent).sum(1), sent[:, 1:]
            c = c + (arrived.flatten(1) @ weight_hh.t()).view_as(c)
        if resonant:
            q = rest[0]
            i, rest[0] = a * i - b * q + c, b * i + a * q
        else:
            i = alpha * i + c
        x = rho * torch.tanh(i / rho)
        zs = zs_hyp + (zs_dep - zs_hyp) * torch.sigmoid(10 * (h_before - 0.5))
        u = x + r * h_before + rs * hs_before + bias
        h = torch.tanh(u)
        hs = zs * hs_before + (1 - zs) * h_before

        spikes.append(_where(active, _spike(h, surrogate), 0.0))
        state = [_where(active, new, old) for new, old in zip((i, h, hs, *rest), state, strict=True)]
    return torch.stack(spikes) if steps else torch.zeros_like(current), state_type(resonant, past_steps > 0)(*state)


def _where(active: Tensor | None, new: Tensor, old: Tensor | float) -> Tensor:
    """``new`` of the samples that are active, ``old`` of the others; None if all are active."""
    return new if active is None else torch.where(active.view(-1, *[1] * (new.dim() - 1)), new, old)
