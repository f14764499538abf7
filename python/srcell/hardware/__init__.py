"""Networks of integer neurons for hardware: VHDL packages and spike frames, C99 headers, and the files of the group
that built the neuron in hardware (arXiv 2605.10679).

Users import it by name, ``import srcell.hardware``; no other part of the package does. Its functions accept and return
plain arrays.
"""

from .c99 import HeaderNetwork, read_header, write_header
from .group import GroupLayer, GroupNetwork, read_group
from .vhdl import read_frames, read_weights, write_frames, write_weights

__all__ = [
    "GroupLayer",
    "GroupNetwork",
    "HeaderNetwork",
    "read_frames",
    "read_group",
    "read_header",
    "read_weights",
    "write_frames",
    "write_header",
    "write_weights",
]
