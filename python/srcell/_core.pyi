from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

version: str
isa: str
available_isas: tuple[str, ...]
segment: int

class Parameters:
    def __init__(self, constants: Sequence[float], addresses: Sequence[int], strides: Sequence[int]) -> None: ...

def thread_runtime() -> str: ...
def cached_bytes() -> int: ...
def empty(shape: Sequence[int], is_double: bool) -> NDArray[Any]: ...
def scan_forward_f32(*args: Any) -> None: ...
def scan_forward_f64(*args: Any) -> None: ...
def scan_backward_f32(*args: Any) -> None: ...
def scan_backward_f64(*args: Any) -> None: ...
def tanh(x: NDArray[Any]) -> NDArray[Any]: ...
def sigmoid(x: NDArray[Any]) -> NDArray[Any]: ...
def rate_encode(
    images: int,
    index: int,
    samples: int,
    pixels: int,
    steps: int,
    prefix: int,
    gain: float,
    seed: int,
    threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]: ...
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
