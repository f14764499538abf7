"""Writes files atomically, and creates folders whose names no other process has taken.

Code whose files must survive a killed process calls this file.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import secrets
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
}


def write_output(path: Path, content: bytes) -> None:
    """Write a file that the user named; if the name is a link, write the file that the link points to.

    A regular file is replaced atomically, a named pipe or a character device is written to.

    Raises:
        FileExistsError: the path is a folder, a block device or a socket.
        FileNotFoundError: there is no folder for the file.
        OSError: the file could not be written: no space, no permission.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file, link = pathlib.Path(folder) / "notes.txt", pathlib.Path(folder) / "link"
        ...     link.symlink_to(file)
        ...     write_output(link, b"whole")
        ...     file.read_text(), link.is_symlink()
        ('whole', True)

    """
    descriptor = _descriptor(path)
    if descriptor is None and not is_stream(path):
        check_output(path)
        write_atomically(Path(os.path.realpath(path)), content)
        return
    with _named(path), open(path if descriptor is None else os.dup(descriptor), "wb") as file:
        file.write(content)


def check_output(path: Path) -> None:
    """Before long work, raise what ``write_output`` would after it.

    Raises:
        FileExistsError: the path is a folder.
        FileNotFoundError: there is no folder for the file.
        PermissionError: no file can be made in the folder.

    """
    if path.is_dir():
        raise FileExistsError(errno.EEXIST, "expected a regular file or none, found a folder", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not a folder: choose another for {path.name}")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, "expected a folder for the file", str(folder))
    if _descriptor(path) is None and not is_stream(path) and not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "expected a folder in which files can be made", str(folder))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Add the file's name to errors raised in the block: the error of a full disk lacks it."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def is_stream(path: Path) -> bool:
    """Whether a path passes on what is written to it: a named pipe, a character device, /dev/stdout."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or _descriptor(path) is not None


def _descriptor(path: Path) -> int | None:
    """The file descriptor of this process that a path refers to, as /dev/stdout does; None for other paths."""
    for _ in range(40):  # as many links as the system follows
        if re.fullmatch(rf"/proc/({os.getpid()}|self)/fd", os.path.realpath(path.parent)) and path.name.isdecimal():
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / os.readlink(path)
    return None


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file's content; if that fails or is interrupted, the file is unchanged.

    If the path is a link, the link itself is replaced. Any number of threads and processes may write to one path at the
    same time: the last one wins.

    Raises:
        FileExistsError: the path exists and is neither a regular file nor a link.
        OSError: the file could not be written: no space, no permission.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder) / "notes.txt"
        ...     write_atomically(file, b"whole")
        ...     file.read_text(), [path.name for path in pathlib.Path(folder).iterdir()]
        ('whole', ['notes.txt'])

    """
    with suppress(FileNotFoundError):
        kind = _KINDS.get(stat.S_IFMT(path.lstat().st_mode))
        if kind is not None:
            raise FileExistsError(errno.EEXIST, f"expected a regular file or none, found a {kind}", str(path))
    partial = path.with_name(partial_name(path.name))
    try:
        with _named(path), open(partial, "xb") as file:  # "x": a link created there meanwhile is not followed
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


def partial_name(name: str) -> str:
    """A unique name for a temporary file of ``write_atomically``; it stays short however long the file's name is."""
    return f"{_partial_prefix(name)}{secrets.token_hex(8)}.partial"


def _partial_prefix(name: str) -> str:
    return f"{name[:32]}.{zlib.crc32(os.fsencode(name)):08x}."


def is_partial(path: Path, names: Sequence[str]) -> bool:
    """Whether a path is a temporary file of ``write_atomically`` for one of the names."""
    return any(re.fullmatch(re.escape(_partial_prefix(name)) + r"[0-9a-f]{16}\.partial", path.name) for name in names)


def remove_partial_files(folder: Path, names: Sequence[str]) -> None:
    """Delete the temporary files that killed processes left for these names; no process may be writing them now.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = pathlib.Path(name)
        ...     for file in ("notes.txt.2694521b.0123456789abcdef.partial", "video.mp4.partial"):
        ...         (folder / file).touch()
        ...     remove_partial_files(folder, ["notes.txt"])
        ...     [path.name for path in folder.iterdir()]
        ['video.mp4.partial']

    """
    for path in folder.iterdir():
        if is_partial(path, names) and (path.is_symlink() or not path.is_dir()):
            path.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Create the folder, with -2, -3, ... appended if its name is taken: no two callers get the same one.

    A folder that is still empty when the block ends is removed again.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     path = pathlib.Path(name) / "runs" / "digits"
        ...     with new_folder(path) as first, new_folder(path) as second:
        ...         (first / "config.json").touch()
        ...     [folder.name for folder in (first, second)], [folder.name for folder in path.parent.iterdir()]
        (['digits', 'digits-2'], ['digits'])

    """
    parent_is_new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in itertools.chain([path.name], (f"{path.name}-{k}" for k in itertools.count(2))):
        folder = path.with_name(name)
        with suppress(FileExistsError):
            folder.mkdir()
            break
    try:
        yield folder
    finally:
        with suppress(OSError):
            folder.rmdir()
            if parent_is_new:
                path.parent.rmdir()
