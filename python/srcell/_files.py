"""Files that are whole or not there at all.

Whatever writes something that must survive a killed process calls this; it must never know what is written.
"""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Put the content in the place of the file, which stays as it was if that fails or is interrupted.

    Raises:
        OSError: it could not be written: no space, no permission.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder) / "notes.txt"
        ...     write_atomically(file, b"whole")
        ...     file.read_text(), [path.name for path in pathlib.Path(folder).iterdir()]
        ('whole', ['notes.txt'])

    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    try:
        with open(partial, "xb") as file:  # a link that somebody put there meanwhile is not followed
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_partial_files(folder: Path) -> None:
    """Delete what processes that were killed left half-written in the folder."""
    for partial in folder.glob("*.partial"):
        if partial.is_symlink() or not partial.is_dir():
            partial.unlink(missing_ok=True)
