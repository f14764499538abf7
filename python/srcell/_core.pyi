# Types of the compiled module ``srcell._core``, whose functions take addresses and sizes; CI checks them against it.

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_Float = TypeVar("_Float", np.float32, np.float64)

version: str
isa: str
available_isas: tuple[str, ...]
segment: int
event_segment: int
pixel_group: int
drawn_steps: int
parameters: tuple[str, ...]

class LateralDelays:
    def __init__(self, terms: int, room: int, first: int, factors: int) -> None: ...

class Layer:
    def __init__(
        self,
        is_double: bool,
        on_host: bool,
        sizes: Sequence[int],
        lengths: int,
        threads: int,
        constants: Sequence[float],
        addresses: Sequence[int],
        strides: Sequence[int],
        state: Sequence[int],
        relu: bool,
        recurrent: bool,
        weight_hh: int,
        lateral_relu: bool,
        delays: LateralDelays,
    ) -> None: ...
    @property
    def shape(self) -> Any: ...  # for the kernels of srcell._cuda
    @property
    def turns(self) -> int: ...
    device_turn: int

class IntegerLayer:
    def __init__(
        self, on_host: bool, sizes: Sequence[int], lengths: int, threads: int, cell: Sequence[int], state: Sequence[int]
    ) -> None: ...
    @property
    def shape(self) -> Any: ...  # for the kernels of srcell._cuda

class EventRows:
    def __init__(self, offsets: int, indices: int, values: int, count: int, inputs: int) -> None: ...

class DenseRows:
    def __init__(self, is_double: bool, sizes: Sequence[int], lengths: int, elements: int, mask: int) -> None: ...

class Delay:
    def __init__(
        self,
        is_double: bool,
        on_host: bool,
        sizes: Sequence[int],
        lengths: int,
        threads: int,
        skip: int,
        taps: int,
        terms: int,
        first: int,
        factors: int,
        keep_zeros: bool,
    ) -> None: ...

class Images:
    def __init__(self, values: int, samples: int, pixels: int, threads: int) -> None: ...

class RateEncoding:
    def __init__(
        self,
        images: Images,
        active_before: int,
        index: int,
        steps: int,
        prefix: int,
        gain: float,
        seed: int,
        scratch: Sequence[int],
        offsets: int,
        thinned: bool,
    ) -> None: ...

def count_delayed(delay: Delay, rows: EventRows, starts: int) -> int: ...
def write_delayed(
    delay: Delay, rows: EventRows, starts: int, cursors: int, offsets: int, count: int, indices: int, values: int
) -> None: ...
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
def delay_elements(delay: Delay, elements: int, delayed: int) -> None: ...
def delay_elements_backward(
    delay: Delay, elements: int, grad_delayed: int, grad_elements: int, grad_factors: int, partials: int
) -> None: ...
def thread_runtime() -> str: ...
def cached_bytes() -> int: ...
def empty(shape: Sequence[int], is_double: bool) -> NDArray[Any]: ...
def src(call: object, threads: int) -> tuple[Any, ...] | None: ...
def src_events(call: object, threads: int) -> tuple[Any, ...] | None: ...
def src_dense(call: object, threads: int) -> Any: ...

class LinearCall:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    @property
    def cell(self) -> tuple[float | None, ...]: ...
    @property
    def surrogate(self) -> str: ...
    @property
    def lateral_surrogate(self) -> str: ...
    @property
    def ones(self) -> bool: ...
    @property
    def at_events(self) -> bool: ...
    @property
    def one_step(self) -> bool: ...
    @property
    def stacked(self) -> bool: ...
    @property
    def recurrent_grad(self) -> bool: ...
    @property
    def steps(self) -> int: ...
    @property
    def batch(self) -> int: ...

def src_linear(
    input: object,
    weight: object,
    given: object,
    lengths: object,
    method: object,
    input_grad_at_events: bool,
    one_step: bool,
    stacked: bool,
    threads: int,
) -> Any: ...
def src_linear_backward(
    call: LinearCall, kept: tuple[Any, ...], grads: tuple[Any, ...], needs: tuple[Any, ...], threads: int
) -> tuple[Any, ...] | None: ...
def check_capsule(capsule: object) -> None: ...
def nobody_watches(tensors: list[Any]) -> bool: ...
def scan_forward(layer: Layer, outputs: Sequence[int], current: int, saved: Sequence[int]) -> None: ...
def scan_backward(
    layer: Layer,
    grads: Sequence[int],
    gradients: Sequence[int],
    current: int,
    saved: Sequence[int],
    grad_current: int,
) -> None: ...
def traced_forward(
    layer: Layer,
    outputs: Sequence[int],
    rows: EventRows | None,
    weight: int,
    current: int,
    saved: Sequence[int],
    trace_integrator: bool,
) -> None: ...
def traced_backward(
    layer: Layer,
    grads: Sequence[int],
    gradients: Sequence[int],
    rows: EventRows | None,
    saved: Sequence[int],
    grad_current: int,
    grad_weight: int,
) -> None: ...

integer_constants: tuple[tuple[str, int], ...]

def check_integer_cell(cell: Sequence[int]) -> None: ...
def integer_forward(
    layer: IntegerLayer,
    outputs: Sequence[int],
    floats: bool,
    rows: EventRows | None,
    input: int,
    inputs: int,
    weight: int,
    scale: int,
    rho: float,
    slopes: int,
) -> int: ...
def integer_backward(
    layer: IntegerLayer,
    rows: EventRows | None,
    input: int,
    inputs: int,
    slopes: int,
    grad_spikes: int,
    grad_current: int,
    grad_weight: int,
) -> None: ...
def dense_forward(
    layer: Layer,
    outputs: Sequence[int],
    input: int,
    inputs: int,
    mask: int,
    weight: int,
    saved: Sequence[int],
    trace_integrator: bool,
) -> bool: ...
def dense_backward(
    layer: Layer,
    grads: Sequence[int],
    gradients: Sequence[int],
    input: int,
    inputs: int,
    mask: int,
    ones: bool,
    saved: Sequence[int],
    weight: int,
    weight_t: int,
    grad_input: int,
    grad_weight: int,
) -> None: ...
def takes_events(is_double: bool, sizes: Sequence[int], lengths: int, input: int) -> bool: ...
def event_dots(
    layer: Layer, rows: EventRows, weight_t: int, grad_current: int, grad_values: int, grad_input: int
) -> None: ...
def count_spikes(is_double: bool, sizes: Sequence[int], threads: int, spikes: int, counts: int) -> None: ...
def tanh(x: NDArray[_Float]) -> NDArray[_Float]: ...
def sigmoid(x: NDArray[_Float]) -> NDArray[_Float]: ...
def sine_cosine(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def count_active_pixels(images: Images, active_before: int) -> tuple[int, int]: ...
def rate_draw(encoding: RateEncoding) -> int: ...
def rate_write(encoding: RateEncoding, indices: int) -> None: ...
def latency_encode(
    images: Images,
    active_before: int,
    steps: int,
    prefix: int,
    scratch: Sequence[int],
    offsets: int,
    indices: int,
) -> None: ...
def find_event_fault(
    is_double: bool, sizes: Sequence[int], rows: EventRows, lengths: int, threads: int
) -> tuple[str, int] | None: ...
def philox(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]: ...

class Network:
    def __init__(self, bytes: bytes) -> None: ...
    @property
    def inputs(self) -> int: ...
    @property
    def classes(self) -> int: ...
    @property
    def layers(self) -> list[tuple[int, int, bool, bool, bool, int, tuple[int, int, int] | None]]: ...
    @property
    def texts(self) -> dict[str, str]: ...
    @property
    def nbytes(self) -> int: ...
    def run(
        self,
        steps: int,
        batch: int,
        offsets: NDArray[np.int64],
        indices: NDArray[np.int32],
        values: NDArray[np.float32] | None,
        lengths: NDArray[np.int64] | None,
        wanted: Sequence[int],
        counts: bool,
        every_step: bool,
        threads: int,
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]], NDArray[np.int64], NDArray[np.int64]]: ...

class Cochlea:
    def __init__(
        self,
        sections: NDArray[np.float64],
        constants: Sequence[float],
        offset: NDArray[np.float64],
        scale: NDArray[np.float64],
    ) -> None: ...

class Hearing:
    def __init__(self, cochlea: Cochlea) -> None: ...
    def take(
        self, samples: NDArray[np.float32]
    ) -> NDArray[np.float32] | tuple[NDArray[np.int64], NDArray[np.int32]]: ...

class Stream:
    def __init__(self, network: Network, batch: int) -> None: ...
    def step(
        self,
        indices: NDArray[np.int32] | NDArray[np.int64],
        values: NDArray[np.float32] | None,
        offsets: NDArray[np.int64] | None,
    ) -> NDArray[np.float32]: ...
    def step_dense(self, input: NDArray[np.float32]) -> NDArray[np.float32]: ...
    def hear(self, samples: NDArray[np.float32]) -> int: ...
    def logits(self) -> NDArray[np.float32]: ...
    def reset(self) -> None: ...
    def save(self) -> bytes: ...
    def restore(self, state: bytes) -> None: ...
