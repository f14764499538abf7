"""``TrainingConfig``: every setting that the weights depend on; each is also a flag of ``srcell train``.

Training, run folders and the command line read it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import data
from .._shared.arguments import check_known
from .._shared.renamed import RENAMED, renamed
from .._shared.settings import (
    as_setting,
    check_needs,
    documented,
    fraction,
    lacking,
    positive_fraction,
    setting,
    settings_of,
    size,
)
from ..data.own import is_own
from .encoding import EncodingSettings
from .network_settings import SETTINGS as OF_NETWORK
from .network_settings import NetworkSettings, check_kind, kind_of, options_of
from .presets import OF_CAMERA, OF_OWN, PRESETS

OWN = "own"  # the data set of a run whose network and samples the caller made

# Settings added since srcell 0.2.0. A new setting must be listed here, or else older run folders cannot be read.
ADDED = frozenset(
    {"amp", "noise", "patience", "place_jitter", "rho", "rs", "size_jitter", "skip_samples", "standardise"}
    | {"learn_time_constants", "skip", "standardise_targets", "time_constant_rate"}
)
# What those did before they were settings, where that differs from their defaults.
UNSAID = {"standardise_targets": False}
UNSAID_OF_OWN = {"time_constant_rate": 1.0}
# Those that had another name in srcell 0.2.0.
BEFORE = {old: RENAMED[old] for old in ("delay", "lateral", "lateral_delay", "recurrent_grad")}


@dataclass(frozen=True, kw_only=True)
class OptimisationSettings:
    """How a configuration trains its network."""

    epochs: int = size(40, "passes over the training samples")
    batch_size: int = size(64, "samples per optimiser step, over all processes")
    learning_rate: float = positive_fraction(4e-2, "learning rate; with one-cycle, its peak", "of Adam", option="--lr")
    schedule: str = setting(
        "one-cycle",
        "learning-rate schedule: one-cycle or constant",
        "one-cycle rises for 30 % of the run, then falls to about 0; constant stays the same",
        choices=("one-cycle", "constant"),
    )
    patience: int = size(
        0,
        "end after this many epochs without a better validation accuracy; 0: never",
        "then, and at the end of all epochs, the weights of the best epoch are kept: of the highest validation "
        "accuracy and, among equals, of the lowest validation loss",
        least=0,
        needs=("validation",),
    )
    weight_decay: float = setting(0.0, "weight decay, as in AdamW", "none for the biases", least=0)
    clip_norm: float = setting(
        0.0,
        "largest norm of the gradients; 0: no clipping",
        "a larger norm is scaled down to it; gradients of delays, and of alpha and omega that have a rate of their "
        "own, are excluded from the norm and not scaled",
        least=0,
    )
    time_constant_rate: float = positive_fraction(
        0.03,
        "learning rate of learnt alpha and omega, as a part of that of the weights",
        "of Adam, as in parameter_groups",
        needs=("learn_time_constants|dataset=own",),
    )
    amp: bool = setting(
        False,
        "mixed precision: torch's matrix products in bfloat16",
        "by torch.autocast in training steps; neurons, sums of events and evaluations stay in float32",
    )
    standardise_targets: bool = setting(
        True,
        "in a regression, learn targets of mean 0 and deviation 1",
        "each value over the training samples; losses of epochs are in units of their variance, and at the end the "
        "network's last linear map takes in mean and deviation, so that it answers in the targets' unit",
    )
    label_smoothing: float = fraction(0.0, "label smoothing, as in torch's cross-entropy")
    rate_penalty: float = setting(
        0.0,
        "weight of the penalty on the rates of hidden layers; 0: none",
        "this times the sum over hidden layers of the mean squared deviation of the neurons' mean outputs from "
        "target_rate is added to the loss",
        least=0,
    )
    target_rate: float = fraction(0.03, "target of the penalty: mean output per neuron and step")
    delay_learning_rate: float = setting(
        0.3,
        "learning rate of the delays, in steps; with one-cycle, its peak",
        "of Adam",
        option="--delay-lr",
        least=0,
        open_least=True,
        needs=("learn_delays",),
    )


@dataclass(frozen=True)
class TrainingConfig(OptimisationSettings, EncodingSettings, NetworkSettings):
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

    dataset: str = setting("digits", "name of a data set, as in srcell.data.load", "or FOLDER/, or FILE.py:FUNCTION")
    train_samples: int = size(
        0, "number of training samples, drawn by the seed; 0: all", "drawn from those not held out", least=0
    )
    skip_samples: int = size(0, "leave out this many training samples, from the first on", least=0)
    validation: float = fraction(
        0.1,
        "fraction of the training samples held out for validation; 0: none",
        "evaluated after each epoch; with 0, nothing is evaluated before the end",
    )
    seed: int = setting(
        0, "seed of all randomness", "weights, validation samples, order of the samples, spikes", least=0
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = as_setting(field.name, getattr(self, field.name), type(field.default))
            object.__setattr__(self, field.name, value)
            field.metadata["setting"].check(field.name, value)
        if self.dataset != OWN:
            data.check_name(self.dataset)
        if self.encoding not in ("rate", "latency", "camera") and not is_own(self.dataset):
            raise ValueError(f"encoding: expected rate, latency or camera for {self.dataset}, got {self.encoding!r}")
        check_kind(self)
        check_needs(dataclasses.asdict(self), NEEDS, DEFAULTS)
        self.check_network()
        if self.learn_delays and self.whole_delays and self.epochs < 2:
            raise ValueError(
                "epochs: expected at least 2 with learn_delays and whole_delays, because the delays are fixed at the "
                f"end, got {self.epochs}"
            )
        if self.patience and self.learn_delays and (self.whole_delays or len({*self.delay_width}) > 1):
            raise ValueError(
                "patience: expected 0 where delays are learnt with whole_delays or a delay_width that falls, because "
                f"the network is another one at the end, got {self.patience}"
            )
        kind = "" if self.dataset == OWN else self.sample_kind(self.dataset)
        if self.standardise and kind != "sequences":
            raise ValueError(f"standardise: expected False for {kind or 'a network of your own'}, got True")
        if self.standardise and self.prefix:
            raise ValueError(
                f"prefix: expected 0 with standardise, because the zeros of silent steps would be standardised too, "
                f"got {self.prefix}"
            )
        if self.integer and kind == "sequences":
            raise ValueError(f"dataset: expected spikes or images for integer neurons, got {self.dataset!r}")
        if self.integer and kind == "sounds" and not self.threshold:
            raise ValueError("threshold: expected above 0, for spikes of sounds, with integer neurons, got 0.0")

    def used(self) -> set[str]:
        """The settings that act on the chosen data set and network."""
        if self.dataset == OWN:
            return {name for name in GROUPS["training"] if lacking(NEEDS[name], dataclasses.asdict(self)) is None}
        found = {*GROUPS["training"], "integer", "channels", *options_of(kind_of(self)), *self.used_by(self.dataset)}
        found -= {"temperature"} if self.readout == "linear" else {"readout_window"}
        return {name for name in found if lacking(NEEDS[name], dataclasses.asdict(self)) is None}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TrainingConfig:
        """Build the configuration from the dict of ``dataclasses.asdict``, or from its copy read back from JSON.

        Settings of srcell 0.2.0 get their new names. Missing settings that older versions did not have (``ADDED``) get
        their defaults, or what those versions did (``UNSAID``).

        Raises:
            ValueError: a setting is unknown, missing, of the wrong type or out of range.

        """
        if not isinstance(settings, Mapping):
            raise ValueError(f"settings: expected names and values, got {type(settings).__name__}")
        twice = sorted(old for old, name in BEFORE.items() if {old, name} <= settings.keys())
        if twice:
            raise ValueError(f"settings: expected {BEFORE[twice[0]]} alone, got {twice[0]} beside it")
        settings = {BEFORE.get(name, name): value for name, value in settings.items()}
        if settings.get("channels") and "zs_hyp" in settings:  # it had no effect in srcell 0.2.0
            settings["zs_hyp"] = SETTINGS["zs_hyp"].default
        names = {field.name for field in dataclasses.fields(cls)}
        differing = sorted(map(str, (settings.keys() ^ names) - (ADDED - settings.keys())))
        if differing:
            raise ValueError(f"settings: expected those of this srcell, unknown or missing: {', '.join(differing)}")
        try:
            of_own = UNSAID_OF_OWN if settings.get("dataset") == OWN else {}
            return cls(**(UNSAID | of_own | settings))
        except TypeError as error:
            raise ValueError(str(error)) from None

    @classmethod
    def preset(cls, name: str, dataset: str, **changes: Any) -> TrainingConfig:
        """Build the configuration of a preset for a data set, with ``changes`` applied.

        A data set of your own is loaded, and has the presets of its kind: images, sequences, events or sounds. If its
        sequences have targets of every step, a linear readout has a skip connection.

        "reference" has the constants of the authors' configuration: rate coding of 200 steps with gain 0.25 after 20
        silent steps, no hidden layer, ten neurons per class. The other presets are srcell's own. "best" is for
        accuracy. "fast" is for a validation accuracy of more than 97 % on MNIST within two minutes on two cores. "deep"
        has ten hidden layers of 128 neurons. "integer" has integer neurons, as in hardware, with 44 steps and 4-bit
        weights.

        Raises:
            ValueError: there is no such preset or data set, or a setting is outside its range.

        """
        check_known(name, tuple(PRESETS), "preset")
        data.check_name(dataset)
        found = [PRESETS[name].get("", {}), PRESETS[name].get(dataset, {})]
        if is_own(dataset):
            kind = data.kind(dataset)
            found.append(OF_OWN[kind] | (PRESETS[name].get(kind, {})))
        if changes.get("encoding") == "camera":
            found.append(OF_CAMERA)
        settings = {name: value for each in (*found, changes) for name, value in each.items()}
        linear = settings.get("readout") == "linear" and not settings.get("channels")
        if linear and is_own(dataset) and kind == "sequences" and data.forecasts(dataset):
            settings = {"skip": True} | settings
        return cls(dataset=dataset, **settings)


TrainingConfig.__init__ = renamed(*BEFORE)(TrainingConfig.__init__)  # type: ignore[method-assign]
SETTINGS = settings_of(TrainingConfig)
NEEDS = {name: x.needs for name, x in SETTINGS.items()}
DEFAULTS = {name: x.default for name, x in SETTINGS.items()}
TrainingConfig.__doc__ = documented(TrainingConfig)
# The settings by what they describe.
GROUPS = {"network": OF_NETWORK, "encoding": settings_of(EncodingSettings)}
GROUPS["training"] = {name: x for name, x in SETTINGS.items() if not any(name in group for group in GROUPS.values())}
