"""``SRCConv2d``: a convolution, then the recurrence."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Unpack  # torch needs it too

from .._arguments import require_dense
from .._state import AnyState
from ..functional import src
from ..functional.layer import State, autocasts, without_padding
from ..functional.synapse import as_spikes
from .base import Neurons, over_space
from .constants import check_size
from .description import changed
from .options import Options, takes_options
from .recorded import Call


class SRCConv2d(Neurons):
    r"""A layer of Spiking Recurrent Cells after a convolution, in the manner of torch.nn.Conv2d.

    The neurons form a map (out_channels, H', W'); those of a channel share all parameters. Torch computes the
    convolution, so its bits may depend on the batch and the machine.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the map of neurons.
        kernel_size: size of the kernel, one number or two (height, width), like all sizes here.
        stride: stride of the convolution.
        padding: zeros beyond the edge, as numbers, ``"valid"`` or ``"same"``.
        dilation: dilation of the convolution.
        groups: groups of the convolution.
        **options: the other options of :class:`SRC`, without those of a stack and of recurrent weights; tensors have
            shape (out_channels,).

    Attributes:
        weight: (out_channels, in_channels / groups, \*kernel_size).
        bias: (out_channels,).

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: a wrong size or value, an unknown name, a learnable parameter that has no gradient in this mode.

    Example:
        >>> import torch, srcell
        >>> layer = srcell.SRCConv2d(1, 8, kernel_size=5, stride=2, padding=2)
        >>> spikes, state = layer(torch.rand(50, 4, 1, 28, 28).lt(0.03).float())
        >>> spikes.shape, state.h.shape
        (torch.Size([50, 4, 8, 14, 14]), torch.Size([4, 8, 14, 14]))

    """

    _WEIGHT_NAME, _BIAS_NAME = "weight", "bias"

    @takes_options(Options)
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        **options: Unpack[Options],
    ) -> None:
        for name, size in (("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups)):
            check_size(name, size, 1)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups: expected a divisor of in_channels and out_channels, got {groups} for {in_channels} and "
                f"{out_channels}"
            )
        kernel_size = _pair("kernel_size", kernel_size, 1)
        stride, dilation = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
        if not isinstance(padding, str):
            padding = _pair("padding", padding, 0)
        elif padding not in ("valid", "same"):
            raise ValueError(f"padding: expected 'valid', 'same' or sizes, got {padding!r}")
        elif padding == "same" and stride != (1, 1):
            raise ValueError(f"padding: expected sizes where the stride is not 1, got 'same' with stride {stride}")
        super().__init__(
            out_channels,
            {"": (out_channels, in_channels // groups, *kernel_size)},
            **options,
        )
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def forward(
        self, input: Tensor, state: State | None = None, lengths: Tensor | Sequence[int] | None = None
    ) -> tuple[Tensor, AnyState]:
        """Run the layer over a sequence of maps.

        Args:
            input: (T, B, in_channels, H, W). Bools and integers are read as spike counts.
            state: three tensors (B, out_channels, H', W'), four if the neurons resonate; the initial state if absent.
            lengths: (B,) integers in [0, T], as in :func:`srcell.functional.src`.

        Returns:
            The spikes, (T, B, out_channels, H', W'), where H' and W' are those of torch.nn.Conv2d, and the state after
            each sample's last step, three or four tensors (B, out_channels, H', W').

        Raises:
            TypeError: an argument of the wrong type or dtype.
            ValueError: a wrong shape or value; the message names the argument.

        """
        current = self.current(input, lengths)
        if state is None:
            state = self._initial_state("", input.shape[1], *current.shape[3:])
        outputs = src(
            current,
            over_space(self._bias(""), 2),
            state,
            **self._cell_over_space("", 2),
            surrogate=self.surrogate,
            full_gradient=self.full_gradient,
            lengths=lengths,
        )
        if self.recorder is not None:
            held = current.detach()
            states = partial(self._states, "", lambda: held, state, lengths, 2)
            self.recorder("", Call(outputs[0].detach(), states, input))
        return outputs

    def current(self, input: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Convolve an input, as in ``forward``, to the currents (T, B, out_channels, H', W')."""
        if not isinstance(input, Tensor) or input.dim() != 5 or input.shape[2] != self.in_channels:
            got = tuple(input.shape) if isinstance(input, Tensor) else type(input).__name__
            raise ValueError(f"input: expected a tensor (T, B, {self.in_channels}, H, W), got {got}")
        require_dense("input", input)
        least = [
            1 if pad is None else max(1, dilation * (kernel - 1) + 1 - 2 * pad)
            for kernel, dilation, pad in zip(self.kernel_size, self.dilation, self._pads(), strict=True)
        ]
        if input.shape[3] < least[0] or input.shape[4] < least[1]:
            raise ValueError(
                f"input: expected a height of at least {least[0]} and a width of at least {least[1]}, "
                f"got {tuple(input.shape[3:])}"
            )
        weight = self._weight("")
        input = as_spikes(input, weight.dtype)
        if not input.is_floating_point() or (input.dtype != weight.dtype and not autocasts(input)):
            raise TypeError(f"input: expected {weight.dtype}, as the weight, got {input.dtype}")
        if input.device != weight.device:
            raise ValueError(f"input: expected device {weight.device}, as the weight, got {input.device}")
        input, _ = without_padding(input, lengths)
        maps = F.conv2d(input.flatten(0, 1), weight, None, self.stride, self.padding, self.dilation, self.groups)
        return maps.reshape(*input.shape[:2], *maps.shape[1:])

    def _pads(self) -> tuple[int | None, int | None]:
        """The padding of height and of width; None for "same", which fits any input."""
        if not isinstance(self.padding, str):
            return self.padding
        return (None, None) if self.padding == "same" else (0, 0)

    def geometry(self, height: int, width: int) -> list[int]:
        """The numbers of an exported convolution over maps of this size.

        They are: channels, height and width of the input; height and width of the map of neurons; stride, rows and
        columns of zeros before the first, and dilation, each vertical and then horizontal. The map is empty where the
        input is smaller than the kernel.
        """
        spans = [dilation * (kernel - 1) for kernel, dilation in zip(self.kernel_size, self.dilation, strict=True)]
        # With "same", torch puts the odd one of the zeros after the last row or column.
        zeros = [span if pad is None else 2 * pad for span, pad in zip(spans, self._pads(), strict=True)]
        sizes = zip((height, width), zeros, spans, self.stride, strict=True)
        out = [max((size + zero - span - 1) // stride + 1, 0) for size, zero, span, stride in sizes]
        before = [zero // 2 for zero in zeros]
        return [self.in_channels, height, width, *out, *self.stride, *before, *self.dilation]

    def extra_repr(self) -> str:
        """The sizes, and the options that differ from the defaults."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        parts += changed(self, {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1})
        return ", ".join(filter(None, [*parts, super().extra_repr()]))


def _pair(name: str, size: int | tuple[int, int], least: int) -> tuple[int, int]:
    """A size as (height, width); one number stands for both."""
    sizes = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(sizes) != 2 or not all(isinstance(x, int) and not isinstance(x, bool) and least <= x < 2**63 for x in sizes):
        raise ValueError(f"{name}: expected one or two integers of at least {least}, got {size!r}")
    return sizes
