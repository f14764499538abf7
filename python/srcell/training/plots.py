"""Pictures of a run, as matplotlib figures.

Run folders call this.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from math import isnan
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._shared.extras import extra
from .._shared.parameters import RESONANCE
from .._shared.state import AnyState
from ..layers import SRC, IntegerSRC, LeakyReadout, SRCConv2d
from ..layers.exported import exported
from ..recording import record

with extra("train"):
    if find_spec("matplotlib") is None:  # fail before a run starts, not at its end, when plots are drawn
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..evaluation import Evaluation
    from ..events import EventBatch
    from ..models import AnyLayer, Classifier
    from .metrics import EpochMetrics

# The panels of the learning curve: quantity, scale, and the label of each metric.
CURVES = (
    ("cross-entropy (nats)", 1, {"train_loss": "training", "validation_loss": "validation"}),
    ("accuracy (%)", 100, {"train_accuracy": "training", "validation_accuracy": "validation"}),
    ("rate (% of elements with s > 0)", 100, {"spike_rate": "training, all layers"}),
)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, its size in inches; imports matplotlib, which is needed only when something is drawn."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    image = io.BytesIO()
    figure.savefig(image, dpi=150)
    return image.getvalue()


def learning_curve(history: list[EpochMetrics]) -> Figure:
    """Plot loss, accuracy and rate over the epochs, one panel each; for targets, which have no accuracy, two."""
    curves_of = [
        (quantity, scale, {name: label for name, label in curves.items() if not isnan(getattr(history[0], name))})
        for quantity, scale, curves in CURVES
    ]
    if not any(name == "train_accuracy" for name in curves_of[1][2]):
        curves_of = [("mean squared error", *curves_of[0][1:]), curves_of[2]]
    figure = new_figure(4 * len(curves_of), 3.6)
    for panel, (quantity, scale, curves) in zip(figure.subplots(1, len(curves_of)), curves_of, strict=True):
        for name, label in curves.items():
            known = [row for row in history if not isnan(getattr(row, name))]
            if known:
                values = [scale * getattr(row, name) for row in known]
                panel.plot([row.epoch for row in known], values, ".-", label=label)
        panel.set(xlabel="epoch", ylabel=quantity)
        panel.locator_params(axis="x", integer=True)
        panel.grid(alpha=0.3)
        panel.legend()
    return figure


def _told(model: Classifier, spikes: Tensor, sample: EventBatch, every_step: bool = False) -> Tensor:
    """The logits of a sample, on the CPU, of the last layer's spikes."""
    device = next(model.parameters()).device
    return model.read_out(spikes.to(device), sample.to(device), every_step=every_step).cpu()


def draw_marks(panel: Axes, values: Tensor, colour: str, step: float = 1) -> None:
    """Draw a mark for each value (T, N) that is not 0; ``step`` is the length of a step on the axis."""
    at, neurons = values.nonzero(as_tuple=True)
    size = max(1.0, min(20.0, 9000 / max(values.shape[1], 1)))  # marks that touch, but can be seen one by one
    panel.scatter((at * step).numpy(), neurons.numpy(), s=size, marker="|", linewidths=0.9, color=colour)
    panel.set_ylim(-1, values.shape[1])


@torch.no_grad()
def raster(
    model: Classifier, sample: EventBatch, label: int, prefix: int = 0, class_names: Sequence[str] = ()
) -> Figure:
    """Plot one sample: active elements of the input and of all layers, and the logits of the readout at each step.

    Args:
        model: the network.
        sample: a batch of one.
        label: its class.
        prefix: silent steps before it, drawn shaded.
        class_names: names of all classes, by label; if empty, their numbers.

    """
    names = class_names or [str(k) for k in range(model.readout.num_classes)]
    outputs = _outputs(model, sample)
    steps, count = sample.shape[0], len(outputs) + 1
    figure = new_figure(9, 1.3 + 1.6 * count)
    panels = figure.subplots(count, 1, sharex=True)
    for k, (panel, output) in enumerate(zip(panels, outputs, strict=False)):
        draw_marks(panel, output[:, 0], _colour(k))
        panel.set_ylabel("input" if k == 0 else f"layer {k}, neuron")
    logits = _told(model, outputs[-1], sample, every_step=True)[:, 0]
    answer = int(_told(model, outputs[-1], sample)[0].argmax())
    for k in range(logits.shape[1]):
        strong = k in (label, answer)
        panels[-1].plot(logits[:, k].numpy(), color=f"C{k % 10}", linewidth=2 if strong else 0.8, label=names[k])
    panels[-1].set(xlabel="step", ylabel="logit", xlim=(0, max(steps, 1)))
    panels[-1].legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5), title="class")
    _add_title(figure, "where s > 0, and the readout", prefix, names[label], names[answer])
    return figure


@torch.no_grad()
def traces(
    model: Classifier, sample: EventBatch, label: int, prefix: int = 0, class_names: Sequence[str] = ()
) -> Figure:
    """Plot the states of up to four neurons of the last layer during one sample.

    With votes, they are the most active voter for each of the four classes with the largest logits. With a linear
    readout, they are the four most active neurons. The arguments are those of :func:`raster`.
    """
    classes = model.readout.num_classes
    names = class_names or [str(k) for k in range(classes)]
    with record(model) as recording:
        outputs = _outputs(model, sample)
    order = _told(model, outputs[-1], sample)[0].argsort(descending=True).tolist()
    activity, voters = outputs[-1][:, 0].sum(0), isinstance(model.readout, LeakyReadout)
    if voters:
        neurons = [int(activity[k::classes].argmax()) * classes + k for k in order[:4]]
    else:
        neurons = activity.topk(min(4, len(activity))).indices.tolist()
    layer, (*_, recorded) = model.src_layers()[-1], recording.values()
    drives, fast, slow = (x.flatten(1)[:, neurons].cpu() for x in _shown(layer, recorded.trace()))
    drive = "drive x" if isinstance(layer, IntegerSRC) else "drive tanh(i / rho)"
    turning = exported(layer)[-1][RESONANCE] if isinstance(layer, SRC) and layer.resonates else None
    figure = new_figure(9, 1.0 + 1.7 * len(neurons))
    panels = figure.subplots(len(neurons), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for k, (panel, neuron) in enumerate(zip(panels, neurons, strict=True)):
        panel.plot(drives[:, k].numpy(), ":", color="C1", label=drive)
        panel.plot(slow[:, k].numpy(), color="C0", label="slow state hs")
        panel.plot(fast[:, k].numpy(), color="C3", label="fast state h")
        output = outputs[-1][:, 0, neuron].numpy()
        panel.fill_between(range(len(fast)), output, color="C3", alpha=0.3, label="output s")
        said = f"neuron {neuron}" + (f",\nfor {names[neuron % classes]}" if voters else "")
        if turning is not None:
            said += f",\n{RESONANCE} {turning[neuron % len(turning)]:.3g}"
        panel.set(ylim=(-1.08, 1.08), ylabel=said)
    panels[-1].set(xlabel="step", xlim=(0, max(len(fast), 1)))
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize="small", loc="outside lower center", ncols=4)
    _add_title(figure, f"neurons of layer {len(outputs) - 1}", prefix, names[label], names[order[0]])
    return figure


def labelled_steps(
    encoded: EventBatch | Tensor,
    labels: Tensor,
    predicted: Tensor,
    sample: int = 0,
    class_names: Sequence[str] = (),
) -> Figure:
    """Draw the input of one sample, and below it the true class of each step and the predicted one, as colours.

    Args:
        encoded: the network's input, (T, B, K) or an ``EventBatch``; a mark for each element that is not 0.
        labels: (B, T) integers; white where a step has no label (``srcell.data.IGNORED``) or the sample has ended.
        predicted: (B, T) integers, such as ``logits.argmax(2).t()``, or the logits themselves, (T, B, C).
        sample: number of the sample in the batch.
        class_names: names of all classes, by label; if empty, their numbers.

    Raises:
        TypeError, ValueError, IndexError: an argument is not of this kind or shape, or the sample does not exist.

    Example:
        >>> import torch
        >>> from srcell import plots
        >>> x, labels = (torch.rand(50, 3, 8) < 0.1).float(), torch.arange(50).expand(3, 50) // 10
        >>> figure = plots.labelled_steps(x, labels, labels.roll(2, 1), class_names=list("abcde"))

    """
    from matplotlib import colormaps

    values = steps_of("encoded", encoded, sample)
    steps, batch = len(values), encoded.shape[1]
    for name, given in (("labels", labels), ("predicted", predicted)):
        if not isinstance(given, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(given).__name__}")
    if predicted.dim() == 3:
        predicted = predicted.argmax(2).t()
    for name, given in (("labels", labels), ("predicted", predicted)):
        if given.is_floating_point() or given.dim() != 2 or given.shape[0] != batch or given.shape[1] < steps:
            expected = f"integers (B, T) = ({batch}, {steps})"
            raise ValueError(f"{name}: expected {expected}, got {given.dtype} of shape {tuple(given.shape)}")
    rows = [given[sample, :steps].cpu() for given in (labels, predicted)]
    known = rows[0] >= 0
    classes = int(torch.stack(rows).max()) + 1 if steps else 0
    names = list(class_names) or [str(k) for k in range(classes)]
    if classes > len(names):
        raise ValueError(f"class_names: expected a name for each of {classes} classes, got {len(names)}")
    figure = new_figure(9, 3.2)
    above, *strips = figure.subplots(3, 1, sharex=True, height_ratios=(4, 1, 1))
    draw_marks(above, values, _colour(0))
    above.set(ylabel="input", xlim=(0, max(steps, 1)))
    for panel, row, said in zip(strips, rows, ("true", "predicted"), strict=True):
        for k, name in enumerate(names):
            begins, ends = (torch.nn.functional.pad((row == k).int(), (1, 1)).diff() == turn for turn in (1, -1))
            runs = torch.stack([begins.nonzero().flatten(), ends.nonzero().flatten()], 1).tolist()
            bars = [(begin, end - begin) for begin, end in runs]
            colour = f"C{k}" if len(names) <= 10 else colormaps["turbo"]((k + 0.5) / len(names))
            panel.broken_barh(bars, (0, 1), color=colour, linewidth=0, label=name)
        panel.set(yticks=[], ylim=(0, 1))
        panel.set_ylabel(said, rotation=0, ha="right", va="center")
    strips[-1].set_xlabel("step")
    legend = strips[0].get_legend_handles_labels()
    figure.legend(*legend, loc="outside right center", fontsize="small", ncols=1 + len(names) // 14)
    right = int((rows[0] == rows[1])[known].sum())
    figure.suptitle(f"{right} of {int(known.sum())} steps with a label are predicted correctly", fontsize=11)
    return figure


@torch.no_grad()
def steps(model: Classifier, sample: EventBatch, labels: Tensor, class_names: Sequence[str] = ()) -> Figure:
    """``labelled_steps`` of a network's answers to a batch of one; its labels are (T,)."""
    spikes = model.layer_spikes(sample.to(next(model.parameters()).device))
    return labelled_steps(sample, labels[None], _told(model, spikes[-1], sample, True), class_names=class_names)


def steps_of(name: str, x: EventBatch | Tensor, sample: int) -> Tensor:
    """A sample's values (T, N), on the CPU; of events with lengths, its own steps."""
    if isinstance(x, Tensor):
        return of_sample(name, x, sample)
    if not hasattr(x, "to_dense"):
        raise TypeError(f"{name}: expected events or a tensor, got {type(x).__name__}")
    values = of_sample(name, x.to_dense(), sample)
    return values if x.lengths is None else values[: int(x.lengths[sample])]


def of_sample(name: str, x: Tensor, sample: int) -> Tensor:
    """A sample's values (T, N), on the CPU."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    if x.dim() < 3 or not x.shape[1]:
        raise ValueError(f"{name}: expected shape (T, B, ...) with a sample, got {tuple(x.shape)}")
    if not -x.shape[1] <= sample < x.shape[1]:
        raise IndexError(f"sample: expected a number in [{-x.shape[1]}, {x.shape[1]}), got {sample}")
    return x.detach()[:, sample].flatten(1).cpu()


def _shown(layer: AnyLayer, trace: AnyState) -> tuple[Tensor, Tensor, Tensor]:
    """A layer's drive, h and hs as numbers between -1 and 1."""
    i, h, hs, *_ = trace
    if not isinstance(layer, IntegerSRC):
        rho = exported(layer)[-1]["rho"].to(i.device)
        return torch.tanh(i / (rho[:, None, None] if isinstance(layer, SRCConv2d) else rho)), h, hs
    one = 2.0**layer.cell.fraction_bits
    x = torch.where(i > 0, layer.cell.drive_high, layer.cell.drive_low)
    return x / one, h / one, hs / one


def rates(evaluation: Evaluation) -> Figure:
    """Plot the rates (share of steps with s > 0) of each layer's neurons, from the least to the most active neuron."""
    figure = new_figure(6, 4)
    panel = figure.subplots()
    for k, layer in enumerate(evaluation.rates, start=1):
        rate, places = layer.flatten(), torch.linspace(0, 100, layer.numel())
        label = f"layer {k}: {len(rate)} neurons, mean {100 * rate.mean():.1f} %"
        panel.plot(places.numpy(), (100 * rate.sort().values).numpy(), color=_colour(k), label=label)
    panel.set(xlabel="neurons of a layer, least active first (%)", ylabel="rate (% of steps with s > 0)")
    panel.set_title("How active the neurons are on the test set")
    panel.grid(alpha=0.3)
    panel.legend(fontsize="small")
    return figure


def delays(before: Mapping[int, Tensor], after: Mapping[int, Tensor]) -> Figure:
    """Plot each delay before and after training, one panel for each part of the network that has delays.

    Both arguments are ``Classifier.delays``, of the untrained and of the trained network.
    """
    figure = new_figure(5 * len(after), 4.6)
    panels = figure.subplots(1, len(after), squeeze=False)[0]
    for panel, (layer, learnt) in zip(panels, after.items(), strict=True):
        drawn, learnt = before[layer].detach().flatten().cpu(), learnt.detach().flatten().cpu()
        most = float(torch.cat([drawn, learnt]).max()) if len(learnt) else 0.0
        panel.plot([0, most], [0, most], color="0.6", linewidth=0.8)
        panel.scatter(drawn.numpy(), learnt.numpy(), s=9, color=_colour(layer))
        panel.set(xlabel="delay before training (steps)", ylabel="delay after training (steps)", aspect="equal")
        panel.set_title(f"recurrent weights of layer {layer}" if layer else "inputs")
        panel.grid(alpha=0.3)
    return figure


def confusion(evaluation: Evaluation, class_names: Sequence[str] = ()) -> Figure:
    """Plot the number of test samples by true and predicted class."""
    table = evaluation.confusion
    classes = len(table)
    names = class_names or [str(k) for k in range(classes)]
    share = table / table.sum(1, keepdim=True).clamp(min=1)
    figure = new_figure(6.4, 5.6)
    panel = figure.subplots()
    image = panel.imshow((100 * share).numpy(), cmap="Blues", vmin=0, vmax=100)
    for row in range(classes):
        for column in range(classes):
            colour = "white" if share[row, column] > 0.5 else "black"
            panel.text(column, row, str(int(table[row, column])), ha="center", va="center", fontsize=8, color=colour)
    panel.set(xlabel="predicted class", ylabel="class")
    panel.set_xticks(range(classes), names, rotation=45 if class_names else 0, ha="right" if class_names else "center")
    panel.set_yticks(range(classes), names)
    panel.set_title(f"{int(table.trace())} of {int(table.sum())} test samples correct ({evaluation.accuracy:.2%})")
    figure.colorbar(image, label="samples of the class (%)")
    return figure


def _outputs(model: Classifier, sample: EventBatch) -> list[torch.Tensor]:
    """The input of a batch of one and the output of each layer, (T, 1, N) on the CPU."""
    device = next(model.parameters()).device
    return [sample.to_dense(), *(spikes.flatten(2).cpu() for spikes in model.layer_spikes(sample.to(device)))]


def _add_title(figure: Figure, shown: str, prefix: int, true: str, predicted: str) -> None:
    """Title the figure of a sample, and shade the silent steps before its input in all panels."""
    title = f"A test sample of class {true}, predicted {'correctly' if true == predicted else predicted}: {shown}"
    if prefix:
        title += "; shaded: silent steps before the input"
        for panel in figure.axes:
            panel.axvspan(0, prefix, color="0.5", alpha=0.12, linewidth=0)
    figure.suptitle(title, fontsize=11)


def _colour(layer: int) -> str:
    """The colour of a layer in all pictures; black for the input."""
    return "black" if layer == 0 else f"C{(layer - 1) % 10}"
