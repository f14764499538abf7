"""The network of a configuration, and its weights from a file."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import data
from ..data.loader import derived_seed
from ..models import Classifier, SRCClassifier, SRCConvClassifier
from .config import TrainingConfig
from .samples import make_encoding

WEIGHTS = 0  # what a derived seed is for, beside those of the loader
EXTRA_STATE = "_extra_state"  # of torch: the end of the name under which a module keeps what is no parameter


def build_model(config: TrainingConfig, input_shape: Sequence[int], num_classes: int) -> Classifier:
    """The untrained network of a run, for inputs of (channels, height, width); torch's global random state is kept."""
    options: dict[str, Any] = {
        "alpha": config.alpha,
        "surrogate": config.surrogate,
        "recurrent_grad": config.recurrent_grad,
        "initial_state": config.initial_state,
        "temperature": config.temperature,
        "readout_alpha": config.readout_alpha,
        "dropout": config.dropout,
        "balance_gradients": config.balance_gradients,
    }
    model: Classifier
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.seed, WEIGHTS))
        if config.channels:
            model = SRCConvClassifier(input_shape, config.channels, config.hidden_sizes, num_classes, **options)
        else:
            model = SRCClassifier(math.prod(input_shape), config.hidden_sizes, num_classes, **options)
    model.config = config
    model.encoder = None if config.dataset in data.RECORDED else make_encoding(config)
    return model


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Put the weights of a file into the network.

    A file of srcell 0.1 does not have the cells' constants, which later ones keep as ``_extra_state``: those of the
    network stay, and a warning says so. A file that has them must have the network's.

    Raises:
        ValueError: they are those of another network.

    """
    own = model.state_dict()
    constants = {name: tensor for name, tensor in own.items() if name.endswith(EXTRA_STATE)}
    if constants and not any(name.endswith(EXTRA_STATE) for name in weights):
        warnings.warn(
            f"{source}: of srcell 0.1, without the cells' constants: those of the run's configuration are used",
            stacklevel=2,
        )
        weights = weights | constants
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
    for name, tensor in constants.items():
        if not torch.equal(weights[name], tensor.to(weights[name].device)):
            raise ValueError(
                f"{source}: weights of another network: expected {tensor.tolist()} for {name}, "
                f"got {weights[name].tolist()}"
            )
    model.load_state_dict(weights)
