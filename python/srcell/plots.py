"""Plots spikes and states from any tensors, and re-exports the plots of a run from ``srcell.training.plots``.

Users call it; it must never know where a figure goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ._state import AnyState
from .training.plots import confusion, learning_curve, new_figure, raster, rates, traces

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["activity", "confusion", "learning_curve", "membrane", "raster", "rates", "spike_raster", "traces"]


def spike_raster(spikes: Tensor, sample: int = 0) -> Figure:
    r"""Draw the active elements of one sample (s > 0): a mark for each such neuron and step.

    Args:
        spikes: (T, B, \*F), the output of a layer or function.
        sample: number of the sample in the batch.

    Raises:
        TypeError, ValueError, IndexError: ``spikes`` is not such a tensor, or the sample does not exist.

    Example:
        >>> import torch, srcell
        >>> from srcell import plots
        >>> spikes, _ = srcell.SRC(20, 12)(torch.rand(50, 3, 20).lt(0.3).float())
        >>> figure = plots.spike_raster(spikes, sample=1)

    """
    flat = _of_sample("spikes", spikes, sample)
    at, neurons = flat.nonzero(as_tuple=True)
    figure = new_figure(9, 3)
    panel = figure.subplots()
    size = max(1.0, min(20.0, 9000 / max(flat.shape[1], 1)))  # marks that touch, but can be seen one by one
    panel.scatter(at.numpy(), neurons.numpy(), s=size, marker="|", linewidths=0.9, color="C0")
    panel.set(xlabel="step", ylabel="neuron", xlim=(0, len(flat)), ylim=(-1, flat.shape[1]))
    panel.set_title("active neurons, s > 0")
    return figure


def membrane(trace: AnyState, neurons: Sequence[int] = (0,), sample: int = 0) -> Figure:
    r"""Plot the integrator, the fast and the slow state of the chosen neurons over time, one panel per neuron.

    Args:
        trace: i, h and hs, and of resonant neurons q, after each step: tensors (T, B, \*F) of floats or of integers, as
            ``trace()`` of a layer recorded with ``srcell.record`` returns.
        neurons: numbers of the neurons, in the flattened F.
        sample: number of the sample in the batch.

    Raises:
        TypeError, ValueError, IndexError: ``trace`` is not such a trace, no neuron is given, or the sample or a neuron
            does not exist.

    """
    if not isinstance(trace, tuple) or len(trace) not in (3, 4):
        raise TypeError(f"trace: expected i, h and hs, three tensors, or q as well, got {type(trace).__name__}")
    if not neurons:
        raise ValueError("neurons: expected at least one, got none")
    i, h, hs, *q = (
        _of_sample(f"trace.{name}", x, sample) for name, x in zip(("i", "h", "hs", "q"), trace, strict=False)
    )
    figure = new_figure(9, 0.8 + 1.8 * len(neurons))
    panels = figure.subplots(len(neurons), 1, sharex=True, squeeze=False)[:, 0]
    for panel, neuron in zip(panels, neurons, strict=True):
        panel.plot(hs[:, neuron].numpy(), color="C0", label="slow state hs")
        panel.plot(h[:, neuron].numpy(), color="C3", label="fast state h")
        panel.set(ylabel=f"neuron {neuron}")
        if h.is_floating_point():
            panel.set_ylim(-1.08, 1.08)
        beside = panel.twinx()
        beside.plot(i[:, neuron].numpy(), ":", color="C1", label="integrator i")
        for part in q:
            beside.plot(part[:, neuron].numpy(), ":", color="C2", label="integrator q")
        beside.set_ylabel("integrator i, q" if q else "integrator i", color="black" if q else "C1")
    panels[-1].set(xlabel="step", xlim=(0, len(h)))
    lines = [*panels[0].get_lines(), *beside.get_lines()]
    figure.legend(
        lines, [str(line.get_label()) for line in lines], fontsize="small", loc="outside lower center", ncols=len(lines)
    )
    return figure


def activity(spikes: Tensor) -> Figure:
    r"""Plot for each neuron the share of steps, over all samples, in which s > 0; the least active neuron comes first.

    Args:
        spikes: (T, B, \*F).

    Raises:
        TypeError, ValueError: ``spikes`` is not such a tensor.

    """
    _of_sample("spikes", spikes, 0)
    rate = (spikes.detach() > 0).flatten(2).double().mean((0, 1)).cpu()
    figure = new_figure(6, 3.4)
    panel = figure.subplots()
    panel.plot(range(len(rate)), (100 * rate.sort().values).numpy(), color="C0")
    panel.set(xlabel="neurons, from the least active on", ylabel="rate (% of steps with s > 0)")
    panel.set_title(f"{len(rate)} neurons, mean {100 * rate.mean():.1f} %")
    panel.grid(alpha=0.3)
    return figure


def _of_sample(name: str, x: Tensor, sample: int) -> Tensor:
    """A sample's values (T, N), on the CPU."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    if x.dim() < 3 or not x.shape[1]:
        raise ValueError(f"{name}: expected shape (T, B, ...) with a sample, got {tuple(x.shape)}")
    if not -x.shape[1] <= sample < x.shape[1]:
        raise IndexError(f"sample: expected a number in [{-x.shape[1]}, {x.shape[1]}), got {sample}")
    return x.detach()[:, sample].flatten(1).cpu()
