"""``EventBatch``, a sparse batch of spikes, and the encoders that make one from images.

Layers, data sets and users call this package.
"""

from .batch import EventBatch
from .encoders import camera_encode, latency_encode, rate_encode

EventBatch.__module__ = __name__  # pickles then name this module, whichever file defines the class

__all__ = ["EventBatch", "camera_encode", "latency_encode", "rate_encode"]
