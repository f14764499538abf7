"""Types of the compiled module srcell._core, written by tools/stubs.py; CI compares them with the module."""

from __future__ import annotations

import collections.abc
import typing

import numpy
import numpy.typing

class _Shape:
    pass

class Layer:
    @property
    def device_turn(self) -> int: ...
    @device_turn.setter
    def device_turn(self, arg0: int) -> None: ...
    @property
    def shape(self) -> _Shape: ...
    @property
    def turns(self) -> int: ...

class EventRows:
    def __init__(self, offsets: int, indices: int, values: int, count: int, inputs: int) -> None: ...

class DenseRows:
    def __init__(
        self, is_double: bool, sizes: collections.abc.Sequence[int], lengths: int, elements: int, mask: int
    ) -> None: ...

class IntegerLayer:
    def __init__(
        self,
        sizes: collections.abc.Sequence[int],
        lengths: int,
        cell: collections.abc.Sequence[int],
        state: collections.abc.Sequence[int],
    ) -> None: ...
    @property
    def shape(self) -> _Shape: ...

class Delay:
    def __init__(
        self,
        is_double: bool,
        on_host: bool,
        sizes: collections.abc.Sequence[int],
        lengths: int,
        threads: int,
        skip: int,
        taps: int,
        terms: int,
        first: int,
        factors: int,
        keep_zeros: bool,
    ) -> None: ...

class Way:
    def __init__(self, direct: bool, one_step: bool, stacked: bool) -> None: ...
    @property
    def one_step(self) -> bool: ...
    @property
    def stacked(self) -> bool: ...

class Network:
    def __init__(self, bytes: bytes) -> None: ...
    def run(
        self,
        steps: int,
        batch: int,
        offsets: numpy.typing.NDArray[numpy.int64],
        indices: numpy.typing.NDArray[numpy.int32],
        values: numpy.typing.NDArray[numpy.float32] | None,
        lengths: numpy.typing.NDArray[numpy.int64] | None,
        wanted: collections.abc.Sequence[int],
        counts: bool,
        every_step: bool,
        threads: int,
    ) -> tuple[typing.Any, ...]: ...
    @property
    def class_names(self) -> list[typing.Any]: ...
    @property
    def classes(self) -> int: ...
    @property
    def file(self) -> bytes: ...
    @property
    def inputs(self) -> int: ...
    @property
    def layers(self) -> list[typing.Any]: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def texts(self) -> dict[str, typing.Any]: ...

class Learner:
    def __init__(
        self,
        network: Network,
        rate: float,
        clip_norm: float,
        readout_alone: bool,
        classes: collections.abc.Sequence[str] | None,
    ) -> None: ...
    def file(self) -> bytes: ...
    def gradients(
        self,
        steps: int,
        batch: int,
        offsets: numpy.typing.NDArray[numpy.int64],
        indices: numpy.typing.NDArray[numpy.int32],
        values: numpy.typing.NDArray[numpy.float32] | None,
        lengths: numpy.typing.NDArray[numpy.int64] | None,
        labels: numpy.typing.NDArray[numpy.int64] | None,
        targets: numpy.typing.NDArray[numpy.float32] | None,
        every_step: bool,
        threads: int,
    ) -> tuple[typing.Any, ...]: ...
    def restore(self, state: bytes) -> None: ...
    def save(self) -> bytes: ...
    def step(
        self,
        steps: int,
        batch: int,
        offsets: numpy.typing.NDArray[numpy.int64],
        indices: numpy.typing.NDArray[numpy.int32],
        values: numpy.typing.NDArray[numpy.float32] | None,
        lengths: numpy.typing.NDArray[numpy.int64] | None,
        labels: numpy.typing.NDArray[numpy.int64] | None,
        targets: numpy.typing.NDArray[numpy.float32] | None,
        every_step: bool,
        threads: int,
    ) -> float: ...
    @property
    def scratch_bytes(self) -> int: ...

class Cochlea:
    def __init__(
        self,
        sections: numpy.typing.NDArray[numpy.float64],
        constants: collections.abc.Sequence[float],
        offset: numpy.typing.NDArray[numpy.float64],
        scale: numpy.typing.NDArray[numpy.float64],
    ) -> None: ...

class Hearing:
    def __init__(self, cochlea: Cochlea) -> None: ...
    def take(self, samples: numpy.typing.NDArray[numpy.float32]) -> typing.Any: ...

class Stream:
    def __init__(self, network: Network, batch: int) -> None: ...
    def feed(self, values: numpy.typing.NDArray[numpy.float32]) -> int: ...
    def hear(self, samples: numpy.typing.NDArray[numpy.float32]) -> int: ...
    def logits(self) -> numpy.typing.NDArray[numpy.float32]: ...
    def reset(self) -> None: ...
    def restore(self, state: bytes) -> None: ...
    def save(self) -> bytes: ...
    @typing.overload
    def step(
        self,
        indices: numpy.typing.NDArray[numpy.int32],
        values: numpy.typing.NDArray[numpy.float32] | None,
        offsets: numpy.typing.NDArray[numpy.int64] | None,
    ) -> numpy.typing.NDArray[numpy.float32]: ...
    @typing.overload
    def step(
        self,
        indices: numpy.typing.NDArray[numpy.int64],
        values: numpy.typing.NDArray[numpy.float32] | None,
        offsets: numpy.typing.NDArray[numpy.int64] | None,
    ) -> numpy.typing.NDArray[numpy.float32]: ...
    def step_dense(self, input: numpy.typing.NDArray[numpy.float32]) -> numpy.typing.NDArray[numpy.float32]: ...

def cached_bytes() -> int: ...
def camera_frames(
    frames: numpy.typing.NDArray[numpy.float32],
    index: numpy.typing.NDArray[numpy.int64],
    sensor: tuple[float, float, float, int, float, int],
    dark: float,
    threads: int,
) -> tuple[typing.Any, ...]: ...
def camera_pictures(
    pictures: numpy.typing.NDArray[numpy.float32],
    movement: numpy.typing.NDArray[numpy.float64],
    index: numpy.typing.NDArray[numpy.int64],
    steps: int,
    size: tuple[int, int],
    sensor: tuple[float, float, float, int, float, int],
    view: tuple[float, float, float],
    threads: int,
) -> tuple[typing.Any, ...]: ...
def check_capsule(capsule: typing.Any) -> None: ...
def check_integer_cell(cell: collections.abc.Sequence[int]) -> None: ...
def count_delayed(delay: Delay, rows: EventRows, starts: int) -> int: ...
@typing.overload
def count_spikes(spikes: numpy.typing.NDArray[numpy.float32], threads: int) -> numpy.typing.NDArray[numpy.int64]: ...
@typing.overload
def count_spikes(spikes: numpy.typing.NDArray[numpy.float64], threads: int) -> numpy.typing.NDArray[numpy.int64]: ...
def delay_elements(delay: Delay, elements: int, delayed: int) -> None: ...
def delay_elements_backward(
    delay: Delay, elements: int, grad_delayed: int, grad_elements: int, grad_factors: int, partials: int
) -> None: ...
def delay_terms(delay: typing.Any, neurons: int, delay_width: int, max_delay: int, clamped: bool) -> typing.Any: ...
def delayed_backward(
    delay: Delay,
    rows: EventRows,
    cursors: int,
    offsets: int,
    count: int,
    grad_values: int,
    grad_events: int,
    grad_factors: int,
    partials: int,
) -> None: ...
def empty(shape: collections.abc.Sequence[int], is_double: bool) -> numpy.ndarray: ...
def find_event_fault(
    is_double: bool, sizes: collections.abc.Sequence[int], rows: EventRows, lengths: int, threads: int
) -> tuple[str, int] | None: ...
def find_threads() -> None: ...
def integer_src(call: typing.Any, threads: int) -> typing.Any: ...
def integer_src_backward(call: typing.Any, threads: int) -> typing.Any: ...
def latency_encode(
    images: numpy.typing.NDArray[numpy.float32], steps: int, prefix: int, threads: int
) -> tuple[typing.Any, ...]: ...
def layer_on_gpu(layer: typing.Any, sizes: collections.abc.Sequence[int], is_double: bool, backward: bool) -> Layer: ...
@typing.overload
def list_events(
    dense: numpy.typing.NDArray[numpy.float32], lengths: numpy.typing.NDArray[numpy.int64] | None, threads: int
) -> tuple[typing.Any, ...]: ...
@typing.overload
def list_events(
    dense: numpy.typing.NDArray[numpy.float64], lengths: numpy.typing.NDArray[numpy.int64] | None, threads: int
) -> tuple[typing.Any, ...]: ...
def nobody_watches(tensors: list[typing.Any]) -> bool: ...
def philox(counter: collections.abc.Sequence[int], key: collections.abc.Sequence[int]) -> tuple[typing.Any, ...]: ...
def rate_encode(
    images: numpy.typing.NDArray[numpy.float32],
    index: numpy.typing.NDArray[numpy.int64],
    steps: int,
    prefix: int,
    gain: float,
    seed: int,
    thinned: bool,
    threads: int,
) -> tuple[typing.Any, ...]: ...
def rest(count: int, bias: int, gain: int, h: int) -> None: ...
def sigmoid(x: numpy.typing.NDArray[typing.Any]) -> numpy.typing.NDArray[typing.Any]: ...
def sine_cosine(x: numpy.typing.NDArray[numpy.float64]) -> tuple[typing.Any, ...]: ...
def src(call: typing.Any, way: Way, threads: int) -> typing.Any: ...
def src_backward(call: typing.Any, way: Way, threads: int) -> typing.Any: ...
def src_dense(call: typing.Any, way: Way, threads: int) -> typing.Any: ...
def src_dense_backward(call: typing.Any, ones: bool, way: Way, threads: int) -> typing.Any: ...
def src_events(call: typing.Any, way: Way, threads: int) -> typing.Any: ...
def src_events_backward(call: typing.Any, way: Way, threads: int) -> typing.Any: ...
def takes_events(
    is_double: bool, sizes: collections.abc.Sequence[int], lengths: int, input: int, places: int
) -> bool: ...
def tanh(x: numpy.typing.NDArray[typing.Any]) -> numpy.typing.NDArray[typing.Any]: ...
def thread_runtime() -> str: ...
def write_delayed(
    delay: Delay, rows: EventRows, starts: int, cursors: int, offsets: int, count: int, indices: int, values: int
) -> None: ...

available_isas: tuple[typing.Any, ...]
event_segment: int
integer_constants: tuple[typing.Any, ...]
isa: str
parameters: tuple[typing.Any, ...]
segment: int
table: dict[str, typing.Any]
version: str
