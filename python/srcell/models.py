"""Networks made of the layers of ``srcell.modules``.

Training and users build them; a network must never know how its input was encoded, how it is trained, or what stands
below a layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from .events import EventBatch
from .modules import LATER_WEIGHT_SCALE, SRC, LeakyReadout


class SRCClassifier(nn.Module):
    """A stack of SRC layers that ends in class votes.

    After the hidden layers come an SRC layer of ``neurons_per_class * num_classes`` neurons and a ``LeakyReadout`` [A].
    The first layer starts as any ``SRC``; the later ones get sparser input and start from N(0, (6 / sqrt(K))^2) [O].

    Args:
        input_size: inputs a step, K.
        hidden_sizes: neurons of each hidden layer; empty for none.
        num_classes: classes C.
        neurons_per_class: neurons of the last layer that vote for a class [A].
        surrogate: "straight_through" or "relu", as in ``SRC``.
        recurrent_grad: whether gradients follow the recurrence, as in ``SRC``.
        initial_state: "zeros" or "rest", as in ``SRC``.
        temperature: as in ``LeakyReadout``.

    Raises:
        ValueError: a size or the surrogate is not one that ``SRC`` accepts.

    Example:
        >>> import torch
        >>> model = SRCClassifier(64, [32], num_classes=10)
        >>> model(torch.ones(50, 2, 64)).shape
        torch.Size([2, 10])
        >>> [spikes.shape for spikes in model.layer_spikes(torch.ones(50, 2, 64))]
        [torch.Size([50, 2, 32]), torch.Size([50, 2, 100])]

    """

    def __init__(
        self,
        input_size: int,
        hidden_sizes: Sequence[int],
        num_classes: int,
        *,
        neurons_per_class: int = 10,
        surrogate: str = "straight_through",
        recurrent_grad: bool = False,
        initial_state: str = "zeros",
        temperature: float = 10.0,
    ) -> None:
        super().__init__()
        inputs = [input_size, *hidden_sizes]
        outputs = [*hidden_sizes, neurons_per_class * num_classes]
        self.layers = nn.ModuleList(
            SRC(k, n, surrogate=surrogate, recurrent_grad=recurrent_grad, initial_state=initial_state)
            for k, n in zip(inputs, outputs, strict=True)
        )
        self.readout = LeakyReadout(num_classes, neurons_per_class, temperature=temperature)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew and set the biases back."""
        for layer in self.src_layers():
            layer.reset_parameters()
        for layer in self.src_layers()[1:]:
            nn.init.normal_(cast(Tensor, layer.weight_ih_l0), std=LATER_WEIGHT_SCALE / math.sqrt(layer.input_size))

    def forward(self, input: Tensor | EventBatch, lengths: Tensor | None = None) -> Tensor:
        """The logits of each sample after its last step.

        Args:
            input: (T, B, K), dense or an ``EventBatch``.
            lengths: (B,) int64, steps of each sample in 0..T, all T by default; not beside an EventBatch that
                has its own.

        Returns:
            (B, C) logits, ready for ``cross_entropy``.

        Raises:
            ValueError, TypeError: as ``SRC`` does.

        """
        logits: Tensor = self.readout(self.layer_spikes(input, lengths)[-1], lengths=_sample_lengths(input, lengths))
        return logits

    def constrain_(self) -> None:
        """Project every layer's parameters into their domains; training calls it after each optimiser step."""
        for layer in self.src_layers():
            layer.constrain_()

    def layer_spikes(
        self, input: Tensor | EventBatch, lengths: Tensor | None = None, *, binary: bool = False
    ) -> list[Tensor]:
        """The output (T, B, N) of every layer, first to last; arguments as in ``forward``.

        With ``binary``, every layer passes on 1 where s > 0.5 and 0 elsewhere: for inference, as that has no gradient.
        """
        later_lengths = _sample_lengths(input, lengths)
        outputs: list[Tensor] = []
        below = None
        for layer in self.src_layers():
            if below is None:
                spikes, _ = layer(input, lengths=lengths)
            else:
                at_events = below.surrogate == "relu"
                spikes, _ = layer(outputs[-1], lengths=later_lengths, input_grad_at_events=at_events)
            outputs.append((spikes > 0.5).to(spikes.dtype) if binary else spikes)
            below = layer
        return outputs

    def src_layers(self) -> list[SRC]:
        """The layers, first to last."""
        return cast("list[SRC]", list(self.layers))


def _sample_lengths(input: Tensor | EventBatch, lengths: Tensor | None) -> Tensor | None:
    if isinstance(input, EventBatch) and input.lengths is not None:
        return input.lengths
    return lengths
