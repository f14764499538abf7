"""``diagnose``: runs a model on one batch, measures its SRC layers, and says what is wrong and what to change.

Users and training call it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._shared.arguments import describe
from .events import EventBatch
from .layers import SRC, IntegerSRC, SRCConv2d
from .layers.base import Neurons
from .layers.exported import exported
from .layers.options import DEFAULTS
from .recording import Recorded, outputs_of, record

# At |i| = 3 rho the derivative of the tanh, 1 - tanh(3)^2, is 0.0099: the drive passes a hundredth of the gradient.
SATURATED_AT = 3.0
# A neuron that recovers spikes at most every 6 steps (zs_hyp = 0.5), for two or three of them.
ALWAYS_ACTIVE_AT = 0.75

# A measurement beyond its bound is a finding. Beside each bound stands the worst value of networks that learnt, of one
# to eleven layers on images, sequences and recordings, untrained and in up to five epochs.
MOST_SILENT = 0.5  # 50 %: intervals
LEAST_DRIVE = 0.15  # 0.24: intervals. Neurons fire from i = 0.53 rho on, those of SRC.for_sequences from 0.38
MOST_ALWAYS_ACTIVE = 0.1  # 5 %: SRC.for_sequences on adding
MOST_SATURATED = 0.67  # 66 %: Japanese Vowels, a dense input and alpha up to 0.99
MOST_DEAD_INPUTS = 0.6  # 37 % of 64, 47 % of 16 samples: the borders of MNIST
STARVED = 0.9  # with so many dead inputs a layer is silent for want of input
LEAST_THROUGH_TIME = 1e-4  # 0.11: N-MNIST; a readout with alpha = 0.99 would give 5e-4 in 1,000 steps
MOST_THROUGH_TIME = 1000.0  # 32: the first of eleven layers on MNIST
ENOUGH_SAMPLES = 16  # in fewer samples neurons and inputs can be silent by chance
FEWEST_STEPS = 8  # with events, to compare quarters
MOSTLY = 0.5  # share of the inputs that are not 0, of real numbers
HIGHEST_BIAS = DEFAULTS["bias_max"]
LOW_BIAS = -7.0  # on average; below -7.7 even the largest drive, 3, starts no second spike
SRC_RHO, WIDE_RHO = DEFAULTS["rho"], 10.0  # of SRC, and of SRC.for_sequences
USUAL_DRIVE = 0.9  # the root mean square of i / rho of an untrained first layer, docs/initialisation.md

STEPS_AT_A_TIME = 16  # of which states are measured
COLUMNS = 100  # of the table
HEAD = (
    *("layer", "neurons", "rate", "silent", "always", "i/rho", "saturated", "dead in"),
    *("|grad W|", "|grad V|", "first/last"),
)


class LayerDiagnosis(NamedTuple):
    r"""What ``diagnose`` measured of a layer. Shares are in [0, 1].

    A measurement is None if there is nothing to measure: gradients without targets and loss, or of weights that are not
    learnt, and i of integer neurons.

    Attributes:
        name: the layer's name, as in :func:`srcell.record`.
        neurons: number of neurons.
        rate: share of the elements (one neuron at one step of one sample) that are active.
        silent: share of the neurons that never spike in the batch.
        always_active: share of the neurons that are active in three of four steps or more.
        i_over_rho: root mean square of i / rho over the elements.
        saturated: share of the elements with \|i\| > 3 rho, where the drive passes less than 1 % of the gradient.
        dead_inputs: share of the layer's inputs that are 0 in the whole batch.
        weight_gradient: norm of the gradient of the input weights.
        recurrent_gradient: norm of the gradient of the recurrent weights.
        through_time: root mean square of the gradient of the layer's input in the first quarter of the steps, divided
            by that in the last quarter. Only elements of the input that are not 0, and steps with such elements, count.

    """

    name: str
    neurons: int
    rate: float
    silent: float
    always_active: float
    i_over_rho: float | None
    saturated: float | None
    dead_inputs: float
    weight_gradient: float | None
    recurrent_gradient: float | None
    through_time: float | None

    def cells(self) -> tuple[str, ...]:
        """The layer's row of the table, as text."""
        shares = map(_percent, (self.rate, self.silent, self.always_active))
        inputs = map(_percent, (self.saturated, self.dead_inputs))
        gradients = map(_number, (self.weight_gradient, self.recurrent_gradient, self.through_time))
        return (self.name, str(self.neurons), *shares, _number(self.i_over_rho), *inputs, *gradients)


class Diagnosis(NamedTuple):
    """What ``diagnose`` measured and found; printed, a table and a line for each finding.

    Attributes:
        layers: the measurements of the layers, in the order of their first calls.
        findings: a line for each sign of trouble: the layer, the number, and what to change.

    """

    layers: list[LayerDiagnosis]
    findings: list[str]

    def __str__(self) -> str:
        rows = [HEAD, *(layer.cells() for layer in self.layers)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        widths[0] = min(widths[0], COLUMNS - sum(widths[1:]) - 2 * len(widths[1:]))
        lines = ["  ".join([_fitted(name, widths[0]), *map(str.rjust, others, widths[1:])]) for name, *others in rows]
        return "\n".join([*lines, "", *(self.findings or ["nothing looks wrong"])])

    def __repr__(self) -> str:
        return str(self)


def diagnose(
    model: nn.Module,
    input: Tensor | EventBatch,
    targets: Any = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    lengths: Tensor | Sequence[int] | None = None,
) -> Diagnosis:
    """Run a model on one batch, measure each of its SRC layers, and say what is wrong and what to change.

    The model runs in its current mode: in training mode the gradients are those of training. Parameters, their
    gradients, buffers, modes and torch's random state stay unchanged.

    Args:
        model: a layer, or any module that contains layers.
        input: the model's input, dense or an ``EventBatch``. About 64 samples suffice. Of fewer than 16 samples, silent
            neurons and dead inputs are a finding only if all are.
        targets: integer classes (B,), for a model that returns logits (B, C); or what ``loss`` takes.
        loss: ``loss(output, targets)``, a scalar; cross-entropy by default. Without targets and loss no gradients are
            measured.
        lengths: number of steps of each sample, (B,); if given, the model is called with ``lengths=lengths``.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: the model calls no SRC layer, or one without samples, steps or neurons, so that there is nothing to
            measure; or its output does not fit the targets or the loss.

    Example:
        >>> import torch, srcell
        >>> from srcell.models import SRCClassifier
        >>> model = SRCClassifier(20, [32], num_classes=2)
        >>> with torch.no_grad():
        ...     _ = model.layers[0].weight_ih_l0.mul_(0.01)
        >>> spikes = torch.rand(60, 16, 20).lt(0.2).float()
        >>> found = srcell.diagnose(model, spikes, torch.arange(16) % 2)
        >>> found.layers[0].silent
        1.0
        >>> print(*found.findings)  # doctest: +ELLIPSIS
        layers.0: 100 % of the neurons never spike, ...: multiply the input weights, or the encoder's gain, by about ...

    """
    if not isinstance(input, Tensor | EventBatch):
        raise TypeError(f"input: expected a tensor or an EventBatch, got {type(input).__name__}")
    if loss is not None and not callable(loss):
        raise TypeError(f"loss: expected a function of output and targets, got {describe(loss)}")
    learns = targets is not None or loss is not None
    with record(model) as recording, outputs_of(model) as outputs, _unchanged(model), torch.set_grad_enabled(learns):
        given = _watched(input, model) if learns else input
        output = model(given) if lengths is None else model(given, lengths=lengths)
        if not recording:
            raise ValueError("model: expected a model that calls its SRC layers, got one that calls none of them")
        ends = input.lengths if isinstance(input, EventBatch) and lengths is None else lengths
        layers = [_Layer(name, recorded, outputs, ends) for name, recorded in recording.items()]
        _check_elements(layers, "input" if lengths is None else "lengths")
        gradients = _gradients(_loss_of(output, targets, loss), layers) if learns else {}
        with torch.no_grad():
            broken = next(filter(None, (layer.not_finite(gradients) for layer in layers)), None)
            measured = [layer.measure(gradients, drive=broken is None) for layer in layers]
            return Diagnosis(measured, _findings(input, layers, measured, gradients) if broken is None else [broken])


Gradients = dict[int, Tensor | None]  # by the id of each tensor watched; None if the loss does not depend on it


class _Layer:
    """A layer and its recorded calls."""

    def __init__(self, name: str, recorded: Recorded, outputs: dict[nn.Module, list[Tensor]], ends: Any) -> None:
        module, number = recorded.module, recorded.number
        self.name, self.module, self.calls = name, module, recorded.calls
        below = isinstance(module, SRC) and number + 1 < module.num_layers
        self.outputs = [] if below else outputs.get(module, [])  # in the graph of autograd, unlike the recorded spikes
        suffix = f"_l{number}" if isinstance(module, SRC | IntegerSRC) else ""
        own = dict(module.named_parameters(recurse=False))
        self.parameters = {name: parameter for name, parameter in own.items() if name.endswith(suffix)}
        self.weight = own.get(f"weight_ih{suffix}", own.get("weight"))
        self.weight_hh = own.get(f"weight_hh{suffix}")
        self.numbers = None if isinstance(module, IntegerSRC) else exported(module)[number]
        self.spikes = recorded.spikes.flatten(2)
        steps, self.samples, self.neurons = self.spikes.shape
        device = self.spikes.device
        self.valid = torch.ones(steps, self.samples, dtype=torch.bool, device=device)
        if ends is not None and len(ends) == self.samples:
            self.valid = torch.arange(steps, device=device)[:, None] < torch.as_tensor(ends, device=device)

    @property
    def bias(self) -> float:
        """The mean bias; NaN of integer neurons, which have none."""
        return math.nan if self.numbers is None else float(self.numbers["bias"].mean())

    @property
    def rho(self) -> float:
        """The mean bound of the drive; of integer neurons, which have none, that of SRC."""
        return SRC_RHO if self.numbers is None else float(self.numbers["rho"].mean())

    def inputs(self) -> Iterator[tuple[Tensor | EventBatch, Tensor]]:
        """Each call's input, and which of its elements, or events, are not 0 and before the end of their sample."""
        by_call = self.valid.split([len(call.spikes) for call in self.calls])
        for x, valid in zip((call.input for call in self.calls), by_call, strict=True):
            if isinstance(x, EventBatch):
                kept = valid[_places(x)]
                yield x, kept if x.values is None else kept & (x.values != 0)
            else:
                yield x, (x.flatten(2) != 0) & valid[..., None]

    def watched(self) -> list[Tensor]:
        """The tensors whose gradients are measured."""
        found = [self.weight, self.weight_hh, *(_values(call.input) for call in self.calls), *self.outputs]
        return [x for x in found if x is not None and x.requires_grad]

    def measure(self, gradients: Gradients, *, drive: bool) -> LayerDiagnosis:
        """Measure the layer; i only on demand, because its recomputation refuses NaN."""
        active = (self.spikes > 0) & self.valid[..., None]
        counts, steps = active.sum((0, 1)), int(self.valid.sum())
        i_over_rho, saturated = self._drive() if drive else (None, None)
        return LayerDiagnosis(
            self.name,
            self.neurons,
            rate=int(active.sum()) / (steps * self.neurons),
            silent=_share(counts == 0),
            always_active=_share(counts >= ALWAYS_ACTIVE_AT * steps),
            i_over_rho=i_over_rho,
            saturated=saturated,
            dead_inputs=_share(~torch.stack([_seen(x, mask) for x, mask in self.inputs()]).any(0)),
            weight_gradient=_norm(self.weight, gradients),
            recurrent_gradient=_norm(self.weight_hh, gradients),
            through_time=self._through_time(gradients),
        )

    def _drive(self) -> tuple[float | None, float | None]:
        """The root mean square of i / rho, and the share of the elements in which it is saturated."""
        if self.numbers is None:
            return None, None
        rho = self.numbers["rho"].to(self.spikes.device)
        if isinstance(self.module, SRCConv2d):
            rho = rho[:, None, None]
        squares, beyond = torch.zeros(2, dtype=torch.float64, device=rho.device)
        steps = (i for call in self.calls for state in call.states() for i in state.i)
        for valid in self.valid.split(STEPS_AT_A_TIME):
            ratio = (torch.stack([*islice(steps, len(valid))]) / rho).flatten(2)[valid].double()
            squares += ratio.square().sum()
            beyond += (ratio.abs() > SATURATED_AT).sum()
        elements = int(self.valid.sum()) * self.neurons
        return math.sqrt(float(squares) / elements), float(beyond) / elements

    def _through_time(self, gradients: Gradients) -> float | None:
        sums = []
        for x, mask in self.inputs():
            values = _values(x)
            gradient = None if values is None else gradients.get(id(values))
            if gradient is None:
                return None
            sums.append(_by_step(x, gradient, mask))
        squares, counts = torch.cat(sums, 1)
        squares, counts = squares[counts > 0], counts[counts > 0]
        if len(counts) < FEWEST_STEPS:
            return None
        n = len(counts) // 4
        early, late = (float(squares[part].sum() / counts[part].sum()) for part in (slice(n), slice(-n, None)))
        if early == late == 0:
            return None
        return math.sqrt(early / late) if late else math.inf

    def not_finite(self, gradients: Gradients) -> str | None:
        """The finding of where values that are not finite appear first; None if all are finite."""
        sign = f"{self.name}: NaN or infinity in"
        for name, parameter in self.parameters.items():
            if not parameter.isfinite().all():
                return f"{sign} {name}: start again, with a lower learning rate or with clipped gradients"
        for x, mask in self.inputs():
            values = _values(x)
            if values is not None and not (values.reshape(mask.shape).isfinite() | ~mask).all():
                return f"{sign} the input: check the data and their normalisation"
        if not (self.spikes.isfinite() | ~self.valid[..., None]).all():
            return f"{sign} the spikes: use smaller inputs and weights"
        found = [gradients.get(id(x)) for x in (self.weight, self.weight_hh)]
        if any(x is not None and not x.isfinite().all() for x in found):
            return f"{sign} the gradient of the weights: check that the loss is finite, and use the default surrogates"
        return None

    def lost_gradient(self, gradients: Gradients) -> str:
        """Why the input weights get no gradient, or one of 0."""
        if gradients.get(id(self.weight)) is None:
            return (
                "no gradient reaches the input weights: look for detach() and no_grad() between the layer and the loss"
            )
        sign = "the gradient of the input weights is 0"
        found = [(x, gradients.get(id(x))) for x in self.outputs]
        taken = [(x > 0, gradient != 0) for x, gradient in found if gradient is not None]
        if self.outputs and not any(used.any() for _, used in taken):
            return f"{sign}: the loss does not depend on the spikes: check the weights behind the layer, and the loss"
        if self.outputs and not any((used & fires).any() for fires, used in taken):
            steps = (self.spikes > 0).any(2).any(1).nonzero()
            last = f"the last is in step {int(steps[-1]) + 1} of {len(self.spikes)}" if len(steps) else "there are none"
            return (
                f"{sign}: the loss depends on none of the layer's spikes ({last}): use a longer window of the readout, "
                "or none; if samples are shorter than the batch, pass their lengths on to the readout"
            )
        return sign

    def same_input(self) -> bool:
        """Whether all samples have the same input."""
        return all(
            all(x[0] == x[b] for b in range(1, len(x))) if isinstance(x, EventBatch) else self._same(x)
            for x in (call.input for call in self.calls)
        )

    def is_for_images(self) -> bool:
        """Whether the layer has the cell of ``SRC``, one time constant and no recurrent weights."""
        if not isinstance(self.module, SRC) or self.numbers is None or self.weight_hh is not None:
            return False
        return self.rho < WIDE_RHO and len(self.numbers["alpha"].unique()) == 1

    def same_spikes(self) -> bool:
        """Whether there are several samples with spikes, at the same steps in all."""
        return self.samples > 1 and bool(self.spikes.any()) and self._same(self.spikes > 0)

    def _same(self, x: Tensor) -> bool:
        """Whether the samples of (T, B, ...) have one length and are equal."""
        if not torch.equal(self.valid, self.valid[:, :1].expand_as(self.valid)):
            return False
        x = x[: int(self.valid[:, 0].sum())]
        return torch.equal(x, x[:, :1].expand_as(x))


def _findings(
    input: Tensor | EventBatch, layers: list[_Layer], measured: list[LayerDiagnosis], gradients: Gradients
) -> list[str]:
    """A line for each sign of trouble: of the input, of the first layer that has one, and of gradients."""
    lines = [*_input_signs(layers[0], measured[0])]
    same = bool(lines)  # then spikes may be the same too
    for layer, found in zip(layers, measured, strict=True):
        signs = [*_signs(layer, found, compare=not same)]
        lines += [f"{layer.name}: {sign}" for sign in signs]
        if signs:  # those of later layers may follow from them
            break
    without = [layer for layer, found in zip(layers, measured, strict=True) if found.weight_gradient == 0]
    if without and not lines:
        lines.append(f"{without[-1].name}: {without[-1].lost_gradient(gradients)}")
    return [*lines, *_time_signs(layers, measured), *_layer_advice(input, layers[0])]


def _input_signs(layer: _Layer, found: LayerDiagnosis) -> Iterator[str]:
    """What is wrong with the input of the first layer."""
    if _most(found.dead_inputs, MOST_DEAD_INPUTS, layer):
        yield (
            f"{layer.name}: {_percent(found.dead_inputs)} of its inputs are 0 in the whole batch: expected of images "
            "with wide borders; otherwise check the encoding, its gain and the numbering of the inputs"
        )
    elif layer.samples > 1 and layer.same_input():
        yield f"{layer.name}: all {layer.samples} samples have the same input: check the data and the encoding"


def _layer_advice(input: Tensor | EventBatch, layer: _Layer) -> Iterator[str]:
    """Whether the first layer is for another kind of input; the last finding, because it hides no other."""
    if layer.is_for_images() and _is_sequence_of_numbers(input, len(layer.spikes)):
        yield (
            f"{layer.name}: the input is a sequence of real numbers, and the cell is that of SRC, for events and "
            "images: SRC.for_sequences makes a layer for sequences"
        )


def _is_sequence_of_numbers(x: Tensor | EventBatch, steps: int) -> bool:
    """Whether a model's input is dense, mostly not 0 and of both signs, and differs between steps."""
    if isinstance(x, EventBatch) or not x.is_floating_point() or x.dim() < 2 or steps < FEWEST_STEPS:
        return False
    x = x if len(x) == steps else x.transpose(0, 1)
    mixed = bool((x < 0).any() and (x > 0).any() and (x[1:] != x[:-1]).any())
    return mixed and float((x != 0).double().mean()) > MOSTLY


def _signs(layer: _Layer, found: LayerDiagnosis, *, compare: bool) -> Iterator[str]:
    """What is wrong with the neurons of a layer; ``compare``: whether samples must differ."""
    drive, starved = found.i_over_rho, found.dead_inputs >= STARVED
    weak = drive is not None and drive < LEAST_DRIVE
    if found.always_active > MOST_ALWAYS_ACTIVE:
        yield (
            f"{_percent(found.always_active)} of the neurons are active in nearly all steps: their spikes do not end: "
            f"{_remedy_of_activity(layer)}"
        )
    elif compare and not weak and layer.same_spikes():
        yield (
            f"the spikes of all {layer.samples} samples are the same: the input differs too little between samples: "
            "subtract its mean and divide by its standard deviation"
        )
    elif _most(found.silent, MOST_SILENT, layer) and not starved:
        yield f"{_percent(found.silent)} of the neurons never spike{_remedy_of_silence(layer, drive)}"
    elif weak and not starved:
        yield f"the input hardly moves the neurons{_remedy_of_silence(layer, drive)}"
    if drive is not None and found.saturated is not None and found.saturated > MOST_SATURATED:
        yield (
            f"|i| > {SATURATED_AT:g} rho in {_percent(found.saturated)} of the elements, where i has almost no "
            f"gradient: {_remedy_of_saturation(layer, drive)}"
        )


def _remedy_of_silence(layer: _Layer, drive: float | None) -> str:
    if not drive:
        return ": use larger weights, or a larger gain of the encoder"
    if drive < USUAL_DRIVE / 2:
        return (
            f", i is only {drive:.2g} rho (root mean square): multiply the input weights, or the encoder's gain, "
            f"by about {_factor(drive)}; an alpha nearer to 1 sums over more steps"
        )
    if layer.bias < LOW_BIAS - (layer.rho - SRC_RHO):
        return f", although i is {drive:.2g} rho: the biases are {layer.bias:.2g} on average: raise them to about -6"
    return f", although i is {drive:.2g} rho: their weights are negative where there is input: draw them anew"


def _remedy_of_activity(layer: _Layer) -> str:
    if layer.numbers is not None and layer.bias <= HIGHEST_BIAS:
        feedback = -float(sum(layer.numbers[name].mean() for name in ("r", "rs", "bias")))  # of a spike, h = hs = 1
        if layer.rho > feedback:
            return f"a drive above {feedback:.2g} holds them: use smaller input weights or inputs, or a lower rs"
    if layer.bias > HIGHEST_BIAS:
        return (
            f"the biases are {layer.bias:.2g} on average: keep them at {HIGHEST_BIAS:g} or below, with the default "
            "bias_max, and rs near -7"
        )
    return "keep rs near -7"


def _remedy_of_saturation(layer: _Layer, drive: float) -> str:
    smaller = (
        f"multiply the input weights, or the inputs, by about {_factor(drive)}; with alpha near 1, by (1 - alpha) / 0.1"
    )
    if layer.weight_hh is None or layer.rho >= WIDE_RHO:
        return smaller
    return f"begin again with rho=10 and rs=-4, as SRC.for_sequences has, or {smaller}"


def _factor(drive: float) -> str:
    """By what to multiply a drive to make it usual, to two digits."""
    return f"{float(f'{USUAL_DRIVE / drive:.2g}'):,.12g}"


def _time_signs(layers: list[_Layer], measured: list[LayerDiagnosis]) -> Iterator[str]:
    """What is wrong with gradients through time, in the layer in which it is worst."""
    ratios = zip((found.through_time for found in measured), layers, strict=True)
    known = [(ratio, layer) for ratio, layer in ratios if ratio is not None]
    if not known:
        return
    least, layer = min(known, key=lambda pair: pair[0])
    if least < LEAST_THROUGH_TIME:
        yield (
            f"{layer.name}: gradients vanish through time: in the first quarter of the steps they are {least:.1g} of "
            "those in the last: use slower neurons (alpha=srcell.spread(0.5, 0.99)), recurrent=True, or a readout that "
            "sums over all steps"
        )
    most, layer = max(known, key=lambda pair: pair[0])
    if most > MOST_THROUGH_TIME:
        module = layer.module
        remedies = []
        if isinstance(module, Neurons) and module.full_gradient:
            remedies.append("full_gradient=False")
        if isinstance(module, Neurons) and module.recurrent and module.recurrent_surrogate != "relu":
            remedies.append('recurrent_surrogate="relu"')
        yield (
            f"{layer.name}: gradients explode through time: in the first quarter of the steps they are {most:.1g} "
            f"times those in the last: use {' and '.join(remedies or ['smaller recurrent weights'])}, or clip gradients"
        )


def _most(share: float, bound: float, layer: _Layer) -> bool:
    """Whether a share is beyond its bound; in a small batch, whether it is all."""
    return share == 1 or (share > bound and layer.samples >= ENOUGH_SAMPLES)


def _check_elements(layers: list[_Layer], name: str) -> None:
    """Raise unless each layer ran on at least one step of a sample; ``name``: the argument that has the lengths."""
    for layer in layers:
        if not layer.spikes.numel():
            raise ValueError(
                f"{'input' if layer.neurons else 'model'}: expected samples, steps and neurons to measure, got "
                f"(T, B, N) = {tuple(layer.spikes.shape)} in {layer.name}"
            )
        if not layer.valid.any():
            raise ValueError(f"{name}: expected a sample with at least one step, got lengths of 0 in {layer.name}")


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Restore the model's buffers and torch's random state when the block ends."""
    buffers = [(x, x.clone()) for x in model.buffers()]
    devices = {x.device for x in (*model.parameters(), *model.buffers()) if x.is_cuda}
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            with torch.no_grad():
                for x, before in buffers:
                    if not torch.equal(x, before):
                        x.copy_(before)


def _watched(input: Tensor | EventBatch, model: nn.Module) -> Tensor | EventBatch:
    """The input with a gradient, except that integers have none, and integer neurons take no values of events."""
    if any(isinstance(layer, IntegerSRC) for layer in model.modules()):
        return input
    dtype = next((x.dtype for x in model.parameters() if x.dtype == torch.float64), torch.float32)
    if isinstance(input, EventBatch):
        values = torch.ones_like(input.indices, dtype=dtype) if input.values is None else input.values.detach()
        values.requires_grad_()
        return EventBatch(input.offsets, input.indices, values, shape=input.shape, lengths=input.lengths)
    if input.dtype == torch.bool:
        input = input.to(dtype)
    return input.detach().requires_grad_() if input.is_floating_point() else input


def _loss_of(output: Any, targets: Any, loss: Callable[[Any, Any], Tensor] | None) -> Tensor:
    if loss is None:
        if not isinstance(output, Tensor) or output.dim() != 2:
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else describe(output)
            raise ValueError(f"loss: expected a function, or a model that returns logits (B, C), got None and {got}")
        if not isinstance(targets, Tensor):
            raise TypeError(f"targets: expected a tensor of integer classes, got {describe(targets)}")
        if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
            raise TypeError(f"targets: expected integer classes, got {describe(targets)}")
        samples, classes = output.shape
        if tuple(targets.shape) != (samples,):
            order = ": layers take (T, B, ...), and a DataLoader gives (B, T, ...)" if targets.dim() == 1 else ""
            raise ValueError(f"targets: expected shape ({samples},), got {tuple(targets.shape)}{order}")
        if samples and not 0 <= targets.min() <= targets.max() < classes:
            raise ValueError(f"targets: expected classes in [0, {classes}), got {targets.min()} to {targets.max()}")
        return F.cross_entropy(output, targets.to(output.device, torch.int64))
    value = loss(output, targets)
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        got = describe(value) if not isinstance(value, Tensor) else f"shape {tuple(value.shape)}"
        raise ValueError(f"loss: expected a function that returns a scalar with a gradient, got {got}")
    return value


def _gradients(loss: Tensor, layers: list[_Layer]) -> Gradients:
    watched = {id(x): x for layer in layers for x in layer.watched()}
    found = torch.autograd.grad(loss, list(watched.values()), allow_unused=True) if watched else ()
    return dict(zip(watched, found, strict=True))


def _norm(parameter: Tensor | None, gradients: Gradients) -> float | None:
    """The norm of a gradient, 0 if the loss does not depend on the parameter; None if it is not measured."""
    if id(parameter) not in gradients:
        return None
    gradient = gradients[id(parameter)]
    return 0.0 if gradient is None else float(torch.linalg.vector_norm(gradient, dtype=torch.float64))


def _values(input: Tensor | EventBatch) -> Tensor | None:
    """The tensor through which the gradient of an input flows."""
    return input.values if isinstance(input, EventBatch) else input


def _places(events: EventBatch) -> tuple[Tensor, Tensor]:
    """The step and the sample of each event."""
    counts = events.offsets.diff()
    rows = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    return rows % events.shape[0], rows // events.shape[0]


def _seen(input: Tensor | EventBatch, mask: Tensor) -> Tensor:
    """Which inputs (K,) are not always 0."""
    if not isinstance(input, EventBatch):
        return mask.any(0).any(0)
    seen = torch.zeros(input.shape[2], dtype=torch.bool, device=mask.device)
    seen[input.indices[mask].long()] = True
    return seen


def _by_step(input: Tensor | EventBatch, gradient: Tensor, mask: Tensor) -> Tensor:
    """The sum of squares of the chosen elements of a gradient at each step, and their number, (2, T)."""
    if isinstance(input, EventBatch):
        steps, squares = _places(input)[0][mask], gradient[mask].double().square()
        found = torch.zeros(2, input.shape[0], dtype=torch.float64, device=mask.device)
        return found.index_add_(1, steps, torch.stack([squares, torch.ones_like(squares)]))
    kept = torch.where(mask, gradient.flatten(2), 0)
    norms = torch.linalg.vector_norm(kept, dim=(1, 2), dtype=torch.float64)
    return torch.stack([norms.square(), mask.sum((1, 2)).double()])


def _share(chosen: Tensor) -> float:
    return int(chosen.sum()) / max(chosen.numel(), 1)


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    return f"{100 * share:.1f} %" if 0 < share < 0.095 else f"{100 * share:.0f} %"


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.2g}"


def _fitted(name: str, width: int) -> str:
    """A name in a column of this width; of a longer one the end is shown."""
    return name.ljust(width) if len(name) <= width else f"…{name[len(name) - width + 1 :]}"
