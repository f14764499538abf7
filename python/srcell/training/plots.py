"""Pictures of a run, as matplotlib figures.

Run folders call this; it must never know where a picture goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._extras import extra

with extra("train"):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from ..evaluation import Evaluation
    from ..events import EventBatch
    from ..models import Classifier
    from .metrics import EpochMetrics


def learning_curve(history: list[EpochMetrics]) -> Figure:
    """Loss, accuracy and spike rate over the epochs, a panel each."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    epochs = [metrics.epoch for metrics in history]
    loss.plot(epochs, [metrics.train_loss for metrics in history], ".-", label="training")
    accuracy.plot(epochs, [100 * metrics.train_accuracy for metrics in history], ".-", label="training")
    validation = [100 * metrics.validation_accuracy for metrics in history]
    if validation[0] == validation[0]:  # not NaN: there were validation samples
        accuracy.plot(epochs, validation, ".-", label="validation")
    rate.plot(epochs, [100 * metrics.spike_rate for metrics in history], ".-", label="training, all layers")
    _label(loss, "cross-entropy (nats)")
    _label(accuracy, "accuracy (%)")
    _label(rate, "spike rate (% of elements active)")
    return figure


@torch.no_grad()
def raster(model: Classifier, sample: EventBatch, label: int, prefix: int = 0) -> Figure:
    """One sample through input, all layers and readout.

    Args:
        model: the network.
        sample: a batch of one.
        label: its class.
        prefix: silent steps before it, which are shaded.

    """
    device = next(model.parameters()).device
    outputs = [sample.to_dense(), *(spikes.flatten(2).cpu() for spikes in model.layer_spikes(sample.to(device)))]
    steps, count = sample.shape[0], len(outputs) + 1
    figure = Figure(figsize=(9, 1.3 + 1.6 * count), layout="constrained")
    panels = figure.subplots(count, 1, sharex=True)
    for k, (panel, output) in enumerate(zip(panels, outputs, strict=False)):
        at, _, neurons = output.nonzero(as_tuple=True)
        # Marks that touch their neighbours in time and in the plane of neurons, but can be seen one by one.
        size = max(1.0, min(20.0, 9000 / output.shape[2]))
        panel.scatter(at.numpy(), neurons.numpy(), s=size, marker="|", linewidths=0.9, color=_colour(k))
        panel.set_ylabel("input" if k == 0 else f"layer {k}, neuron")
        panel.set_ylim(-1, output.shape[2])
    # The logits at each step are those of the sequence up to there.
    logits = torch.stack([model.readout(outputs[-1][: t + 1])[0] for t in range(steps)])
    answer = int(logits[-1].argmax())
    for k in range(logits.shape[1]):
        strong = k in (label, answer)
        panels[-1].plot(logits[:, k].numpy(), color=f"C{k % 10}", linewidth=2 if strong else 0.8, label=f"class {k}")
    panels[-1].set(xlabel="step", ylabel="logit", xlim=(0, steps))
    panels[-1].legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    if prefix:
        for panel in panels:
            panel.axvspan(0, prefix, color="0.5", alpha=0.12, linewidth=0)
    shaded = ", shaded: silent steps before it" if prefix else ""
    figure.suptitle(
        f"A test sample of class {label}, answer {answer}: where s > 0, and the readout{shaded}", fontsize=11
    )
    return figure


def rates(evaluation: Evaluation) -> Figure:
    """How active the neurons of each layer are, from the least to the most."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.subplots()
    for k, layer in enumerate(evaluation.rates, start=1):
        rate = layer.flatten()
        panel.plot(
            torch.linspace(0, 100, len(rate)).numpy(),
            (100 * rate.sort().values).numpy(),
            color=_colour(k),
            label=f"layer {k}: {len(rate)} neurons, mean {100 * rate.mean():.1f} %",
        )
    panel.set(xlabel="neurons of a layer, from the least active on (%)", ylabel="rate: elements with s > 0 (%)")
    panel.set_title("How active the neurons are on the test set")
    panel.grid(alpha=0.3)
    panel.legend(fontsize="small")
    return figure


def confusion(evaluation: Evaluation) -> Figure:
    """The test samples of each class by what they were taken for."""
    table = evaluation.confusion
    classes = len(table)
    share = table / table.sum(1, keepdim=True).clamp(min=1)
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    panel = figure.subplots()
    image = panel.imshow((100 * share).numpy(), cmap="Blues", vmin=0, vmax=100)
    for row in range(classes):
        for column in range(classes):
            colour = "white" if share[row, column] > 0.5 else "black"
            panel.text(column, row, str(int(table[row, column])), ha="center", va="center", fontsize=8, color=colour)
    panel.set(xlabel="predicted class", ylabel="class", xticks=range(classes), yticks=range(classes))
    panel.set_title(f"{int(table.trace())} of {int(table.sum())} test samples right ({evaluation.accuracy:.2%})")
    figure.colorbar(image, label="samples of the class (%)")
    return figure


def _colour(layer: int) -> str:
    """Of a layer in all pictures, black for the input."""
    return "black" if layer == 0 else f"C{(layer - 1) % 10}"


def _label(panel: Axes, quantity: str) -> None:
    panel.set_xlabel("epoch")
    panel.set_ylabel(quantity)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(alpha=0.3)
    panel.legend()
