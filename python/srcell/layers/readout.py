"""``LeakyReadout``: turns the spikes of the last layer into logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from .._arguments import as_float, describe, require_dense
from ..functional.readout import check_integrators, leaky_readout
from .constants import HasConstants, check_size


class LeakyReadout(HasConstants):
    """Logits from the votes of spiking neurons: :func:`srcell.functional.leaky_readout` divided by a temperature.

    It has no parameters. The default constants are those of the configuration that the authors' group published with
    arXiv 2605.10679; the temperature is srcell's.

    Args:
        num_classes: classes, C.
        neurons_per_class: number of neurons that vote for each class; the input has C times as many.
        alpha: leak of the integrators, in [0, 1].
        inhibition: weight of a vote on the other classes.
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
        self.num_classes, self.neurons_per_class = num_classes, neurons_per_class

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
        neurons = self.num_classes * self.neurons_per_class
        if not isinstance(spikes, Tensor):
            raise TypeError(f"spikes: expected a tensor, got {describe(spikes)}")
        require_dense("spikes", spikes)
        if spikes.dim() != 3 or spikes.shape[2] != neurons:
            raise ValueError(f"spikes: expected shape (T, B, {neurons}), got {tuple(spikes.shape)}")
        votes = leaky_readout(spikes, self.num_classes, alpha=self.alpha, inhibition=self.inhibition, lengths=lengths)
        return votes / self.temperature

    def extra_repr(self) -> str:
        """All constants."""
        return (
            f"{self.num_classes}, neurons_per_class={self.neurons_per_class}, alpha={self.alpha}, "
            f"inhibition={self.inhibition}, temperature={self.temperature}"
        )
