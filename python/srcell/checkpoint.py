"""Re-exports ``srcell.training.checkpoint`` under its public name."""

from .training.checkpoint import read_checkpoint, write_checkpoint

__all__ = ["read_checkpoint", "write_checkpoint"]
