"""Runs networks that ``srcell export`` wrote, on NumPy arrays and without torch.

``load`` reads a file. A ``Network`` classifies batches of events, or opens a ``Stream``, which advances step by step.
The spikes equal those of the exported layers bit for bit. Logits are sums in double, first over steps and then over
neurons in ascending order, so a stream and a batch give the same logits. torch's readout sums in float32; its logits
differ in the last digits.

This module needs only numpy, and must never import torch.
"""

from __future__ import annotations

import itertools
import json
import math
import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from ._shared.files import write_output

Floats: TypeAlias = NDArray[np.float32]

version = _core.version
MOST_HELD = 2**20  # steps; the limit in csrc/runtime/sequence.cpp


class EventArrays(Protocol):
    """Any object with the attributes of ``Events``: NumPy arrays, or tensors on the CPU as in ``srcell.EventBatch``."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, B, K)."""


class Events(NamedTuple):
    """A batch of events, without torch: row ``b * T + t`` holds the events of sample b at step t.

    The inputs active in a row are ``indices[offsets[row]:offsets[row + 1]]``.

    Attributes:
        offsets: (B * T + 1,) int64, ascending from 0.
        indices: (events,) int32 in [0, K).
        shape: (T, B, K).
        values: (events,) float32; None if all are 1.
        lengths: (B,) int64, number of steps of each sample; None if all have T steps.

    """

    offsets: NDArray[np.int64]
    indices: NDArray[np.int32]
    shape: tuple[int, int, int]
    values: Floats | None = None
    lengths: NDArray[np.int64] | None = None

    @classmethod
    def from_dense(cls, input: ArrayLike, lengths: ArrayLike | None = None) -> Events:
        """Make events of the nonzero elements of an array (T, B, K) of floats or bools.

        Elements past a sample's length, (B,) integers in [0, T], are ignored.
        """
        dense = _dense("input", input)
        if dense.ndim != 3:
            flat = ": flatten maps to x.reshape(T, B, -1)" if dense.ndim > 3 else ""
            raise ValueError(f"input: expected shape (T, B, K), got {dense.shape}{flat}")
        if lengths is not None:
            lengths = _lengths(lengths, *dense.shape[:2])
        offsets, indices, values = _core.list_events(np.ascontiguousarray(dense), lengths, os.cpu_count() or 1)
        return cls(offsets, indices, dense.shape, values, lengths)


class LayerSizes(NamedTuple):
    """The sizes of a layer, and whether it has recurrent weights, has integer neurons, and resonates.

    ``max_delay`` is the most steps for which an input or a spike of the layer is delayed; 0 without delays. ``map`` is
    (channels, height, width) of the map that the neurons of a convolutional layer form; otherwise None.
    """

    inputs: int
    neurons: int
    recurrent: bool
    integer: bool
    resonant: bool = False
    max_delay: int = 0
    map: tuple[int, int, int] | None = None


class LayerWork(NamedTuple):
    """The work of a layer, or of the readout, per inference: means over samples.

    Attributes:
        events: active inputs, summed over all steps.
        synaptic_operations: the number of weights that an event passes through, recurrent ones included, summed over
            events. With delays an event passes through them once for each step at which it arrives before the end of
            the sample, and once for each tap.
        updates: neuron updates, one per neuron and step.
        weight_bytes: bytes of weights read; a weight is counted anew for each event.

    """

    events: float
    synaptic_operations: float
    updates: float
    weight_bytes: float

    def energy(self, table: Mapping[str, float]) -> float:
        """Multiply each count named in ``table`` by its cost there, and sum; the result is in the table's unit."""
        return sum(cost * float(getattr(self, name)) for name, cost in table.items())


class Network:
    """An exported network, as ``load`` returns it.

    It is immutable: threads may share it, and a copy is the same object. It holds the bytes of its file, so that it can
    be pickled. If it was exported with a ``srcell.Standardise``, every call, also of a stream, standardises its inputs.

    Attributes:
        layers: the sizes of each layer.
        num_classes: C, the number of classes; 0 without a readout.
        every_step: whether the network's outputs are those of every step, as its readout was made to give them.
        encoder: name and settings of the encoder used in training, or None.
        classes: the names of the classes, or None if the file has none.
        nbytes: bytes of its weights and parameters.

    """

    def __init__(self, bytes: bytes) -> None:
        self._network = _core.Network(bytes)
        self.layers = [LayerSizes(*sizes) for sizes in self._network.layers]
        self.num_classes: int = self._network.classes
        self.nbytes: int = self._network.nbytes
        texts = self._network.texts
        self.every_step = texts.get("every_step") == "true"
        self.encoder = _settings(texts.get("encoder"))
        self.classes: list[str] | None = self._network.class_names or None

    @property
    def input_size(self) -> int:
        """K, the number of inputs."""
        return self.layers[0].inputs

    def run(
        self,
        events: EventArrays | ArrayLike,
        lengths: ArrayLike | None = None,
        *,
        every_step: bool | None = None,
        threads: int | None = None,
    ) -> Floats:
        """The logits of each sample after its last step, or at every step.

        Args:
            events: ``Events``, a ``srcell.EventBatch`` on the CPU, or a dense array (T, B, K) of floats or bools. As in
                ``Stream.step``, integers are indices of active inputs, so an array of integers is no dense input.
            lengths: (B,) integers in [0, T], number of steps of each sample; T for all if absent. Of a dense array,
                elements past a sample's length are ignored. ``events`` that have lengths take none here.
            every_step: return the logits at every step, by default if the network's ``every_step`` is true. They equal
                those of a stream; past a sample's length they are 0.
            threads: the largest number of threads, by default one per core. The number does not change a bit of the
                result.

        Returns:
            (B, C), or at every step (T, B, C); C is 0 without a readout.

        Raises:
            ValueError: a wrong shape, or events that are not valid; the message names the argument.
            TypeError: an array of the wrong type.

        """
        every_step = self.every_step if every_step is None else bool(every_step)
        return self._run(_arrays(events, self.input_size, lengths), threads, every_step=every_step)[0]

    def spikes(
        self, events: EventArrays | ArrayLike, lengths: ArrayLike | None = None, *, threads: int | None = None
    ) -> list[Floats]:
        """The spikes (T, B, N) of every layer, first to last. The arguments are those of ``run``."""
        return self._run(_arrays(events, self.input_size, lengths), threads, wanted=range(len(self.layers)))[1]

    def counts(
        self, events: EventArrays | ArrayLike, lengths: ArrayLike | None = None, *, threads: int | None = None
    ) -> list[LayerWork]:
        """Count the work of each layer, and last of the readout, per inference: means over the samples.

        The arguments are those of ``run``. A layer's ``events`` are those that it receives from below. The events of
        its own neurons add only operations and bytes, if it has recurrent weights.
        """
        arrays = _arrays(events, self.input_size, lengths)
        *_, found, passed = self._run(arrays, threads, counts=True)
        steps, batch, _ = arrays.shape
        taken = steps * batch if arrays.lengths is None else arrays.lengths.sum()
        work = [
            (found[k], passed[k], taken * layer.neurons, (2 if layer.integer else 4) * passed[k])
            for k, layer in enumerate(self.layers)
        ]
        if self.num_classes:
            operations = found[-1] * self.num_classes
            work.append((found[-1], operations, 0, 4 * operations))
        return [LayerWork(*(float(count) / max(batch, 1) for count in counts)) for counts in work]

    def stream(self, batch: int = 1) -> Stream:
        """Open a stream that runs ``batch`` samples side by side, from the initial state."""
        return Stream(self, batch)

    def learner(
        self,
        learning_rate: float = 1e-3,
        layers: str = "all",
        *,
        clip_norm: float = 1.0,
        classes: Sequence[str] | None = None,
    ) -> Learner:
        """Make a learner, which starts from this network's weights; the network itself never changes.

        Args:
            learning_rate: of Adam, at most 1000.
            layers: "all" weights learn, or those of the "readout" alone.
            clip_norm: the largest norm of the whole gradient; 0 for any.
            classes: names of other classes: a linear readout for them, with weights of 0, replaces the network's.

        Raises:
            TypeError: an argument of the wrong type.
            ValueError: a value outside its range; a network without a readout; integer neurons or a map, unless the
                readout learns alone; a readout that counts votes where it should learn alone or has other classes.

        """
        return Learner(self, learning_rate, layers, clip_norm=clip_norm, classes=classes)

    def save(self, path: str | Path) -> None:
        """Write the network to a file, by convention ``NAME.srcell``; an existing one is replaced, whole or not at all.

        Raises:
            OSError: the file cannot be written: no space, no permission, a folder.

        """
        write_output(Path(path), self._network.file)

    def encode(
        self,
        images: ArrayLike,
        index: ArrayLike | None = None,
        seed: int = 0,
        *,
        lengths: ArrayLike | None = None,
    ) -> Events:
        """Encode images (B, ...) in [0, 1], or sequences (B, S, K), as events, with the exported network's encoder.

        Args:
            images: B images of K pixels each; with a ``srcell.data.CameraEncoding`` pictures (B, h, w); with a
                ``srcell.data.HeldEncoding`` B sequences of S elements.
            index: (B,) the samples' numbers, on which the random spikes of images depend; 0..B-1 by default.
            seed: seed of the random spikes.
            lengths: of sequences, (B,) integers in [0, S], number of elements of each; S for all if absent.

        Returns:
            Events; those of sequences have (prefix + hold * S) steps, and lengths if ``lengths`` are given.

        Raises:
            ValueError: the file names no encoder of images or sequences, a shape is wrong, a pixel is outside [0, 1],
                there are lengths of images, or a length is outside its range.
            TypeError: an argument of the wrong type.

        """
        if (self.encoder or {}).get("name") == "HeldEncoding":
            return self._held(images, lengths)
        if lengths is not None:
            raise ValueError("lengths: expected None for an encoder of images, got lengths")
        if (self.encoder or {}).get("name") == "CameraEncoding":
            return self._seen(images, index, seed)
        settings, seed = _image_encoder(self.encoder or {}), _int("seed", seed)
        pixels = _floats("images", images)
        if pixels.ndim < 2 or math.prod(pixels.shape[1:]) != self.input_size:
            raise ValueError(f"images: expected shape (B, ...) with {self.input_size} pixels each, got {pixels.shape}")
        samples, threads = len(pixels), os.cpu_count() or 1
        pixels = pixels.reshape(samples, self.input_size)
        numbers = _numbers(index, samples)
        steps, prefix = settings["steps"], settings["prefix"]
        if settings["name"] == "LatencyEncoding":
            offsets, indices = _core.latency_encode(pixels, steps, prefix, threads)
        else:
            gain, thinned = float(settings["gain"]), bool(settings.get("thinned", False))
            offsets, indices = _core.rate_encode(pixels, numbers, steps, prefix, gain, seed % 2**64, thinned, threads)
        return Events(offsets, indices, (prefix + steps, samples, self.input_size))

    def _seen(self, images: ArrayLike, index: ArrayLike | None, seed: int) -> Events:
        """The events that a camera sends while it moves before pictures (B, h, w)."""
        seed = _int("seed", seed) % 2**64
        steps, size, movement, sensor, view = _camera(self.encoder or {}, seed)
        pictures = _floats("images", images)
        if pictures.ndim != 3 or 2 * math.prod(size) != self.input_size:
            raise ValueError(f"images: expected shape (B, h, w) for a camera of {size} pixels, got {pictures.shape}")
        samples, threads = len(pictures), os.cpu_count() or 1
        numbers = _numbers(index, samples)
        offsets, indices = _core.camera_pictures(pictures, movement, numbers, steps, size, sensor, view, threads)
        return Events(offsets, indices, (steps, samples, self.input_size))

    def _held(self, values: ArrayLike, lengths: ArrayLike | None) -> Events:
        """The events of sequences (B, S, K), whose elements last for several steps."""
        hold, prefix = _held_steps(self.encoder or {})
        elements = _dense("images", values)
        if elements.ndim != 3 or elements.shape[2] != self.input_size:
            raise ValueError(
                f"images: expected sequences (B, S, {self.input_size}) for a HeldEncoding, got {elements.shape}"
            )
        batch, most, _ = elements.shape
        ends = None if lengths is None else prefix + hold * _lengths(lengths, most, batch)
        held = np.zeros((prefix + hold * most, batch, self.input_size), np.float32)
        held[prefix:] = elements.swapaxes(0, 1).repeat(hold, 0)
        return Events.from_dense(held, ends)

    def _run(
        self,
        arrays: Events,
        threads: int | None,
        wanted: Sequence[int] = (),
        counts: bool = False,
        every_step: bool = False,
    ) -> tuple[Floats, list[Floats], NDArray[np.int64], NDArray[np.int64]]:
        """The logits, the spikes of the ``wanted`` layers, and numbers over all samples.

        The numbers are the events of the input and of each layer, (1 + layers,), and the weights through which the
        events of each layer pass, (layers,).
        """
        offsets, indices, (steps, batch, _), values, lengths = arrays
        most = _threads(threads)
        return self._network.run(steps, batch, offsets, indices, values, lengths, wanted, counts, every_step, most)

    def __reduce__(self) -> tuple[type[Network], tuple[bytes]]:
        return Network, (self._network.file,)

    def __copy__(self) -> Network:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        return self

    def __repr__(self) -> str:
        sizes = "-".join(str(size) for size in (self.input_size, *(layer.neurons for layer in self.layers)))
        return f"Network({sizes}, num_classes={self.num_classes})"


class Learner:
    """A network that learns where it runs, by backpropagation and Adam; ``Network.learner`` makes it.

    The gradients are those of the layers' backward pass in torch, by the same kernels: the default gradient, through
    the integrators, whatever the layers were trained with; surrogates and bounds of biases are as in training. Weights,
    recurrent weights and biases learn, those of a linear readout too; cell parameters, delays, constant currents and
    initial states stay. The weights after any number of steps have the same bits on every processor and for any number
    of threads.

    It takes one call at a time; a second one, from another thread, raises. After an error what was learnt is as before.
    """

    def __init__(
        self,
        network: Network,
        learning_rate: float = 1e-3,
        layers: str = "all",
        *,
        clip_norm: float = 1.0,
        classes: Sequence[str] | None = None,
    ) -> None:
        if not isinstance(layers, str) or layers not in ("all", "readout"):
            raise ValueError(f"layers: expected 'all' or 'readout', got {layers!r}")
        names = None if classes is None else as_names("classes", classes)
        rate, clip = _real("learning_rate", learning_rate), _real("clip_norm", clip_norm)
        self.input_size = network.input_size
        self._learner = _core.Learner(network._network, rate, clip, layers == "readout", names)
        self.num_classes = network.num_classes if names is None else len(names)

    def step(
        self,
        events: EventArrays | ArrayLike,
        targets: ArrayLike,
        lengths: ArrayLike | None = None,
        *,
        threads: int | None = None,
    ) -> float:
        """Learn from a batch, in one step of Adam.

        Args:
            events: as in ``Network.run``.
            targets: integers, the labels (B,) of the samples, or (B, T) of every step, for the cross-entropy of the
                logits, which is a mean over the samples or over all their steps. Or floats, (B, C), or (B, T, C) at
                every step, for the mean squared error. What lies past a sample's length is not read.
            lengths: as in ``Network.run``.
            threads: the largest number of threads, by default one per core.

        Returns:
            The loss before the step.

        Raises:
            TypeError: an array of the wrong type.
            ValueError: a wrong shape, events that are not valid, a label that is no class, a target that is not finite;
                or a loss or gradient that is not finite.

        """
        return self._learner.step(*self._arguments(events, targets, lengths, threads))

    def gradients(
        self,
        events: EventArrays | ArrayLike,
        targets: ArrayLike,
        lengths: ArrayLike | None = None,
        *,
        threads: int | None = None,
    ) -> tuple[float, dict[str, Floats]]:
        """The loss and its gradients, without a step; the arguments are those of ``step``.

        Returns:
            The loss, and the gradients by the names that the weights have in the file.

        """
        return self._learner.gradients(*self._arguments(events, targets, lengths, threads))

    def network(self) -> Network:
        """What was learnt, as a network of its own, which does not change when this learner goes on."""
        return Network(self._learner.file())

    def save(self) -> bytes:
        """What was learnt and Adam's moments, for ``restore``."""
        return self._learner.save()

    def restore(self, state: bytes) -> None:
        """Go on, with the same bits, from what a learner of the same file, classes and layers saved.

        The learning rate and ``clip_norm`` are not part of a state.

        Raises:
            TypeError: ``state`` is not bytes.
            ValueError: the state is from another network, other classes or layers, or is damaged.

        """
        self._learner.restore(_bytes("state", state))

    def _arguments(
        self, events: EventArrays | ArrayLike, targets: ArrayLike, lengths: ArrayLike | None, threads: int | None
    ) -> tuple[Any, ...]:
        """What the compiled learner takes."""
        offsets, indices, (steps, batch, _), values, ends = _arrays(events, self.input_size, lengths)
        wanted = _array("targets", targets)
        labels = wanted.dtype.kind in "iu"
        of_one = () if labels else (self.num_classes,)
        every_step = wanted.shape == (batch, steps, *of_one)
        if not every_step and wanted.shape != (batch, *of_one):
            shapes = [tuple(shape) for shape in ((batch, *of_one), (batch, steps, *of_one))]
            kind = "labels" if labels else "values"
            raise ValueError(f"targets: expected {kind} of shape {shapes[0]} or {shapes[1]}, got {wanted.shape}")
        made = (_integers("targets", wanted), None) if labels else (None, _floats("targets", wanted))
        return steps, batch, offsets, indices, values, ends, *made, every_step, _threads(threads)


class Stream:
    """A network that runs one step at a time and holds its state.

    Calls from several threads run one after the other, in no particular order, with and without a GIL.
    """

    def __init__(self, network: Network, batch: int = 1) -> None:
        self.network, self.batch = network, _int("batch", batch)
        self._stream = _core.Stream(network._network, self.batch)

    def step(self, input: ArrayLike, values: ArrayLike | None = None, *, offsets: ArrayLike | None = None) -> Floats:
        """Advance by one step and return the spikes of the last layer, (B, N).

        Args:
            input: integers, the indices (events,) of the active inputs; or floats or bools, the dense input (K,) or
                (B, K). As in ``Network.run``, integers are never a dense input.
            values: values of the active inputs; all 1 by default.
            offsets: (B + 1,) for B > 1: the active inputs of sample b are ``input[offsets[b]:offsets[b + 1]]``.

        Raises:
            ValueError: an input that does not exist, or a wrong size; or K zeros and ones as integers, which look like
                a dense input (with ``offsets`` they are taken as indices). The state is then unchanged.

        """
        array = input if isinstance(input, np.ndarray) else _array("input", input)
        if array.dtype.kind in "fb" and array.size:
            if values is not None or offsets is not None:
                raise ValueError(
                    "input: expected indices of the active inputs with values or offsets, got a dense input"
                )
            batch, inputs = self.batch, self.network.input_size
            if array.shape != (batch, inputs) and (batch > 1 or array.shape != (inputs,)):
                raise ValueError(f"input: expected shape ({batch}, {inputs}), got {array.shape}")
            return self._stream.step_dense(_floats("input", array))
        if array.ndim != 1:
            raise ValueError(f"input: expected indices (events,), or floats or bools, got {array.dtype} {array.shape}")
        may_be_dense = array.size == self.network.input_size and values is None and offsets is None
        if may_be_dense and array.max() <= 1 and not (array[1:] > array[:-1]).all():
            raise ValueError(
                f"input: expected indices of the active inputs, got {array.size} zeros and ones of {array.dtype}: "
                "convert a dense input to floats or bools"
            )
        wide = array.dtype == np.int64
        return self._stream.step(
            np.require(array, np.int64, ["C", "A"]) if wide else _indices(array),
            None if values is None else _floats("values", values),
            None if offsets is None else _integers("offsets", offsets),
        )

    def feed(self, values: ArrayLike) -> int:
        """Take the next element of real-valued sequences.

        A network that was exported with a ``srcell.data.HeldEncoding`` takes ``hold`` steps with these values. Before
        the first element since the stream was opened or reset, it takes ``prefix`` steps without events. A network
        without an encoder takes one step.

        Args:
            values: (B, K) floats, of one sample also (K,).

        Returns:
            The number of steps taken; ``logits`` then gives those after the last one.

        Raises:
            TypeError: not an array of floats or bools.
            ValueError: a wrong shape, NaN, or a network with another encoder. The state is then unchanged.

        """
        array, batch, inputs = _dense("values", values), self.batch, self.network.input_size
        if array.shape != (batch, inputs) and (batch > 1 or array.shape != (inputs,)):
            raise ValueError(f"values: expected shape ({batch}, {inputs}), got {array.shape}")
        return self._stream.feed(array)

    def hear(self, samples: ArrayLike) -> int:
        """Hear the next samples of a sound: take the steps of each frame that they complete.

        The network was exported with a ``srcell.data.SoundEncoding``. Chunks of any lengths give the same bits.

        Args:
            samples: (S,) floats, by convention in [-1, 1], at ``network.encoder["rate"]`` samples per second.

        Returns:
            The number of steps taken; ``logits`` then gives those after the last one.

        Raises:
            TypeError: not an array of floats.
            ValueError: a wrong shape, a sample that is not finite, a network without a SoundEncoding, or a stream of
                several samples. The state is then unchanged.

        """
        return self._stream.hear(_sound(samples))

    def logits(self) -> Floats:
        """The current logits, from all steps so far, (B, C)."""
        return self._stream.logits()

    def reset(self) -> None:
        """Return to the initial state."""
        self._stream.reset()

    def save(self) -> bytes:
        """The state, for ``restore``."""
        return self._stream.save()

    def restore(self, state: bytes) -> None:
        """Continue from a state saved by a stream of the same file with the same number of samples.

        The steps that follow have the same bits, with one exception: inputs with delays that a step listed unsorted or
        twice, and that have not arrived yet, are added up in another order.

        Raises:
            ValueError: the state is from another network, number of samples or version of the layout, or is damaged.
            TypeError: ``state`` is not bytes.

        """
        self._stream.restore(_bytes("state", state))


class Hearing:
    """A sound that is heard in chunks of any lengths, without a network: its currents or events.

    ``srcell.data.SoundEncoding.hearing`` makes one. An exported network hears with the same arithmetic:
    ``Stream.hear``. Calls from several threads are taken one after the other, in no particular order.

    Args:
        sections: (bands, sections, 5) float64: b0, b1, b2, a1 and a2 of each second-order section.
        constants: as ``sound.constants`` in a file.
        offset: (bands,) float64.
        scale: (bands,) float64.

    Raises:
        ValueError: a wrong shape or value.

    """

    def __init__(self, sections: ArrayLike, constants: ArrayLike, offset: ArrayLike, scale: ArrayLike) -> None:
        given = [np.require(x, np.float64, ["C", "A"]) for x in (sections, constants, offset, scale)]
        self._hearing = _core.Hearing(_core.Cochlea(given[0], given[1].ravel().tolist(), given[2], given[3]))

    def take(self, samples: ArrayLike) -> Any:
        """Hear the next samples, (S,) floats.

        Returns:
            The currents of the frames that they complete, (frames, bands) float32; with a threshold a pair: the number
            of events up to each frame, (frames + 1,) int64, and the active inputs, (events,) int32.

        Raises:
            TypeError: not an array of floats; nothing is heard then.
            ValueError: a wrong shape, or a sample that is not finite; nothing is heard then.

        """
        return self._hearing.take(_sound(samples))


def load(path: str | Path) -> Network:
    """Read a network written by ``srcell export`` or by a network's ``export``.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file holds no exported network, or one of a newer version; the message names the path.

    Example:
        >>> import tempfile
        >>> import numpy as np, srcell
        >>> from srcell.models import SRCClassifier
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     SRCClassifier(64, [], num_classes=10).export(f"{folder}/net.srcell")
        ...     net = srcell.runtime.load(f"{folder}/net.srcell")
        >>> net.run(np.random.rand(50, 3, 64) < 0.1).shape
        (3, 10)
        >>> stream = net.stream()
        >>> stream.step(np.array([3, 17], np.int32)).shape
        (1, 100)

    """
    data = Path(path).read_bytes()
    try:
        return Network(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _arrays(events: EventArrays | ArrayLike, inputs: int, of_samples: ArrayLike | None) -> Events:
    """Convert events, and the samples' lengths, to the arrays that the compiled module expects."""
    given: Any = events
    if not hasattr(given, "offsets"):
        given = Events.from_dense(_dense("events", given), of_samples)
    elif of_samples is not None:
        if given.lengths is not None:
            raise ValueError("lengths: expected None beside events that have lengths, got lengths")
        given = Events(given.offsets, given.indices, given.shape, given.values, _lengths(of_samples, *given.shape[:2]))
    steps, batch, width = given.shape
    if width != inputs:
        raise ValueError(f"events: expected {inputs} inputs, got shape {tuple(given.shape)}")
    return Events(
        _integers("offsets", given.offsets),
        _indices(_array("indices", given.indices)),
        (steps, batch, width),
        None if given.values is None else _floats("values", given.values),
        None if given.lengths is None else _integers("lengths", given.lengths),
    )


def _lengths(given: ArrayLike, steps: int, batch: int) -> NDArray[np.int64]:
    lengths = _integers("lengths", given)
    if lengths.shape != (batch,):
        raise ValueError(f"lengths: expected shape ({batch},), got {lengths.shape}")
    if batch and not 0 <= lengths.min() <= lengths.max() <= steps:
        raise ValueError(f"lengths: expected values in [0, {steps}], got {lengths.min()} to {lengths.max()}")
    return lengths


def _array(name: str, given: Any) -> NDArray[Any]:
    """Convert anything to an array; a tensor loses its gradient."""
    try:
        if hasattr(given, "__dlpack__") and not hasattr(given, "__array__"):
            return np.from_dlpack(given)
        return np.asarray(given.detach() if hasattr(given, "detach") else given)
    # Lists of different lengths raise ValueError. What NumPy cannot hold (sparse, on another device, bfloat16) and what
    # an object does in its own methods may raise anything else.
    except Exception as error:
        reason = str(error).partition("\n")[0]
        message = f"{name}: expected an array of numbers, got {type(given).__name__}: {reason}"
        raise (ValueError if isinstance(error, ValueError) else TypeError)(message) from None


def _dense(name: str, given: Any) -> Floats:
    """Convert a dense input to float32."""
    array = _array(name, given)
    if array.dtype.kind in "iu":
        raise TypeError(
            f"{name}: expected floats or bools for a dense input, got {array.dtype}: integers are indices of active "
            "inputs"
        )
    return _floats(name, array)


def _floats(name: str, given: Any) -> Floats:
    """Convert numbers to a float32 array as the compiled module expects it: contiguous and aligned."""
    array = _array(name, given)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected numbers, got {array.dtype}")
    with np.errstate(over="ignore"):  # where infinity is not allowed, it is refused by name
        return np.require(array, np.float32, ["C", "A"])


def _int(name: str, given: Any) -> int:
    try:
        return operator.index(given)
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {type(given).__name__}") from None


def _real(name: str, given: Any) -> float:
    try:
        if isinstance(given, str | bytes):  # which float() would read
            raise TypeError
        return float(operator.index(given)) if hasattr(given, "__index__") else float(given)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name}: expected a number, got {given!r:.80}") from None


def as_names(name: str, given: Any) -> list[str]:
    """Different strings."""
    found = [] if isinstance(given, str) or not isinstance(given, Sequence) else list(given)
    if not found or not all(isinstance(text, str) for text in found):
        raise TypeError(f"{name}: expected a sequence of strings, got {given!r:.80}")
    if len(set(found)) < len(found):
        raise ValueError(f"{name}: expected names that differ, got {given!r:.80}")
    for text in found:
        if "\0" in text:
            raise ValueError(f"{name}: expected text without NUL, got {text!r:.80}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name}: expected text in Unicode, got {text!r:.80}, a part of a character") from None
    return found


def _bytes(name: str, given: Any) -> bytes:
    if not isinstance(given, bytes | bytearray | memoryview):
        raise TypeError(f"{name}: expected bytes, got {type(given).__name__}")
    return bytes(given)


def _threads(given: int | None) -> int:
    threads = (os.cpu_count() or 1) if given is None else _int("threads", given)
    if threads < 1:
        raise ValueError(f"threads: expected at least 1, got {threads}")
    return min(threads, 2**31 - 1)


def _integers(name: str, given: Any) -> NDArray[np.int64]:
    array = _array(name, given)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    if array.dtype.kind == "u" and array.size and int(array.max()) >= 2**63:
        raise ValueError(f"{name}: expected integers below 2^63, got {array.max()}")
    return np.require(array, np.int64, ["C", "A"])


def _sound(samples: ArrayLike) -> Floats:
    array = _array("samples", samples)
    if array.dtype.kind in "iub":
        raise TypeError(
            f"samples: expected floats, by convention in [-1, 1], got {array.dtype}: divide 16-bit samples by 32768"
        )
    if array.ndim != 1:
        raise ValueError(f"samples: expected shape (S,), got {array.shape}")
    return _floats("samples", array)


def _indices(array: NDArray[Any]) -> NDArray[np.int32]:
    """Convert indices of inputs to int32; raise if one does not fit."""
    if array.size and array.dtype != np.int32:
        if array.dtype.kind not in "iu":
            raise TypeError(f"indices: expected integers, got {array.dtype}")
        if not -1 <= array.min() <= array.max() < 2**31:
            raise ValueError(f"indices: expected values in [0, 2^31), got {array.min()} to {array.max()}")
    return np.require(array, np.int32, ["C", "A"])


def _settings(text: str | None) -> dict[str, Any] | None:
    """The encoder's settings in the file."""
    if text is None:
        return None
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise ValueError("encoder: expected a JSON object with its name and settings")
    return settings


def _held_steps(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Return the numbers ``hold`` and ``prefix`` of a HeldEncoding; raise if they are outside the runtime's ranges."""
    found = []
    for key, least in (("hold", 1), ("prefix", 0)):
        steps = settings.get(key)
        if type(steps) is not int or not least <= steps <= MOST_HELD:
            raise ValueError(f"encoder: expected {key} to be an int in [{least}, 2^20], got {steps!r}")
        found.append(steps)
    return found[0], found[1]


def _camera(settings: Mapping[str, Any], seed: int) -> tuple[Any, ...]:
    """Steps, sensor, movement, pixels and view of a CameraEncoding as the kernels take them; they check the ranges."""
    try:
        height, width = settings["sensor_size"]
        threshold = settings["threshold"]
        rise, fall = threshold if isinstance(threshold, list) else (threshold, threshold)
        whole = settings["steps"], height, width, settings["refractory"]
        reals = rise, fall, *(settings[key] for key in ("spread", "noise", "blur", "size_jitter", "place_jitter"))
        movement = np.array([[t, y, x] for t, y, x in settings["movement"]], np.float64).reshape(-1, 3)
        if not all(type(x) is int and -(2**63) <= x < 2**63 for x in whole):
            raise TypeError("expected integers")
        if not all(type(x) in (int, float) for x in itertools.chain(reals, *settings["movement"])):
            raise TypeError("expected numbers")
        rise, fall, spread, noise, *view = map(float, reals)
        return whole[0], (height, width), movement, (rise, fall, spread, whole[3], noise, seed), tuple(view)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"encoder: expected the settings of a CameraEncoding, got {settings!r:.200}") from error


def _numbers(index: ArrayLike | None, samples: int) -> NDArray[np.int64]:
    """The samples' numbers, 0..B-1 if absent."""
    numbers = np.arange(samples) if index is None else _integers("index", index)
    if numbers.shape != (samples,):
        raise ValueError(f"index: expected shape ({samples},), got {numbers.shape}")
    return numbers


def _image_encoder(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of an image encoder; raise if they are outside the kernels' ranges."""
    name = settings.get("name")
    if name not in ("RateEncoding", "LatencyEncoding"):
        raise ValueError(f"encoder: expected an image encoder, got {name}: encode the input yourself")
    for key, least in (("steps", int(name == "LatencyEncoding")), ("prefix", 0)):
        number = settings.get(key)
        if type(number) is not int or not least <= number < 2**31:
            raise ValueError(f"encoder: expected {key} to be an int in [{least}, 2^31), got {number!r}")
    gain = settings.get("gain")
    if name == "RateEncoding" and not (isinstance(gain, int | float) and 0 <= gain < math.inf):
        raise ValueError(f"encoder: expected gain to be finite and at least 0, got {gain!r}")
    return settings


__all__ = [
    "EventArrays",
    "Events",
    "Hearing",
    "LayerSizes",
    "LayerWork",
    "Learner",
    "Network",
    "Stream",
    "load",
    "version",
]
