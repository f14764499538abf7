"""The operators of ``torch.ops.srcell``, one a file: schema, kernels, fake kernel and gradient, in the order in which
they are called.

``srcell.functional``, the encoders and event batches call them; below them there are addresses and sizes. Tensors are
made contiguous and allocated here, and nowhere else, and a layer's values checked. What knows no users' arguments must
not know these files.
"""

from . import count, encode, faults, rest, scale, src, src_dense, src_events

__all__ = ["count", "encode", "faults", "rest", "scale", "src", "src_dense", "src_events"]
