"""``TrainingConfig``: every setting that the weights depend on; each is also a flag of ``srcell train``.

Training, run folders and the command line read it; it must never know how the settings are used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import data
from ..functional.integer import MOST_BITS
from ..layers.options import INITIAL_STATES
from ..models import READOUTS
from ..ops._layer import SURROGATES
from .presets import PRESETS
from .settings import as_setting, documented, fraction, positive, setting, settings_of, size

# Settings added since the first version. A new setting must be listed here: otherwise older run folders are refused.
ADDED = {
    "alpha",
    "balance_gradients",
    "channels",
    "delay",
    "dropout",
    "hold",
    "integer",
    "lateral",
    "readout",
    "readout_alpha",
    "readout_window",
    "slowest_alpha",
    "thinned",
    "train_samples",
    "weight_bits",
    "zs_hyp",
}


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that the weights depend on: the same configuration gives the same weights.

    Attributes:
        ATTRIBUTES

    docs/training.md says which values are those of the paper, of the configuration that the authors' group published,
    or srcell's own.

    NumPy's numbers and lists of sizes are accepted, and stored as Python's numbers and tuples.

    Raises:
        TypeError: a setting is of the wrong type.
        ValueError: a name is unknown or a number is outside its range.

    Example:
        >>> TrainingConfig(epochs=0)
        Traceback (most recent call last):
        ValueError: epochs: expected at least 1, got 0

    """

    dataset: str = setting("digits", "a name that srcell.data.load knows", choices=data.NAMES, noun="data set")
    channels: tuple[int, ...] = size(
        (),
        "output channels of each convolutional layer, 5 x 5 with stride 2",
        "as in SRCConvClassifier; empty for none",
    )
    hidden_sizes: tuple[int, ...] = size(
        (128,), "neurons of each fully connected hidden layer", "empty for none", option="--hidden"
    )
    epochs: int = size(40, "passes over the training samples")
    batch_size: int = size(64, "samples of an optimiser step, of all processes together")
    learning_rate: float = positive(4e-2, "learning rate, the peak of a one-cycle schedule", "of Adam", option="--lr")
    schedule: str = setting(
        "one-cycle",
        "one-cycle or constant",
        "rising for 30 % of the run, then falling to about 0, or the same throughout",
        choices=("one-cycle", "constant"),
    )
    weight_decay: float = setting(0.0, "decay of the weights, as in AdamW", "the biases have none", least=0)
    clip_norm: float = setting(
        0.0, "largest norm of the gradients; 0: any", "those of a larger norm are scaled down to it", least=0
    )
    rate_penalty: float = setting(
        0.0,
        "pull of hidden layers to the target rate; 0: none",
        "the loss gains this times the sum over hidden layers of the mean squared deviation of the neurons' mean "
        "outputs from target_rate",
        least=0,
    )
    target_rate: float = fraction(0.03, "mean output of a neuron and step that the penalty pulls to")
    dropout: float = fraction(
        0.0, "probability that a hidden neuron is silenced for a sample in training", "as in SRCClassifier"
    )
    balance_gradients: bool = setting(False, "keep the size of gradients through many layers", "as in SRCClassifier")
    label_smoothing: float = fraction(0.0, "as in torch's cross-entropy")
    train_samples: int = size(
        0, "samples to train on, drawn by the seed; 0: all", "from what is not kept for validation", least=0
    )
    validation: float = fraction(
        0.1,
        "fraction of the training samples kept for validation; 0: none",
        "evaluated after each epoch; without any, nothing is evaluated before the end",
    )
    seed: int = setting(
        0, "source of all randomness", "weights, validation samples, order of the samples, spikes", least=0
    )
    encoding: str = setting(
        "rate", "rate or latency, of images", "recordings of event cameras need none", choices=("rate", "latency")
    )
    steps: int = size(100, "steps of an encoding", "after the silent prefix")
    hold: int = size(4, "steps for which an element of a sequence is held")
    delay: int = size(200, "steps of noise between symbol and cue, of delayed recall", least=0)
    gain: float = positive(0.5, "firing probability of a full pixel in a step of rate coding")
    thinned: bool = setting(False, "let no pixel fire at two steps in a row", "of rate coding, as in rate_encode")
    prefix: int = size(20, "silent steps before a sample", least=0)
    integer: bool = setting(False, "train integer neurons, as hardware has them", "as in IntegerClassifier")
    weight_bits: tuple[int, ...] = setting(
        (4,), "bits of the integers' weights", "of all layers, or one number for each", least=2, most=MOST_BITS
    )
    alpha: float = positive(0.9, "what the neurons' integrators keep from step to step")
    slowest_alpha: float = fraction(
        0.0,
        "alpha of a layer's slowest neuron; 0: all have the same",
        "those in between are spread from alpha to it, as srcell.spread does",
    )
    zs_hyp: float = fraction(0.9, "what the slow state of a resting neuron keeps from step to step", "as in SRC")
    lateral: bool = setting(False, "let the neurons of each hidden layer hear each other", "as in SRC")
    surrogate: str = setting("straight_through", "straight_through or relu", "as in SRC", choices=SURROGATES)
    recurrent_grad: bool = setting(False, "let gradients follow the recurrence", "as in SRC")
    initial_state: str = setting("zeros", "zeros or rest", "as in SRC", choices=INITIAL_STATES)
    readout: str = setting(
        "votes",
        "votes or linear",
        "of ten further neurons for each class, or of the last hidden layer",
        choices=READOUTS,
    )
    readout_window: int = size(0, "last steps that a linear readout reads; 0: all", "as in LinearReadout", least=0)
    temperature: float = setting(
        10.0,
        "what the votes' integrators are divided by",
        "as in LeakyReadout",
        least=0,
        open_least=True,
    )
    readout_alpha: float = positive(
        0.99, "what the readout's integrators keep from step to step", "as in LeakyReadout; 1 keeps all"
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = as_setting(field.name, getattr(self, field.name), type(field.default))
            object.__setattr__(self, field.name, value)
            field.metadata["setting"].check(field.name, value)
        if self.slowest_alpha and not self.alpha <= self.slowest_alpha:
            raise ValueError(f"slowest_alpha: expected 0 or at least alpha, {self.alpha}, got {self.slowest_alpha}")
        if self.channels and (self.lateral or self.readout != "votes" or self.slowest_alpha):
            raise ValueError(
                "channels: expected none with lateral, slowest_alpha or a linear readout, "
                f"got {', '.join(map(str, self.channels))}"
            )
        if self.integer:
            self._check_integer()
        elif self.weight_bits != SETTINGS["weight_bits"].default:
            raise ValueError(f"weight_bits: expected none without integer neurons, got {self.weight_bits}")
        if self.thinned and self.encoding != "rate":
            raise ValueError("thinned: expected False with latency coding, got True")
        if self.readout == "linear" and not self.hidden_sizes:
            raise ValueError("hidden_sizes: expected at least one with a linear readout, got none")
        if self.readout != "linear" and self.readout_window:
            raise ValueError(f"readout_window: expected 0 with readout 'votes', got {self.readout_window}")

    def _check_integer(self) -> None:
        """Raise for a setting that integer neurons do not have."""
        if self.dataset in data.SEQUENTIAL:
            raise ValueError(f"dataset: expected one of spikes for integer neurons, got {self.dataset!r}")
        fixed = ("channels", "alpha", "slowest_alpha", "zs_hyp", "lateral", "surrogate", "recurrent_grad", "readout")
        for name in fixed:
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
        """The configuration of settings that ``dataclasses.asdict`` made, directly or read back from JSON.

        A missing setting that older versions did not have (``ADDED``) gets its default.

        Raises:
            ValueError: a setting is unknown, missing, of the wrong type or outside its range.

        """
        if not isinstance(settings, Mapping):
            raise ValueError(f"settings: expected names and values, got {type(settings).__name__}")
        names = {field.name for field in dataclasses.fields(cls)}
        differing = sorted((settings.keys() ^ names) - (ADDED - settings.keys()))
        if differing:
            raise ValueError(f"settings: expected those of this version of srcell, got others: {', '.join(differing)}")
        try:
            return cls(**settings)
        except TypeError as error:
            raise ValueError(str(error)) from None

    @classmethod
    def preset(cls, name: str, dataset: str, **changes: Any) -> TrainingConfig:
        """The configuration of a preset for a data set, with changes.

        "reference" has the constants of the authors' configuration: rate coding of 200 steps with gain 0.25 after 20
        silent steps, no hidden layer, ten neurons per class. The others are srcell's own: "best" for accuracy; "fast"
        for more than 97 % on MNIST within two minutes on two cores; "deep" with ten hidden layers of 128 neurons;
        "integer" for neurons of integers as hardware has them, in 44 steps and with weights of 4 bits.

        Raises:
            ValueError: there is no such preset or data set, or a setting is outside its range.

        """
        data.check_name(name, tuple(PRESETS), "preset")
        data.check_name(dataset)
        settings = {"dataset": dataset, **PRESETS[name].get("", {}), **PRESETS[name].get(dataset, {}), **changes}
        return cls(**settings)


SETTINGS = settings_of(TrainingConfig)
TrainingConfig.__doc__ = (TrainingConfig.__doc__ or "").replace(
    "        ATTRIBUTES", "\n".join(documented(TrainingConfig))
)
