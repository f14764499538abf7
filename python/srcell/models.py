"""``SRCClassifier`` and ``SRCConvClassifier``: whole networks with a readout.

Training and users build them. A network stores its encoder and its configuration as attributes for callers, but must
never depend on how its input was encoded, how it is trained, or how its layers compute.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._arguments import check_choice
from .events import EventBatch
from .export import export
from .functional.readout import scale_neurons
from .layers import SRC, LeakyReadout, LinearReadout, SRCConv2d
from .layers.init import VOTING_WEIGHT_SCALE, draw_relays, draw_weights
from .layers.options import Spread

if TYPE_CHECKING:
    from .data.encodings import Encoding

AnyLayer = SRC | SRCConv2d

READOUTS = ("votes", "linear")
CLIP = 2.0  # bound on a balanced gradient's elements, in root mean squares of their sample


class Classifier(nn.Module):
    """Base class of the networks: a stack of SRC layers, and a readout from the last one.

    Args:
        input_shape: (K,), or channels, height and width.
        layers: first to last.
        readout: what turns the spikes of the last layer into logits.
        dropout: in training, the probability that a hidden neuron is silenced for a whole sample; the outputs of the
        others are divided by 1 - dropout.
        balance_gradients: in training, keep the size of gradients through the layers; see ``BalancedGradients``.

    Attributes:
        input_shape: as given.
        layers: the layers, first to last.
        readout: what turns the spikes of the last layer into logits.
        shared_batch: (size, first, step) if processes share a batch of that size and this one has the samples first,
            first + step, ... Dropout then draws for the whole batch, so that a sample loses the same neurons in
            whichever process it is. None otherwise.
        encoder: turns images into the network's input, ``encoder(images, index=None, seed=0)``, as
            ``srcell.data.RateEncoding`` does. Set by ``srcell.load`` and by training; None for recordings of events.
        config: the configuration that the network was trained with. Set by ``srcell.load`` and by training.

    Raises:
        ValueError: a probability outside its range, or balanced gradients with the relu surrogate.

    """

    shared_batch: tuple[int, int, int] | None = None
    encoder: Encoding | None = None
    config: Any = None

    def __init__(
        self,
        input_shape: Sequence[int],
        layers: Iterable[AnyLayer],
        readout: LeakyReadout | LinearReadout,
        dropout: float = 0.0,
        balance_gradients: bool = False,
    ) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: expected a probability in [0, 1), got {dropout}")
        self.layers, self.readout = nn.ModuleList(layers), readout
        self.dropout, self.balance_gradients = dropout, balance_gradients
        if balance_gradients and any(layer.surrogate == "relu" for layer in self.src_layers()):
            raise ValueError("balance_gradients: expected False with the surrogate 'relu', whose gradients do not grow")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew and reset the biases."""
        votes = isinstance(self.readout, LeakyReadout)
        for k, layer in enumerate(self.src_layers()):
            layer.reset_parameters()
            weight = cast(Tensor, layer.weight_ih_l0 if isinstance(layer, SRC) else layer.weight)
            if k and votes and k == len(self.layers) - 1:
                draw_weights(weight, VOTING_WEIGHT_SCALE)
            elif k:
                draw_relays(weight)
        if isinstance(self.readout, LinearReadout):
            self.readout.reset_parameters()

    def forward(self, input: Tensor | EventBatch, lengths: Tensor | None = None) -> Tensor:
        """The logits of each sample after its last step.

        Args:
            input: (T, B, K), dense or an ``EventBatch``.
            lengths: (B,) int64 in [0, T], number of steps of each sample, T for all by default; must be absent if the
                input is an EventBatch with its own.

        Returns:
            (B, C) logits, ready for ``cross_entropy``.

        Raises:
            ValueError, TypeError: as ``SRC`` does.

        """
        logits: Tensor = self.readout(self.layer_spikes(input, lengths)[-1], lengths=sample_lengths(input, lengths))
        return logits

    export = export  # net.export(path) writes a file that srcell.runtime and libsrcell run

    def constrain_(self) -> None:
        """Project every layer's parameters into their domains; training calls it after each optimiser step."""
        for layer in self.src_layers():
            layer.constrain_()

    def layer_spikes(
        self, input: Tensor | EventBatch, lengths: Tensor | None = None, *, binary: bool = False
    ) -> list[Tensor]:
        """The output of every layer, first to last: (T, B, N), or (T, B, C, H, W) of a convolutional one.

        Args:
            input: as in ``forward``.
            lengths: as in ``forward``.
            binary: every layer passes on 1 where s > 0.5 and 0 elsewhere; for inference only, as that has no gradient.

        """
        later_lengths = sample_lengths(input, lengths)
        outputs: list[Tensor] = []
        for k, layer in enumerate(self.src_layers()):
            if k == 0:
                spikes = self._first_spikes(input, lengths)
            elif isinstance(layer, SRCConv2d):
                spikes, _ = layer(self._thinned(outputs[-1]), lengths=later_lengths)
            else:
                below = self._thinned(outputs[-1]).flatten(2)
                at_events = self.src_layers()[k - 1].surrogate == "relu"
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
        kept = F.dropout(spikes.new_ones(total, *spikes.shape[2:]), self.dropout)
        return scale_neurons(spikes, kept[first::step])

    def _first_spikes(self, input: Tensor | EventBatch, lengths: Tensor | None) -> Tensor:
        spikes: Tensor = self.layers[0](input, lengths=lengths)[0]
        return spikes

    def src_layers(self) -> list[AnyLayer]:
        """The layers, first to last."""
        return cast("list[AnyLayer]", list(self.layers))

    @torch.no_grad()
    def fan_outs(self) -> list[Tensor]:
        """Number of outgoing weights of each input and neuron, lateral ones included; smaller at the edges of a map
        than in its middle.

        Returns:
            int64 tensors: (K,) for the inputs, then one per layer in the shape of its neurons. The weights of the last
            layer's neurons are the readout's.

        """
        found: list[Tensor] = []
        shape = self.input_shape
        for layer in self.src_layers():
            if isinstance(layer, SRC):
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
        found.append(torch.full(shape, self.readout.num_classes))
        for ways, layer in zip(found[1:], self.src_layers(), strict=True):
            if isinstance(layer, SRC) and layer.lateral:
                ways += layer.hidden_size - (not layer.autapses)
        return [found[0].flatten(), *found[1:]]


class SRCClassifier(Classifier):
    """A stack of SRC layers that ends in class votes, or in a linear readout.

    With votes, after the hidden layers come an SRC layer of ``neurons_per_class * num_classes`` neurons and a
    ``LeakyReadout``, as in the configuration that the authors' group published with arXiv 2605.10679. Otherwise a
    ``LinearReadout`` reads the last hidden layer.
    The first layer and those between hidden ones start as in ``SRC``, the voting one from N(0, (6 / sqrt(K))^2).

    Args:
        input_size: number of inputs, K.
        hidden_sizes: neurons of each hidden layer; empty for none.
        num_classes: classes C.
        neurons_per_class: number of neurons of the voting layer for each class.
        alpha: leak of the neurons' input integrators, as in ``SRC``: a number or ``srcell.spread``.
        zs_hyp: slowness of hs at rest, as in ``SRC``.
        lateral: the neurons of each hidden layer hear each other, as in ``SRC``.
        surrogate: "straight_through" or "relu", as in ``SRC``.
        recurrent_grad: whether gradients flow through the recurrence, as in ``SRC``.
        initial_state: "zeros" or "rest", as in ``SRC``.
        readout: "votes" or "linear".
        temperature: as in ``LeakyReadout``.
        readout_alpha: the ``alpha`` of the readout.
        readout_window: the ``window`` of the linear readout.
        dropout: in training, the probability that a hidden neuron is silenced for a whole sample, in [0, 1).
        balance_gradients: in training, keep the size of gradients through the layers; see ``BalancedGradients``.

    Raises:
        ValueError: a size or an option is not one that ``SRC`` or the readout accepts, or a linear readout has no
            hidden layer to read.

    Example:
        >>> import torch
        >>> model = SRCClassifier(64, [32], num_classes=10)
        >>> model(torch.ones(50, 2, 64)).shape
        torch.Size([2, 10])
        >>> [spikes.shape for spikes in model.layer_spikes(torch.ones(50, 2, 64))]
        [torch.Size([50, 2, 32]), torch.Size([50, 2, 100])]

    """

    def __init__(
        self,
        input_size: int,
        hidden_sizes: Sequence[int],
        num_classes: int,
        *,
        neurons_per_class: int = 10,
        alpha: float | Spread = 0.9,
        zs_hyp: float | Spread = 0.9,
        lateral: bool = False,
        surrogate: str = "straight_through",
        recurrent_grad: bool = False,
        initial_state: str = "zeros",
        readout: str = "votes",
        temperature: float = 10.0,
        readout_alpha: float = 0.99,
        readout_window: int = 0,
        dropout: float = 0.0,
        balance_gradients: bool = False,
    ) -> None:
        check_choice("readout", readout, READOUTS)
        votes, hidden = readout == "votes", len(hidden_sizes)
        if not (votes or hidden):
            raise ValueError("hidden_sizes: expected a hidden layer for a linear readout to read, got none")
        if votes and readout_window:
            raise ValueError(f"readout_window: expected 0 with readout 'votes', got {readout_window}")
        sizes = [input_size, *hidden_sizes, *([neurons_per_class * num_classes] if votes else [])]
        layers = [
            SRC(
                k,
                n,
                alpha=alpha,
                zs_hyp=zs_hyp,
                lateral=lateral and number < hidden,
                surrogate=surrogate,
                recurrent_grad=recurrent_grad,
                initial_state=initial_state,
            )
            for number, (k, n) in enumerate(pairwise(sizes))
        ]
        super().__init__(
            (input_size,),
            layers,
            LeakyReadout(num_classes, neurons_per_class, readout_alpha, temperature=temperature)
            if votes
            else LinearReadout(sizes[-1], num_classes, readout_alpha, readout_window),
            dropout,
            balance_gradients,
        )


class SRCConvClassifier(Classifier):
    """Convolutional SRC layers, then a stack as in ``SRCClassifier``.

    The convolutions have 5 x 5 kernels, stride 2 and padding 2, so that each layer halves height and width, rounded up.

    Args:
        input_shape: channels, height and width of the input.
        channels: output channels of each convolutional layer, at least one.
        hidden_sizes: neurons of each fully connected layer after them; empty for none.
        num_classes: classes C.
        neurons_per_class: number of neurons of the last layer that vote for each class.
        alpha: leak of the neurons' input integrators, as in ``SRC``.
        surrogate: "straight_through" or "relu", as in ``SRC``.
        recurrent_grad: whether gradients flow through the recurrence, as in ``SRC``.
        initial_state: "zeros" or "rest", as in ``SRC``.
        temperature: as in ``LeakyReadout``.
        readout_alpha: the ``alpha`` of ``LeakyReadout``.
        dropout: in training, the probability that a hidden neuron is silenced for a whole sample, in [0, 1).
        balance_gradients: in training, keep the size of gradients through the layers; see ``BalancedGradients``.

    Calls take an input of shape (T, B, C, H, W) or (T, B, C * H * W), or an ``EventBatch``, with inputs numbered by
    channel, row and column. Torch computes the convolutions, so an EventBatch is made dense for the first.

    Raises:
        ValueError: a size or the surrogate is not one that the layers accept, or there is no convolutional layer.

    Example:
        >>> import torch
        >>> model = SRCConvClassifier((1, 28, 28), [8], [32], num_classes=10)
        >>> [tuple(spikes.shape) for spikes in model.layer_spikes(torch.ones(30, 2, 1, 28, 28))]
        [(30, 2, 8, 14, 14), (30, 2, 32), (30, 2, 100)]

    """

    def __init__(
        self,
        input_shape: Sequence[int],
        channels: Sequence[int],
        hidden_sizes: Sequence[int],
        num_classes: int,
        *,
        neurons_per_class: int = 10,
        alpha: float = 0.9,
        surrogate: str = "straight_through",
        recurrent_grad: bool = False,
        initial_state: str = "zeros",
        temperature: float = 10.0,
        readout_alpha: float = 0.99,
        dropout: float = 0.0,
        balance_gradients: bool = False,
    ) -> None:
        if len(input_shape) != 3 or min(input_shape) < 1:
            raise ValueError(f"input_shape: expected channels, height and width, got {tuple(input_shape)}")
        if not channels:
            raise ValueError("channels: expected at least one convolutional layer, got none")
        in_channels, height, width = input_shape
        layers: list[AnyLayer] = []
        for c, n in pairwise([in_channels, *channels]):
            layers.append(
                SRCConv2d(
                    c,
                    n,
                    kernel_size=5,
                    stride=2,
                    padding=2,
                    alpha=alpha,
                    surrogate=surrogate,
                    recurrent_grad=recurrent_grad,
                    initial_state=initial_state,
                )
            )
            height, width = (height + 1) // 2, (width + 1) // 2
        sizes = [channels[-1] * height * width, *hidden_sizes, neurons_per_class * num_classes]
        layers += [
            SRC(k, n, alpha=alpha, surrogate=surrogate, recurrent_grad=recurrent_grad, initial_state=initial_state)
            for k, n in pairwise(sizes)
        ]
        readout = LeakyReadout(num_classes, neurons_per_class, readout_alpha, temperature=temperature)
        super().__init__(input_shape, layers, readout, dropout, balance_gradients)

    def _first_spikes(self, input: Tensor | EventBatch, lengths: Tensor | None) -> Tensor:
        maps = input
        if isinstance(input, EventBatch):
            if input.lengths is not None and lengths is not None:
                raise ValueError("lengths: expected None beside an EventBatch that has lengths, got lengths")
            dtype = cast(Tensor, self.layers[0].weight).dtype
            maps, lengths = input.to_dense(dtype), sample_lengths(input, lengths)
        inputs = math.prod(self.input_shape)
        shape = tuple(maps.shape[2:]) if isinstance(maps, Tensor) else None
        if shape == (inputs,):
            maps = cast(Tensor, maps).unflatten(2, self.input_shape)
        elif shape != self.input_shape:
            expected = f"(T, B, {inputs}) or (T, B, {', '.join(map(str, self.input_shape))})"
            got = type(input).__name__ if shape is None else tuple(cast(Tensor, maps).shape)
            raise ValueError(f"input: expected shape {expected}, got {got}")
        return super()._first_spikes(maps, lengths)


class BalancedGradients:
    """Keeps gradients from growing, and from concentrating in a few elements, on the way back through many layers.

    Through ten layers they grow by a factor of a million, and a tenth of the samples carries half of the gradient. So
    the gradient of each hidden layer's output is scaled, sample by sample, to the root mean square that it has at the
    last layer, and its elements are clipped to twice that. The result is no derivative of the loss, but a direction
    that trains. The gradient of a rate penalty is scaled and clipped along with the rest. Not for ``torch.compile``.

    Args:
        outputs: of all layers, (T, B, ...) each; their gradients change from now on.
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


def sample_lengths(input: Tensor | EventBatch, lengths: Tensor | None) -> Tensor | None:
    """The lengths (B,) of an EventBatch that has them, otherwise those given."""
    if isinstance(input, EventBatch) and input.lengths is not None:
        return input.lengths
    return lengths
