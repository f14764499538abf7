"""Evaluates a network: accuracy, confusion matrix, and the events, spikes and synaptic operations of an inference.

Training and the command line call it.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ._arguments import describe
from ._processes import Processes
from .data import EventLoader
from .events import EventBatch
from .functional import count_spikes, delay
from .functional.layer import in_work_dtype
from .layers import SRC, IntegerSRC
from .models import Classifier


class LayerCounts(NamedTuple):
    """Activity of a layer per inference, averaged over samples.

    A synaptic operation is one event that passes through one outgoing weight. It is an addition if the layer's outputs
    are binary, 0 or 1. It is a multiply-add if they are graded or, for the input, if its events have values. With
    delays an event passes through its weights once for each step at which it arrives before the end of the sample, and
    once for each tap; delays that are not whole make these operations multiply-adds.

    Attributes:
        events: active elements (neuron, step), those with s > 0.
        spikes: upward crossings of s = 0.5.
        additions: synaptic operations of its events if its outputs are binary, else 0.
        multiply_adds: synaptic operations of its events if its outputs are graded, else 0.

    """

    events: float
    spikes: float
    additions: float
    multiply_adds: float


class Evaluation(NamedTuple):
    """Results of a network on some samples.

    Attributes:
        accuracy: fraction of samples classified correctly; with a label for each step, of steps.
        confusion: (C, C) int64, number of samples, or steps, by true class (row) and predicted class (column).
        counts: activity of the input and of every layer, first to last. The last layer's events pass through the
            weights of the readout.
        rates: for each neuron of each layer, the fraction of its elements that are active: (N,), or (C, H, W) for a
            convolutional layer.
        loss: mean cross-entropy (nats).
        clamped: how often the integrator i of an integer neuron left its bounds and was clamped.

    """

    accuracy: float
    confusion: Tensor
    counts: list[LayerCounts]
    rates: list[Tensor]
    loss: float
    clamped: int = 0

    @property
    def synaptic_operations(self) -> float:
        """Additions and multiply-adds of one inference, including the readout."""
        return sum(layer.additions + layer.multiply_adds for layer in self.counts)


@torch.no_grad()
def evaluate(
    model: Classifier,
    loader: EventLoader,
    device: torch.device | str = "cpu",
    group: Processes | None = None,
    *,
    binary: bool = False,
) -> Evaluation:
    """Run the network over the samples of a loader.

    Args:
        model: a network of ``srcell.models``. For a module of your own count its correct answers in your own loop.
        loader: the samples, loaded without ``shuffle``: pairs of an ``EventBatch`` and labels (B,), or labels (B, T)
            for the answers at every step; steps past a sample's length do not count.
        device: the network's device.
        group: processes that share the loader's batches; by default this process alone.
        binary: every layer passes on 1 where s > 0.5 and 0 elsewhere, instead of s.

    Raises:
        TypeError: another model, or a loader of tensors.
        ValueError: the loader has no samples, or labels of a wrong shape, or a label is not one of the network's
            classes.

    Example:
        >>> import torch
        >>> from srcell.data import EventLoader, LabelledImages, RateEncoding
        >>> from srcell.models import SRCClassifier
        >>> images = LabelledImages(torch.rand(8, 4, 4), torch.arange(8))
        >>> evaluation = evaluate(SRCClassifier(16, [], num_classes=10), EventLoader(images, RateEncoding()))
        >>> evaluation.confusion.sum(), len(evaluation.counts)
        (tensor(8), 2)

    """
    if not isinstance(model, Classifier):
        raise TypeError(f"model: expected a classifier of srcell.models, got {describe(model)}")
    group, was_training, with_values = group or Processes(), model.training, False
    layers: list[Any] = model.src_layers()
    classes, fan_outs = model.readout.num_classes, model.fan_outs()
    confusion = torch.zeros(classes * classes, dtype=torch.int64)
    active = [torch.zeros(ways.shape, dtype=torch.float64) for ways in fan_outs]
    crossings = torch.zeros(len(fan_outs), dtype=torch.float64)
    # Operations through delayed weights are counted on arrival, and those through the other weights by `fan_outs`.
    of_arrivals = torch.zeros(len(fan_outs), dtype=torch.float64)
    delayed = {k: layers[k - 1].hidden_size if k else int(fan_outs[0][0]) for k in model.delays}
    for k, ways in delayed.items():
        fan_outs[k] -= ways
    elements, loss = (torch.zeros((), dtype=torch.float64) for _ in range(2))
    clamped, samples = torch.tensor(-getattr(model, "clamped", 0)), torch.tensor(0)
    model.eval()
    try:
        for batch, labels in loader:
            if not isinstance(batch, EventBatch):
                raise TypeError(
                    "loader: expected pairs of an EventBatch and labels, as an EventLoader gives, or a DataLoader with "
                    f"collate_fn=srcell.data.collate, got a batch of {describe(batch)}"
                )
            events = batch.to(device)
            spikes = model.layer_spikes(events, binary=binary)
            samples += len(labels)
            logits = model.readout(spikes[-1], lengths=events.lengths, every_step=labels.dim() == 2)
            if labels.dim() == 2:
                logits, labels = _answers_of_steps(logits, labels, events.lengths)
            if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
                wrong = int(labels[(labels < 0) | (labels >= classes)][0])
                raise ValueError(f"loader: expected labels in [0, {classes}), the network's classes, got {wrong}")
            confusion += (labels * classes + logits.argmax(1).cpu()).bincount(minlength=classes * classes)
            loss += cross_entropy(logits, labels.to(device), reduction="sum").cpu()
            with_values = with_values or events.values is not None
            if model.delay is not None:
                arrived = model.delay(events, return_state=False)[0]
                with_values = with_values or arrived.values is not None
                of_arrivals[0] += arrived.num_events * delayed[0] // model.delay.taps
            elements += batch.num_steps
            active[0] += events.indices.cpu().bincount(minlength=events.shape[2])
            crossings[0] += events.num_events
            for k, output in enumerate(spikes, start=1):
                counted = count_spikes(output)
                active[k] += counted.events.cpu()
                crossings[k] += counted.spikes.sum().cpu()
                if k in delayed:
                    of_arrivals[k] += _count_arrivals(layers[k - 1], output, events.lengths) * delayed[k]
    finally:
        model.train(was_training)
    clamped += getattr(model, "clamped", 0)
    for tensor in (confusion, crossings, elements, loss, clamped, samples, of_arrivals, *active):
        group.sum(tensor)
    answers = int(confusion.sum())
    if not answers:
        raise ValueError("loader: expected at least one sample to evaluate on, got none")
    confusion = confusion.view(classes, classes)
    counts = []
    for k, (sums, ways) in enumerate(zip(active, fan_outs, strict=True)):
        events_, others, arrivals = (float(x / samples) for x in (sums.sum(), (sums * ways).sum(), of_arrivals[k]))
        graded = not (binary or isinstance(layers[k - 1], IntegerSRC)) if k else with_values
        multiply_adds = others * graded + arrivals * (graded or (k in delayed and not _are_whole(model, k)))
        additions = others + arrivals - multiply_adds
        counts.append(LayerCounts(events_, float(crossings[k] / samples), additions, multiply_adds))
    accuracy, rates = int(confusion.trace()) / answers, [sums / elements for sums in active[1:]]
    return Evaluation(accuracy, confusion, counts, rates, float(loss) / answers, int(clamped))


@torch.no_grad()
def _count_arrivals(layer: SRC, spikes: Tensor, lengths: Tensor | None = None) -> int:
    """Count what arrives through a layer's delayed recurrent weights before the end of each sample.

    Args:
        layer: a layer that is not stacked, whose recurrent weights have delays.
        spikes: (T, B, N), its spikes.
        lengths: (B,), number of steps of each sample; T for all by default.

    Returns:
        For each spike, the number of steps at which it arrives, summed. As without delays, a spike of a sample's last
        step counts, if its delay is 0.

    """
    events = EventBatch.from_dense((spikes != 0).to(in_work_dtype(spikes).dtype), lengths)
    delays = in_work_dtype(cast(Tensor, layer.delay_hh_l0)).clamp(0, layer.max_delay).expand(layer.hidden_size)
    arrived = delay(events, delays, max_delay=layer.max_delay, delay_width=layer.delay_width)
    return cast(EventBatch, arrived).num_events


def _answers_of_steps(logits: Tensor, labels: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits (A, C) and labels (A,) of all A steps that samples have, of logits (T, B, C) and labels (B, T)."""
    if labels.shape != (logits.shape[1], logits.shape[0]):
        expected = (logits.shape[1], logits.shape[0])
        raise ValueError(f"loader: expected labels (B,) or (B, T) = {expected}, got {tuple(labels.shape)}")
    taken = torch.ones(labels.shape, dtype=torch.bool)
    if lengths is not None:
        taken = torch.arange(labels.shape[1]) < lengths.cpu()[:, None]
    return logits.transpose(0, 1)[taken.to(logits.device)], labels[taken]


def _are_whole(model: Classifier, part: int) -> bool:
    """Whether a part's delays are whole and not interpolated further; ``part`` is a key of ``model.delays``."""
    delay, of = model.delays[part], cast(Any, model.layers[part - 1] if part else model.delay)
    return of.delay_width == 1 and bool((delay == delay.round()).all())


def count_correct(logits: Tensor, labels: Tensor) -> int:
    """Number of samples classified correctly."""
    return int((logits.argmax(1) == labels).sum())
