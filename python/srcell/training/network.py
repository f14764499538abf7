"""Builds the network of a configuration, and loads its weights from a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import data
from ..data.loader import derived_seed
from ..layers import spread, spread_frequencies
from ..models import Classifier, IntegerClassifier, SRCClassifier, SRCConvClassifier
from .config import TrainingConfig
from .samples import make_encoding

WEIGHTS = 0  # purpose of a derived seed; data/loader.py has others
EXTRA_STATE = "_extra_state"  # torch's suffix for a module's state that is not a tensor


def build_model(config: TrainingConfig, input_shape: Sequence[int], num_classes: int) -> Classifier:
    """Build a run's untrained network for inputs (channels, height, width); torch's global random state is kept.

    The interpolation of its delays has the width of the last epoch.
    """
    options: dict[str, Any] = {
        "alpha": spread(config.alpha, config.slowest_alpha) if config.slowest_alpha else config.alpha,
        "surrogate": config.surrogate,
        "full_gradient": config.full_gradient,
        "initial_state": config.initial_state,
        "temperature": config.temperature,
        "readout_alpha": config.readout_alpha,
        "dropout": config.dropout,
        "balance_gradients": config.balance_gradients,
    }
    shared = ("initial_state", "temperature", "readout_alpha", "dropout", "balance_gradients")
    model: Classifier
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.seed, WEIGHTS))
        if config.integer:
            bits = config.weight_bits[0] if len(config.weight_bits) == 1 else config.weight_bits
            options = {name: options[name] for name in shared}
            inputs = math.prod(input_shape)
            model = IntegerClassifier(inputs, config.hidden_sizes, num_classes, weight_bits=bits, **options)
        elif config.channels:
            model = SRCConvClassifier(input_shape, config.channels, config.hidden_sizes, num_classes, **options)
        else:
            model = SRCClassifier(
                math.prod(input_shape),
                config.hidden_sizes,
                num_classes,
                zs_hyp=config.zs_hyp,
                omega=spread_frequencies(config.omega, config.highest_omega) if config.highest_omega else config.omega,
                recurrent=config.recurrent,
                input_gain=config.input_gain or None,
                readout=config.readout,
                readout_window=config.readout_window,
                input_delay=config.input_delay,
                taps=config.taps,
                recurrent_delay=config.recurrent_delay,
                learn_delays=config.learn_delays,
                whole_delays=config.whole_delays,
                **options,
            )
    model.set_delay_width(config.delay_width[-1])
    model.config = config
    model.encoder = None if config.dataset in data.RECORDED else make_encoding(config)
    return model


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load the weights of a file into the network.

    The constants, which are stored as ``_extra_state``, must equal those of the network.

    Raises:
        ValueError: the weights belong to another network.

    """
    own = model.state_dict()
    constants = {name: tensor for name, tensor in own.items() if name.endswith(EXTRA_STATE)}
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
