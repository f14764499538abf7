"""A public name of ``srcell.training.run_folder``, and no code."""

from .training.run_folder import RunData, RunFolder, summarise

__all__ = ["RunData", "RunFolder", "summarise"]
