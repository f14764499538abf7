"""``NetworkSettings``, the network of a configuration, and the network that they describe.

An option that is added to a network needs a field here, and no line in ``build``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._shared.settings import fraction, positive_fraction, setting, settings_of, size
from ..functional.integer import MOST_BITS
from ..functional.terms import MOST_DELAY
from ..layers import spread, spread_frequencies
from ..layers.options import INITIAL_STATES
from ..models import READOUTS, Classifier, IntegerClassifier, SRCClassifier, SRCConvClassifier
from ..models.networks import NEEDS
from ..ops._layer import SURROGATES


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The network of a configuration: the options of the networks, in the words of a command line."""

    channels: tuple[int, ...] = size(
        (),
        "output channels of each convolutional layer, 5 x 5 with stride 2",
        "as in SRCConvClassifier; empty for none",
    )
    hidden_sizes: tuple[int, ...] = size(
        (128,), "neurons of each fully connected hidden layer", "empty for none", option="--hidden"
    )
    recurrent: bool = setting(False, "give each hidden layer recurrent weights", "as in SRC")
    readout: str = setting(
        "votes",
        "readout: votes or linear",
        "votes of ten further neurons per class, or a linear readout of the last hidden layer",
        choices=READOUTS,
        needs=NEEDS["readout"],
    )
    alpha: float = positive_fraction(0.9, "fraction that the neurons' integrators keep per step")
    slowest_alpha: float = fraction(
        0.0,
        "alpha of each layer's slowest neuron; 0: the same for all neurons",
        "the neurons are spread from alpha to this value, as in srcell.spread",
    )
    rho: float = setting(3.0, "bound of the neurons' drive", "as in SRC", least=0, open_least=True)
    rs: float = setting(-7.0, "negative feedback, which ends a spike", "as in SRC", least=-100, most=0)
    zs_hyp: float = fraction(0.9, "fraction that a resting neuron's slow state keeps per step", "as in SRC")
    omega: float = setting(
        0.0,
        "angular frequency of hidden neurons, in radians per step; 0: no resonance",
        "as in SRCClassifier",
        least=0,
        most=math.pi,
        needs=NEEDS["omega"],
    )
    highest_omega: float = setting(
        0.0,
        "omega of each hidden layer's fastest neuron; 0: the same for all neurons",
        "the frequencies are spread from omega to this value, as in srcell.spread_frequencies",
        least=0,
        most=math.pi,
        needs=("omega",),
    )
    input_gain: float = setting(
        0.0,
        "factor of the input weights, which each neuron's alpha scales too; 0: neither",
        "as in SRCClassifier and SRC.for_sequences",
        least=0,
        most=1e36,  # with which float32 weights are finite
    )
    learn_time_constants: bool = setting(
        False, "learn alpha and omega of hidden layers", "as in SRCClassifier", needs=NEEDS["learn_time_constants"]
    )
    surrogate: str = setting("straight_through", "surrogate: straight_through or relu", "as in SRC", choices=SURROGATES)
    full_gradient: bool = setting(False, "let gradients flow through h and hs as well", "as in SRC")
    initial_state: str = setting("zeros", "initial state: zeros or rest", "as in SRC", choices=INITIAL_STATES)
    dropout: float = fraction(
        0.0, "probability that a hidden neuron is silenced for a training sample", "as in SRCClassifier"
    )
    balance_gradients: bool = setting(False, "keep the size of gradients through many layers", "as in SRCClassifier")
    temperature: float = setting(
        10.0, "divisor of the integrated votes", "as in LeakyReadout", least=0, open_least=True
    )
    readout_alpha: float = positive_fraction(
        0.99, "fraction that the readout's integrators keep per step", "as in LeakyReadout; 1: no leak"
    )
    readout_window: int = size(
        0,
        "last steps that a linear readout reads; 0: all",
        "as in LinearReadout",
        least=0,
        needs=NEEDS["readout_window"],
    )
    skip: bool = setting(
        False,
        "add a linear map of the inputs to the outputs of a linear readout",
        "a skip connection, for forecasts: as in SRCClassifier",
        needs=NEEDS["skip"],
    )
    input_delay: int = setting(
        0,
        "largest delay of the inputs, in steps; 0: none",
        "drawn from 0 to this value, as in SRCClassifier",
        least=0,
        most=MOST_DELAY,
    )
    taps: int = size(1, "delays of each input", "as in SRCClassifier", needs=NEEDS["taps"])
    recurrent_delay: int = setting(
        0,
        "largest delay of the recurrent weights, in steps; 0: none",
        "one per neuron, drawn uniformly from 0 to this value, as in SRCClassifier",
        least=0,
        most=MOST_DELAY,
        needs=NEEDS["recurrent_delay"],
    )
    learn_delays: bool = setting(False, "learn the delays", needs=NEEDS["learn_delays"])
    whole_delays: bool = setting(
        False,
        "let delays be whole numbers of steps",
        "drawn delays are rounded; learnt ones before the last quarter of the epochs, which trains the weights alone",
        needs=NEEDS["whole_delays"],
    )
    delay_width: tuple[int, ...] = setting(
        (1,),
        "half-width of the interpolation of learnt delays, in steps",
        "as in srcell.delay: one number, or a first and a last one, between which the width falls geometrically over "
        "the first half of the epochs",
        least=1,
        most=MOST_DELAY,
        needs=("learn_delays",),
    )
    integer: bool = setting(False, "train integer neurons, as in hardware", "as in IntegerClassifier")
    weight_bits: tuple[int, ...] = setting(
        (4,),
        "bits per weight of integer neurons",
        "one number for all layers, or one each",
        least=2,
        most=MOST_BITS,
        needs=("integer",),
    )

    def check_network(self) -> None:
        """Raise for settings of the network that exclude each other."""
        if self.slowest_alpha and not self.alpha <= self.slowest_alpha:
            raise ValueError(f"slowest_alpha: expected 0 or at least alpha, {self.alpha}, got {self.slowest_alpha}")
        if self.highest_omega and not self.omega <= self.highest_omega:
            raise ValueError(f"highest_omega: expected 0 or at least omega, {self.omega}, got {self.highest_omega}")
        if self.balance_gradients and self.surrogate == "relu":
            raise ValueError("balance_gradients: expected False with the surrogate 'relu', whose gradients do not grow")
        widths = self.delay_width
        if len(widths) not in (1, 2) or widths[0] < widths[-1]:
            raise ValueError(
                f"delay_width: expected one number, or a first and a last one that is not larger, got {list(widths)}"
            )
        if self.whole_delays and widths[-1] != 1:
            raise ValueError(f"delay_width: expected to end with 1 with whole_delays, got {list(widths)}")
        if self.integer and len(self.weight_bits) not in (1, len(self.hidden_sizes) + 1):
            raise ValueError(
                f"weight_bits: expected one number, or one for each of {len(self.hidden_sizes) + 1} layers, got "
                f"{len(self.weight_bits)}"
            )


SETTINGS = settings_of(NetworkSettings)
# Settings that ``build`` turns into other arguments, and the kind of network that has them.
FURTHER = {"slowest_alpha": SRCClassifier, "highest_omega": SRCClassifier, "delay_width": SRCClassifier}
WITH = {IntegerClassifier: "integer neurons", SRCConvClassifier: "channels"}


def kind_of(settings: NetworkSettings) -> Any:
    """The class of the network."""
    if settings.integer:
        return IntegerClassifier
    return SRCConvClassifier if settings.channels else SRCClassifier


def options_of(kind: Any) -> list[str]:
    """The settings that a kind of network has: its arguments, and those of ``FURTHER``."""
    arguments = inspect.signature(kind).parameters
    return [name for name in SETTINGS if name in arguments or FURTHER.get(name) is kind]


def check_kind(settings: NetworkSettings) -> None:
    """Raise for a setting that this kind of network does not have."""
    kind = kind_of(settings)
    own = {"integer", "weight_bits", *options_of(kind)}  # weight_bits without integer: see its needs
    for name in (name for name in SETTINGS if name not in own):
        if (given := getattr(settings, name)) != (default := SETTINGS[name].default):
            raise ValueError(f"{name}: expected {default!r} with {WITH[kind]}, got {given!r}")


def build(settings: NetworkSettings, input_shape: Sequence[int], num_classes: int) -> Classifier:
    """Build the untrained network for inputs (channels, height, width).

    The interpolation of its delays has the last of the widths.
    """
    kind = kind_of(settings)
    options: dict[str, Any] = {name: getattr(settings, name) for name in options_of(kind) if name not in FURTHER}
    if settings.slowest_alpha:
        options["alpha"] = spread(settings.alpha, settings.slowest_alpha)
    if settings.highest_omega:
        options["omega"] = spread_frequencies(settings.omega, settings.highest_omega)
    if not options.get("input_gain"):
        options.pop("input_gain", None)
    if len(bits := options.get("weight_bits", ())) == 1:
        options["weight_bits"] = bits[0]
    inputs = input_shape if settings.channels else math.prod(input_shape)
    model: Classifier = kind(inputs, num_classes=num_classes, **options)
    model.set_delay_width(settings.delay_width[-1])
    return model
