"""Runs a network and returns its output and the spikes of its layers, and the loss of an output.

Evaluation and training call this file.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from .._shared.arguments import describe
from .._shared.labels import IGNORED
from ..events import EventBatch
from ..layers import LeakyReadout, LinearReadout
from ..layers.base import Neurons
from ..recording import Recorded, outputs_of, record
from . import Classifier


def answer(
    model: nn.Module, events: EventBatch, every_step: bool = False, *, dense: bool = False, binary: bool = False
) -> tuple[Tensor, list[Tensor], list[Recorded]]:
    """A network's output, the spikes of each layer, and the layers of a module that is no ``Classifier``.

    ``events`` are on the network's device; ``dense`` and ``binary`` are those of ``evaluate``.
    """
    if isinstance(model, Classifier):
        spikes = model.layer_spikes(events, binary=binary)
        return model.read_out(spikes[-1], events, every_step=every_step), spikes, []
    input, lengths = as_input(model, events, dense)
    with record(model) as recording, outputs_of(model) as outputs:
        output = model(input) if lengths is None else model(input, lengths=lengths)
    layers = list(recording.values())
    if not layers:
        raise ValueError("model: expected a forward that calls its SRC layers, got one that calls none of them")
    if not isinstance(output, Tensor) or output.dim() != 2 + every_step:
        wanted = "(T, B, C), an answer at every step" if every_step else "(B, C), an answer for each sample"
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else describe(output)
        raise ValueError(
            f"model: expected the output {wanted}, for labels of that form, got {got}: let the network end in a "
            "readout, whose every_step says which it is"
        )
    # The outputs of modules are in the graph of autograd; those of the layers inside a stacked one are not.
    last = {layer.module: layer for layer in layers}
    spikes = []
    for layer in layers:
        made = outputs[layer.module] if last[layer.module] is layer else [layer.spikes]
        by_sample = dense and getattr(layer.module, "batch_first", False) and last[layer.module] is layer
        made = [x if x.dim() == layer.spikes.dim() else x[None] for x in made]  # a cell's has no time
        spikes.append(torch.cat([x.transpose(0, 1) if by_sample else x for x in made]))
    return in_time(model, output) if every_step else output, spikes, layers


def is_batch_first(model: nn.Module) -> bool:
    """Whether a network's last readout, or else its first layer, takes dense inputs (B, T, ...)."""
    kinds: Any = (LeakyReadout, LinearReadout)
    readouts = [module for module in model.modules() if isinstance(module, kinds)]
    layers = [module for module in model.modules() if isinstance(module, Neurons)]
    return any(getattr(module, "batch_first", False) for module in [*readouts[-1:], *layers[:1]][:1])


def in_time(model: nn.Module, output: Tensor) -> Tensor:
    """An output of every step, (B, T, C) of a network with ``batch_first``, as (T, B, C)."""
    return output.transpose(0, 1) if is_batch_first(model) else output


def as_input(model: nn.Module, events: EventBatch, dense: bool) -> tuple[Tensor | EventBatch, Tensor | None]:
    """What a module is called with: its input, and the lengths that it gets beside it, if any."""
    if not dense:
        return events, None
    if events.lengths is not None and "lengths" not in inspect.signature(model.forward).parameters:
        raise ValueError(
            "model: expected a forward that takes lengths, for samples of different lengths, got one of "
            f"{type(model).__name__} without: srcell.Sequential passes them on"
        )
    input = events.to_dense(next((x.dtype for x in model.parameters() if x.is_floating_point()), torch.float32))
    return input.transpose(0, 1) if is_batch_first(model) else input, events.lengths


def paired(output: Tensor, labels: Tensor, lengths: Tensor | None, name: str = "loader") -> tuple[Tensor, Tensor]:
    """Outputs (A, C) with their labels (A,) or targets (A, C), of the A samples, or of all steps that have one.

    ``name`` is that of the argument that the labels are from.
    """
    targets = labels.is_floating_point()
    expected = output.shape[:1] if output.dim() == 2 else (output.shape[1], output.shape[0])
    if tuple(labels.shape[: len(expected)]) != tuple(expected):
        forms = "labels (B,) or (B, T)" if not targets else "targets (B, C) or (B, T, C)"
        raise ValueError(f"{name}: expected {forms} = {tuple(expected)}, got {tuple(labels.shape)}")
    if output.dim() == 3:
        taken = steps_with_label(labels, lengths)
        output, labels = output.transpose(0, 1)[taken], labels[taken]
    values = output.shape[1]
    if targets and labels.shape != output.shape:
        raise ValueError(f"{name}: expected targets of {values} values, the network's, got {labels.shape[-1]}")
    if not targets:
        check_labels(labels, values, name)
    return output, labels if targets else labels.long()


def steps_with_label(labels: Tensor, lengths: Tensor | None) -> Tensor:
    """Which steps of labels (B, T) or targets (B, T, C) have one: those before a sample's end, but for ``IGNORED``."""
    taken = torch.ones(labels.shape[:2], dtype=torch.bool, device=labels.device)
    if lengths is not None:
        taken = torch.arange(labels.shape[1], device=labels.device) < lengths.to(labels.device)[:, None]
    return taken if labels.is_floating_point() else taken & (labels != IGNORED)


def check_labels(labels: Tensor, classes: int, name: str) -> None:
    """Raise unless all labels are classes, or those of steps without one."""
    inside = (labels >= 0) & (labels < classes)
    wrong = labels[~(inside | (labels == IGNORED) if labels.dim() > 1 else inside)]
    if len(wrong):
        unlabelled = f", or {IGNORED} at a step without one" if labels.dim() > 1 else ""
        expected = f"labels in [0, {classes}), the network's classes{unlabelled}"
        raise ValueError(f"{name}: expected {expected}, got {int(wrong[0])}")


def summed_loss(output: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The cross-entropies of outputs (A, C) and labels (A,), or the mean squared errors of targets (A, C), summed."""
    if labels.is_floating_point():
        return mse_loss(output, labels.to(output.dtype), reduction="sum") / max(output.shape[1], 1)
    return cross_entropy(output, labels, reduction="sum", label_smoothing=label_smoothing)
