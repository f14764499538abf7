"""``SRCClassifier`` and ``SRCConvClassifier``, whole networks of float neurons."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .._shared.arguments import as_int, check_bool, check_choice
from .._shared.parameters import RESONANCE
from .._shared.renamed import renamed
from .._shared.settings import check_needs
from ..events import EventBatch
from ..functional.terms import MOST_DELAY
from ..layers import SRC, Delay, LeakyReadout, LinearReadout, SRCConv2d, Standardise
from ..layers.constants import check_size
from ..layers.domains import is_zero
from ..layers.options import Spread, SpreadFrequencies
from .classifier import READOUTS, AnyLayer, Classifier, as_sizes, check_readout

# Options that act only with others: "a|b" with one of two, "a=x" with that value.
NEEDS: dict[str, tuple[str, ...]] = {
    "readout": ("hidden_sizes",),
    "omega": ("hidden_sizes",),
    "readout_window": ("readout=linear",),
    "skip": ("readout=linear",),
    "taps": ("input_delay",),
    "recurrent_delay": ("recurrent", "hidden_sizes"),
    "learn_delays": ("input_delay|recurrent_delay",),
    "learn_time_constants": ("hidden_sizes",),
    "whole_delays": ("input_delay|recurrent_delay",),
}


class SRCClassifier(Classifier):
    """A stack of SRC layers that ends in class votes, or in a linear readout.

    With ``readout="votes"``, after the hidden layers come a voting layer, of ``neurons_per_class * num_classes`` SRC
    neurons, and a ``LeakyReadout``. The configuration that the authors' group published with arXiv 2605.10679 has the
    same. With "linear", a ``LinearReadout`` reads the last hidden layer. The weights of the first layer and between
    hidden layers are initialised as in ``SRC``, those of the voting layer from N(0, (6 / sqrt(K))^2).

    Args:
        input_size: number of inputs, K.
        hidden_sizes: neurons of each hidden layer; an int for one layer, empty for none.
        num_classes: classes C.
        neurons_per_class: number of neurons of the voting layer for each class.
        alpha: leak of the neurons' input integrators, as in ``SRC``: a number or ``srcell.spread``.
        rho, rs, zs_hyp: bound of the drive, negative feedback, slowness of hs at rest, as in ``SRC``.
        omega: angular frequency of the neurons of hidden layers, as in ``SRC``: a number or
            ``srcell.spread_frequencies``. Voting neurons do not resonate.
        recurrent: whether hidden layers have recurrent weights, as in ``SRC``.
        input_gain: scale the initial input weights of the first layer by each neuron's alpha and this factor, above 0,
            as the option of ``SRC``; None: draw them as ``SRC`` does.
        surrogate: "straight_through" or "relu", as in ``SRC``.
        full_gradient: whether gradients flow through time along h and hs too, as in ``SRC``.
        initial_state: "zeros" or "rest", as in ``SRC``.
        readout: "votes" or "linear".
        temperature: as in ``LeakyReadout``.
        readout_alpha: the ``alpha`` of the readout.
        readout_window: the ``window`` of the linear readout.
        skip: whether a skip connection adds a linear map of the inputs to the outputs of the linear readout, at the
            step of the outputs; the inputs are standardised, and not delayed. For forecasts.
        dropout: in training, the probability that a hidden neuron is silenced for a whole sample, in [0, 1).
        balance_gradients: in training, keep the size of gradients through the layers; see ``BalancedGradients``.
        input_delay: the largest delay of the inputs in steps, an int in [0, 65535]; 0: no delays. Delays are drawn
            over [0, input_delay], as in ``Delay``.
        taps: delays of each input; the first layer then has ``input_size * taps`` inputs.
        recurrent_delay: the largest delay of hidden layers' recurrent weights in steps, an int in [0, 65535]; 0: no
            delays. A delay per neuron is drawn uniformly over [0, recurrent_delay] when the network is built, as
            ``delay_hh`` of ``SRC``; ``reset_parameters`` returns to it. Voting neurons have no recurrent weights.
        learn_delays: whether the delays are learnt.
        learn_time_constants: whether the alpha and, unless it is 0, the omega of hidden layers are learnt: a number
            for each neuron where they are spread, else one for the layer. ``srcell.training.parameter_groups`` has a
            rate for them.
        whole_delays: whether the drawn delays are rounded to whole steps, so that a spike arrives at one step only.
        standardise: standardises the inputs, before their delays; None: the layers get them unchanged.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: ``SRC``, ``Delay`` or the readout does not accept a size or an option; there is no hidden layer for
            a linear readout to read, or for ``omega`` or ``recurrent_delay`` to act on; or an option of delays lacks
            the delays that it needs.

    Example:
        >>> import torch
        >>> model = SRCClassifier(64, [32], num_classes=10)
        >>> model(torch.ones(50, 2, 64)).shape
        torch.Size([2, 10])
        >>> [spikes.shape for spikes in model.layer_spikes(torch.ones(50, 2, 64))]
        [torch.Size([50, 2, 32]), torch.Size([50, 2, 100])]
        >>> SRCClassifier(64, [32], num_classes=10, input_delay=20, taps=3, learn_delays=True).delay
        Delay(64, max_delay=20, taps=3)

    """

    @renamed("lateral", "lateral_delay", "recurrent_grad")
    def __init__(
        self,
        input_size: int,
        hidden_sizes: Sequence[int] | int,
        num_classes: int,
        *,
        neurons_per_class: int = 10,
        alpha: float | Spread = 0.9,
        rho: float = 3.0,
        rs: float = -7.0,
        zs_hyp: float | Spread = 0.9,
        omega: float | SpreadFrequencies = 0.0,
        recurrent: bool = False,
        input_gain: float | None = None,
        surrogate: str = "straight_through",
        full_gradient: bool = False,
        initial_state: str = "zeros",
        readout: str = "votes",
        temperature: float = 10.0,
        readout_alpha: float = 0.99,
        readout_window: int = 0,
        skip: bool = False,
        dropout: float = 0.0,
        balance_gradients: bool = False,
        input_delay: int = 0,
        taps: int = 1,
        recurrent_delay: int = 0,
        learn_delays: bool = False,
        learn_time_constants: bool = False,
        whole_delays: bool = False,
        standardise: Standardise | None = None,
    ) -> None:
        check_size("input_size", input_size, 0)
        check_readout(num_classes, neurons_per_class, readout_alpha)
        check_choice("readout", readout, READOUTS)
        check_bool("recurrent", recurrent)
        check_bool("skip", skip)
        hidden_sizes = as_sizes("hidden_sizes", hidden_sizes)
        input_delay = as_int("input_delay", input_delay, MOST_DELAY)
        taps = as_int("taps", taps, 2**31, minimum=1)
        recurrent_delay = as_int("recurrent_delay", recurrent_delay, MOST_DELAY)
        check_bool("learn_delays", learn_delays)
        check_bool("learn_time_constants", learn_time_constants)
        check_bool("whole_delays", whole_delays)
        check_needs(locals(), NEEDS, DEFAULTS)  # before there are other local names than arguments
        votes, hidden = readout == "votes", len(hidden_sizes)
        self._whole_delays = whole_delays  # before super().__init__(), which draws the delays
        delay = Delay(input_size, input_delay, taps=taps, learnable=learn_delays) if input_delay else None
        sizes = [input_size * taps, *hidden_sizes, *([neurons_per_class * num_classes] if votes else [])]
        resonates = isinstance(omega, SpreadFrequencies) or not is_zero(omega)
        learnt = ("alpha", *([RESONANCE] if resonates else [])) if learn_time_constants else ()
        layers = [
            SRC(
                k,
                n,
                alpha=alpha,
                rho=rho,
                rs=rs,
                zs_hyp=zs_hyp,
                omega=omega if number < hidden else 0.0,
                input_gain=None if number else input_gain,
                recurrent=recurrent and number < hidden,
                surrogate=surrogate,
                full_gradient=full_gradient,
                initial_state=initial_state,
                learnable=(*learnt, *(["delay_hh"] if learn_delays and recurrent_delay else []))
                if number < hidden
                else (),
                **(self._drawn_delays(n, recurrent_delay) if recurrent_delay and number < hidden else {}),
            )
            for number, (k, n) in enumerate(pairwise(sizes))
        ]
        super().__init__(
            (input_size,),
            layers,
            LeakyReadout(num_classes, neurons_per_class, readout_alpha, temperature=temperature)
            if votes
            else LinearReadout(sizes[-1], num_classes, readout_alpha, readout_window, skip=input_size if skip else 0),
            dropout,
            balance_gradients,
            delay,
            standardise,
        )

    def reset_parameters(self) -> None:
        """Draw all weights and the delays of the inputs anew, and reset everything else to its initial value."""
        super().reset_parameters()
        if self.delay is not None and self._whole_delays:
            with torch.no_grad():
                self.delay.delay.round_()

    def _drawn_delays(self, neurons: int, most: int) -> dict[str, Any]:
        """The options of a layer whose recurrent weights have delays."""
        drawn = torch.empty(neurons).uniform_(0, most)
        return {"delay_hh": drawn.round() if self._whole_delays else drawn, "max_delay": most}


DEFAULTS = {name: argument.default for name, argument in inspect.signature(SRCClassifier).parameters.items()}


class SRCConvClassifier(Classifier):
    """Convolutional SRC layers, then a stack as in ``SRCClassifier``.

    The convolutions have 5 x 5 kernels, stride 2 and padding 2, so that each layer halves height and width, rounded up.

    Args:
        input_shape: channels, height and width of the input.
        channels: output channels of each convolutional layer, at least one; an int for one layer.
        hidden_sizes: neurons of each fully connected layer after the convolutions; an int for one layer, empty for
            none.
        num_classes: classes C.
        neurons_per_class: number of neurons of the last layer that vote for each class.
        alpha: leak of the neurons' input integrators, as in ``SRC``.
        surrogate: "straight_through" or "relu", as in ``SRC``.
        full_gradient: whether gradients flow through time along h and hs too, as in ``SRC``.
        initial_state: "zeros" or "rest", as in ``SRC``.
        temperature: as in ``LeakyReadout``.
        readout_alpha: the ``alpha`` of ``LeakyReadout``.
        dropout: in training, the probability that a hidden neuron is silenced for a whole sample, in [0, 1).
        balance_gradients: in training, keep the size of gradients through the layers; see ``BalancedGradients``.

    The input of a call has shape (T, B, C, H, W) or (T, B, C * H * W), or is an ``EventBatch``; inputs are numbered by
    channel, row and column.

    Raises:
        ValueError: the layers do not accept a size or the surrogate, or there is no convolutional layer.

    Example:
        >>> import torch
        >>> model = SRCConvClassifier((1, 28, 28), [8], [32], num_classes=10)
        >>> [tuple(spikes.shape) for spikes in model.layer_spikes(torch.ones(30, 2, 1, 28, 28))]
        [(30, 2, 8, 14, 14), (30, 2, 32), (30, 2, 100)]

    """

    @renamed("recurrent_grad")
    def __init__(
        self,
        input_shape: Sequence[int],
        channels: Sequence[int] | int,
        hidden_sizes: Sequence[int] | int,
        num_classes: int,
        *,
        neurons_per_class: int = 10,
        alpha: float = 0.9,
        surrogate: str = "straight_through",
        full_gradient: bool = False,
        initial_state: str = "zeros",
        temperature: float = 10.0,
        readout_alpha: float = 0.99,
        dropout: float = 0.0,
        balance_gradients: bool = False,
    ) -> None:
        if not isinstance(input_shape, Sequence) or len(input_shape) != 3 or min(input_shape) < 1:
            raise ValueError(f"input_shape: expected channels, height and width, each at least 1, got {input_shape!r}")
        check_readout(num_classes, neurons_per_class, readout_alpha)
        channels, hidden_sizes = as_sizes("channels", channels), as_sizes("hidden_sizes", hidden_sizes)
        if not channels:
            raise ValueError("channels: expected at least one convolutional layer, got none")
        in_channels, height, width = input_shape
        layers: list[AnyLayer] = []
        for c, n in pairwise([in_channels, *channels]):
            layers.append(
                SRCConv2d(
                    c,
                    n,
                    kernel_size=5,
                    stride=2,
                    padding=2,
                    input_size=(height, width),
                    alpha=alpha,
                    surrogate=surrogate,
                    full_gradient=full_gradient,
                    initial_state=initial_state,
                )
            )
            height, width = (height + 1) // 2, (width + 1) // 2
        sizes = [channels[-1] * height * width, *hidden_sizes, neurons_per_class * num_classes]
        layers += [
            SRC(k, n, alpha=alpha, surrogate=surrogate, full_gradient=full_gradient, initial_state=initial_state)
            for k, n in pairwise(sizes)
        ]
        readout = LeakyReadout(num_classes, neurons_per_class, readout_alpha, temperature=temperature)
        super().__init__(input_shape, layers, readout, dropout, balance_gradients)

    def _first_spikes(self, input: Tensor | EventBatch, lengths: Tensor | None) -> Tensor:
        inputs = math.prod(self.input_shape)
        shape = tuple(input.shape[2:]) if isinstance(input, Tensor | EventBatch) else None
        if shape == (inputs,):
            input = input.unflatten(2, self.input_shape) if isinstance(input, Tensor) else input
        elif shape != self.input_shape:
            expected = f"(T, B, {inputs}) or (T, B, {', '.join(map(str, self.input_shape))})"
            got = type(input).__name__ if shape is None else tuple(input.shape)
            raise ValueError(f"input: expected shape {expected}, got {got}")
        return super()._first_spikes(input, lengths)
