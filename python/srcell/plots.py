"""A public name of ``srcell.training.plots``, and no code."""

from .training.plots import confusion, learning_curve, raster, rates, traces

__all__ = ["confusion", "learning_curve", "raster", "rates", "traces"]
