"""Initial weights; docs/initialisation.md derives the numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .._shared.arguments import as_positive

FIRST_WEIGHT_SCALE = 3.0  # standard deviation times sqrt(K), for a first layer
VOTING_WEIGHT_SCALE = 6.0  # the same, for a voting layer behind other layers
LATERAL_WEIGHT_SCALE = 1.0  # the same with N for K, for the recurrent weights of any layer
RELAY_WEIGHT, RELAY_NOISE = 3.0, 0.5  # between hidden layers; see draw_relays()
# A bound of a first layer's weights with gain 1: 3 standard deviations, times 2.3 for an alpha of 0, times the largest
# normal number of torch, below 9.
LARGEST_WEIGHT = 100.0


def as_gain(name: str, gain: float, float_max: float) -> float:
    """Return a factor of a first layer's initial weights as a float; raise unless the weights stay finite.

    ``float_max`` is the largest number of their dtype.
    """
    number, most = as_positive(name, gain), float_max / LARGEST_WEIGHT
    if number > most:
        raise ValueError(f"{name}: expected at most {most:.3g}, so that the weights are finite, got {gain!r}")
    return number


@torch.no_grad()
def draw_weights(weight: Tensor, scale: float) -> None:
    """Draw weights (N, ...) anew from N(0, (scale / sqrt(K))^2), where K is the number of inputs of a neuron."""
    if weight.numel():
        nn.init.normal_(weight, std=scale / weight[0].numel() ** 0.5)


@torch.no_grad()
def draw_relays(weight: Tensor) -> None:
    """Draw weights (N, K), or (N, K, height, width), so that each neuron passes on the spikes of one input.

    All weights are drawn from N(0, (RELAY_NOISE / sqrt(K))^2), and RELAY_WEIGHT is added to the weight of that input,
    in a kernel to its middle. If N and K differ, there are max(N, K) such weights: neurons share inputs, or pass on
    several.
    """
    draw_weights(weight, RELAY_NOISE)
    neurons, inputs, *kernel = weight.shape
    if weight.numel():
        n = torch.arange(max(neurons, inputs), device=weight.device)
        relays: tuple[Any, ...] = (n % neurons, n % inputs, *(size // 2 for size in kernel))
        weight[relays] += RELAY_WEIGHT
