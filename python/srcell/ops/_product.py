"""torch's matrix products in the dtype that autocast chose where the layer was called; the kernels stay in float32.

``src_dense`` uses this, on any device.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The name of a dtype; "": that of the tensors.
OPTION = "str product_dtype=''"
NAMES = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
DTYPES = ("", *NAMES.values())


def lowered(x: Tensor, dtype: str) -> Tensor:
    """The tensor in the dtype of products."""
    return x.to(getattr(torch, dtype)) if dtype else x


def multiply(a: Tensor, b: Tensor, dtype: str, out: Tensor) -> None:
    """Write a product in the dtype of products to ``out``."""
    if dtype:
        out.copy_(torch.mm(lowered(a, dtype), lowered(b, dtype)))
    else:
        torch.mm(a, b, out=out)
