"""``extra``: guards imports of optional packages; if one is missing, the error says what to install.

A module that needs a package besides numpy and torch imports it under ``extra``; this file must never import such a
package.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Turn the ImportError of a missing dependency into one that names the srcell extra to install.

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
