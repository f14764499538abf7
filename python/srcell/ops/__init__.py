"""The operators of ``torch.ops.srcell``, one per file: schema, kernels, fake kernel and gradient, in the order in which
torch calls them.

``srcell.functional``, the encoders and event batches call them; the compiled modules below get addresses and sizes.
Only here are tensors made contiguous and allocated for kernels, and a layer's shapes, dtypes and devices checked.
Operators must never know in what form users pass arguments.
"""

from . import count, encode, faults, rest, scale, src, src_dense, src_events

__all__ = ["count", "encode", "faults", "rest", "scale", "src", "src_dense", "src_events"]
