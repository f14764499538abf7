"""Data sets by name.

Training and the command line ask here. This package turns files and other packages' data into tensors; it must never
know about encodings or networks.
"""

import difflib

from .dataset import Dataset, LabelledImages
from .digits import load_digits

__all__ = ["Dataset", "LabelledImages", "load", "load_digits"]

LOADERS = {"digits": load_digits}


def load(name: str) -> Dataset:
    """The data set of that name: "digits".

    Raises:
        ValueError: there is no such data set; the message names the nearest one.
        ImportError: the data set needs a package that is not installed.

    Example:
        >>> load("digits").num_classes
        10
        >>> load("digit")
        Traceback (most recent call last):
        ValueError: unknown data set 'digit': did you mean 'digits'?

    """
    if name not in LOADERS:
        nearest = difflib.get_close_matches(name, LOADERS, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"expected one of {', '.join(LOADERS)}"
        raise ValueError(f"unknown data set {name!r}: {hint}")
    return LOADERS[name]()
