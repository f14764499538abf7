"""What a training run depends on, and the presets.

Training, run folders and the command line read it; it must never know how any of it is done.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from . import data
from .ops._layer import SURROGATES

ENCODINGS = ("rate", "latency")
SCHEDULES = ("one-cycle", "constant")
INITIAL_STATES = ("zeros", "rest")
# Of sizes and numbers of steps, samples and epochs.
LARGEST = 2**31 - 1
# Settings that the first run folders lack.
ADDED = {"alpha", "balance_gradients", "channels", "dropout", "readout_alpha", "train_samples"}


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that the weights depend on: the same configuration gives the same weights.

    Attributes:
        dataset: a name that ``srcell.data.load`` knows.
        channels: output channels of each convolutional layer, as in ``SRCConvClassifier``; empty for none.
        hidden_sizes: neurons of each fully connected hidden layer; empty for none.
        epochs: passes over the training samples.
        batch_size: samples of one optimiser step, of all processes together.
        learning_rate: of Adam; the peak where the schedule is "one-cycle" [O].
        schedule: "one-cycle" (up for 30 % of the run, then down to nothing) or "constant" [O].
        weight_decay: of the weights, decoupled as in AdamW; the biases have none [O].
        clip_norm: gradients of a larger norm are scaled down to it; 0 leaves them [O].
        rate_penalty: what the loss gets for each hidden layer's mean squared deviation of its neurons' mean output
            from ``target_rate``, summed over layers and multiplied by this; 0 is none [O].
        target_rate: mean output of a neuron and step that the penalty pulls to [O].
        dropout: probability that a hidden neuron is silenced for a sample in training, as in ``SRCClassifier`` [O].
        balance_gradients: keep the size of gradients through the layers, as in ``SRCClassifier`` [O].
        label_smoothing: as in ``torch.nn.functional.cross_entropy`` [O].
        train_samples: how many samples to train on, drawn by the seed from what is not kept for validation; 0 is all.
        validation: fraction of the training samples that is kept out of training and looked at after each epoch; with
            0 every sample is trained on and nothing is looked at before the end.
        seed: the source of all randomness: weights, validation samples, order of the samples, spikes.
        encoding: "rate" or "latency", of images; recordings of event cameras need none.
        steps: steps of an encoding, after the silent prefix [A].
        gain: probability that a pixel of 1 fires in a step of rate coding [A].
        prefix: silent steps before the first spike can come [A].
        alpha: what the neurons' integrators keep from step to step [P].
        surrogate: "straight_through" or "relu", as in ``SRC``.
        recurrent_grad: whether gradients follow the recurrence, as in ``SRC``.
        initial_state: "zeros" or "rest", as in ``SRC``.
        temperature: what the readout's integrators are divided by, as in ``LeakyReadout`` [O].
        readout_alpha: what the readout's integrators keep from step to step, as in ``LeakyReadout`` [A]; 1 keeps all.

    NumPy's numbers are taken as well, and lists of sizes; what is kept are Python's numbers and tuples.

    Raises:
        TypeError: a setting is of another type.
        ValueError: a name is unknown or a number is outside its range.

    Example:
        >>> TrainingConfig(epochs=0)
        Traceback (most recent call last):
        ValueError: epochs: expected at least 1, got 0

    """

    dataset: str = "digits"
    channels: tuple[int, ...] = ()
    hidden_sizes: tuple[int, ...] = (128,)
    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 4e-2
    schedule: str = "one-cycle"
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    rate_penalty: float = 0.0
    target_rate: float = 0.03
    dropout: float = 0.0
    balance_gradients: bool = False
    label_smoothing: float = 0.0
    train_samples: int = 0
    validation: float = 0.1
    seed: int = 0
    encoding: str = "rate"
    steps: int = 100
    gain: float = 0.5
    prefix: int = 20
    alpha: float = 0.9
    surrogate: str = "straight_through"
    recurrent_grad: bool = False
    initial_state: str = "zeros"
    temperature: float = 10.0
    readout_alpha: float = 0.99

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = as_setting(field.name, getattr(self, field.name), type(field.default))
            object.__setattr__(self, field.name, value)
        data.check_name(self.dataset)
        data.check_name(self.encoding, ENCODINGS, "encoding")
        data.check_name(self.schedule, SCHEDULES, "schedule")
        data.check_name(self.surrogate, SURROGATES, "surrogate")
        data.check_name(self.initial_state, INITIAL_STATES, "initial state")
        for name, least, most in (
            ("epochs", 1, LARGEST),
            ("batch_size", 1, LARGEST),
            ("train_samples", 0, LARGEST),
            ("steps", 1, LARGEST),
            ("prefix", 0, LARGEST),
            ("seed", 0, math.inf),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
            if getattr(self, name) > most:
                raise ValueError(f"{name}: expected at most {most}, got {getattr(self, name)}")
        for name in ("channels", "hidden_sizes"):
            if any(size < 1 for size in getattr(self, name)):
                raise ValueError(f"{name}: expected at least 1 each, got {list(getattr(self, name))}")
            if any(size > LARGEST for size in getattr(self, name)):
                raise ValueError(f"{name}: expected at most {LARGEST} each, got {list(getattr(self, name))}")
        for name in ("learning_rate", "gain", "alpha", "readout_alpha"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a number in (0, 1], got {getattr(self, name)}")
        if not 0 < self.temperature <= sys.float_info.max:
            raise ValueError(f"temperature: expected a finite number above 0, got {self.temperature}")
        for name in ("validation", "dropout", "label_smoothing", "target_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a number in [0, 1), got {getattr(self, name)}")
        for name in ("weight_decay", "clip_norm", "rate_penalty"):
            if not 0 <= getattr(self, name) <= sys.float_info.max:
                raise ValueError(f"{name}: expected a finite number of at least 0, got {getattr(self, name)}")

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TrainingConfig:
        """The configuration that ``dataclasses.asdict`` turned into those settings, from JSON or not.

        A setting that older versions did not have (``ADDED``) gets its default.

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
        """The configuration of that name for that data set, with changes.

        "reference" keeps to the constants of the authors' configuration [A]: rate coding of 200 steps with gain 0.25
        after 20 silent steps, no hidden layer, ten neurons a class. "best" is ours, for accuracy;
        "fast" is ours, for MNIST above 97 % within two minutes on two cores; so is "deep", ten hidden layers of 128.

        Raises:
            ValueError: there is no such preset or data set.

        """
        data.check_name(name, tuple(PRESETS), "preset")
        data.check_name(dataset)
        settings = {"dataset": dataset, **PRESETS[name].get("", {}), **PRESETS[name].get(dataset, {}), **changes}
        return cls(**settings)


def as_setting(name: str, value: Any, kind: type) -> Any:
    """The value as Python's own of that type: bool, int, float, str, or tuple of ints.

    Raises:
        TypeError: it is of another type.
        ValueError: no float is as large.

    """
    if kind is tuple:
        if not isinstance(value, tuple | list) or not all(is_number(size, Integral) for size in value):
            raise TypeError(f"{name}: expected integers, got {value!r}")
        return tuple(int(size) for size in value)
    if kind in (int, float):
        fits = is_number(value, Integral if kind is int else Real)
    else:
        fits = isinstance(value, (bool, np.bool_) if kind is bool else str)
    if not fits:
        raise TypeError(f"{name}: expected {kind.__name__}, got {value!r}")
    try:
        return kind(value)
    except OverflowError:
        raise ValueError(f"{name}: expected a number that a float holds, got a larger one") from None


def is_number(value: Any, kind: type) -> bool:
    """Whether it is a number of that kind, which a bool is not."""
    return isinstance(value, kind) and not isinstance(value, bool)


_IMAGES_512 = {
    "hidden_sizes": (512,),
    "batch_size": 256,
    "learning_rate": 5e-3,
    "steps": 100,
    "gain": 0.5,
    "temperature": 3.0,
    "dropout": 0.3,
}

# Settings of each preset: of every data set under "", of one under its name. docs/training.md says where
# they come from.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "best": {
        "mnist": {"epochs": 25, **_IMAGES_512},
        "fashion-mnist": {
            "epochs": 35,
            **_IMAGES_512,
            "temperature": 10.0,
            "readout_alpha": 1.0,
            "dropout": 0.15,
        },
        "nmnist": {
            "hidden_sizes": (512,),
            "epochs": 40,
            "batch_size": 32,
            "learning_rate": 5e-3,
            "temperature": 10.0,
            "alpha": 0.97,
            "readout_alpha": 1.0,
            "dropout": 0.7,
        },
    },
    "fast": {
        "": {"epochs": 6, "batch_size": 256, "learning_rate": 1e-2, "temperature": 3.0},
    },
    "deep": {
        "": {
            "hidden_sizes": (128,) * 10,
            "epochs": 24,
            "batch_size": 256,
            "learning_rate": 1.2e-2,
            "steps": 100,
            "gain": 0.5,
            "temperature": 6.0,
            "readout_alpha": 1.0,
            "balance_gradients": True,
        },
    },
    "reference": {
        "": {"hidden_sizes": (), "epochs": 16, "batch_size": 256, "learning_rate": 1e-2, "steps": 200, "gain": 0.25},
    },
}
