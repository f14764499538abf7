"""The operators of ``torch.ops.srcell``, one file each: schema, kernels, fake kernel and gradient, in the order in
which torch calls them.

``srcell.functional``, the encoders and event batches call the operators. On a CPU those of layers, integer neurons
and delays pass the record of a call to C++, which checks it and makes the outputs. All others, and all on a GPU, check
and allocate here, and pass addresses and sizes.

``_operator`` declares an operator, ``_layer`` has what all operators of a layer share, ``_cpu`` has the compiled module
and its memory, and ``_gpu`` is the backend of GPUs.
"""

from . import count, delay, encode, faults, integer, project, rest, scale, src, src_dense, src_events, sums  # noqa: F401
