"""The public names of ``srcell``; the first use of one of them imports this file, and with it torch."""

from typing import TYPE_CHECKING

from . import functional, runtime
from ._integer import IntegerCell, IntegerState
from .diagnosis import Diagnosis, diagnose
from .events import EventBatch, camera_encode, latency_encode, rate_encode
from .functional import (
    DelayedResonantState,
    DelayedState,
    ResonantState,
    SRCState,
    delay,
    integer_src_linear,
    leaky_readout,
    rest_state,
    src,
    src_conv2d,
    src_linear,
)
from .kernels import info
from .layers import (
    SRC,
    Delay,
    IntegerSRC,
    LeakyReadout,
    LinearReadout,
    Sequential,
    SpikesOnly,
    SRCCell,
    SRCConv2d,
    Standardise,
    spread,
    spread_frequencies,
)
from .layers.export import export
from .recording import record

if TYPE_CHECKING:
    from .training.load import load

LATER = {"load": "training.load"}
"""Names that are imported when they are first used themselves, and their modules."""
__all__ = [
    "SRC",
    "Delay",
    "DelayedResonantState",
    "DelayedState",
    "Diagnosis",
    "EventBatch",
    "IntegerCell",
    "IntegerSRC",
    "IntegerState",
    "LeakyReadout",
    "LinearReadout",
    "ResonantState",
    "SRCCell",
    "SRCConv2d",
    "SRCState",
    "Sequential",
    "SpikesOnly",
    "Standardise",
    "camera_encode",
    "delay",
    "diagnose",
    "export",
    "functional",
    "info",
    "integer_src_linear",
    "latency_encode",
    "leaky_readout",
    "load",
    "rate_encode",
    "record",
    "rest_state",
    "runtime",
    "spread",
    "spread_frequencies",
    "src",
    "src_conv2d",
    "src_linear",
]
