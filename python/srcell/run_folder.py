"""Re-exports ``srcell.training.run_folder`` under its public name."""

from .training.run_folder import RunData, RunFolder, summarise

__all__ = ["RunData", "RunFolder", "summarise"]
