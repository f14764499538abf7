"""``Classifier``, the networks' base class: a stack of SRC layers with a readout; ``BalancedGradients``.

A network stores its encoder and its configuration as attributes for callers, but must never depend on how its input was
encoded, how it is trained, or how its layers compute.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._shared.arguments import as_float, as_int, check_bool, describe
from ..events import EventBatch
from ..functional.readout import scale_neurons
from ..functional.terms import MOST_DELAY
from ..layers import SRC, Delay, IntegerSRC, LeakyReadout, LinearReadout, SRCConv2d, Standardise
from ..layers.constants import check_size
from ..layers.description import changed
from ..layers.export import export
from ..layers.init import VOTING_WEIGHT_SCALE, draw_relays, draw_weights

if TYPE_CHECKING:
    from ..data.encodings import Encoding

AnyLayer = SRC | SRCConv2d | IntegerSRC

READOUTS = ("votes", "linear")
CLIP = 2.0  # bound on a balanced gradient's elements, in units of the sample's root mean square


class Classifier(nn.Module):
    """Base class of the networks: a stack of SRC layers, and a readout from the last one.

    Args:
        input_shape: (K,), or channels, height and width.
        layers: the layers, first to last.
        readout: turns the spikes of the last layer into logits.
        dropout: in training, the probability that a hidden neuron is silenced for a whole sample; the outputs of the
            others are divided by 1 - dropout.
        balance_gradients: in training, keep the size of gradients through the layers; see ``BalancedGradients``.
        delay: delays of the network's inputs; the first layer then has inputs times taps inputs.
        standardise: standardises the network's inputs, before their delays.

    Attributes:
        input_shape: as given.
        layers: the layers, first to last.
        readout: turns the spikes of the last layer into logits.
        delay: delays of the network's inputs, or None.
        standardise: standardises the network's inputs, or None.
        shared_batch: (size, first, step) if processes share a batch of that size and this process has the samples
            first, first + step, ... Dropout then draws for the whole batch, so that a sample loses the same neurons
            whichever process has it. None if no processes share batches.
        encoder: turns images into the network's input, ``encoder(images, index=None, seed=0)``, as
            ``srcell.data.RateEncoding`` does. Set by ``srcell.load`` and by training; None for recordings of events.
        class_names: the names of the classes, by label, which ``export`` writes; empty if the labels name themselves.
            Set by ``srcell.load`` and by training.
        config: the configuration that the network was trained with. Set by ``srcell.load`` and by training.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: a probability outside its range, or balanced gradients with the relu surrogate.

    """

    shared_batch: tuple[int, int, int] | None = None
    encoder: Encoding | None = None
    class_names: tuple[str, ...] = ()
    config: Any = None

    def __init__(
        self,
        input_shape: Sequence[int],
        layers: Iterable[AnyLayer],
        readout: LeakyReadout | LinearReadout,
        dropout: float = 0.0,
        balance_gradients: bool = False,
        delay: Delay | None = None,
        standardise: Standardise | None = None,
    ) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        if not 0 <= as_float("dropout", dropout) < 1:
            raise ValueError(f"dropout: expected a probability in [0, 1), got {dropout}")
        check_bool("balance_gradients", balance_gradients)
        if standardise is not None:
            check_standardise(standardise, self.input_shape)
        self.standardise = standardise
        self.layers, self.readout, self.delay = nn.ModuleList(layers), readout, delay
        self.dropout, self.balance_gradients = dropout, balance_gradients
        if balance_gradients and any(has_relu(layer) for layer in self.src_layers()):
            raise ValueError("balance_gradients: expected False with the surrogate 'relu', whose gradients do not grow")
        self.reset_parameters()

    def extra_repr(self) -> str:
        """The options that differ from the defaults."""
        return ", ".join(changed(self, {"dropout": 0.0, "balance_gradients": False}))

    def reset_parameters(self) -> None:
        """Draw all weights and the delays of the inputs anew, and reset everything else to its initial value."""
        votes = isinstance(self.readout, LeakyReadout)
        for k, layer in enumerate(self.src_layers()):
            layer.reset_parameters()
            weight = cast(Tensor, layer.weight if isinstance(layer, SRCConv2d) else layer.weight_ih_l0)
            if k and votes and k == len(self.layers) - 1:
                draw_weights(weight, VOTING_WEIGHT_SCALE)
            elif k:
                draw_relays(weight)
        if isinstance(self.readout, LinearReadout):
            self.readout.reset_parameters()
        if self.delay is not None:
            self.delay.reset_parameters()

    def forward(self, input: Tensor | EventBatch, lengths: Tensor | None = None, *, every_step: bool = False) -> Tensor:
        """The logits of each sample after its last step, or at every step.

        Args:
            input: (T, B, K), dense or an ``EventBatch``.
            lengths: (B,) int64 in [0, T], number of steps of each sample, T for all by default; must be absent if the
                input is an EventBatch with its own lengths.
            every_step: return the logits at every step; past a sample's length they are 0.

        Returns:
            (B, C) logits, ready for ``cross_entropy``; at every step (T, B, C).

        Raises:
            ValueError, TypeError: as ``SRC`` does.

        """
        return self.read_out(self.layer_spikes(input, lengths)[-1], input, lengths, every_step)

    def read_out(
        self, spikes: Tensor, input: Tensor | EventBatch, lengths: Tensor | None = None, every_step: bool = False
    ) -> Tensor:
        """The logits of the last layer's spikes of an input, with ``lengths`` as in ``forward``.

        A linear readout reads hidden neurons, which dropout silences.
        """
        passed: dict[str, Any] = {}
        if isinstance(self.readout, LinearReadout):
            spikes = self._thinned(spikes)
            if self.readout.skip is not None:
                passed["input"] = input if self.standardise is None else self.standardise(input, lengths)
        lengths = sample_lengths(input, lengths)
        logits: Tensor = self.readout(spikes, lengths=lengths, every_step=every_step, **passed)
        return logits

    export = export  # net.export(path) writes a file that srcell.runtime and libsrcell run

    def constrain_(self) -> None:
        """Project all parameters into their domains; training calls it after each optimiser step."""
        for layer in self.src_layers():
            layer.constrain_()
        if self.delay is not None:
            self.delay.constrain_()

    @property
    def delays(self) -> dict[int, Tensor]:
        """The delays in steps: (K, taps) of the inputs under 0, (N,) or () of layer k's recurrent weights under k.

        A part of the network without delays is absent.
        """
        of_input = {} if self.delay is None else {0: self.delay.delay}
        return of_input | {k: cast(Tensor, layer.delay_hh_l0) for k, layer in self._delayed_layers().items()}

    def set_delay_width(self, width: SupportsIndex) -> None:
        """Set the half-width, in steps, of the interpolation of all delays, as ``delay_width`` of :func:`srcell.delay`.

        Raises:
            TypeError: not an integer.
            ValueError: a width outside [1, 65535].

        """
        width = as_int("width", width, MOST_DELAY, minimum=1)
        if self.delay is not None:
            self.delay.delay_width = width
        for layer in self._delayed_layers().values():
            layer.delay_width = width

    @torch.no_grad()
    def round_delays_(self) -> None:
        """Round all delays to whole steps, in place, and fix them: they require no gradient, and their width is 1."""
        self.set_delay_width(1)
        for delay in self.delays.values():
            delay.round_().requires_grad_(False)

    def _delayed_layers(self) -> dict[int, SRC]:
        """The layers whose recurrent weights have delays, by number."""
        layers = enumerate(self.src_layers(), start=1)
        return {k: layer for k, layer in layers if isinstance(layer, SRC) and layer.delayed}

    def layer_spikes(
        self, input: Tensor | EventBatch, lengths: Tensor | None = None, *, binary: bool = False
    ) -> list[Tensor]:
        """The output of every layer, first to last: (T, B, N), or (T, B, C, H, W) of a convolutional one.

        Args:
            input: as in ``forward``.
            lengths: as in ``forward``.
            binary: every layer passes on 1 where s > 0.5 and 0 elsewhere. This has no gradient: use it for inference
                only.

        """
        later_lengths = sample_lengths(input, lengths)
        if self.standardise is not None:
            input = self.standardise(input, lengths)
            lengths = None if isinstance(input, EventBatch) else lengths  # events have them
        if self.delay is not None:
            of_input = None if isinstance(input, EventBatch) else lengths
            input, _ = self.delay(input, lengths=of_input, return_state=False)
        outputs: list[Tensor] = []
        for k, layer in enumerate(self.src_layers()):
            if k == 0:
                spikes = self._first_spikes(input, lengths)
            elif isinstance(layer, IntegerSRC):
                spikes, _ = layer(self._thinned(outputs[-1]), lengths=later_lengths)
            else:
                below = self._thinned(outputs[-1])
                below = below if isinstance(layer, SRCConv2d) else below.flatten(2)
                at_events = has_relu(self.src_layers()[k - 1])
                spikes, _ = layer(below, lengths=later_lengths, input_grad_at_events=at_events)
            outputs.append((spikes > 0.5).to(spikes.dtype) if binary else spikes)
        if self.training and self.balance_gradients and outputs[-1].requires_grad:
            BalancedGradients(outputs, later_lengths)
        return outputs

    def _thinned(self, spikes: Tensor) -> Tensor:
        """A layer's output after dropout."""
        if not (self.training and self.dropout):
            return spikes
        total, first, step = self.shared_batch or (spikes.shape[1], 0, 1)
        share = len(range(first, total, step))
        if spikes.shape[1] != share:
            raise ValueError(
                f"input: expected {share} samples, this process's share of shared_batch {self.shared_batch}, "
                f"got {spikes.shape[1]}"
            )
        kept = self._scaled_mask(spikes.new_ones(total, *spikes.shape[2:]))
        return scale_neurons(spikes, kept[first::step])

    def _scaled_mask(self, ones: Tensor) -> Tensor:
        """The factor of each neuron's output in dropout."""
        return F.dropout(ones, self.dropout)

    def _first_spikes(self, input: Tensor | EventBatch, lengths: Tensor | None) -> Tensor:
        spikes: Tensor = self.layers[0](input, lengths=lengths)[0]
        return spikes

    def src_layers(self) -> list[AnyLayer]:
        """The layers, first to last."""
        return cast("list[AnyLayer]", list(self.layers))

    def export_parts(self) -> list[nn.Module]:
        """The modules that compute the same one after another, for :func:`srcell.export`."""
        maps = [nn.Unflatten(2, self.input_shape)] if len(self.input_shape) == 3 else []
        return [x for x in (*maps, self.standardise, self.delay, *self.src_layers(), self.readout) if x is not None]

    @torch.no_grad()
    def fan_outs(self) -> list[Tensor]:
        """Count the outgoing weights of each input and neuron, including recurrent ones.

        In a convolution, elements at the edges of a map have fewer outgoing weights than those in the middle. Each tap
        of a delayed input counts as one arrival, although a delay that is not whole lets a spike arrive at two steps.

        Returns:
            int64 tensors: (K,) for the inputs, then one per layer in the shape of its neurons. The outgoing weights of
            the last layer are those of the readout.

        """
        found: list[Tensor] = []
        shape = self.input_shape
        for layer in self.src_layers():
            if not isinstance(layer, SRCConv2d):
                found.append(torch.full(shape, layer.hidden_size))
                shape = (layer.hidden_size,)
            else:
                # With weights of 1, the gradient of the summed outputs counts the weights of each input.
                with torch.inference_mode(False), torch.enable_grad():
                    below = torch.zeros(1, *shape, requires_grad=True)
                    weight = torch.ones(cast(Tensor, layer.weight).shape)
                    above = F.conv2d(below, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
                    (ways,) = torch.autograd.grad(above.sum(), below)
                found.append(ways[0].round().long())
                shape = tuple(above.shape[1:])
        if self.delay is not None:
            found[0] *= self.delay.taps
        if isinstance(self.readout, LinearReadout) and self.readout.skip is not None:
            found[0] += self.readout.num_classes
        found.append(torch.full(shape, self.readout.num_classes))
        for ways, layer in zip(found[1:], self.src_layers(), strict=True):
            if isinstance(layer, SRC) and layer.recurrent:
                ways += layer.hidden_size
        return [found[0].flatten(), *found[1:]]


class BalancedGradients:
    """Keeps gradients from growing, and from concentrating in a few elements, in the backward through many layers.

    Through ten layers gradients grow by a factor of a million, and a tenth of the samples carries half of the gradient.
    So the gradient of each hidden layer's output is scaled, sample by sample, to the root mean square of the gradient
    at the last layer. Its elements are then clipped to twice that root mean square. The result is not a derivative of
    the loss, but training in its direction works. The gradient of a rate penalty is scaled and clipped along with the
    rest. Not for use with ``torch.compile``.

    Args:
        outputs: the outputs of all layers, (T, B, ...) each; their gradients change from now on.
        lengths: (B,), number of steps of each sample; T for all by default.

    Example:
        >>> import torch
        >>> below = torch.ones(4, 1, 2, requires_grad=True)
        >>> outputs = [below * 1, below * torch.tensor([3.0, 4.0])]
        >>> _ = BalancedGradients(outputs)
        >>> (outputs[1].sum() + 9 * outputs[0].sum()).backward()
        >>> below.grad[0]  # 1 * 3 and 1 * 4 from above, 1 instead of 9 from below
        tensor([[4., 5.]])

    """

    def __init__(self, outputs: Sequence[Tensor], lengths: Tensor | None = None) -> None:
        self._steps = None if lengths is None else lengths.clamp(min=1)
        self._target: Tensor | None = None
        outputs[-1].register_hook(self._measure)
        for output in outputs[:-1]:
            if output.requires_grad:
                output.register_hook(self._balance)

    def _measure(self, grad: Tensor) -> None:
        self._target = self._size(grad)

    def _balance(self, grad: Tensor) -> Tensor:
        if self._target is None:  # the loss does not depend on the last layer
            return grad
        size = self._size(grad)
        factor = torch.where(size > 0, self._target / size, 0)
        shape = (-1, *[1] * (grad.dim() - 2))
        bound = (CLIP * self._target).to(grad.dtype).view(shape)
        return (grad * factor.to(grad.dtype).view(shape)).clamp(min=-bound, max=bound)

    def _size(self, grad: Tensor) -> Tensor:
        """(B,) root mean square over the neurons and the steps of each sample up to its length."""
        work = torch.promote_types(grad.dtype, torch.float32)
        square = grad.flatten(2).to(work).square().mean((0, 2))
        if self._steps is not None:
            square = square * (grad.shape[0] / self._steps.to(work))
        return square.sqrt()


def has_relu(layer: AnyLayer) -> bool:
    """Whether a layer's spikes have the relu surrogate."""
    return not isinstance(layer, IntegerSRC) and layer.surrogate == "relu"


def as_sizes(name: str, sizes: Sequence[int] | int) -> list[int]:
    """Return the sizes of layers as a list; an int stands for one layer. The layers check the values."""
    if isinstance(sizes, numbers.Integral):
        return [int(sizes)]
    try:
        return list(cast("Sequence[int]", sizes))
    except TypeError:
        raise TypeError(f"{name}: expected an int or a list of ints, got {describe(sizes)}") from None


def check_readout(num_classes: int, neurons_per_class: int, readout_alpha: float) -> None:
    """Raise for arguments of the readout, by the names that the networks give them."""
    check_size("num_classes", num_classes, 1)
    check_size("neurons_per_class", neurons_per_class, 1)
    if not 0 <= as_float("readout_alpha", readout_alpha) <= 1:
        raise ValueError(f"readout_alpha: expected a value in [0, 1], got {readout_alpha}")


def check_standardise(standardise: Standardise, input_shape: Sequence[int]) -> None:
    """Raise unless a module standardises inputs (T, B, ...) of that shape."""
    if not isinstance(standardise, Standardise):
        raise TypeError(f"standardise: expected a Standardise or None, got {describe(standardise)}")
    shape = tuple(standardise.mean.shape)
    if shape != tuple(input_shape):
        raise ValueError(f"standardise: expected a mean of shape {tuple(input_shape)}, got {shape}")
    if standardise.batch_first:
        raise ValueError("standardise: expected batch_first=False, because networks take (T, B, ...), got True")


def sample_lengths(input: Tensor | EventBatch, lengths: Tensor | None) -> Tensor | None:
    """The lengths (B,) of an EventBatch that has them, otherwise the given ``lengths``."""
    if isinstance(input, EventBatch) and input.lengths is not None:
        return input.lengths
    return lengths
