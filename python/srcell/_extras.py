"""How an optional dependency is asked for.

Whatever needs more than numpy and torch imports it under ``train_extra``; this file must never import such a dependency
itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def train_extra() -> Iterator[None]:
    """Turn the ImportError of a missing dependency into one that says how to install it.

    Raises:
        ImportError: an import inside the block failed.

    Example:
        >>> with train_extra():
        ...     import no_such_package
        Traceback (most recent call last):
        ImportError: no_such_package is not installed: pip install "srcell[train]"

    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise ImportError(f'{package} is not installed: pip install "srcell[train]"', name=error.name) from error
