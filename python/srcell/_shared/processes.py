"""The processes that train one network together, the device of each, and the signals that stop them.

Training and evaluation call this file. A single process runs without torch.distributed.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


class Processes:
    """The group of processes that torchrun started, seen from this one; a group of one without torchrun.

    Attributes:
        rank: number of this process; rank 0 alone logs and writes files.
        size: number of processes.

    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self._recent: deque[Tensor] = deque(maxlen=16)

    def _reduce(self, tensor: Tensor, operation: distributed.ReduceOp.RedOpType) -> Tensor:
        # A Gloo thread drops its reference to a tensor after the result is there. If that is the last reference, the
        # thread needs the GIL. But destroy_process_group of torch 2.4 holds the GIL while it waits for the thread: a
        # deadlock. So the most recent tensors are kept alive here.
        self._recent.append(tensor)
        distributed.all_reduce(tensor, operation)
        return tensor

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        return self._reduce(tensor, distributed.ReduceOp.SUM) if self.size > 1 else tensor

    def max(self, *values: int) -> list[int]:
        """The maximum of each value over all processes; a barrier as well."""
        if self.size == 1:
            return list(values)
        return [int(value) for value in self._reduce(torch.tensor(values), distributed.ReduceOp.MAX)]

    def wrap(self, network: nn.Module) -> nn.Module:
        """Wrap the network so that its gradients are averaged over all processes."""
        return DistributedDataParallel(network) if self.size > 1 else network


def own_device(device: str, environment: Mapping[str, str] = os.environ) -> str:
    """Choose this process's device, given the user's choice for all: under torchrun ``cuda`` is the GPU of LOCAL_RANK.

    The function touches no GPU. Unknown devices, and GPUs that do not exist, are returned unchanged.

    Args:
        device: the user's choice.
        environment: the environment variables of this process, as torchrun sets them.

    Raises:
        ValueError: the processes of this machine would share a GPU.

    Example:
        >>> own_device("cuda:1"), own_device("cpu", {"TORCHELASTIC_RUN_ID": "a", "LOCAL_RANK": "3"})
        ('cuda:1', 'cpu')

    """
    name = str(device)
    if "TORCHELASTIC_RUN_ID" not in environment or not re.fullmatch(r"cuda(:\d+)?", name):
        return device
    gpus, rank, size = torch.cuda.device_count(), int(environment["LOCAL_RANK"]), int(environment["LOCAL_WORLD_SIZE"])
    own = f"cuda:{rank}"
    if not gpus or (name != "cuda" and (size == 1 or name == own)):
        return device
    if name != "cuda":
        raise ValueError(
            f"device: expected cuda, so that each of {size} processes on this machine uses the GPU of its LOCAL_RANK "
            f"(here {rank}), got {name!r}: CUDA_VISIBLE_DEVICES selects GPUs"
        )
    if rank >= gpus:
        raise ValueError(
            f"device: expected a GPU for each of {size} processes on this machine, got {gpus} and LOCAL_RANK {rank}: "
            "start fewer processes, or set LOCAL_RANK=0 in each if it sees no GPU but its own"
        )
    return own


@contextmanager
def processes(device: str = "cpu") -> Iterator[Processes]:
    """Join the process group of torchrun (gloo, or NCCL for GPU tensors); without torchrun, make a group of one.

    A group that is already initialised is used, and not destroyed afterwards. ``device`` is the device of this process,
    from ``own_device``.
    """
    if distributed.is_initialized():
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    elif "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Processes()
    else:
        on_gpu = torch.device(device).type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)  # before NCCL starts: it uses the current GPU, by default 0 in every process
        distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
        group = Processes(distributed.get_rank(), distributed.get_world_size())
        try:
            yield group
        finally:
            # Reference cycles left by training would keep the group and its threads alive until the interpreter shuts
            # down, when a thread that waits for the GIL aborts the process.
            gc.collect()
            distributed.destroy_process_group()


class StopSignals:
    """A signal handler that records SIGINT or SIGTERM; a SIGINT after that raises KeyboardInterrupt.

    Attributes:
        number: the signal received, 0 before that.

    """

    number = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Record SIGINT and SIGTERM while the block runs instead of stopping at once; a second SIGINT does stop at once.

    Only the main thread may set handlers; in other threads nothing is recorded.
    """
    stop = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
