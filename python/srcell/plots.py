"""Re-exports ``srcell.training.plots`` under its public name."""

from .training.plots import confusion, learning_curve, raster, rates, traces

__all__ = ["confusion", "learning_curve", "raster", "rates", "traces"]
