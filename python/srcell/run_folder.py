"""The files of a run."""

from .training.run_folder import RunData, RunFolder, summarise

__all__ = ["RunData", "RunFolder", "summarise"]
