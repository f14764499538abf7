"""Builds the network of a configuration, and loads its weights from a file."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from ..data.loader import derived_seed
from ..kernels import info
from ..layers import Standardise
from ..models import Classifier
from .config import TrainingConfig
from .network_settings import build
from .samples import make_encoding

WEIGHTS = 0  # purpose of a derived seed; data/loader.py has others
EXTRA_STATE = "_extra_state"  # torch's suffix for a module's state that is not a tensor


def build_model(
    config: TrainingConfig, input_shape: Sequence[int], num_classes: int, class_names: Sequence[str] = ()
) -> Classifier:
    """Build a run's untrained network for inputs (channels, height, width); torch's global random state is kept.

    The interpolation of its delays has the width of the last epoch.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.seed, WEIGHTS))
        model = build(config, input_shape, num_classes)
        if config.standardise:  # training computes the numbers, or the weights of a file have them
            inputs = math.prod(input_shape)
            model.standardise = Standardise(torch.zeros(inputs), torch.ones(inputs))
    model.config, model.encoder, model.class_names = config, make_encoding(config), tuple(class_names)
    return model


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load the weights of a file into the network; raise as ``check_weights`` does."""
    check_weights(model, weights, source)
    model.load_state_dict(weights)


def described(model: nn.Module) -> list[str]:
    """The versions of srcell and torch, and what the repr of each module and of an encoder says, without addresses."""
    modules = (f"{name or 'model'}: {type(x).__name__}({x.extra_repr()})" for name, x in model.named_modules())
    encoder = f"encoder: {getattr(model, 'encoder', None)!r}"
    lines = (re.sub("0x[0-9a-f]+", "0x", " ".join(line.split())) for line in (*modules, encoder))
    versions = info()
    return [f"srcell {versions['version']}, torch {versions['torch']}", *lines]


def difference(recorded: Any, now: Sequence[str]) -> str:
    """What differs between a recorded description and another one of the same versions; "" if nothing is known to."""
    if not isinstance(recorded, list) or recorded[:1] != now[:1]:  # srcell 0.3 recorded none
        return ""
    pairs = zip_longest(recorded, now, fillvalue="nothing")
    return next((f"{was!s:.300}, got {found:.300}" for was, found in pairs if was != found), "")


def check_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Raise a ValueError unless the weights of a file fit the network.

    The constants, which are stored as ``_extra_state``, must equal those of the network.
    """
    own = model.state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in own.items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != expected:
        name = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))[0]
        raise ValueError(
            f"{source}: weights of another network: expected {expected.get(name, 'nothing')} for {name}, "
            f"got {found.get(name, 'nothing')}"
        )
    for name, tensor in own.items():
        if weights[name].dtype != tensor.dtype:
            raise ValueError(f"{source}: expected {tensor.dtype} for {name}, got {weights[name].dtype}")
    for name, tensor in own.items():
        if name.endswith(EXTRA_STATE) and not torch.equal(weights[name], tensor.to(weights[name].device)):
            raise ValueError(
                f"{source}: weights of another network: expected {tensor.tolist()} for {name}, "
                f"got {weights[name].tolist()}"
            )
