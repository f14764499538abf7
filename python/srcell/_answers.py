"""What a network answers: its output beside the spikes of its layers, and the loss of an output.

Evaluation and training call this file.
"""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from ._arguments import describe
from .events import EventBatch
from .models import Classifier
from .recording import Recorded, outputs_of, record


def answer(
    model: nn.Module, events: EventBatch, every_step: bool = False, *, dense: bool = False, binary: bool = False
) -> tuple[Tensor, list[Tensor], list[Recorded]]:
    """A network's output, the spikes of each layer, and the layers of a module that is no ``Classifier``.

    ``events`` are on the network's device; ``dense`` and ``binary`` are those of ``evaluate``.
    """
    if isinstance(model, Classifier):
        spikes = model.layer_spikes(events, binary=binary)
        return model.readout(spikes[-1], lengths=events.lengths, every_step=every_step), spikes, []
    input, lengths = as_input(model, events, dense)
    with record(model) as recording, outputs_of(model) as outputs:
        output = model(input) if lengths is None else model(input, lengths=lengths)
    layers, turned = list(recording.values()), dense and is_batch_first(model)
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
        by_sample = turned and getattr(layer.module, "batch_first", False) and last[layer.module] is layer
        spikes.append(torch.cat([x.transpose(0, 1) if by_sample else x for x in made]))
    return output.transpose(0, 1) if turned and every_step else output, spikes, layers


def is_batch_first(model: nn.Module) -> bool:
    """Whether a network takes dense inputs (B, T, ...)."""
    return any(getattr(module, "batch_first", False) for module in model.modules())


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


def paired(output: Tensor, labels: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Outputs (A, C) with their labels (A,) or targets (A, C), of the A samples, or of all steps that they have."""
    targets = labels.is_floating_point()
    expected = output.shape[:-1] if output.dim() == 2 else (output.shape[1], output.shape[0])
    if tuple(labels.shape[: 1 if output.dim() == 2 else 2]) != tuple(expected) or labels.dim() < len(expected):
        forms = "labels (B,) or (B, T)" if not targets else "targets (B, C) or (B, T, C)"
        raise ValueError(f"loader: expected {forms} = {tuple(expected)}, got {tuple(labels.shape)}")
    if output.dim() == 3:
        taken = torch.ones(labels.shape[:2], dtype=torch.bool, device=output.device)
        if lengths is not None:
            taken = torch.arange(labels.shape[1], device=output.device) < lengths.to(output.device)[:, None]
        output, labels = output.transpose(0, 1)[taken], labels[taken]
    values = output.shape[1]
    if targets and labels.shape != output.shape:
        raise ValueError(f"loader: expected targets of {values} values, the network's, got {labels.shape[-1]}")
    if not targets and len(labels) and not 0 <= labels.min() <= labels.max() < values:
        wrong = int(labels[(labels < 0) | (labels >= values)][0])
        raise ValueError(f"loader: expected labels in [0, {values}), the network's classes, got {wrong}")
    return output, labels


def summed_loss(output: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The cross-entropies of outputs (A, C) and labels (A,), or the mean squared errors of targets (A, C), summed."""
    if labels.is_floating_point():
        return mse_loss(output, labels.to(output.dtype), reduction="sum") / max(output.shape[1], 1)
    return cross_entropy(output, labels, reduction="sum", label_smoothing=label_smoothing)
