"""The processes that train one network together, and the signals that stop them.

Training calls it; it must never know what is trained. One process is the case without torch.distributed.
"""

from __future__ import annotations

import gc
import os
import shlex
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


class Interrupted(Exception):  # noqa: N818
    """A signal asked for the end of a run, which stopped between two steps after a checkpoint.

    Args:
        number: the signal's number.
        out: the run folder.

    Attributes:
        signal: the number.

    """

    def __init__(self, number: int, out: object) -> None:
        command = f"srcell train --resume {shlex.quote(str(out))}"
        super().__init__(f"stopped by {signal.Signals(number).name}, after a checkpoint: {command}")
        self.signal = number


class Processes:
    """The process itself among those that torchrun started, or alone.

    Attributes:
        rank: its number; 0 logs and writes.
        size: how many there are.

    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self._recent: deque[Tensor] = deque(maxlen=16)

    def _reduce(self, tensor: Tensor, operation: distributed.ReduceOp.RedOpType) -> Tensor:
        # A thread of Gloo's lets go of a tensor after the result is there. Were it the last to hold it, it would wait
        # for the GIL, with which destroy_process_group of torch 2.4 waits for the thread. So the last few live longer.
        self._recent.append(tensor)
        distributed.all_reduce(tensor, operation)
        return tensor

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        return self._reduce(tensor, distributed.ReduceOp.SUM) if self.size > 1 else tensor

    def max(self, *values: int) -> list[int]:
        """The largest of each value over all processes, which wait for each other here."""
        if self.size == 1:
            return list(values)
        return [int(value) for value in self._reduce(torch.tensor(values), distributed.ReduceOp.MAX)]

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with gradients that are averaged over all processes."""
        return DistributedDataParallel(network) if self.size > 1 else network


@contextmanager
def processes(device: str = "cpu") -> Iterator[Processes]:
    """Join the processes that torchrun started, with gloo or on GPUs NCCL; alone if it did not start this one."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or distributed.is_initialized():
        alone = not distributed.is_initialized()
        yield Processes() if alone else Processes(distributed.get_rank(), distributed.get_world_size())
        return
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    group = Processes(distributed.get_rank(), distributed.get_world_size())
    try:
        yield group
    finally:
        # Threads of the group end with it; what is left of training, in cycles, would keep it until Python itself ends,
        # and a thread that waits for Python then ends the process.
        gc.collect()
        distributed.destroy_process_group()


class StopSignals:
    """Whether SIGINT or SIGTERM came.

    Attributes:
        number: the signal that came, 0 before that.

    """

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Note SIGINT and SIGTERM while the block runs instead of ending at once; a second SIGINT does end at once."""
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
