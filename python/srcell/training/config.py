"""``TrainingConfig``: every setting that the weights depend on; each is also a flag of ``srcell train``.

Training, run folders and the command line read it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import data
from .._renamed import RENAMED, renamed
from ..functional.integer import MOST_BITS
from ..functional.terms import MOST_DELAY
from ..layers.options import INITIAL_STATES
from ..models import READOUTS
from ..ops._layer import SURROGATES
from .presets import PRESETS
from .settings import as_setting, documented, fraction, positive, setting, settings_of, size

# Settings added since srcell 0.2.0. A new setting must be listed here, or else older run folders cannot be read.
ADDED: frozenset[str] = frozenset()
# Those that had another name in srcell 0.2.0.
BEFORE = {old: RENAMED[old] for old in ("delay", "lateral", "lateral_delay", "recurrent_grad")}

# Settings that integer neurons do not have.
NOT_INTEGER = (
    "channels",
    "alpha",
    "slowest_alpha",
    "zs_hyp",
    "omega",
    "recurrent",
    "input_gain",
    "surrogate",
    "full_gradient",
    "readout",
    "input_delay",
    "taps",
    "recurrent_delay",
    "learn_delays",
    "whole_delays",
    "delay_width",
    "delay_learning_rate",
)


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that the weights depend on: the same configuration gives the same weights.

    Attributes:
        ATTRIBUTES

    docs/training.md says which values come from the paper, from the configuration that the authors' group published,
    or from srcell.

    NumPy numbers and lists of sizes are accepted, and stored as Python numbers and tuples.

    Raises:
        TypeError: a setting has the wrong type.
        ValueError: a name is unknown or a number is outside its range.

    Example:
        >>> TrainingConfig(epochs=0)
        Traceback (most recent call last):
        ValueError: epochs: expected at least 1, got 0

    """

    dataset: str = setting("digits", "name of a data set, as in srcell.data.load", choices=data.NAMES, noun="data set")
    channels: tuple[int, ...] = size(
        (),
        "output channels of each convolutional layer, 5 x 5 with stride 2",
        "as in SRCConvClassifier; empty for none",
    )
    hidden_sizes: tuple[int, ...] = size(
        (128,), "neurons of each fully connected hidden layer", "empty for none", option="--hidden"
    )
    epochs: int = size(40, "passes over the training samples")
    batch_size: int = size(64, "samples per optimiser step, over all processes")
    learning_rate: float = positive(4e-2, "learning rate; with one-cycle, its peak", "of Adam", option="--lr")
    schedule: str = setting(
        "one-cycle",
        "learning-rate schedule: one-cycle or constant",
        "one-cycle rises for 30 % of the run, then falls to about 0; constant stays the same",
        choices=("one-cycle", "constant"),
    )
    weight_decay: float = setting(0.0, "weight decay, as in AdamW", "none for the biases", least=0)
    clip_norm: float = setting(
        0.0,
        "largest norm of the gradients; 0: no clipping",
        "a larger norm is scaled down to it; gradients of delays are excluded from the norm and not scaled",
        least=0,
    )
    rate_penalty: float = setting(
        0.0,
        "weight of the penalty on the rates of hidden layers; 0: none",
        "this times the sum over hidden layers of the mean squared deviation of the neurons' mean outputs from "
        "target_rate is added to the loss",
        least=0,
    )
    target_rate: float = fraction(0.03, "target of the penalty: mean output per neuron and step")
    dropout: float = fraction(
        0.0, "probability that a hidden neuron is silenced for a training sample", "as in SRCClassifier"
    )
    balance_gradients: bool = setting(False, "keep the size of gradients through many layers", "as in SRCClassifier")
    label_smoothing: float = fraction(0.0, "label smoothing, as in torch's cross-entropy")
    train_samples: int = size(
        0, "number of training samples, drawn by the seed; 0: all", "drawn from those not held out", least=0
    )
    validation: float = fraction(
        0.1,
        "fraction of the training samples held out for validation; 0: none",
        "evaluated after each epoch; with 0, nothing is evaluated before the end",
    )
    seed: int = setting(
        0, "seed of all randomness", "weights, validation samples, order of the samples, spikes", least=0
    )
    encoding: str = setting(
        "rate", "encoding of images: rate or latency", "event-camera recordings need none", choices=("rate", "latency")
    )
    steps: int = size(100, "steps per encoded sample", "after the silent prefix")
    hold: int = size(4, "steps for which each element of a sequence, or frame of a sound, is held")
    frame: float = setting(0.01, "seconds of a frame of a sound", "as in SoundEncoding", least=0, open_least=True)
    threshold: float = setting(
        0.0, "change of a sound's level that becomes a spike; 0: currents", "as in SoundEncoding", least=0
    )
    recall_delay: int = size(200, "steps of noise between symbol and cue in delayed recall", least=0)
    gain: float = positive(0.5, "rate coding: probability that a pixel of value 1 fires in a step")
    thinned: bool = setting(False, "rate coding: let no pixel fire in two consecutive steps", "as in rate_encode")
    prefix: int = size(20, "silent steps before each sample", least=0)
    integer: bool = setting(False, "train integer neurons, as in hardware", "as in IntegerClassifier")
    weight_bits: tuple[int, ...] = setting(
        (4,), "bits per weight of integer neurons", "one number for all layers, or one each", least=2, most=MOST_BITS
    )
    alpha: float = positive(0.9, "fraction that the neurons' integrators keep per step")
    slowest_alpha: float = fraction(
        0.0,
        "alpha of each layer's slowest neuron; 0: the same for all neurons",
        "the neurons are spread from alpha to this value, as in srcell.spread",
    )
    zs_hyp: float = fraction(0.9, "fraction that a resting neuron's slow state keeps per step", "as in SRC")
    omega: float = setting(
        0.0,
        "angular frequency of hidden neurons, in radians per step; 0: no resonance",
        "as in SRCClassifier",
        least=0,
        most=math.pi,
    )
    highest_omega: float = setting(
        0.0,
        "omega of each hidden layer's fastest neuron; 0: the same for all neurons",
        "the frequencies are spread from omega to this value, as in srcell.spread_frequencies",
        least=0,
        most=math.pi,
    )
    recurrent: bool = setting(False, "give each hidden layer recurrent weights", "as in SRC")
    input_gain: float = setting(
        0.0,
        "factor of the input weights, which each neuron's alpha scales too; 0: neither",
        "as in SRCClassifier and SRC.for_sequences",
        least=0,
    )
    surrogate: str = setting("straight_through", "surrogate: straight_through or relu", "as in SRC", choices=SURROGATES)
    full_gradient: bool = setting(False, "let gradients flow through h and hs as well", "as in SRC")
    initial_state: str = setting("zeros", "initial state: zeros or rest", "as in SRC", choices=INITIAL_STATES)
    readout: str = setting(
        "votes",
        "readout: votes or linear",
        "votes of ten further neurons per class, or a linear readout of the last hidden layer",
        choices=READOUTS,
    )
    readout_window: int = size(0, "last steps that a linear readout reads; 0: all", "as in LinearReadout", least=0)
    temperature: float = setting(
        10.0,
        "divisor of the integrated votes",
        "as in LeakyReadout",
        least=0,
        open_least=True,
    )
    readout_alpha: float = positive(
        0.99, "fraction that the readout's integrators keep per step", "as in LeakyReadout; 1: no leak"
    )
    input_delay: int = setting(
        0,
        "largest delay of the inputs, in steps; 0: none",
        "drawn from 0 to this value, as in SRCClassifier",
        least=0,
        most=MOST_DELAY,
    )
    taps: int = size(1, "delays of each input", "as in SRCClassifier")
    recurrent_delay: int = setting(
        0,
        "largest delay of the recurrent weights, in steps; 0: none",
        "one per neuron, drawn uniformly from 0 to this value, as in SRCClassifier",
        least=0,
        most=MOST_DELAY,
    )
    learn_delays: bool = setting(False, "learn the delays")
    whole_delays: bool = setting(
        False,
        "let delays be whole numbers of steps",
        "drawn delays are rounded; learnt ones before the last quarter of the epochs, which trains the weights alone",
    )
    delay_width: tuple[int, ...] = setting(
        (1,),
        "half-width of the interpolation of learnt delays, in steps",
        "as in srcell.delay: one number, or a first and a last one, between which the width falls geometrically over "
        "the first half of the epochs",
        least=1,
        most=MOST_DELAY,
    )
    delay_learning_rate: float = setting(
        0.3,
        "learning rate of the delays, in steps; with one-cycle, its peak",
        "of Adam",
        option="--delay-lr",
        least=0,
        open_least=True,
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = as_setting(field.name, getattr(self, field.name), type(field.default))
            object.__setattr__(self, field.name, value)
            field.metadata["setting"].check(field.name, value)
        if self.slowest_alpha and not self.alpha <= self.slowest_alpha:
            raise ValueError(f"slowest_alpha: expected 0 or at least alpha, {self.alpha}, got {self.slowest_alpha}")
        if self.highest_omega and not 0 < self.omega <= self.highest_omega:
            raise ValueError(
                f"highest_omega: expected 0, or at least an omega above 0, got {self.highest_omega} with "
                f"omega {self.omega}"
            )
        if self.omega and not self.hidden_sizes:
            raise ValueError(f"omega: expected 0 without hidden layers, got {self.omega}")
        if self.channels and (
            self.recurrent
            or self.omega
            or self.readout != "votes"
            or self.slowest_alpha
            or self.input_delay
            or self.input_gain
        ):
            raise ValueError(
                "channels: expected none with recurrent, omega, slowest_alpha, input_delay, input_gain or a linear "
                f"readout, got {', '.join(map(str, self.channels))}"
            )
        if self.integer:
            self._check_integer()
        elif self.weight_bits != SETTINGS["weight_bits"].default:
            raise ValueError(f"weight_bits: requires integer=True, got {self.weight_bits}")
        self._check_delays()
        if self.thinned and self.encoding != "rate":
            raise ValueError("thinned: expected False with latency coding, got True")
        if self.readout == "linear" and not self.hidden_sizes:
            raise ValueError("hidden_sizes: expected at least one with a linear readout, got none")
        if self.readout != "linear" and self.readout_window:
            raise ValueError(f"readout_window: expected 0 with readout 'votes', got {self.readout_window}")

    def _check_delays(self) -> None:
        """Raise for a setting of delays that lacks those that it needs."""
        delayed = self.input_delay or self.recurrent_delay
        if self.taps != 1 and not self.input_delay:
            raise ValueError(f"taps: requires an input_delay, got {self.taps}")
        if self.recurrent_delay and not (self.recurrent and self.hidden_sizes):
            raise ValueError(f"recurrent_delay: requires recurrent=True and a hidden layer, got {self.recurrent_delay}")
        for name in ("learn_delays", "whole_delays"):
            if getattr(self, name) and not delayed:
                raise ValueError(f"{name}: requires an input_delay or a recurrent_delay, got True")
        for name in ("delay_width", "delay_learning_rate"):
            if getattr(self, name) != SETTINGS[name].default and not self.learn_delays:
                raise ValueError(f"{name}: requires learn_delays=True, got {getattr(self, name)}")
        if len(self.delay_width) not in (1, 2) or self.delay_width[0] < self.delay_width[-1]:
            raise ValueError(
                "delay_width: expected one number, or a first and a last one that is not larger, "
                f"got {list(self.delay_width)}"
            )
        if self.whole_delays and self.delay_width[-1] != 1:
            raise ValueError(f"delay_width: expected to end with 1 with whole_delays, got {list(self.delay_width)}")
        if self.learn_delays and self.whole_delays and self.epochs < 2:
            raise ValueError(
                "epochs: expected at least 2 with learn_delays and whole_delays, because the delays are fixed at the "
                f"end, got {self.epochs}"
            )

    def _check_integer(self) -> None:
        """Raise for a setting that integer neurons do not have."""
        if self.dataset in data.SEQUENTIAL:
            raise ValueError(f"dataset: expected spikes or images for integer neurons, got {self.dataset!r}")
        if self.dataset in data.SOUNDS and not self.threshold:
            raise ValueError("threshold: expected above 0, for spikes of sounds, with integer neurons, got 0.0")
        for name in NOT_INTEGER:
            if getattr(self, name) != SETTINGS[name].default:
                raise ValueError(
                    f"{name}: expected {SETTINGS[name].default!r} with integer neurons, got {getattr(self, name)!r}"
                )
        layers = len(self.hidden_sizes) + 1
        if len(self.weight_bits) not in (1, layers):
            raise ValueError(
                f"weight_bits: expected one number, or one for each of {layers} layers, got {len(self.weight_bits)}"
            )

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TrainingConfig:
        """Build the configuration from the dict of ``dataclasses.asdict``, or from its copy read back from JSON.

        Settings of srcell 0.2.0 get their new names. Missing settings that older versions did not have (``ADDED``) get
        their defaults.

        Raises:
            ValueError: a setting is unknown, missing, of the wrong type or out of range.

        """
        if not isinstance(settings, Mapping):
            raise ValueError(f"settings: expected names and values, got {type(settings).__name__}")
        twice = sorted(old for old, name in BEFORE.items() if {old, name} <= settings.keys())
        if twice:
            raise ValueError(f"settings: expected {BEFORE[twice[0]]} alone, got {twice[0]} beside it")
        settings = {BEFORE.get(name, name): value for name, value in settings.items()}
        names = {field.name for field in dataclasses.fields(cls)}
        differing = sorted((settings.keys() ^ names) - (ADDED - settings.keys()))
        if differing:
            raise ValueError(f"settings: expected those of this srcell, unknown or missing: {', '.join(differing)}")
        try:
            return cls(**settings)
        except TypeError as error:
            raise ValueError(str(error)) from None

    @classmethod
    def preset(cls, name: str, dataset: str, **changes: Any) -> TrainingConfig:
        """Build the configuration of a preset for a data set, with ``changes`` applied.

        "reference" has the constants of the authors' configuration: rate coding of 200 steps with gain 0.25 after 20
        silent steps, no hidden layer, ten neurons per class. The other presets are srcell's own. "best" is for
        accuracy. "fast" is for a validation accuracy of more than 97 % on MNIST within two minutes on two cores. "deep"
        has ten hidden layers of 128 neurons. "integer" has integer neurons, as in hardware, with 44 steps and 4-bit
        weights.

        Raises:
            ValueError: there is no such preset or data set, or a setting is outside its range.

        """
        data.check_name(name, tuple(PRESETS), "preset")
        data.check_name(dataset)
        settings = {"dataset": dataset, **PRESETS[name].get("", {}), **PRESETS[name].get(dataset, {}), **changes}
        return cls(**settings)


TrainingConfig.__init__ = renamed(*BEFORE)(TrainingConfig.__init__)  # type: ignore[method-assign]
SETTINGS = settings_of(TrainingConfig)
TrainingConfig.__doc__ = (TrainingConfig.__doc__ or "").replace(
    "        ATTRIBUTES", "\n".join(documented(TrainingConfig))
)
