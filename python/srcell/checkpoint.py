"""Tensors and a JSON record in one safetensors file, whole or not there."""

from .training.checkpoint import read_checkpoint, write_checkpoint

__all__ = ["read_checkpoint", "write_checkpoint"]
