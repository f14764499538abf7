"""Reads the networks that the authors' group published with arXiv 2605.10679: ``config.json`` and ``arrays.npz``.

Users call ``read_group``, and convert its result to a float model or to integer weights.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray

from .._shared.arguments import as_int
from .._shared.parameters import PARAMETERS
from ..data import LatencyEncoding, RateEncoding
from ..layers import SRC, LeakyReadout
from ..layers.options import DEFAULTS
from ..models import SRCClassifier
from ._arrays import by_rows

CONFIG, ARRAYS = "config.json", "arrays.npz"
MOST_BITS = 15  # with 16, the largest weight would be 2^15, which does not fit in int16


class GroupLayer(NamedTuple):
    """The parameters of a layer, float32: weights (N, K), all others (N,)."""

    weight: NDArray[np.float32]
    """(N, K), its columns in the order of the file."""
    bias: NDArray[np.float32]
    """Excitability."""
    alpha: NDArray[np.float32]
    """This and the following are parameters of the cell, named as in ``SRC`` ..."""
    rho: NDArray[np.float32]
    r: NDArray[np.float32]
    rs: NDArray[np.float32]
    zs_hyp: NDArray[np.float32]
    zs_dep: NDArray[np.float32]
    i0: NDArray[np.float32]
    """... and the state before the first step."""
    h0: NDArray[np.float32]
    hs0: NDArray[np.float32]


@dataclass(frozen=True)
class GroupNetwork:
    """A network of the group, as returned by ``read_group``."""

    layers: list[GroupLayer]
    """First to last."""
    num_classes: int
    """Classes, C."""
    neurons_per_class: int
    """Neuron n of the last layer votes for class n % C."""
    inhibition: float
    """Weight with which a vote counts for each of the other classes."""
    bias_max: float
    """Upper bound of biases in training."""
    encoder: RateEncoding | LatencyEncoding
    """Encodes images as the network's input."""

    def to_float(self, *, column_major: bool = False) -> SRCClassifier:
        """Convert the network to a float model, with all parameters and initial states of its neurons, and its encoder.

        The layers of the model have ``full_gradient=True``, because their initial states are learnable.

        Args:
            column_major: whether the first layer's inputs are the pixels of a square image, column by column, as in the
                group's spike files. If so, the inputs are reordered row by row, as in srcell; the encoder needs this
                order. By default they are left unchanged.

        Raises:
            ValueError: ``column_major`` with inputs that are not a square image, or a parameter that ``SRC`` does not
                accept.

        """
        sizes = [layer.weight.shape[1] for layer in self.layers]
        options: dict[str, Any] = {"neurons_per_class": self.neurons_per_class, "full_gradient": True}
        model = SRCClassifier(sizes[0], sizes[1:], self.num_classes, **options)
        for k, (numbers, weight) in enumerate(zip(self.layers, self._weights(column_major), strict=True)):
            model.layers[k] = self._float_layer(numbers, weight)
        model.readout = LeakyReadout(self.num_classes, self.neurons_per_class, inhibition=self.inhibition)
        model.encoder = self.encoder
        return model

    def integer_weights(self, bits: SupportsIndex, *, column_major: bool = False) -> list[NDArray[np.int16]]:
        """Convert the weights (N, K) of each layer to integers, scaled as the group does.

        With L = 2^(bits - 1) the integers are round(W * L / max|W|), ties to even, in [-L, L]. The largest weight of
        ``IntegerSRC`` with the same number of bits is L - 1 instead.

        Args:
            bits: 2 to 15.
            column_major: as in ``to_float``.

        """
        largest = 2.0 ** (as_int("bits", bits, MOST_BITS, minimum=2) - 1)
        found = []
        for weight in self._weights(column_major):
            wide = weight.astype(np.float64)
            most = np.abs(wide).max()
            found.append(np.rint(wide * (largest / most if most else 0.0)).astype(np.int16))
        return found

    def _weights(self, column_major: bool) -> list[NDArray[np.float32]]:
        """The weights of each layer; with ``column_major``, those of the first layer are reordered row by row."""
        weights = [layer.weight for layer in self.layers]
        if not column_major:
            return weights
        inputs = weights[0].shape[1]
        side = math.isqrt(inputs)
        if side**2 != inputs:
            raise ValueError(f"column_major: expected False with {inputs} inputs, which are no square image, got True")
        return [by_rows("column_major", weights[0], (side, side)), *weights[1:]]

    def _float_layer(self, numbers: GroupLayer, weight: NDArray[np.float32]) -> SRC:
        arrays = {**numbers._asdict(), "weight_ih": weight}
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        cell: Any = {name: tensors[name] for name in PARAMETERS if name in tensors}
        neurons, inputs = weight.shape
        largest = max([self.bias_max, *numbers.bias.tolist()])  # a network computes with the biases that it has
        bounds: Any = {"bias_max": largest, "bias_init": min(DEFAULTS["bias_init"], largest)}
        bounds |= {"full_gradient": True, "learn_initial_state": True}
        layer = SRC(inputs, neurons, **cell, **bounds)
        with torch.no_grad():
            for name in ("weight_ih", "bias", "i0", "h0", "hs0"):
                getattr(layer, f"{name}_l0").copy_(tensors[name])
        return layer


def read_group(folder: str | Path) -> GroupNetwork:
    """Read a network of the group from ``config.json`` and ``arrays.npz`` in a folder.

    The readout's leak is not in the files: 0.99 is used, as in ``LeakyReadout``. ``seq_length`` gives the number of
    steps after the ``prefix_length`` silent ones; ``activation`` and ``hidden_size`` are ignored.

    Args:
        folder: the folder of the two files.

    Raises:
        ValueError: a number or an array is missing, not finite, or of another type or shape. Or srcell cannot represent
            the network, because it has recurrent weights (``recurrence``), neurons with several integrators, or votes
            other than 1 for class n % C and one number for all other classes. The message names the file and the entry.
        OSError: there is no such file.

    """
    config, arrays = _read_config(Path(folder, CONFIG)), _read_arrays(Path(folder, ARRAYS))
    cell, data = config.inner("cell_config"), config.inner("dataset_config")
    for part in (config, cell):
        if part.values.get("recurrence") is not None:
            raise ValueError(f"{part.where} recurrence: expected null, as recurrent weights are not read, got another")
    integrators = cell.number("num_integrators_per_neuron")
    if integrators != 1:
        raise ValueError(f"{cell.where} num_integrators_per_neuron: expected 1, got {integrators:g}")
    inputs, factor = config.whole("input_size"), config.whole("readout_input_factor")
    layers: list[GroupLayer] = []
    for k in range(arrays.count_layers()):
        layers.append(_layer(k, arrays, cell, len(layers[-1].bias) if layers else inputs))
    outputs = len(layers[-1].bias)
    if not factor or outputs % factor:
        raise ValueError(f"{config.where} readout_input_factor: expected a divisor of {outputs} neurons, got {factor}")
    classes = outputs // factor
    readout = arrays.get("readout", (classes, outputs))
    own = np.arange(outputs) % classes == np.arange(classes)[:, None]
    others = readout[~own]
    if np.any(readout[own] != 1) or np.any(others != others[:1]):
        raise ValueError(f"{arrays.where} readout: expected 1 for class n % {classes} and one number for others")
    inhibition = float(str(others[0])) if others.size else 0.0  # -0.1, not the float32 nearest to it
    return GroupNetwork(layers, classes, factor, inhibition, cell.number("bias_max"), _encoder(data))


class _Config(NamedTuple):
    """A part of config.json; ``where`` names it in messages."""

    where: str
    values: dict[str, Any]

    def inner(self, name: str) -> _Config:
        values = self.values.get(name)
        if not isinstance(values, dict):
            raise ValueError(f"{self.where} {name}: expected an object, got {self._described(name)}")
        return _Config(f"{self.where} {name}", values)

    def number(self, name: str) -> float:
        value = self.values.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise ValueError(f"{self.where} {name}: expected a number, got {self._described(name)}")
        return float(value)

    def whole(self, name: str) -> int:
        number = self.number(name)
        if number < 0 or number != int(number):
            raise ValueError(f"{self.where} {name}: expected an int of at least 0, got {self._described(name)}")
        return int(number)

    def _described(self, name: str) -> str:
        return json.dumps(self.values[name])[:40] if name in self.values else "none"


class _Arrays(NamedTuple):
    """The content of arrays.npz; ``where`` names it in messages."""

    where: str
    arrays: Mapping[str, NDArray[Any]]

    def count_layers(self) -> int:
        """The number of layers; at least one, so that without layers the error names the array that is missing."""
        numbers = [int(found[1]) for name in self.arrays if (found := re.match(r"l(\d{1,9})_", name))]
        return max(numbers, default=0) + 1

    def get(self, name: str, shape: tuple[int | None, ...]) -> NDArray[np.float32]:
        """An array of finite floats; None in a shape stands for any size but 0."""
        if name not in self.arrays:
            raise ValueError(f"{self.where} {name}: expected an array, got none")
        found = self.arrays[name]
        fits = len(found.shape) == len(shape) and all(
            given == size if size is not None else given > 0 for given, size in zip(found.shape, shape, strict=True)
        )
        if not fits:
            expected = ", ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(f"{self.where} {name}: expected shape ({expected}), got {found.shape}")
        if not np.issubdtype(found.dtype, np.floating):
            raise ValueError(f"{self.where} {name}: expected floats, got {found.dtype}")
        if not np.isfinite(found).all():
            raise ValueError(f"{self.where} {name}: expected finite values, got NaN or infinity")
        return found.astype(np.float32)


def _read_config(path: Path) -> _Config:
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, got another file: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected an object, got {type(values).__name__}")
    return _Config(f"{path}:", values)


def _read_arrays(path: Path) -> _Arrays:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _Arrays(f"{path}:", {name: archive[name] for name in archive.files})
    except (ValueError, AttributeError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: expected an archive of NumPy's arrays, got another file: {error}") from None


def _layer(k: int, arrays: _Arrays, cell: _Config, inputs: int) -> GroupLayer:
    weight = arrays.get(f"l{k}_forward_weights", (None, inputs))
    neurons = len(weight)
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("bias", "rho", "r", "rs", "initial_h", "initial_hs"), (neurons,)),
        **dict.fromkeys(("zs_dep", "zs_hyp"), (1, neurons)),
        "initial_i": (1, neurons, 1),
    }
    found = {name: arrays.get(f"l{k}_{name}", shape).reshape(neurons) for name, shape in shapes.items()}
    state = {f"{name}0": found.pop(f"initial_{name}") for name in ("i", "h", "hs")}
    return GroupLayer(weight, alpha=_alphas(cell, neurons), **state, **found)


def _alphas(cell: _Config, neurons: int) -> NDArray[np.float32]:
    """Alpha of each neuron, from a number, a list of one, or a list of one for each neuron."""
    try:
        values = np.asarray(cell.values.get("alphas"), np.float32).reshape(-1)
    except (ValueError, TypeError):
        values = np.empty(0, np.float32)
    if values.size not in (1, neurons) or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{cell.where} alphas: expected one number in [0, 1], or one for each of {neurons} neurons")
    return np.full(neurons, values, np.float32)


def _encoder(data: _Config) -> RateEncoding | LatencyEncoding:
    encoding, steps, prefix = data.values.get("encoding"), data.whole("seq_length"), data.whole("prefix_length")
    if encoding == "rate":
        return RateEncoding(steps, data.number("rate_gain"), prefix)
    if encoding == "latency":
        return LatencyEncoding(steps, prefix)
    raise ValueError(f"{data.where} encoding: expected 'rate' or 'latency', got {encoding!r}")
