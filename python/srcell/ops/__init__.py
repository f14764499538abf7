"""The operators of ``torch.ops.srcell``, one file each: schema, kernels, fake kernel and gradient, in the order in
which torch calls them.

``srcell.functional``, the encoders and event batches call the operators, which pass addresses and sizes to the compiled
modules. This package alone makes tensors contiguous, allocates them for kernels, and checks a layer's shapes, dtypes
and devices. Operators must never know in what form users pass arguments.

``_operator`` declares an operator, ``_layer`` has what all operators of a layer share, and ``_cpu`` and ``_gpu`` are
the two backends.
"""

from . import count, delay, encode, faults, integer, rest, scale, src, src_dense, src_events, sums

__all__ = ["count", "delay", "encode", "faults", "integer", "rest", "scale", "src", "src_dense", "src_events", "sums"]
