"""``extra``: imports of optional packages, whose absence becomes an error that names what to install.

Whatever needs more than numpy and torch imports it under ``extra``; this file must never import such a dependency
itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Turn the ImportError of a missing dependency into one that says which extra of ours brings it.

    Args:
        name: the extra, as in ``pip install "srcell[name]"``.

    Raises:
        ImportError: an import inside the block failed.

    Example:
        >>> with extra("train"):
        ...     import no_such_package
        Traceback (most recent call last):
        ImportError: no_such_package is not installed: pip install "srcell[train]"

    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise ImportError(f'{package} is not installed: pip install "srcell[{name}]"', name=error.name) from error
