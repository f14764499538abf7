"""``EventBatch``, a sparse batch of spikes, and the encoders that make one.

Layers, data sets and users call it; it must never know what a network does with events.
"""

from .batch import EventBatch
from .encoders import latency_encode, rate_encode
from .pytree import register

EventBatch.__module__ = __name__  # which pickles name, whatever file it is in
register()

__all__ = ["EventBatch", "latency_encode", "rate_encode"]
