"""A public name of ``srcell.training.checkpoint``, and no code."""

from .training.checkpoint import read_checkpoint, write_checkpoint

__all__ = ["read_checkpoint", "write_checkpoint"]
