"""``LeakyReadout`` and ``LinearReadout``: turn the spikes of the last layer into logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .._arguments import as_float, describe, require_dense
from ..functional.layer import check_lengths
from ..functional.readout import check_integrators, leaky_readout
from .constants import HasConstants, check_size


class LeakyReadout(HasConstants):
    """Logits from the votes of spiking neurons: :func:`srcell.functional.leaky_readout` divided by a temperature.

    It has no parameters. The default constants are from the configuration that the authors' group published with
    arXiv 2605.10679; the temperature is srcell's.

    Args:
        num_classes: classes, C.
        neurons_per_class: number of neurons that vote for each class; the input has C times as many.
        alpha: leak of the integrators, in [0, 1].
        inhibition: weight with which a vote counts for the other classes.
        temperature: > 0; divides the integrators' values.

    Raises:
        ValueError: a wrong size or value; the message names the argument.

    Example:
        >>> import torch, srcell
        >>> srcell.LeakyReadout(10)(torch.zeros(20, 4, 100)).shape
        torch.Size([4, 10])

    """

    def __init__(
        self,
        num_classes: int,
        neurons_per_class: int = 10,
        alpha: float = 0.99,
        inhibition: float = -0.1,
        temperature: float = 10.0,
    ) -> None:
        super().__init__()
        check_size("num_classes", num_classes, 1)
        check_size("neurons_per_class", neurons_per_class, 1)
        self._set_constants({"alpha": alpha, "inhibition": inhibition, "temperature": temperature})
        self.num_classes, self.neurons_per_class = int(num_classes), int(neurons_per_class)

    def _constants(self) -> dict[str, float | None]:
        return {"alpha": self.alpha, "inhibition": self.inhibition, "temperature": self.temperature}

    def _set_constants(self, constants: Mapping[str, float]) -> None:
        alpha, inhibition = check_integrators(constants["alpha"], constants["inhibition"])
        temperature = as_float("temperature", constants["temperature"])
        if not temperature > 0:
            raise ValueError(f"temperature: expected a value > 0, got {temperature}")
        self.alpha, self.inhibition, self.temperature = alpha, inhibition, temperature

    def forward(self, spikes: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Logits (B, C) of spikes (T, B, C * neurons_per_class)."""
        check_spikes(spikes, self.num_classes * self.neurons_per_class)
        votes = leaky_readout(spikes, self.num_classes, alpha=self.alpha, inhibition=self.inhibition, lengths=lengths)
        return votes / self.temperature

    def extra_repr(self) -> str:
        """All constants."""
        return (
            f"{self.num_classes}, neurons_per_class={self.neurons_per_class}, alpha={self.alpha}, "
            f"inhibition={self.inhibition}, temperature={self.temperature}"
        )


class LinearReadout(HasConstants):
    """Logits as a linear function of each neuron's spikes, summed with a leak over the last steps.

    ``logits = weight @ o + bias``, where ``o[t] = alpha * o[t-1] + s[t]`` at each sample's last step.

    Args:
        in_features: number of neurons, N.
        num_classes: classes, C.
        alpha: leak of the sums, in [0, 1]; 1 is no leak.
        window: number of steps before the end in which spikes count; 0 for all.

    Attributes:
        linear: the ``torch.nn.Linear`` with the weight (C, N) and the bias (C,).

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: a wrong size or value; the message names the argument.

    Source: this project; the leaky sum is :func:`srcell.functional.leaky_readout` of one neuron per class.

    Example:
        >>> import torch
        >>> from srcell.layers import LinearReadout
        >>> readout = LinearReadout(100, 10, window=5)
        >>> early = torch.zeros(20, 4, 100)
        >>> early[:15] = 1
        >>> torch.equal(readout(early), readout(torch.zeros(20, 4, 100)))
        True

    """

    def __init__(self, in_features: int, num_classes: int, alpha: float = 0.99, window: int = 0) -> None:
        super().__init__()
        check_size("in_features", in_features, 1)
        check_size("num_classes", num_classes, 1)
        check_size("window", window, 0)
        self._set_constants({"alpha": alpha, "window": window})
        self.num_classes = num_classes
        self.linear = nn.Linear(in_features, num_classes)

    def _constants(self) -> dict[str, float | None]:
        return {"alpha": self.alpha, "window": float(self.window)}

    def _set_constants(self, constants: Mapping[str, float]) -> None:
        alpha, _ = check_integrators(constants["alpha"], 0.0)
        window = constants["window"]
        if not (window >= 0 and window == int(window)):
            raise ValueError(f"window: expected a whole number of at least 0, got {window}")
        self.alpha, self.window = alpha, int(window)

    def forward(self, spikes: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Logits (B, C) of spikes (T, B, N)."""
        check_spikes(spikes, self.linear.in_features)
        if self.window and lengths is None:
            spikes = spikes[-self.window :]
        elif self.window and lengths is not None:
            lengths = check_lengths(lengths, spikes.shape[1], spikes.device)
            late = torch.arange(len(spikes), device=spikes.device)[:, None] >= lengths - self.window
            spikes = torch.where(late[..., None], spikes, 0)
        sums = leaky_readout(spikes, self.linear.in_features, alpha=self.alpha, inhibition=0.0, lengths=lengths)
        logits: Tensor = self.linear(sums)
        return logits

    def reset_parameters(self) -> None:
        """Draw the weights and biases anew, as ``torch.nn.Linear`` does."""
        self.linear.reset_parameters()

    def extra_repr(self) -> str:
        """The constants."""
        return f"alpha={self.alpha}, window={self.window}"


def check_spikes(spikes: Tensor, neurons: int) -> None:
    """Raise unless spikes are a dense tensor (T, B, neurons)."""
    if not isinstance(spikes, Tensor):
        raise TypeError(f"spikes: expected a tensor, got {describe(spikes)}")
    require_dense("spikes", spikes)
    if spikes.dim() != 3 or spikes.shape[2] != neurons:
        raise ValueError(f"spikes: expected shape (T, B, {neurons}), got {tuple(spikes.shape)}")
