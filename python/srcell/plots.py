"""Pictures of a run, as matplotlib figures."""

from .training.plots import confusion, learning_curve, raster, rates

__all__ = ["confusion", "learning_curve", "raster", "rates"]
