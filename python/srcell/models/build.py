"""Builds the network that ``NetworkSettings`` describe; an option that is added to a network needs no line here."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

from ..layers import spread, spread_frequencies
from .classifier import Classifier
from .integer import IntegerClassifier
from .networks import SETTINGS, NetworkSettings, SRCClassifier, SRCConvClassifier

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
