"""Whole networks with a readout: ``SRCClassifier``, ``SRCConvClassifier`` and ``IntegerClassifier``.

Training and users build them.
"""

from .classifier import READOUTS, AnyLayer, BalancedGradients, Classifier, sample_lengths
from .integer import IntegerClassifier
from .networks import SRCClassifier, SRCConvClassifier

for _class in (BalancedGradients, Classifier, IntegerClassifier, SRCClassifier, SRCConvClassifier):
    _class.__module__ = __name__  # pickles then name this module, whichever file defines the class

__all__ = [
    "READOUTS",
    "AnyLayer",
    "BalancedGradients",
    "Classifier",
    "IntegerClassifier",
    "SRCClassifier",
    "SRCConvClassifier",
    "sample_lengths",
]
