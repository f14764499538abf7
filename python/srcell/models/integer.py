"""``IntegerClassifier``: a network of integer neurons, as in hardware."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import SupportsIndex, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from .._integer import IntegerCell
from .._shared.arguments import describe
from .._shared.parameters import RESONANCE
from ..layers import SRC, IntegerSRC, LeakyReadout
from .classifier import Classifier, as_sizes, check_readout
from .networks import SRCClassifier


class IntegerClassifier(Classifier):
    """A stack of ``IntegerSRC`` layers that ends in class votes.

    After the hidden layers come a layer of ``neurons_per_class * num_classes`` neurons and a ``LeakyReadout``. The
    weights are initialised as in ``SRCClassifier``.

    Args:
        input_size: number of inputs, K.
        hidden_sizes: neurons of each hidden layer; an int for one layer, empty for none.
        num_classes: classes C.
        neurons_per_class: number of neurons of the voting layer for each class.
        weight_bits: bits per weight, 2 to 16: one number for all layers, or one for each layer.
        cell: the neurons' constants, by default the hardware's.
        initial_state: "zeros" or "rest", as in ``IntegerSRC``.
        temperature: as in ``LeakyReadout``.
        readout_alpha: the ``alpha`` of the readout; 1 means no leak, as in hardware.
        dropout: in training, the probability that a hidden neuron is silenced for a whole sample, in [0, 1).
        balance_gradients: in training, keep the size of gradients through the layers; see ``BalancedGradients``.

    Raises:
        ValueError: the layers or the readout do not accept a size or an option.

    Example:
        >>> import torch
        >>> model = IntegerClassifier(64, [32], num_classes=10, weight_bits=[6, 4])
        >>> model(torch.ones(44, 2, 64)).shape
        torch.Size([2, 10])
        >>> [layer.weight_bits for layer in model.layers]
        [6, 4]

    """

    def __init__(
        self,
        input_size: int,
        hidden_sizes: Sequence[int] | int,
        num_classes: int,
        *,
        neurons_per_class: int = 10,
        weight_bits: SupportsIndex | Sequence[int] = 4,
        cell: IntegerCell = IntegerCell(),  # noqa: B008  (it does not change)
        initial_state: str = "zeros",
        temperature: float = 10.0,
        readout_alpha: float = 1.0,
        dropout: float = 0.0,
        balance_gradients: bool = False,
    ) -> None:
        check_readout(num_classes, neurons_per_class, readout_alpha)
        sizes = [input_size, *as_sizes("hidden_sizes", hidden_sizes), neurons_per_class * num_classes]
        count = len(sizes) - 1
        bits = [*weight_bits] if isinstance(weight_bits, Sequence) else [weight_bits] * count
        if len(bits) != count:
            raise ValueError(f"weight_bits: expected one number, or one for each of {count} layers, got {len(bits)}")
        layers = [
            IntegerSRC(k, n, weight_bits=b, cell=cell, initial_state=initial_state)
            for (k, n), b in zip(pairwise(sizes), bits, strict=True)
        ]
        readout = LeakyReadout(num_classes, neurons_per_class, readout_alpha, temperature=temperature)
        super().__init__((input_size,), layers, readout, dropout, balance_gradients)

    @classmethod
    def from_float(
        cls,
        network: SRCClassifier,
        *,
        weight_bits: int | Sequence[int] = 4,
        cell: IntegerCell = IntegerCell(),  # noqa: B008  (it does not change)
    ) -> IntegerClassifier:
        """Make a network of integer neurons with the rounded weights of a network of float neurons.

        The float neurons' biases and other parameters are lost, because integer neurons share their constants. Expect
        less accuracy than from a network trained with integer neurons, and use the result to start such training.

        Args:
            network: a network with votes, without recurrent weights, resonance and delays.
            weight_bits: as in the constructor.
            cell: as in the constructor.

        Raises:
            TypeError: ``network`` is not an ``SRCClassifier``.
            ValueError: ``network`` has delays, standardised inputs, recurrent weights, resonance or a linear readout.

        Example:
            >>> from srcell.models import IntegerClassifier, SRCClassifier
            >>> IntegerClassifier.from_float(SRCClassifier(64, [32], num_classes=10), weight_bits=6).layers[1]
            IntegerSRC(32, 100, weight_bits=6)

        """
        if not isinstance(network, SRCClassifier):
            raise TypeError(f"network: expected an SRCClassifier, got {describe(network)}")
        layers, readout = [cast(SRC, layer) for layer in network.layers], network.readout
        if network.delays:
            raise ValueError(
                "network: expected input_delay=0 and recurrent_delay=0, because integer networks have no delays, got a "
                "network with delays"
            )
        if network.standardise is not None:
            raise ValueError(
                "network: expected standardise=None, because integer neurons take spikes, got a network with it"
            )
        if any(layer.recurrent for layer in layers) or not isinstance(readout, LeakyReadout):
            got = "recurrent weights" if isinstance(readout, LeakyReadout) else "a linear readout"
            raise ValueError(f"network: expected readout='votes' and recurrent=False, got {got}")
        if any(layer.resonates for layer in layers):
            raise ValueError(
                f"network: expected {RESONANCE}=0, because integer neurons do not resonate, got a resonant network"
            )
        made = cls(
            layers[0].input_size,
            [layer.hidden_size for layer in layers[:-1]],
            readout.num_classes,
            neurons_per_class=readout.neurons_per_class,
            weight_bits=weight_bits,
            cell=cell,
            initial_state=layers[0].initial_state,
            temperature=readout.temperature,
            readout_alpha=readout.alpha,
            dropout=network.dropout,
            balance_gradients=network.balance_gradients,
        )
        made.encoder, made.class_names = network.encoder, network.class_names
        with torch.no_grad():
            for integer, layer in zip(made.layers, layers, strict=True):
                cast(IntegerSRC, integer).weight_ih_l0.copy_(cast(Tensor, layer.weight_ih_l0))
        return made.train(network.training)

    def _scaled_mask(self, ones: Tensor) -> Tensor:
        # Spikes stay 0 or 1: dropout does not scale up the spikes that it keeps.
        return (F.dropout(ones, self.dropout) > 0).to(ones.dtype)

    @property
    def clamped(self) -> int:
        """How often the i of a neuron left its bounds and was clamped, over all calls."""
        return sum(int(layer.clamped) for layer in self.layers if isinstance(layer, IntegerSRC))

    @torch.no_grad()
    def integers(self) -> list[Tensor]:
        """The rounded weights of each layer, (N, K) int16."""
        return [layer.integers() for layer in self.layers if isinstance(layer, IntegerSRC)]
