from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

version: str
isa: str
available_isas: tuple[str, ...]
segment: int
event_segment: int
pixel_group: int
drawn_steps: int

class Parameters:
    def __init__(self, constants: Sequence[float], addresses: Sequence[int], strides: Sequence[int]) -> None: ...

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
    ) -> None: ...

class ForwardArguments:
    def __init__(self, *args: Any) -> None: ...

class BackwardArguments:
    def __init__(self, *args: Any) -> None: ...

class EventArguments:
    def __init__(self, *args: Any) -> None: ...

def thread_runtime() -> str: ...
def cached_bytes() -> int: ...
def empty(shape: Sequence[int], is_double: bool) -> NDArray[Any]: ...
def scan_forward_f32(*args: Any) -> None: ...
def scan_forward_f64(*args: Any) -> None: ...
def scan_backward_f32(*args: Any) -> None: ...
def scan_backward_f64(*args: Any) -> None: ...
def count_events(sizes: Sequence[int], threads: int, mask: int, offsets: int) -> None: ...
def tanh(x: NDArray[Any]) -> NDArray[Any]: ...
def sigmoid(x: NDArray[Any]) -> NDArray[Any]: ...
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
    offsets: int,
    indices: int,
    values_f32: int,
    values_f64: int,
    lengths: int,
    steps: int,
    batch: int,
    inputs: int,
    events: int,
    threads: int,
) -> tuple[str, int] | None: ...
def philox(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]: ...
