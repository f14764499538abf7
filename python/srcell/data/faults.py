"""Tells why a file of a data set could not be read: the file, an argument, or the machine is at fault.

The file readers of this folder call it.
"""

from __future__ import annotations

from pathlib import Path

ARGUMENTS = ("bin_width:", "prefix:")  # how messages about arguments of the readers begin


def fault_of(error: Exception, path: Path, advice: str) -> Exception:
    """The exception to raise for an error in reading a file: only a corrupt file is called corrupt.

    Example:
        >>> from pathlib import Path
        >>> fault_of(ValueError("times: expected ascending values"), Path("a.npy"), "extract it again")
        ValueError('a.npy: corrupt or truncated (times: expected ascending values): extract it again')
        >>> fault_of(ValueError("prefix: expected an int, got -1"), Path("a.npy"), "extract it again")
        ValueError('prefix: expected an int, got -1 (for a.npy)')
        >>> fault_of(PermissionError(13, "Permission denied", "a.npy"), Path("a.npy"), "extract it again")
        PermissionError(13, 'Permission denied')

    """
    message = str(error)
    if message.startswith(ARGUMENTS):
        return type(error)(f"{message} (for {path})")
    of_system = isinstance(error, OSError) and error.errno is not None
    if of_system or any(words in message for words in ("allocate memory", "out of memory")):
        return error
    return ValueError(f"{path}: corrupt or truncated ({message}): {advice}")
