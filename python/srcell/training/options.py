"""``RunOptions``: options of this machine (data folder, device, workers), on which the weights do not depend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .._shared.arguments import present_device
from .._shared.processes import own_device
from .._shared.settings import as_setting, documented, setting, settings_of

DATA = "data"


@dataclass(frozen=True)
class RunOptions:
    """Options of a run on this machine, on which the weights do not depend.

    Attributes:
        ATTRIBUTES

    Raises:
        TypeError: an option of the wrong type.
        ValueError: ``device`` is not available, the processes of torchrun on this machine would share a GPU, or
            ``checkpoint_seconds`` is below 0.

    """

    data: str | Path | None = setting(  # noqa: RUF009  (a field)
        None,
        f"folder of the data sets [the run's own; {DATA} for a new run]",
        f'as in srcell.data.load; None means the folder that the run was started with, or "{DATA}" for a new run; for '
        "data of your own FOLDER/ or FILE.py:FUNCTION",
    )
    download: bool = setting(False, "download the data set into it if it is missing")
    cache: bool = setting(False, "keep binned recordings on disk", "as in srcell.data.load_nmnist")
    num_workers: int = setting(
        0, "worker processes that encode batches ahead", "0 encodes them in the training process", option="--workers"
    )
    device: str = setting(
        "cpu",
        "device of the network",
        '"cpu", "cuda" or a GPU by its number, "cuda:1"; under torchrun "cuda" is the GPU of the process\'s LOCAL_RANK',
    )
    checkpoint_seconds: float = setting(
        30.0, "minimum seconds between checkpoints within an epoch", "one is also written after every epoch"
    )
    diagnose: bool = setting(True, "diagnose the network: after the first epoch, each tenth, and for the report")

    def __post_init__(self) -> None:
        for name, option in settings_of(RunOptions).items():
            if name not in ("data", "device"):  # these have checks of their own
                object.__setattr__(self, name, as_setting(name, getattr(self, name), type(option.default)))
        if not self.checkpoint_seconds >= 0:
            raise ValueError(f"checkpoint_seconds: expected at least 0, got {self.checkpoint_seconds}")
        if present_device(self.own_device).type not in ("cpu", "cuda"):
            raise ValueError(f"device: expected the CPU or a GPU (cuda), got {self.device!r}")

    @property
    def own_device(self) -> str:
        """The device of this process, one of the processes that train together."""
        return own_device(self.device)


RunOptions.__doc__ = documented(RunOptions)


def data_folder(options: RunOptions) -> str | Path:
    """The folder of the data sets."""
    return DATA if options.data is None else options.data
