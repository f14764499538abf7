"""``RunOptions``: settings of this machine (data folder, device, workers), which never change the weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .._arguments import present_device

DATA = "data"


@dataclass(frozen=True)
class RunOptions:
    """What a run needs on this machine, and the weights do not depend on.

    Attributes:
        data: folder of the data sets, as in ``srcell.data.load``; None is the one that the run was begun with, and
            "data" for a new run.
        download: fetch the data set into it if it is not there.
        cache: keep binned recordings on disk, as in ``srcell.data.load_nmnist``.
        num_workers: processes that encode batches ahead; 0 encodes them in the training process.
        device: where the network is.
        checkpoint_seconds: least time between two checkpoints within an epoch; every epoch ends with one too.

    Raises:
        ValueError: ``device`` is none that this machine has, or ``checkpoint_seconds`` is no number of at least 0.

    """

    data: str | Path | None = None
    download: bool = False
    cache: bool = False
    num_workers: int = 0
    device: str = "cpu"
    checkpoint_seconds: float = 30.0

    def __post_init__(self) -> None:
        if present_device(self.device).type not in ("cpu", "cuda"):
            raise ValueError(f"device: expected the CPU or a GPU (cuda), got {self.device!r}")
        if not self.checkpoint_seconds >= 0:
            raise ValueError(f"checkpoint_seconds: expected at least 0, got {self.checkpoint_seconds}")


def data_folder(options: RunOptions) -> str | Path:
    """Where the data sets are."""
    return DATA if options.data is None else options.data
