"""``src``: the recurrence on given currents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

import torch
from torch import Tensor

from .._shared.arguments import require_tensor
from .._shared.renamed import renamed
from .._shared.state import AnyState
from ..ops import _gpu
from ..ops._layer import LayerArguments
from ..ops._table import HALF, dtype_error, shape_error
from ..ops.src import directly
from ..ops.src import src as src_operator
from .layer import (
    Parameter,
    State,
    autocasts,
    check_device,
    final_state,
    flat_size,
    in_work_dtype,
    layer_of,
)


@renamed("lateral_surrogate", "recurrent_grad")
def src(
    current: Tensor,
    bias: Parameter,
    state: State | None = None,
    *,
    alpha: Parameter = 0.9,
    rho: Parameter = 3.0,
    r: Parameter = 2.0,
    rs: Parameter = -7.0,
    zs_hyp: Parameter = 0.9,
    zs_dep: Parameter = 0.0,
    omega: Parameter = 0.0,
    surrogate: str = "straight_through",
    full_gradient: bool = False,
    lengths: Tensor | Sequence[int] | None = None,
    weight_hh: Tensor | None = None,
    recurrent_surrogate: str = "relu",
    delay_hh: Parameter | None = None,
    max_delay: SupportsIndex | None = None,
    delay_width: SupportsIndex = 1,
) -> tuple[Tensor, AnyState]:
    r"""Run Spiking Recurrent Cells over given input currents.

    The currents may come from any synapse; the cell itself is elementwise over the neurons F. On a CPU the result has
    the same bits for every instruction set, thread count and batch size, in one call or in several that pass on the
    state.

    Args:
        current: input currents, (T, B, \*F), float32 or float64. float16 and bfloat16 are computed in float32, as is
            everything under autocast; GPU kernels read and write them without a converted copy, unless there is a
            ``weight_hh``.
        bias: excitability, a float or a tensor that broadcasts to F. -6 is silent at rest; above about -4.9 a neuron
            oscillates by itself.
        state: the state before the first step, three tensors (B, \*F), or four with ``omega``; with ``delay_hh`` also
            the past, (B, max_delay + delay_width, \*F). What is absent is zero.
        alpha: leak of the input integrator, in [0, 1].
        rho: bound on the drive, > 0.
        r: positive feedback, which starts the spike.
        rs: negative feedback, which ends it.
        zs_hyp: gate of the slow state when hyperpolarised.
        zs_dep: gate of the slow state when depolarised.
        omega: angular frequency of the integrator, in [-pi, pi] radians a step. Unless it is the constant 0, the
            integrator is the complex number i + j q that turns by omega while it decays by alpha, and resonates with
            currents of that frequency.
        surrogate: gradient of the output spike[t] = max(h[t], 0): ``"relu"``, its true derivative, or
            ``"straight_through"``, 1 everywhere.
        full_gradient: whether gradients also flow through h[t-1] and hs[t-1]. By default gradients pass straight
            through the output and flow through time only along the integrator, which is cheaper and trains more
            robustly; ``surrogate="relu"`` with ``full_gradient=True`` gives the exact gradient, the derivative of the
            forward pass.
        lengths: (B,) integers in [0, T]: steps past a sample's length leave its state unchanged, emit nothing and get
            no gradient. With currents on a GPU, pass a tensor on that GPU: copying a list there synchronises.
        weight_hh: recurrent weights, (N, N) for the N neurons F, of the dtype of the
            computation. Neuron n receives the spikes of step t-1: weight_hh[n, m] times the spike of neuron m is added
            to its current. The weights of silent neurons have no influence. Before the first step the spikes are those
            of the initial state, max(h, 0).
        recurrent_surrogate: surrogate gradient of the spikes that pass through weight_hh: ``"relu"``, or
            ``"straight_through"``, with which gradients grow from step to step.
        delay_hh: delays of the spikes through weight_hh, in steps beside the one that they take anyway, in
            [0, max_delay]: a float or a tensor that broadcasts to F. Neuron n's spikes then arrive later, as
            :func:`srcell.delay` says; a spike costs the same whatever its delay. On a GPU their range is not checked,
            and compiled only to the next whole step.
        max_delay: the largest delay allowed, an int in [0, 65535]; needed beside ``delay_hh``.
        delay_width: half-width of the interpolation of ``delay_hh`` in steps, as in :func:`srcell.delay`.

    Each cell parameter is a float or a tensor that broadcasts to F; tensors may require gradients.

    Returns:
        The spikes, (T, B, \*F), in the dtype of ``current`` (float32 under autocast): exactly 0 when silent, about 1 in
        a spike. And the state after each sample's last step, in float64 for currents of float64, otherwise in float32:
        an :class:`~srcell.SRCState`, or with ``omega`` a :class:`~srcell.ResonantState`; with ``delay_hh`` a
        :class:`~srcell.DelayedState` or a :class:`~srcell.DelayedResonantState`, which also hold the spikes of the
        max_delay + delay_width steps before the last; those of the last follow from h.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape, device or value; the message names the argument.

    Example:
        >>> import torch
        >>> from srcell.functional import src
        >>> current = torch.zeros(40, 1, 1)
        >>> current[20] = 10.0
        >>> spikes, state = src(current, bias=-6.0)
        >>> spikes[:, 0, 0].nonzero().flatten().tolist()
        [20, 21]

    """
    require_tensor("current", current)
    if current.dtype not in (torch.float32, torch.float64, *HALF):
        raise dtype_error("current", "float32, float64, float16 or bfloat16", current)
    if current.dim() < 3:
        raise shape_error("current", "(T, B, *F) of at least three dimensions", current.shape)
    check_device("current", current)
    cell = alpha, rho, r, rs, zs_hyp, zs_dep, omega
    layer = layer_of(
        current,
        current.shape[1:],
        bias,
        cell,
        state,
        lengths,
        surrogate=surrogate,
        full_gradient=full_gradient,
        weight_hh=weight_hh,
        recurrent_surrogate=recurrent_surrogate,
        delay_hh=delay_hh,
        max_delay=max_delay,
        delay_width=delay_width,
    )
    return run_src(current, layer)


def run_src(current: Tensor, layer: LayerArguments) -> tuple[Tensor, AnyState]:
    """``src`` on arguments that ``layer_of`` has converted."""
    steps, batch, *features = current.shape
    flat = current if _gpu.is_gpu(current) else in_work_dtype(current)
    half_spikes = current.dtype in HALF and not autocasts(current)
    if len(features) > 1:
        flat = flat.reshape(steps, batch, flat_size("current", features))
    made = None
    if not torch.compiler.is_compiling() and flat.is_cpu:
        made = directly((flat, layer, False, False, False))
    if made is None:
        options = {"save": False, "trace_integrator": False, "half_spikes": half_spikes}
        spikes, *ended = src_operator(flat, layer, **options)
        made = spikes, final_state(layer, ended)
    spikes, state = made
    if len(features) > 1:
        spikes = spikes.reshape(current.shape)
        state = type(state)(*(x.reshape(*x.shape[:-1], *features) for x in state))
    if half_spikes:  # on a GPU they are already
        spikes = spikes.to(current.dtype)
    return spikes, state
