"""Plots spikes and states from any tensors, and re-exports the plots of a run from ``srcell.training.plots``.

Users call it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ._shared.state import AnyState
from .training.plots import (
    confusion,
    draw_marks,
    labelled_steps,
    learning_curve,
    new_figure,
    of_sample,
    raster,
    rates,
    steps_of,
    traces,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .data import SoundEncoding
    from .events import EventBatch

__all__ = [
    "activity",
    "cochleagram",
    "confusion",
    "labelled_steps",
    "learning_curve",
    "membrane",
    "raster",
    "rates",
    "spike_raster",
    "traces",
]


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
    flat = of_sample("spikes", spikes, sample)
    figure = new_figure(9, 3)
    panel = figure.subplots()
    draw_marks(panel, flat, "C0")
    panel.set(xlabel="step", ylabel="neuron", xlim=(0, len(flat)))
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
        of_sample(f"trace.{name}", x, sample) for name, x in zip(("i", "h", "hs", "q"), trace, strict=False)
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
    figure.legend(handles=lines, fontsize="small", loc="outside lower center", ncols=len(lines))
    return figure


def activity(spikes: Tensor) -> Figure:
    r"""Plot for each neuron the share of steps, over all samples, in which s > 0; the least active neuron comes first.

    Args:
        spikes: (T, B, \*F).

    Raises:
        TypeError, ValueError: ``spikes`` is not such a tensor.

    """
    of_sample("spikes", spikes, 0)
    rate = (spikes.detach() > 0).flatten(2).double().mean((0, 1)).cpu()
    figure = new_figure(6, 3.4)
    panel = figure.subplots()
    panel.plot(range(len(rate)), (100 * rate.sort().values).numpy(), color="C0")
    panel.set(xlabel="neurons, from the least active on", ylabel="rate (% of steps with s > 0)")
    panel.set_title(f"{len(rate)} neurons, mean {100 * rate.mean():.1f} %")
    panel.grid(alpha=0.3)
    return figure


def cochleagram(
    encoded: EventBatch | Tensor,
    encoding: SoundEncoding,
    sample: int = 0,
    *,
    wave: Tensor | None = None,
    spikes: Mapping[str, EventBatch | Tensor] | None = None,
) -> Figure:
    r"""Draw one sound as its encoding hears it: time to the right, the frequencies of the bands upwards.

    Colours show the current of each band. If the encoding has a threshold, they show the level that the events of a
    band add up to. ``wave`` is drawn above and ``spikes`` below, on the same time axis. If ``encoded`` has lengths,
    the picture ends with the sound.

    Args:
        encoded: (T, B, K), the output of ``encoding``, as events or dense.
        encoding: the encoding that made it.
        sample: number of the sound in the batch.
        wave: (B, S), the sounds.
        spikes: outputs (T, B, \*F) of layers, or other events of these T steps, by name: a raster for each.

    Raises:
        TypeError, ValueError, IndexError: an argument is not of this kind or shape, ``encoded`` holds no frame or does
            not have the inputs of ``encoding``, or the sample does not exist.

    Example:
        >>> import torch, srcell
        >>> from srcell import data, plots
        >>> tone = torch.sin(6.2832 * 440 * torch.arange(4000) / 8000)[None]  # 440 Hz for half a second
        >>> encoding = data.SoundEncoding()
        >>> events = encoding(tone)
        >>> spikes, _ = srcell.SRC(encoding.inputs, 20)(events)
        >>> figure = plots.cochleagram(events, encoding, wave=tone, spikes={"layer": spikes})

    """
    if not hasattr(encoding, "centres"):
        raise TypeError(f"encoding: expected a SoundEncoding, got {type(encoding).__name__}")
    below = {} if spikes is None else spikes
    if not isinstance(below, Mapping):
        raise TypeError(f"spikes: expected a mapping from names to spikes, got {type(below).__name__}")
    values = steps_of("encoded", encoded, sample)
    steps = len(values)
    if values.shape[1] != encoding.inputs:
        raise ValueError(f"encoded: expected {encoding.inputs} inputs, as encoding has, got {values.shape[1]}")
    if not steps or steps % encoding.hold:
        raise ValueError(f"encoded: expected whole frames of {encoding.hold} steps, got {steps} steps")
    if encoding.threshold:
        values = (values[:, ::2] - values[:, 1::2]).cumsum(0) * encoding.threshold
    values = values[:: encoding.hold]  # the same in all steps of a frame
    heard = len(values) * encoding.hop  # samples of the sound
    heights = [*[0.8] * (wave is not None), 2.0, *[1.4] * len(below)]
    figure = new_figure(9, 0.6 + 1.3 * sum(heights))
    panels = list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
    panels[-1].set(xlabel="time (s)")
    if wave is not None:
        _draw_wave(panels.pop(0), wave, sample, heard, encoding.rate)
    panel, *others = panels
    image = panel.imshow(
        values.t().float().numpy(),
        extent=(0, heard / encoding.rate, -0.5, encoding.bands - 0.5),
        aspect="auto",
        origin="lower",
        cmap="magma",
        interpolation="nearest",
    )
    figure.colorbar(image, ax=panel, label="level" if encoding.threshold else "current")
    panel.set(ylabel="frequency (Hz)", xlim=(0, heard / encoding.rate))
    panel.set_yticks(*_round_frequencies(encoding))
    for k, (panel, (name, given)) in enumerate(zip(others, below.items(), strict=True)):
        flat = steps_of(f"spikes[{name!r}]", given, sample)
        if len(flat) < steps:
            raise ValueError(f"spikes[{name!r}]: expected {steps} steps, as encoded has, got {len(flat)}")
        draw_marks(panel, flat[:steps], f"C{k % 10}", heard / encoding.rate / steps)
        panel.set(ylabel=name)
    return figure


def _draw_wave(panel: Axes, wave: Tensor, sample: int, heard: int, rate: int) -> None:
    """Plot the first ``heard`` samples of a sound."""
    if not isinstance(wave, Tensor):
        raise TypeError(f"wave: expected a tensor, got {type(wave).__name__}")
    if wave.dim() != 2 or wave.shape[1] < heard:
        raise ValueError(f"wave: expected shape (B, S), S at least {heard} as encoded has, got {tuple(wave.shape)}")
    samples = of_sample("wave", wave.t()[..., None], sample)[:heard].double().numpy()
    panel.plot([k / rate for k in range(heard)], samples, color="0.5", linewidth=0.5)
    panel.set(ylabel="wave")


def _round_frequencies(encoding: SoundEncoding) -> tuple[list[float], list[str]]:
    """Frequencies to write beside the bands: their places, where band n is at n, and their texts."""
    lowest, highest = encoding.lowest, encoding.highest
    if encoding.bands == 1 or lowest == highest:
        return [0.0], [f"{lowest:g}"]
    found = [m * 10**k for k in range(6) for m in (1, 2, 5) if lowest <= m * 10**k <= highest]
    if len(found) < 2:
        found = [lowest, highest]
    return np.interp(found, encoding.centres, range(encoding.bands)).tolist(), [f"{frequency:g}" for frequency in found]
