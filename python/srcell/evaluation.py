"""Evaluates a network: accuracy or error, and the events, spikes and synaptic operations of an inference.

Training and the command line call it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ._shared.arguments import describe
from ._shared.processes import Processes
from .data import EventLoader
from .data.dataset import of_every_step
from .events import EventBatch
from .functional import count_spikes, delay
from .functional.layer import in_work_dtype
from .layers import SRC, IntegerSRC, LeakyReadout, LinearReadout, Standardise
from .layers.export import Part, parts_of
from .models import Classifier
from .models.answers import answer, paired, steps_with_label, summed_loss
from .recording import Recorded


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

    Of a network that is no chain of fully connected layers without delays, and no classifier of ``srcell.models``, both
    are NaN.

    """

    events: float
    spikes: float
    additions: float
    multiply_adds: float


class Evaluation(NamedTuple):
    """Results of a network on some samples.

    Attributes:
        accuracy: fraction of samples classified correctly; with a label for each step, of steps. NaN for targets.
        confusion: (C, C) int64, number of samples, or steps, by true class (row) and predicted class (column); (0, 0)
            for targets.
        counts: activity of the input and of every layer, first to last. The last layer's events pass through the
            weights of the readout.
        rates: for each neuron of each layer, the fraction of its elements that are active: (N,), or (C, H, W) for a
            convolutional layer.
        loss: mean cross-entropy (nats), or mean squared error for targets.
        clamped: how often the integrator i of an integer neuron left its bounds and was clamped.
        answers: number of samples, or steps.
        of_steps: whether each step has an answer.
        r2: for targets, 1 - (sum of squared errors) / (sum of squared deviations from the mean), over all values; NaN
            for labels.
        r2_of_mean: at the end of a run on targets, the R2 on the test set of the mean of the training targets; else
            NaN.
        sample_accuracy: with a label for each step, the mean of the samples' own accuracies, in which a long sample
            counts no more than a short one; else NaN.

    """

    accuracy: float
    confusion: Tensor
    counts: list[LayerCounts]
    rates: list[Tensor]
    loss: float
    clamped: int = 0
    answers: int = 0
    r2: float = math.nan
    r2_of_mean: float = math.nan
    sample_accuracy: float = math.nan
    of_steps: bool = False

    @property
    def synaptic_operations(self) -> float:
        """Additions and multiply-adds of one inference, including the readout."""
        return sum(layer.additions + layer.multiply_adds for layer in self.counts)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: EventLoader,
    device: torch.device | str = "cpu",
    group: Processes | None = None,
    *,
    binary: bool = False,
    dense: bool = False,
) -> Evaluation:
    """Run the network over the samples of a loader.

    Args:
        model: a network of ``srcell.models``, or any module that holds SRC layers and returns logits or values, (B, C),
            or of every step, (T, B, C).
        loader: the samples, loaded without ``shuffle``: pairs of an ``EventBatch`` and labels (B,), or labels (B, T)
            for the answers at every step; steps past a sample's length do not count. Or targets, of floats, (B, C) or
            (B, T, C).
        device: the network's device.
        group: processes that share the loader's batches; by default this process alone.
        binary: every layer passes on 1 where s > 0.5 and 0 elsewhere, instead of s; only for networks of
            ``srcell.models``.
        dense: call a module of your own with tensors (T, B, K) instead of ``EventBatch``, or (B, T, K) if its readout
            has ``batch_first``; if samples differ in length, with ``lengths=`` too.

    Raises:
        TypeError: a model that is no module, or a loader of tensors.
        ValueError: the model holds no SRC layers, its output does not fit the labels, the loader has no samples, or
            labels of a wrong shape, or a label is not one of the network's classes.

    Example:
        >>> import torch
        >>> from srcell.data import EventLoader, LabelledImages, RateEncoding
        >>> from srcell.models import SRCClassifier
        >>> images = LabelledImages(torch.rand(8, 4, 4), torch.arange(8))
        >>> evaluation = evaluate(SRCClassifier(16, [], num_classes=10), EventLoader(images, RateEncoding()))
        >>> evaluation.confusion.sum(), len(evaluation.counts)
        (tensor(8), 2)

    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a module, got {describe(model)}")
    if binary and not isinstance(model, Classifier):
        raise TypeError(f"binary: expected False for a model that is no classifier of srcell.models, got {binary}")
    group, was_training = group or Processes(), model.training
    activity: _Activity | None = None
    score = _Score()
    clamped = torch.tensor(-_clamped(model))
    model.eval()
    try:
        for batch, labels in loader:
            if not isinstance(batch, EventBatch):
                raise TypeError(
                    "loader: expected pairs of an EventBatch and labels, as an EventLoader gives, or a DataLoader with "
                    f"collate_fn=srcell.data.collate, got a batch of {describe(batch)}"
                )
            events = batch.to(device)
            output, spikes, layers = answer(model, events, of_every_step(labels), dense=dense, binary=binary)
            activity = activity or _Activity(model, events, spikes, layers, binary)
            activity.add(events, spikes)
            labels = labels.to(device)
            score.add(*paired(output, labels, events.lengths))
            score.add_samples(output, labels, events.lengths)
    finally:
        model.train(was_training)
    clamped += _clamped(model)
    group.sum(clamped)
    if activity is None:
        raise ValueError("loader: expected at least one sample to evaluate on, got none")
    counts, rates = activity.means(group)
    return score.means(group)._replace(counts=counts, rates=rates, clamped=int(clamped))


def _clamped(model: nn.Module) -> int:
    """How often integrators of integer neurons were clamped, over all calls."""
    return sum(int(module.clamped) for module in model.modules() if isinstance(module, IntegerSRC))


class _Score:
    """Sums over the answers of a network."""

    def __init__(self) -> None:
        self.of_steps = False
        self.confusion = torch.zeros(0, dtype=torch.int64)
        self.answers, self.loss = torch.tensor(0), torch.zeros((), dtype=torch.float64)
        self.of_samples = torch.zeros(2, dtype=torch.float64)  # the sum of the samples' accuracies, and their number
        self.moments = torch.zeros(3, 0, dtype=torch.float64)  # of targets: sums, squares, and those of the errors

    def add(self, output: Tensor, labels: Tensor) -> None:
        """Add the answers of a batch, as ``paired`` gives them."""
        values = output.shape[1]
        if labels.is_floating_point():
            targets, errors = labels.double(), labels.double() - output.double()
            sums = torch.stack([targets.sum(0), targets.square().sum(0), errors.square().sum(0)]).cpu()
            self.moments = sums + (self.moments if self.moments.numel() else 0)
        else:
            found = (labels * values + output.argmax(1)).cpu().bincount(minlength=values * values)
            self.confusion = found + (self.confusion if self.confusion.numel() else 0)
        self.answers += len(labels)
        self.loss += summed_loss(output, labels).cpu()

    def add_samples(self, output: Tensor, labels: Tensor, lengths: Tensor | None) -> None:
        """With a label for each step, add the accuracy of each sample that has one."""
        self.of_steps = of_every_step(labels)
        if labels.is_floating_point() or not self.of_steps:
            return
        taken = steps_with_label(labels, lengths)
        right = (taken & (output.argmax(2).t() == labels)).sum(1)[taken.any(1)] / taken.sum(1)[taken.any(1)]
        self.of_samples += torch.stack([right.double().sum().cpu(), torch.tensor(float(len(right))).double()])

    def means(self, group: Processes) -> Evaluation:
        """The evaluation, without the activity of the layers, over all processes."""
        for tensor in (self.confusion, self.answers, self.loss, self.moments, self.of_samples):
            group.sum(tensor)
        answers = int(self.answers)
        if not answers:
            raise ValueError("loader: expected at least one step with a label to evaluate on, got none")
        classes = math.isqrt(len(self.confusion))
        confusion, accuracy, r2 = self.confusion.view(classes, classes), math.nan, math.nan
        if classes:
            accuracy = int(confusion.trace()) / answers
        elif self.moments.numel():
            sums, squares, errors = self.moments
            spread = float((squares - sums.square() / answers).sum())
            r2 = 1 - float(errors.sum()) / spread if spread > 0 else math.nan
        of_samples = float(self.of_samples[0] / self.of_samples[1])  # NaN without any
        loss = float(self.loss) / answers
        found = Evaluation(accuracy, confusion, [], [], loss, 0, answers, r2)
        return found._replace(sample_accuracy=of_samples, of_steps=self.of_steps)


class _Activity:
    """Sums over the events of a network's input and layers; ``layers`` are those of a module of the user's own."""

    def __init__(
        self, model: nn.Module, events: EventBatch, spikes: list[Tensor], layers: list[Recorded], binary: bool
    ) -> None:
        self.model, self.binary, self.with_values = model, binary, False
        self.samples, self.elements = torch.tensor(0), torch.zeros((), dtype=torch.float64)
        self.fan_outs: list[Tensor] | None = None
        self.layers: list[Any] = [layer.module for layer in layers]
        self.standardise: Standardise | None = None
        if isinstance(model, Classifier):
            self.layers, self.fan_outs, self.standardise = list(model.src_layers()), model.fan_outs(), model.standardise
        elif chain := _chain(model, layers):
            self.standardise = chain[0] if isinstance(chain[0], Standardise) else None
            self.fan_outs = _fan_outs(layers, chain[-1], events.shape[2])
        shapes = [events.shape[2:], *(layer.shape[2:] for layer in spikes)]
        self.active = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
        self.crossings, self.of_arrivals = torch.zeros(2, len(shapes), dtype=torch.float64)
        # Operations through delayed weights are counted on arrival, and those through the other weights by `fan_outs`.
        self.delayed: dict[int, int] = {}
        if isinstance(model, Classifier) and self.fan_outs is not None:
            first = int(self.fan_outs[0][0]) - _through_skip(model.readout)
            self.delayed = {k: self.layers[k - 1].hidden_size if k else first for k in model.delays}
            for k, ways in self.delayed.items():
                self.fan_outs[k] -= ways

    def add(self, events: EventBatch, spikes: Sequence[Tensor]) -> None:
        """Add a batch."""
        if self.standardise is not None:  # the events that the weights get
            events = cast(EventBatch, self.standardise(events))
        delays = self.model.delay if isinstance(self.model, Classifier) else None
        self.samples += len(events)
        self.elements += events.num_steps
        self.with_values = self.with_values or events.values is not None
        if delays is not None:
            arrived = delays(events, return_state=False)[0]
            self.with_values = self.with_values or arrived.values is not None
            self.of_arrivals[0] += arrived.num_events * self.delayed[0] // delays.taps
        self.active[0] += events.indices.cpu().bincount(minlength=events.shape[2])
        self.crossings[0] += events.num_events
        for k, output in enumerate(spikes, start=1):
            counted = count_spikes(output)
            self.active[k] += counted.events.cpu()
            self.crossings[k] += counted.spikes.sum().cpu()
            if k in self.delayed:
                self.of_arrivals[k] += _count_arrivals(self.layers[k - 1], output, events.lengths) * self.delayed[k]

    def means(self, group: Processes) -> tuple[list[LayerCounts], list[Tensor]]:
        """The counts of an inference and the rates of the neurons, over all processes."""
        for tensor in (self.crossings, self.elements, self.samples, self.of_arrivals, *self.active):
            group.sum(tensor)
        counts = []
        for k, sums in enumerate(self.active):
            events, spikes = float(sums.sum() / self.samples), float(self.crossings[k] / self.samples)
            if self.fan_outs is None:
                counts.append(LayerCounts(events, spikes, math.nan, math.nan))
                continue
            operations = (sums * self.fan_outs[k]).sum(), self.of_arrivals[k]
            others, arrivals = (float(x / self.samples) for x in operations)
            graded = not (self.binary or isinstance(self.layers[k - 1], IntegerSRC)) if k else self.with_values
            whole = k not in self.delayed or _are_whole(cast(Classifier, self.model), k)
            multiply_adds = others * graded + arrivals * (graded or not whole)
            counts.append(LayerCounts(events, spikes, others + arrivals - multiply_adds, multiply_adds))
        return counts, [sums / self.elements for sums in self.active[1:]]


def _chain(model: nn.Module, layers: Sequence[Recorded]) -> list[Any]:
    """The modules of a chain of fully connected layers without delays that ends in a readout; else none."""
    try:
        parts: list[Any] = [part.module for part in parts_of(Part("model", model))]
    except (TypeError, ValueError):
        return []
    kinds = (Standardise, SRC, IntegerSRC, LeakyReadout, LinearReadout)
    if not all(isinstance(part, kinds) and not getattr(part, "delayed", False) for part in parts):
        return []
    found = [
        (part, k) for part in parts if isinstance(part, SRC | IntegerSRC) for k in range(getattr(part, "num_layers", 1))
    ]
    ends = bool(parts) and isinstance(parts[-1], LeakyReadout | LinearReadout)
    return parts if ends and found == [(layer.module, layer.number) for layer in layers] else []


def _through_skip(readout: LeakyReadout | LinearReadout) -> int:
    """The weights of a readout's skip connection for each input."""
    return readout.num_classes if isinstance(readout, LinearReadout) and readout.skip is not None else 0


def _fan_outs(layers: Sequence[Recorded], readout: Any, inputs: int) -> list[Tensor]:
    """The outgoing weights of each input and neuron of a chain, recurrent ones included."""
    modules: list[Any] = [layer.module for layer in layers]
    sizes = [inputs, *(module.hidden_size for module in modules), readout.num_classes]
    own = [
        _through_skip(readout),
        *(module.hidden_size if getattr(module, "recurrent", False) else 0 for module in modules),
    ]
    return [
        torch.full((size,), above + recurrent) for (size, above), recurrent in zip(pairwise(sizes), own, strict=True)
    ]


@torch.no_grad()
def _count_arrivals(layer: SRC, spikes: Tensor, lengths: Tensor | None) -> int:
    """Count what arrives through the delayed recurrent weights of a layer that is not stacked, before each sample ends.

    This is, for each spike of (T, B, N), the number of steps at which it arrives, summed. As without delays, a spike of
    a sample's last step counts, if its delay is 0.
    """
    events = EventBatch.from_dense((spikes != 0).to(in_work_dtype(spikes).dtype), lengths)
    delays = in_work_dtype(cast(Tensor, layer.delay_hh_l0)).clamp(0, layer.max_delay).expand(layer.hidden_size)
    arrived = delay(events, delays, max_delay=layer.max_delay, delay_width=layer.delay_width)
    return cast(EventBatch, arrived).num_events


def _are_whole(model: Classifier, part: int) -> bool:
    """Whether a part's delays are whole and not interpolated further; ``part`` is a key of ``model.delays``."""
    delay, of = model.delays[part], cast(Any, model.layers[part - 1] if part else model.delay)
    return of.delay_width == 1 and bool((delay == delay.round()).all())


def count_correct(logits: Tensor, labels: Tensor) -> int:
    """Number of samples classified correctly."""
    return int((logits.argmax(1) == labels).sum())
