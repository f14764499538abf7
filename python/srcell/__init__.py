"""srcell: the Spiking Recurrent Cell (arXiv 2306.03623), exact, event-based and fast.

The first use of a public name imports torch and what needs it. Without torch, only ``srcell.runtime`` is available.
"""

import sys as _sys
from typing import TYPE_CHECKING as _TYPE_CHECKING

from . import runtime
from ._shared import names as _names

if _TYPE_CHECKING:
    from ._public import *  # noqa: F403

__version__: str = runtime.version

if _sys.modules.get("torch"):  # then torch.ops.srcell is there at once, for programs that torch.export saved
    globals().update(_names.public())
__getattr__ = _names.find
__dir__ = _names.listed
