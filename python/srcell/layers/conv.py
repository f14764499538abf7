"""``SRCConv2d``: a convolution, then the recurrence."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from typing_extensions import Unpack  # torch needs it too

from .._shared.arguments import check_choice
from .._shared.state import AnyState
from ..events import EventBatch
from ..functional.convolution import METHODS, OF_OPERATOR, Window, conv2d, convolution_of, pair, window_of
from ..functional.layer import State
from ..functional.synapse import currents_of
from ..ops._convolution import Convolution
from .base import Neurons
from .constants import check_size
from .description import changed
from .options import Options, takes_options
from .recorded import Call


class SRCConv2d(Neurons):
    r"""A layer of Spiking Recurrent Cells after a convolution, in the manner of torch.nn.Conv2d.

    The neurons form a map (out_channels, H', W'); those of a channel share all parameters. Events are convolved one by
    one, with the same bits for every instruction set, thread count and batch size. A dense input is, if few of its
    elements are not 0; see ``method``.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the map of neurons.
        kernel_size: size of the kernel, one number or two (height, width), like all sizes here.
        stride: stride of the convolution.
        padding: zeros beyond the edge, as numbers, ``"valid"`` or ``"same"``.
        dilation: dilation of the convolution.
        groups: groups of the convolution.
        input_size: height and width of the maps of an EventBatch; they are square if absent.
        method: ``"auto"``, ``"events"`` or ``"dense"``, as in :func:`srcell.functional.src_conv2d`.
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
    input_size: tuple[int, int] | None = None
    method = "auto"

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
        *,
        input_size: int | tuple[int, int] | None = None,
        method: str = "auto",
        **options: Unpack[Options],
    ) -> None:
        for name, size in (("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups)):
            check_size(name, size, 1)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups: expected a divisor of in_channels and out_channels, got {groups} for {in_channels} and "
                f"{out_channels}"
            )
        window = window_of(kernel_size, stride, padding, dilation, groups)
        check_choice("method", method, METHODS)
        super().__init__(out_channels, {"": (out_channels, in_channels // groups, *window.kernel_size)}, **options)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride, self.padding, self.dilation, self.groups = window
        self.input_size = None if input_size is None else pair("input_size", input_size, 1)
        self.method = method

    def forward(
        self,
        input: Tensor | EventBatch,
        state: State | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        input_grad_at_events: bool = False,
    ) -> tuple[Tensor, AnyState]:
        """Run the layer over a sequence of maps.

        Args:
            input: (T, B, in_channels, H, W), or an EventBatch whose inputs are numbered by channel, row and column.
                Bools and integers are read as spike counts.
            state: three tensors (B, out_channels, H', W'), four if the neurons resonate; the initial state if absent.
            lengths: (B,) integers in [0, T]; must be absent for an EventBatch that has its own.
            input_grad_at_events: as in :meth:`SRC.forward`.

        Returns:
            The spikes, (T, B, out_channels, H', W'), where H' and W' are those of torch.nn.Conv2d, and the state after
            each sample's last step, three or four tensors (B, out_channels, H', W').

        Raises:
            TypeError: an argument of the wrong type or dtype.
            ValueError: a wrong shape or value; the message names the argument.

        """
        window = self.kernel_size, self.stride, self.padding, self.dilation, self.groups
        sizes = convolution_of(input, self.in_channels, self.out_channels, window, self.input_size)
        if isinstance(input, EventBatch):
            lengths = input._lengths_or(lengths)
        weight, layer = self._record("", input, state, lengths, space=(sizes.out_height, sizes.out_width))
        outputs = conv2d(input, weight, layer, sizes, self.method, input_grad_at_events=input_grad_at_events)
        if self.recorder is not None:
            held = None if lengths is None else torch.as_tensor(lengths)
            currents = partial(_currents, input, weight, held, self.method, sizes)
            states = partial(self._states, "", currents, state, held, 2)
            self.recorder("", Call(outputs[0].detach(), states, input))
        return outputs

    def geometry(self, height: int, width: int) -> list[int]:
        """The numbers of an exported convolution over maps of this size.

        They are: channels, height and width of the input; height and width of the map of neurons; stride, rows and
        columns of zeros before the first, and dilation, each vertical and then horizontal. The map is empty where the
        input is smaller than the kernel.
        """
        window = Window(self.kernel_size, self.stride, self.padding, self.dilation, self.groups)
        return [*window.over(self.in_channels, height, width)]

    def extra_repr(self) -> str:
        """The sizes, and the options that differ from the defaults."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        parts += changed(self, {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1})
        parts += changed(self, {"input_size": None, "method": "auto"})
        return ", ".join(filter(None, [*parts, super().extra_repr()]))


def _currents(
    input: Tensor | EventBatch, weight: Tensor, lengths: Tensor | None, method: str, sizes: Convolution
) -> Tensor:
    """The currents of a call, (T, B, O, H', W')."""
    flat = input if isinstance(input, EventBatch) else input.flatten(2)
    made = currents_of(flat, weight, lengths, OF_OPERATOR[method], sizes)
    return made.view(*made.shape[:2], weight.shape[0], sizes.out_height, sizes.out_width)
