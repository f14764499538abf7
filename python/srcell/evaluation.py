"""How a trained network does: accuracy, confusion, and what an inference costs in events, spikes and operations.

Training and the command line call it; it must never know how the network was trained.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ._processes import Processes
from .data import EventLoader
from .functional import count_spikes
from .models import SRCClassifier


class LayerCounts(NamedTuple):
    """What a layer does in one inference, a mean over samples.

    A synaptic operation is one event meeting one outgoing weight: an addition if the layer's outputs are binary, a
    multiply-add if they are graded.

    Attributes:
        events: cells (neuron, step) that are active, s > 0.
        spikes: upward crossings of 0.5.
        additions: operations of its events in the layer above, where each is 1.
        multiply_adds: the same, where they are graded.

    """

    events: float
    spikes: float
    additions: float
    multiply_adds: float


class Evaluation(NamedTuple):
    """How a network does on some samples.

    Attributes:
        accuracy: fraction classified rightly.
        confusion: (C, C) int64, samples of each true class (row) by the class they were taken for (column).
        counts: of the input and of every layer, first to last; the last layer's operations are the readout's.
        rates: for each layer, (N,) the fraction of its cells that are active, by neuron.

    """

    accuracy: float
    confusion: Tensor
    counts: list[LayerCounts]
    rates: list[Tensor]

    @property
    def synaptic_operations(self) -> float:
        """Additions and multiply-adds of an inference, the readout's included."""
        return sum(layer.additions + layer.multiply_adds for layer in self.counts)


@torch.no_grad()
def evaluate(
    model: SRCClassifier,
    loader: EventLoader,
    device: torch.device | str = "cpu",
    group: Processes | None = None,
    *,
    binary: bool = False,
) -> Evaluation:
    """Run the network over the samples of a loader.

    Args:
        model: the network.
        loader: what to evaluate it on, without ``shuffle``.
        device: where the network is.
        group: processes that share the loader's batches.
        binary: pass s > 0.5 on instead of s, from every layer.

    Example:
        >>> import torch
        >>> from srcell.data import EventLoader, LabelledImages, RateEncoding
        >>> from srcell.models import SRCClassifier
        >>> images = LabelledImages(torch.rand(8, 4, 4), torch.arange(8))
        >>> evaluation = evaluate(SRCClassifier(16, [], num_classes=10), EventLoader(images, RateEncoding()))
        >>> evaluation.confusion.sum(), len(evaluation.counts)
        (tensor(8), 2)

    """
    group = group or Processes()
    classes = model.readout.num_classes
    sizes = [layer.hidden_size for layer in model.src_layers()]
    confusion = torch.zeros(classes * classes, dtype=torch.int64)
    totals = torch.zeros(len(sizes) + 1, 2, dtype=torch.float64)
    active = [torch.zeros(size, dtype=torch.float64) for size in sizes]
    cells = torch.zeros((), dtype=torch.float64)
    for events, labels in loader:
        spikes = model.layer_spikes(events.to(device), binary=binary)
        logits = model.readout(spikes[-1], lengths=events.lengths)
        confusion += (labels * classes + logits.argmax(1).cpu()).bincount(minlength=classes * classes)
        cells += events.num_steps
        totals[0] += events.num_events
        for layer, sum_, output in zip(totals[1:], active, spikes, strict=True):
            counted = count_spikes(output)
            layer += torch.stack([counts.sum() for counts in counted]).cpu()
            sum_ += counted.events.cpu()
    for tensor in (confusion, totals, cells, *active):
        group.sum(tensor)
    samples = int(confusion.sum())
    confusion = confusion.view(classes, classes)
    counts = []
    for k, (total, fan_out) in enumerate(zip(totals, [*sizes, classes], strict=True)):
        mean_events, mean_spikes = (total / samples).tolist()
        operations = mean_events * fan_out
        graded = k > 0 and not binary
        counts.append(LayerCounts(mean_events, mean_spikes, *((0.0, operations) if graded else (operations, 0.0))))
    return Evaluation(int(confusion.trace()) / samples, confusion, counts, [(sum_ / cells) for sum_ in active])


def count_correct(logits: Tensor, labels: Tensor) -> int:
    """How many of the samples are classified rightly."""
    return int((logits.argmax(1) == labels).sum())
