"""``LeakyReadout`` and ``LinearReadout``: turn spikes of the last layer into logits, at the end or at every step.

A ``LinearReadout`` may have a skip connection: a linear map of the network's input at the step of the logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._shared.arguments import as_float, check_bool, describe, require_floats
from ..events import EventBatch
from ..functional.layer import autocasts, check_lengths, in_work_dtype
from ..functional.readout import check_integrators, discounted_sum, leaky_readout, leaky_sums, projected, votes
from ..ops._memory import zero_padding
from ..ops._table import HALF, device_error, shape_error
from .constants import HasConstants, check_size


class _Readout(HasConstants):
    """What the readouts share: spikes are projected to classes and summed with a leak, at the end or at every step."""

    alpha: float
    window = 0
    batch_first = every_step = False

    def _set_options(self, batch_first: bool, every_step: bool) -> None:
        check_bool("batch_first", batch_first)
        check_bool("every_step", every_step)
        self.batch_first, self.every_step = batch_first, every_step

    def forward(
        self,
        spikes: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        input: Tensor | EventBatch | None = None,
        every_step: bool | None = None,
        state: Tensor | None = None,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The logits of each sample after its last step, or at every step.

        Args:
            spikes: (T, B, N), or (B, T, N) with ``batch_first``.
            lengths: (B,) integers in [0, T], number of steps of each sample; T for all if absent.
            input: of a readout with a skip connection, the network's input: (T, B, K), (B, T, K) with ``batch_first``,
                or an ``EventBatch``. None of other readouts.
            every_step: return the logits at every step, by default as the module was made to. Each has the window that
                ends there. At a sample's last step they equal those without ``every_step`` except for rounding; past
                its length they are 0, without bias. Beside the spikes this needs memory for a few tensors (T, B, C).
            state: with ``every_step``, the state that the call on the steps before returned; None if there are none.
            return_state: with ``every_step``, whether to return the state as well: (B, C) without a window, and
                (window - 1, B, C) with one. A sample past its length keeps its state.

        Returns:
            (B, C), or at every step (T, B, C), (B, T, C) with ``batch_first``; with ``return_state`` a pair of these
            logits and the state. In half precision they are computed in float32 and rounded at the end, unless there
            are float32 weights; under autocast they are float32 at every step. The state is float32.

        Raises:
            TypeError: an argument of the wrong type or dtype.
            ValueError: a wrong shape or value; the message names the argument.

        """
        every_step = self.every_step if every_step is None else every_step
        require_floats("spikes", spikes)
        if spikes.dim() != 3 or spikes.shape[2] != self._neurons:
            first = "B, T" if self.batch_first else "T, B"
            raise shape_error("spikes", f"({first}, {self._neurons})", spikes.shape)
        check_streaming(every_step, state, return_state)
        spikes = spikes.transpose(0, 1) if self.batch_first else spikes
        dtype = self._dtype_of(spikes)
        if isinstance(input, EventBatch):
            lengths = input._lengths_or(lengths)
        checked: Tensor | None = None
        if lengths is not None and (every_step or input is not None):
            lengths = checked = check_lengths(lengths, spikes.shape[1], spikes.device, spikes.shape[0])
        passed = self._passed(input, spikes, checked, every_step)
        if not every_step:
            logits = self._at_the_end(spikes, lengths)
            return rounded(logits if passed is None else logits + passed, dtype)
        spikes = in_work_dtype(spikes)
        sums, state = leaky_sums(
            self._projected(spikes, checked),
            self.alpha,
            window=self.window,
            lengths=checked,
            state=state,
            return_state=return_state,
        )
        logits = self._logits(sums, checked)
        logits = rounded(logits if passed is None else logits + passed, dtype)
        logits = logits.transpose(0, 1) if self.batch_first else logits
        return logits if state is None else (logits, state)

    def _passed(
        self, input: Tensor | EventBatch | None, spikes: Tensor, lengths: Tensor | None, every_step: bool
    ) -> Tensor | None:
        """What the skip connection adds to the logits: (T, B, C), or (B, C) at the end; 0 past the lengths."""
        if input is not None:
            raise ValueError(f"input: expected None for a readout without a skip connection, got {describe(input)}")
        return None

    def _option_repr(self) -> str:
        return "".join(f", {name}=True" for name in ("batch_first", "every_step") if getattr(self, name))

    @property
    def _neurons(self) -> int:
        raise NotImplementedError

    def _dtype_of(self, spikes: Tensor) -> torch.dtype:
        """The dtype of the logits of these spikes, without autocast."""
        return spikes.dtype

    def _at_the_end(self, spikes: Tensor, lengths: Tensor | Sequence[int] | None) -> Tensor:
        """The logits after each sample's last step, of checked spikes."""
        raise NotImplementedError

    def _projected(self, spikes: Tensor, lengths: Tensor | None) -> Tensor:
        """The summands (T, B, C) of spikes (T, B, N), 0 past the lengths."""
        raise NotImplementedError

    def _logits(self, sums: Tensor, lengths: Tensor | None) -> Tensor:
        """The logits of sums (T, B, C), 0 past the lengths, as the sums are."""
        raise NotImplementedError


def rounded(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """The logits in this dtype; unchanged under autocast, which chooses the dtype."""
    return logits if autocasts(logits) else logits.to(dtype)


class LeakyReadout(_Readout):
    """Logits from the votes of spiking neurons: :func:`srcell.functional.leaky_readout` divided by a temperature.

    It has no parameters. The default constants are from the configuration that the authors' group published with
    arXiv 2605.10679; the temperature is srcell's.

    Args:
        num_classes: classes, C.
        neurons_per_class: number of neurons that vote for each class; the input has C times as many.
        alpha: leak of the integrators, in [0, 1].
        inhibition: weight with which a vote counts for the other classes.
        temperature: > 0; divides the integrators' values.
        batch_first: spikes are (B, T, N), and logits at every step (B, T, C).
        every_step: return the logits at every step unless a call says otherwise.

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
        *,
        batch_first: bool = False,
        every_step: bool = False,
    ) -> None:
        super().__init__()
        self._set_options(batch_first, every_step)
        check_size("num_classes", num_classes, 1)
        check_size("neurons_per_class", neurons_per_class, 1)
        self._set_constants({"alpha": alpha, "inhibition": inhibition, "temperature": temperature})
        self.num_classes, self.neurons_per_class = int(num_classes), int(neurons_per_class)

    def _constants(self) -> dict[str, float | None]:
        return {"alpha": self.alpha, "inhibition": self.inhibition, "temperature": self.temperature}

    def _set_constants(self, constants: Mapping[str, float]) -> None:
        alpha, inhibition = check_integrators(constants["alpha"], constants["inhibition"])
        self.alpha, self.inhibition = alpha, inhibition
        self.temperature = as_float("temperature", constants["temperature"])
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected a value > 0, got {self.temperature}")

    @property
    def _neurons(self) -> int:
        return self.num_classes * self.neurons_per_class

    def _at_the_end(self, spikes: Tensor, lengths: Tensor | Sequence[int] | None) -> Tensor:
        sums = leaky_readout(spikes, self.num_classes, alpha=self.alpha, inhibition=self.inhibition, lengths=lengths)
        return sums / self.temperature

    def _projected(self, spikes: Tensor, lengths: Tensor | None) -> Tensor:
        voted = votes(spikes, self.num_classes, self.inhibition)
        return voted if lengths is None else zero_padding(voted, lengths)

    def _logits(self, sums: Tensor, lengths: Tensor | None) -> Tensor:
        return sums / self.temperature

    def extra_repr(self) -> str:
        """All constants."""
        return (
            f"{self.num_classes}, neurons_per_class={self.neurons_per_class}, alpha={self.alpha}, "
            f"inhibition={self.inhibition}, temperature={self.temperature}{self._option_repr()}"
        )


class LinearReadout(_Readout):
    """Logits, or other outputs, as a linear function of each neuron's spikes, summed with a leak over the last steps.

    ``logits = weight @ o + bias``, where ``o[t] = alpha * o[t-1] + s[t]`` at each sample's last step, or at every step.

    Args:
        in_features: number of neurons, N.
        num_classes: classes, C; in a regression, the number of outputs.
        alpha: leak of the sums, in [0, 1]; 1 is no leak, and with 0 only the spikes of the step itself count.
        window: number of last steps whose spikes count, up to the step of the logits; 0 for all.
        batch_first: spikes are (B, T, N), and logits at every step (B, T, C).
        every_step: return the logits at every step unless a call says otherwise.
        skip: number of inputs of the network, K, of a skip connection: ``skip.weight @ x[t]`` is added to the logits,
            with the network's input x at the step of the logits, which every call is then given. 0: none. For
            forecasts, whose next value is close to a linear function of the current one.

    Attributes:
        linear: the ``torch.nn.Linear`` with the weight (C, N) and the bias (C,).
        skip: the ``torch.nn.Linear`` of the skip connection, whose weight (C, K) starts at 0; or None.

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
        >>> readout(early, every_step=True).shape
        torch.Size([20, 4, 10])

    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        alpha: float = 0.99,
        window: int = 0,
        *,
        batch_first: bool = False,
        every_step: bool = False,
        skip: int = 0,
    ) -> None:
        super().__init__()
        self._set_options(batch_first, every_step)
        check_size("skip", skip, 0)
        check_size("in_features", in_features, 1)
        check_size("num_classes", num_classes, 1)
        check_size("window", window, 0)
        self._set_constants({"alpha": alpha, "window": window})
        self.num_classes = num_classes
        self.linear = nn.Linear(in_features, num_classes)
        self.skip = nn.Linear(skip, num_classes, bias=False) if skip else None
        self._begin_without_skip()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if "skip" not in self._modules:  # pickled by srcell 0.3
            self.skip = None

    def _constants(self) -> dict[str, float | None]:
        return {"alpha": self.alpha, "window": float(self.window)}

    def _set_constants(self, constants: Mapping[str, float]) -> None:
        alpha, _ = check_integrators(constants["alpha"], 0.0)
        window = constants["window"]
        if not (window >= 0 and float(window).is_integer()):
            raise ValueError(f"window: expected a whole number of at least 0, got {window}")
        self.alpha, self.window = alpha, int(window)

    @property
    def _neurons(self) -> int:
        return self.linear.in_features

    def _dtype_of(self, spikes: Tensor) -> torch.dtype:
        weight = getattr(self.linear, "weight", None)  # of a quantised linear, a method
        return torch.promote_types(spikes.dtype, weight.dtype if isinstance(weight, Tensor) else torch.float32)

    @property
    def _in_half(self) -> bool:
        """Whether the weights are half-precision numbers of a plain ``torch.nn.Linear``."""
        return type(self.linear) is nn.Linear and self.linear.weight.dtype in HALF

    def _projected(self, spikes: Tensor, lengths: Tensor | None) -> Tensor:
        return projected(spikes, in_work_dtype(self.linear.weight), lengths)

    def _logits(self, sums: Tensor, lengths: Tensor | None) -> Tensor:
        logits = sums + self.linear.bias
        return logits if lengths is None else zero_padding(logits, lengths)

    def _at_the_end(self, spikes: Tensor, lengths: Tensor | Sequence[int] | None) -> Tensor:
        pooled = discounted_sum(spikes, self.alpha, lengths, self.window)
        if self._in_half and not autocasts(pooled):
            return F.linear(pooled, in_work_dtype(self.linear.weight), in_work_dtype(self.linear.bias))
        logits: Tensor = self.linear(pooled)
        return logits

    def _passed(
        self, input: Tensor | EventBatch | None, spikes: Tensor, lengths: Tensor | None, every_step: bool
    ) -> Tensor | None:
        if self.skip is None:
            return super()._passed(input, spikes, lengths, every_step)
        (steps, batch), inputs = spikes.shape[:2], self.skip.in_features
        if isinstance(input, EventBatch):
            x = input.to_dense(torch.float32 if input.values is None else input.values.dtype)
        elif isinstance(input, Tensor) and input.is_floating_point():
            x = input.transpose(0, 1) if self.batch_first and input.dim() == 3 else input
        else:
            expected = f"the network's input, (T, B, {inputs}), for the skip connection"
            raise TypeError(f"input: expected {expected}, got {describe(input)}")
        if x.shape != (steps, batch, inputs):
            sizes = (batch, steps) if self.batch_first and isinstance(input, Tensor) else (steps, batch)
            raise shape_error("input", str((*sizes, inputs)), input.shape)
        if x.device != spikes.device:
            raise device_error("input", f"{spikes.device}, as spikes has", x)
        if every_step:
            return self._through(x if lengths is None else zero_padding(x, lengths))
        if not steps:
            return None
        if lengths is None:
            return self._through(x[-1])
        last = (lengths - 1).clamp(min=0)[None, :, None].expand(1, batch, inputs)
        return self._through(torch.where((lengths > 0)[:, None], x.gather(0, last)[0], 0.0))

    def _through(self, x: Tensor) -> Tensor:
        """The map of the skip connection."""
        assert self.skip is not None
        weight: Any = self.skip.weight
        if not isinstance(weight, Tensor):  # of a quantised linear, a method
            made: Tensor = self.skip(x.float())
            return made
        weight = in_work_dtype(weight)
        return F.linear(x.to(weight.dtype), weight)

    def reset_parameters(self) -> None:
        """Draw the weights and biases anew, as ``torch.nn.Linear`` does; those of the skip connection are 0."""
        self.linear.reset_parameters()
        self._begin_without_skip()

    def _begin_without_skip(self) -> None:
        if self.skip is not None:
            nn.init.zeros_(self.skip.weight)

    def extra_repr(self) -> str:
        """The constants."""
        skip = "" if self.skip is None else f", skip={self.skip.in_features}"
        return f"alpha={self.alpha}, window={self.window}{skip}{self._option_repr()}"


def check_streaming(every_step: bool, state: Tensor | None, return_state: bool) -> None:
    """Raise unless the options are bools, and the state is used only at every step."""
    check_bool("every_step", every_step)
    check_bool("return_state", return_state)
    if state is not None and not every_step:
        raise ValueError("state: expected None without every_step=True, got a state")
    if return_state and not every_step:
        raise ValueError("return_state: expected False without every_step=True, got True")
