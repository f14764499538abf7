"""Converts events and networks to NIR, the Neuromorphic Intermediate Representation, and back.

Users call it. ``recordings`` has the events, ``graphs`` the networks, ``node`` the neuron as a node of a graph.
"""

from .graphs import from_graph, read_graph, to_graph
from .node import SRCNode
from .recordings import from_nir, to_nir

__all__ = ["SRCNode", "from_graph", "from_nir", "read_graph", "to_graph", "to_nir"]
