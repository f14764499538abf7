"""The stateless functions: the SRC recurrence, a linear synapse or a convolution before it, its resting state, delays,
the leaky readout, counts of spikes, and integer neurons.

They convert users' arguments to the form that the operators of ``ops`` take, which check the rest. No equation of the
neuron is computed here. The definition, its gradients and their names are those of arXiv 2306.03623.
"""

from .._shared.state import DelayedResonantState, DelayedState, ResonantState, SRCState
from .convolution import src_conv2d
from .delays import delay
from .integer import integer_src_linear, quantise
from .readout import SpikeCounts, count_spikes, leaky_readout
from .recurrence import src
from .rest import rest_state
from .synapse import src_linear

for _state in (SRCState, ResonantState, DelayedState, DelayedResonantState):
    _state.__module__ = __name__  # pickles then name this module, whichever file defines the class

__all__ = [
    "DelayedResonantState",
    "DelayedState",
    "ResonantState",
    "SRCState",
    "SpikeCounts",
    "count_spikes",
    "delay",
    "integer_src_linear",
    "leaky_readout",
    "quantise",
    "rest_state",
    "src",
    "src_conv2d",
    "src_linear",
]
