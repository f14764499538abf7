"""A reader of .srcell files after docs/howto/file-format.md, in float64 and without the package."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
CONSTANTS = ("bias", "alpha", "rho", "r", "rs", "zs_hyp", "zs_dep")
TYPES = {"F32": "<f4", "F64": "<f8", "I32": "<i4", "I16": "<i2"}
PI = float(np.float32(math.pi))


class RefusedError(ValueError):
    """The file breaks a rule of the page."""


def require(condition: object, rule: str) -> None:
    if not condition:
        raise RefusedError(rule)


class File:
    """The tensors and texts of a file, each tensor taken once."""

    def __init__(self, content: bytes) -> None:
        size = int.from_bytes(content[:8], "little")
        require(len(content) >= 8 and size <= min(2**20, len(content) - 8), "length of the header")
        try:
            header = json.loads(content[8 : 8 + size], object_pairs_hook=Members)
        except ValueError as error:
            raise RefusedError("header: JSON") from error
        require(isinstance(header, dict), "header: an object")
        names = [name for name in header.names if name != "__metadata__"]
        require(len(names) == len(set(names)), "two of one name")
        self.texts = header.pop("__metadata__", {})
        require(all(isinstance(text, str) for text in self.texts.values()), "header: texts")
        for name, entry in header.items():
            require(isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"}, f"header: {name}")
            require(isinstance(entry["dtype"], str), f"header: {name}")
            for numbers in (entry["shape"], entry["data_offsets"]):
                require(isinstance(numbers, list), f"header: {name}")
                require(all(type(x) is int and 0 <= x < 10**18 for x in numbers), f"header: {name}")
            require(len(entry["data_offsets"]) == 2, f"header: {name}")
        self.tensors: dict[str, Array] = {}
        data, at = content[8 + size :], 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            begin, end = entry["data_offsets"]
            require(entry["dtype"] in TYPES, f"{name}: type")
            dtype = np.dtype(TYPES[entry["dtype"]])
            require(begin == at and end - begin == dtype.itemsize * math.prod(entry["shape"]), "gaps")
            require(end <= len(data), "gaps")
            self.tensors[name] = np.frombuffer(data[begin:end], dtype).reshape(entry["shape"])
            at = end
        require(at == len(data), "gaps")
        require(self.texts.get("format") == "srcell.network", "format")
        require(self.texts.get("version") in ("1", "2", "3", "4", "5", "6"), "version")
        self.version = int(self.texts["version"])

    def take(self, name: str, dtype: str, *shapes: tuple[int, ...], version: int = 1) -> Array:
        """A tensor of this type and one of these shapes; -1 stands for any size."""
        require(name in self.tensors, f"{name}: missing")
        tensor = self.tensors.pop(name)
        require(tensor.dtype == TYPES[dtype], f"{name}: type")
        fits = (
            len(shape) == tensor.ndim and all(a in (-1, b) for a, b in zip(shape, tensor.shape, strict=True))
            for shape in shapes
        )
        require(any(fits), f"{name}: shape {tensor.shape}")
        require(version <= self.version, f"{name}: version")
        return tensor

    def has(self, name: str) -> bool:
        return name in self.tensors


class Members(dict[str, Any]):
    """An object of a header, and the names of its members as they stand there."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.names = [name for name, _ in pairs]


class Delays:
    """What arrives of spikes (T, B, K), as (T, B, K M)."""

    def __init__(self, file: File, name: str, *shape: int) -> None:
        self.first = file.take(f"{name}.first", "I32", shape, version=3).astype(int)
        self.factors = np.ones((*self.first.shape, 1))
        if file.has(f"{name}.factors"):
            self.factors = file.take(f"{name}.factors", "F32", (*self.first.shape, -1), version=3).astype(float)
        terms = self.factors.shape[2]
        require(self.first.size and terms and np.isfinite(self.factors).all(), name)
        require(self.factors.size < 2**31, f"{name}: terms")
        steps = self.first[..., None] + np.arange(terms)
        require(abs(steps).max() <= 131_070, f"{name}: steps")
        self.steps = steps
        self.room = max(int(steps.max()), 0) * (len(self.first) + -(-self.factors.size // 32))

    def __call__(self, x: Array) -> Array:
        made = np.zeros((*x.shape, self.first.shape[1]))
        for source, tap, term in np.ndindex(self.factors.shape):
            late = self.steps[source, tap, term]
            if 0 <= late < len(x):
                made[late:, :, source, tap] += self.factors[source, tap, term] * x[: len(x) - late, :, source]
        return made.reshape(*x.shape[:2], -1)


class Map:
    """The currents (T, B, N) of inputs (T, B, K)."""

    def __init__(self, file: File, prefix: str) -> None:
        sizes = [int(size) for size in file.take(f"{prefix}convolution", "I32", (11,), version=4)]
        require(all(k in (7, 8) or size > 0 for k, size in enumerate(sizes)), "convolution: sizes")
        require(min(sizes) >= 0 and max(sizes) <= 2**20, "convolution: sizes")
        self.input, self.map = tuple(sizes[:3]), tuple(sizes[3:5])
        self.stride, self.zeros, self.dilation = sizes[5:7], sizes[7:9], sizes[9:]
        self.weight = file.take(f"{prefix}weight", "F32", (-1, -1, -1, -1)).astype(float)
        out, per_group, *kernel = self.weight.shape
        self.groups = sizes[0] // max(per_group, 1)
        require(self.weight.size and per_group * self.groups == sizes[0] and out % self.groups == 0, "weight: groups")
        self.neurons, self.channels = out * math.prod(self.map), out
        self.taps = sum(size * width for size, width in zip(self.input[1:], kernel, strict=True))
        require(max(math.prod(self.input), self.neurons, self.taps) <= 2**22, "convolution: limits")

    def __call__(self, x: Array) -> Array:
        x = x.reshape(*x.shape[:2], *self.input)
        made = np.zeros((*x.shape[:2], self.channels, *self.map))
        outs, ins = self.channels // self.groups, self.weight.shape[1]
        for out_y, out_x, row, column in np.ndindex(*self.map, *self.weight.shape[2:]):
            y = out_y * self.stride[0] - self.zeros[0] + row * self.dilation[0]
            at = out_x * self.stride[1] - self.zeros[1] + column * self.dilation[1]
            if 0 <= y < self.input[1] and 0 <= at < self.input[2]:
                for group in range(self.groups):
                    outputs, inputs = slice(group * outs, (group + 1) * outs), slice(group * ins, (group + 1) * ins)
                    weight = self.weight[outputs, :, row, column]
                    made[:, :, outputs, out_y, out_x] += x[:, :, inputs, y, at] @ weight.T
        return made.reshape(*x.shape[:2], -1)


class Layer:
    """A layer of float neurons."""

    integers = False

    def __init__(self, file: File, prefix: str, inputs: int) -> None:
        self.delays = self.late = self.lateral = self.map = None
        if file.has(f"{prefix}convolution"):
            self.map = Map(file, prefix)
            require(inputs in (-1, math.prod(self.map.input)), "inputs")
            self.neurons, channels = self.map.neurons, self.map.channels
        else:
            if file.has(f"{prefix}delays.first"):
                self.delays = Delays(file, f"{prefix}delays", inputs, -1)
            columns = self.delays.first.size if self.delays else inputs
            self.weight = file.take(f"{prefix}weight", "F32", (-1, columns)).astype(float)
            require(self.weight.size, "weight")
            self.neurons = channels = len(self.weight)
        places = self.neurons // channels
        of = {name: file.take(f"{prefix}{name}", "F32", (1,), (channels,)) for name in CONSTANTS}
        self.resonates = file.has(f"{prefix}omega")
        of["omega"] = np.zeros(1)
        if self.resonates:
            of["omega"] = file.take(f"{prefix}omega", "F32", (1,), (channels,), version=2)
        self.of = {name: np.repeat(x.astype(float), places if len(x) > 1 else 1) for name, x in of.items()}
        require(all(np.isfinite(x).all() for x in self.of.values()), "finite")
        require(((self.of["alpha"] >= 0) & (self.of["alpha"] <= 1)).all(), "alpha")
        with np.errstate(all="ignore"):
            require(((of["rho"] > 0) & np.isfinite(np.float32(1) / of["rho"])).all(), "rho")
        require((abs(self.of["omega"]) <= PI).all(), "omega")
        self.initial = np.zeros((3, self.neurons))
        if file.has(f"{prefix}initial"):
            self.initial = np.repeat(file.take(f"{prefix}initial", "F32", (3, channels)).astype(float), places, 1)
        self.constant: Array = np.zeros(1)
        if not self.map and file.has(f"{prefix}constant"):
            self.constant = file.take(f"{prefix}constant", "F32", (self.neurons,), version=4).astype(float)
        if not self.map and file.has(f"{prefix}lateral"):
            self.lateral = file.take(f"{prefix}lateral", "F32", (self.neurons, self.neurons)).astype(float)
            if file.has(f"{prefix}lateral_delays.first"):
                self.late = Delays(file, f"{prefix}lateral_delays", self.neurons, 1)
        self.room = sum(delays.room for delays in (self.delays, self.late) if delays)

    def through_weights(self, x: Array) -> Array:
        current: Array = (self.delays(x) if self.delays else x) @ self.weight.T + self.constant
        return current

    def run(self, x: Array) -> Array:
        current = self.map(x) if self.map else self.through_weights(x)
        bias, alpha, rho, r, rs, zs_hyp, zs_dep, omega = self.of.values()
        i, h, hs = (np.tile(row, (x.shape[1], 1)) for row in self.initial)
        q, spikes = np.zeros_like(i), np.zeros(current.shape)
        for t, now in enumerate(current):
            if self.lateral is not None and t:
                arriving = self.late(spikes[:t])[t - 1] if self.late else spikes[t - 1]
                now = now + arriving @ self.lateral.T
            i, q = (
                alpha * np.cos(omega) * i - alpha * np.sin(omega) * q + now,
                alpha * np.sin(omega) * i + alpha * np.cos(omega) * q,
            )
            z = zs_hyp + (zs_dep - zs_hyp) / (1 + np.exp(-10 * (h - 0.5)))
            u = rho * np.tanh(i / rho) + r * h + rs * hs + bias
            hs = z * hs + (1 - z) * h
            h = np.tanh(u)
            spikes[t] = np.maximum(h, 0)
        return spikes


BOUNDS = {
    **dict.fromkeys(("leak_shift_a", "leak_shift_b"), (1, 15)),
    "i_max": (0, 32766),
    **dict.fromkeys(("drive_high", "drive_low", "gate_threshold"), (-32767, 32767)),
    **dict.fromkeys(("zs_hyp", "zs_dep"), (0, 32767)),
    "fraction_bits": (0, 15),
    **dict.fromkeys(("r", "rs", "bias"), (-32767, 32767)),
    "slope": (0, 32767),
    "slope_shift": (0, 15),
    "h_min": (-32767, 0),
    "h_max": (0, 32767),
    "hs_min": (-32767, 0),
    "hs_max": (0, 32767),
    "spike_threshold": (-32767, 32767),
}


def fits_in_16_bits(of: dict[str, int]) -> None:
    for name, (least, most) in BOUNDS.items():
        require(least <= of[name] <= most, f"constants: {name}")
    drive, h = max(abs(of["drive_high"]), abs(of["drive_low"])), max(-of["h_min"], of["h_max"])
    u = drive + abs(of["r"]) * h + abs(of["rs"]) * max(-of["hs_min"], of["hs_max"]) + abs(of["bias"])
    apart = max(of["hs_max"] - of["h_min"], of["h_max"] - of["hs_min"])
    require(u <= 32767 and apart <= 32767, "constants: u, h and hs")
    require(max(of["zs_hyp"], of["zs_dep"]) <= 2 ** of["fraction_bits"], "constants: zs")
    require(2 * of["slope"] < 3 * 2 ** of["slope_shift"], "constants: slope")
    require(u * of["slope"] >> of["slope_shift"] < 32767, "constants: slope")


class IntegerLayer:
    """A layer of integer neurons."""

    integers, room, map = True, 0, None

    def __init__(self, file: File, prefix: str, inputs: int) -> None:
        self.of = [int(x) for x in file.take(f"{prefix}constants", "I32", (19,))]
        fits_in_16_bits(dict(zip(BOUNDS, self.of, strict=True)))
        self.weight = file.take(f"{prefix}weight", "I16", (-1, inputs)).astype(int)
        require(self.weight.size, "weight")
        self.neurons = len(self.weight)
        self.initial = np.zeros((3, self.neurons), int)
        if file.has(f"{prefix}initial"):
            self.initial = file.take(f"{prefix}initial", "I16", (3, self.neurons)).astype(int)
        i_max, (h_min, h_max, hs_min, hs_max) = self.of[2], self.of[-5:-1]
        for state, low, high in zip(self.initial, (-i_max, h_min, hs_min), (i_max, h_max, hs_max), strict=True):
            require(((state >= low) & (state <= high)).all(), f"{prefix}initial")

    def run(self, x: Array) -> Array:
        shift_a, shift_b, i_max, high, low, gate, zs_hyp, zs_dep, bits, r, rs, bias, slope, shift, *ends = self.of
        h_min, h_max, hs_min, hs_max, threshold = ends
        i, h, hs = (np.tile(row, (x.shape[1], 1)) for row in self.initial)
        made = []
        for current in x.astype(int) @ self.weight.T:
            i = np.clip(i - ((i >> shift_a) + (i >> shift_b)) + current, -i_max, i_max)
            u = np.where(i > 0, high, low) + r * h + rs * hs + bias
            z = np.where(h < gate, zs_hyp, zs_dep)
            hs = np.clip(h + (((hs - h) * z) >> bits), hs_min, hs_max)
            h = np.clip((slope * u) >> shift, h_min, h_max)
            made.append(h >= threshold)
        return np.array(made, float).reshape(len(x), x.shape[1], self.neurons)


def check_names(file: File, classes: float) -> None:
    """The names of the classes, if the file has them."""
    try:
        names = json.loads(file.texts["classes"]) if "classes" in file.texts else [""] * int(classes)
    except (ValueError, RecursionError):
        names = None
    listed = isinstance(names, list) and all(isinstance(name, str) for name in names)
    require(listed and len(names) == classes, "names")


def readout(file: File, neurons: int, inputs: int) -> Callable[[Array, Array], Array | None]:
    """From the last layer's spikes (T, B, N) and the network's inputs (T, B, K) to the logits (B, C)."""
    kind = file.texts.get("readout")
    require(kind in ("none", "votes", "linear"), "readout")
    if kind == "none":
        check_names(file, 0)
        return lambda spikes, x: None
    constants = file.take("readout.constants", "F64", (4 if kind == "votes" else 2,)).tolist()
    require(0 <= constants[kind == "votes"] <= 1, "alpha")
    if kind == "votes":
        classes, alpha, inhibition, temperature = constants
        require(classes >= 1 and classes == int(classes) and neurons % classes == 0, "classes")
        require(math.isfinite(inhibition) and temperature > 0, "votes")
        check_names(file, classes)

        def votes(spikes: Array, x: Array) -> Array:
            by_class = leaky(spikes, alpha).reshape(spikes.shape[1], -1, int(classes)).sum(1)
            everything = by_class.sum(1, keepdims=True)
            made: Array = ((1 - inhibition) * by_class + inhibition * everything) / temperature
            return made

        return votes
    alpha, window = constants
    require(window >= 0 and window == int(window) and window <= min(2**20, 2**28 // neurons), "window")
    bias = file.take("readout.bias", "F32", (-1,)).astype(float)
    require(bias.size, "classes")
    check_names(file, bias.size)
    weight = file.take("readout.weight", "F32", (len(bias), neurons)).astype(float)
    skip = np.zeros((len(bias), inputs))
    if file.has("readout.skip"):
        skip = file.take("readout.skip", "F32", skip.shape, version=6).astype(float)
    return lambda spikes, x: leaky(spikes[-int(window) :], alpha) @ weight.T + bias + x[-1] @ skip.T


def leaky(spikes: Array, alpha: float) -> Array:
    sums = np.zeros(spikes.shape[1:])
    for now in spikes:
        sums = alpha * sums + now
    return sums


def sound(file: File, integers: bool) -> int | None:
    """The number of a network's inputs, if it hears."""
    if not file.has("sound.sections"):
        return None
    sections = file.take("sound.sections", "F64", (-1, -1, 5), version=4)
    bands, stages, _ = sections.shape
    require(1 <= bands <= 4096 and 1 <= stages <= 16, "sound: bands")
    samples, steps, *factors, threshold, last = file.take("sound.constants", "F64", (7,)).tolist()
    require(samples in range(1, 2**20 + 1) and steps in range(1, 1025) and last == 0, "sound: frames")
    require(all(0 <= factor <= 1 for factor in factors) and 0 <= threshold < math.inf, "sound: constants")
    require(threshold or not integers, "sound: threshold")
    rest = [file.take(f"sound.{name}", "F64", (bands,)) for name in ("offset", "scale")]
    require(all(np.isfinite(x).all() for x in (sections, *rest)), "sound: finite")
    return 2 * bands if threshold else bands


def standardisation(file: File, inputs: int, integers: bool) -> tuple[Array, Array] | None:
    """The mean and deviation of each input, if the file has them."""
    if not (file.has("input.mean") or file.has("input.deviation")):
        return None
    require(not integers, "input: integers")
    mean, deviation = (file.take(f"input.{name}", "F32", (inputs,), version=5) for name in ("mean", "deviation"))
    require(np.isfinite(mean).all() and np.isfinite(deviation).all(), "input: finite")
    require((deviation > 0).all(), "input: deviation")
    return mean.astype(float), deviation.astype(float)


class Network:
    """A network and its file's rules."""

    def __init__(self, content: bytes) -> None:
        file = File(content)
        self.layers = list(layers(file))
        require(self.layers, "no layer")
        require(len({layer.integers for layer in self.layers}) == 1, "one kind")
        require(sum(layer.room for layer in self.layers) <= 2**28, "room")
        maps = [layer.map for layer in self.layers if layer.map]
        require(max(sum(x.neurons for x in maps), sum(x.taps for x in maps)) <= 2**22, "maps")
        first = self.layers[0]
        inputs = first.weight.shape[1] if isinstance(first, IntegerLayer) else _inputs(first)
        self.readout = readout(file, self.layers[-1].neurons, inputs)
        heard = sound(file, first.integers)
        require(heard in (None, inputs), "inputs of the sound")
        self.standardisation = standardisation(file, inputs, first.integers)
        require(not file.tensors, f"unknown: {sorted(file.tensors)}")

    def run(self, x: Array) -> tuple[list[Array], Array | None]:
        """The spikes of each layer and the logits, of inputs (T, B, K)."""
        spikes = []
        if self.standardisation:
            mean, deviation = self.standardisation
            x = (x - mean) / deviation
        entered = x
        for layer in self.layers:
            x = layer.run(x)
            spikes.append(x)
        return spikes, self.readout(x, entered)


def _inputs(layer: Layer) -> int:
    if layer.map:
        return math.prod(layer.map.input)
    return len(layer.delays.first) if layer.delays else layer.weight.shape[1]


def layers(file: File) -> Iterator[Layer | IntegerLayer]:
    number, inputs = 0, -1
    while file.has(f"layers.{number}.weight"):
        prefix = f"layers.{number}."
        kind = IntegerLayer if file.has(f"{prefix}constants") else Layer
        yield (layer := kind(file, prefix, inputs))
        number, inputs = number + 1, layer.neurons
