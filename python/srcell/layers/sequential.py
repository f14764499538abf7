"""``SpikesOnly``: a layer without its state, for ``torch.nn.Sequential``."""

from __future__ import annotations

from torch import Tensor, nn

from .._arguments import describe
from ..events import EventBatch
from .conv import SRCConv2d
from .delays import Delay
from .integer import IntegerSRC
from .src import SRC


class SpikesOnly(nn.Module):
    """A layer that starts anew in every call and returns only its spikes, so that ``torch.nn.Sequential`` takes it.

    Only the first layer knows the samples' lengths, if its input is an EventBatch that has them: the layers behind it
    and a readout see silence up to T.

    Args:
        layer: an ``SRC``, ``IntegerSRC``, ``SRCConv2d`` or ``Delay``; the names of its parameters get the prefix
            ``layer.``.

    Raises:
        TypeError: ``layer`` is another module.

    Example:
        >>> import torch, srcell
        >>> from srcell import SRC, LeakyReadout, SpikesOnly
        >>> net = torch.nn.Sequential(SpikesOnly(SRC(64, 32)), SpikesOnly(SRC(32, 100)), LeakyReadout(10))
        >>> net(torch.ones(50, 4, 64)).shape
        torch.Size([4, 10])

    """

    def __init__(self, layer: SRC | IntegerSRC | SRCConv2d | Delay) -> None:
        super().__init__()
        if not isinstance(layer, SRC | IntegerSRC | SRCConv2d | Delay):
            raise TypeError(f"layer: expected an SRC, IntegerSRC, SRCConv2d or Delay, got {describe(layer)}")
        self.layer = layer

    def forward(self, input: Tensor | EventBatch) -> Tensor | EventBatch:
        """The spikes: (T, B, N), (B, T, N) with ``batch_first``, or (T, B, C, H, W) of ``SRCConv2d``; of a ``Delay``
        the delayed input, an EventBatch for an EventBatch.
        """
        if isinstance(self.layer, Delay):
            delayed: Tensor | EventBatch = self.layer(input, return_state=False)[0]
            return delayed
        spikes: Tensor = self.layer(input)[0]
        return spikes
