"""``Sequential`` and ``SpikesOnly``: layers one after another, in srcell's ``Sequential`` or torch's."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

from .._shared.arguments import describe
from ..events import EventBatch
from .conv import SRCConv2d
from .delays import Delay
from .integer import IntegerSRC
from .readout import LinearReadout
from .src import SRC
from .standardise import Standardise

LAYERS = (SRC, IntegerSRC, SRCConv2d, Delay)
Lengths: TypeAlias = Tensor | Sequence[int] | None
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


class SpikesOnly(nn.Module):
    """A layer that starts anew in every call and returns only its spikes, so that ``torch.nn.Sequential`` takes it.

    Spikes alone do not tell the lengths of samples. So without ``lengths`` an ``EventBatch`` that has lengths is
    rejected: in ``torch.nn.Sequential`` the layers behind and the readout would go on to the last step. For samples of
    different lengths use :class:`srcell.Sequential`, which needs no ``SpikesOnly``. A ``Delay`` returns an
    ``EventBatch``, which keeps its lengths.

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
        if not isinstance(layer, LAYERS):
            raise TypeError(f"layer: expected an SRC, IntegerSRC, SRCConv2d or Delay, got {describe(layer)}")
        self.layer = layer

    def forward(self, input: Tensor | EventBatch, lengths: Lengths = None) -> Tensor | EventBatch:
        """The spikes of a call of the layer.

        Args:
            input: as the layer takes it.
            lengths: (B,) integers in [0, T], number of steps of each sample; T for all if absent. For an EventBatch
                that has lengths, this very tensor, ``input.lengths``, as a sign that the caller passes it on.

        Returns:
            (T, B, N), (B, T, N) with ``batch_first``, or (T, B, C, H, W) of ``SRCConv2d``; of a ``Delay`` the delayed
            input, an EventBatch for an EventBatch.

        Raises:
            TypeError: as the layer does.
            ValueError: as the layer does; or an EventBatch has lengths, and ``lengths`` are absent or others.

        """
        if isinstance(input, EventBatch) and input.lengths is not None:
            if lengths is None and not isinstance(self.layer, Delay):
                raise ValueError(
                    "input: expected an EventBatch without lengths, because spikes alone do not keep them, got one "
                    "with lengths: use srcell.Sequential, which passes them on, instead of torch.nn.Sequential"
                )
            if lengths is not None and lengths is not input.lengths:
                raise ValueError("lengths: expected input.lengths for an EventBatch that has lengths, got others")
        return spikes_of(self.layer, input, lengths)


class Sequential(nn.Sequential):
    """``torch.nn.Sequential`` for layers: it passes on the lengths of samples, and only the spikes of a layer.

    Each layer starts anew in every call and returns its spikes without its state, as in ``SpikesOnly``, which may be
    around it but need not. Every layer, delay and readout computes up to the length of each sample, so that nothing
    past it has an influence. Modules that compute each step on its own, such as ``nn.Linear``, dropout and
    ``nn.Flatten(2)``, are called as in ``torch.nn.Sequential``, on all steps; before the first layer, the steps past a
    sample's length must hold finite numbers for them. Modules that mix steps or samples, such as a normalisation over
    the batch, do not know the lengths.

    A ``LinearReadout`` with a skip connection gets the input of the ``Sequential`` that it is in, behind a
    ``Standardise``.

    The lengths are those that a call is given, or those of an ``EventBatch``: the input, or the output of a module. A
    module whose ``forward`` has an argument ``lengths`` gets them there, or None if its input is an EventBatch that has
    lengths itself. A ``torch.nn.Sequential`` without hooks among the modules passes the lengths on too.

    Args:
        *args: modules, or an ``OrderedDict`` of them, as for ``torch.nn.Sequential``.

    Source: the interface is that of ``torch.nn.Sequential``; slices, sums and multiples are of this class.

    Example:
        >>> import torch, srcell
        >>> net = srcell.Sequential(srcell.SRC(64, 32), torch.nn.Dropout(0.1), srcell.LinearReadout(32, 10))
        >>> net(torch.ones(50, 4, 64), lengths=[50, 30, 8, 0]).shape
        torch.Size([4, 10])
        >>> events = srcell.EventBatch.from_dense(torch.ones(50, 4, 64), torch.tensor([50, 30, 8, 0]))
        >>> net(events).shape
        torch.Size([4, 10])

    """

    def forward(self, input: Any, lengths: Lengths = None) -> Any:
        """Call the modules one after another.

        Args:
            input: what the first module takes: (T, B, K), (B, T, K) if the layers have ``batch_first``, or an
                EventBatch.
            lengths: (B,) integers in [0, T], number of steps of each sample; T for all if absent. Must be absent for an
                EventBatch that has its own.

        Returns:
            What the last module returns; of a layer its spikes.

        Raises:
            TypeError: as the modules do; or there are lengths, and a module has layers inside, but its ``forward`` has
                no argument ``lengths``.
            ValueError: as the modules do; or ``lengths`` beside an EventBatch that has lengths.

        """
        if isinstance(input, EventBatch):
            lengths = input._lengths_or(lengths)
        given = input
        for place, module in enumerate(self):
            if isinstance(input, EventBatch) and input.lengths is not None:
                lengths = input.lengths
            if isinstance(module, LinearReadout) and module.skip is not None:
                input = module(input, lengths=lengths, input=given)
                continue
            input = _output_of(place, module, input, lengths)
            given = input if isinstance(module, Standardise) else given
        return input

    def __add__(self, other: nn.Sequential) -> Sequential:
        return Sequential(*super().__add__(other))

    def __radd__(self, other: nn.Sequential) -> Sequential:
        return Sequential(*nn.Sequential.__add__(other, self))

    def __mul__(self, other: int) -> Sequential:
        return Sequential(*super().__mul__(other))


def spikes_of(layer: SRC | IntegerSRC | SRCConv2d | Delay, input: Any, lengths: Lengths) -> Tensor | EventBatch:
    """The output of a layer without its state; ``lengths`` may be those of the input itself."""
    events = isinstance(input, EventBatch)
    if isinstance(input, EventBatch) and input.lengths is not None:
        lengths = None
    if isinstance(layer, Delay):
        delayed: Tensor | EventBatch = layer(input, lengths=lengths, return_state=False)[0]
        return delayed
    spikes: Tensor = layer(input, lengths=lengths)[0]
    # A layer answers an EventBatch with (T, B, N), but what follows a layer with batch_first takes (B, T, N).
    return spikes.transpose(0, 1) if events and getattr(layer, "batch_first", False) else spikes


def _output_of(place: int, module: nn.Module, input: Any, lengths: Lengths) -> Any:
    """The output of a module of a ``Sequential``."""
    if isinstance(module, LAYERS):
        return spikes_of(module, input, lengths)
    if lengths is None:
        return module(input)
    if isinstance(input, EventBatch) and input.lengths is not None and not isinstance(module, SpikesOnly):
        lengths = None  # the input has them
    if _takes_lengths(module):
        return module(input, lengths=lengths)
    if type(module).forward is nn.Sequential.forward and not any(getattr(module, hooks) for hooks in HOOKS):
        return Sequential.forward(module, input, lengths)  # type: ignore[arg-type]
    if any(_takes_lengths(inner) for inner in module.modules()):
        raise TypeError(
            f"module {place} ({type(module).__name__}): expected a forward with an argument lengths, because layers "
            "inside it must know the lengths of samples, got one without: add it, or use srcell.Sequential"
        )
    return module(input)


def _takes_lengths(module: nn.Module) -> bool:
    return "lengths" in inspect.signature(module.forward).parameters
