"""SRC layers as torch modules, with the conventions of torch.nn's recurrent layers: weights, parameters, state passing.

State is explicit: passed in, returned, never hidden in a module. The recurrence itself is in ``srcell.functional``.
"""

from .conv import SRCConv2d
from .delays import Delay
from .integer import IntegerSRC
from .options import spread, spread_frequencies
from .readout import LeakyReadout, LinearReadout
from .sequential import Sequential, SpikesOnly
from .src import SRC, SRCCell
from .standardise import Standardise

for _layer in (
    SRC,
    Delay,
    IntegerSRC,
    LeakyReadout,
    LinearReadout,
    SRCCell,
    SRCConv2d,
    Sequential,
    SpikesOnly,
    Standardise,
):
    _layer.__module__ = __name__  # pickles then name this module, whichever file defines the class

__all__ = [
    "SRC",
    "Delay",
    "IntegerSRC",
    "LeakyReadout",
    "LinearReadout",
    "SRCCell",
    "SRCConv2d",
    "Sequential",
    "SpikesOnly",
    "Standardise",
    "spread",
    "spread_frequencies",
]
