"""Paths that a user may name for a file to be written, and checks of what is there afterwards."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

# The path holds nothing, a file, a link (to a file, a missing file, a link, itself, a missing folder, a device),
# or something that no file can replace.
LINKS = {"link": "elsewhere/target", "dangling": "elsewhere/target", "chain": "between"}
LINKS |= {"missing": "nowhere/target", "device": os.devnull}
REFUSED = ("loop", "missing", "folder", "socket")
KINDS = ("nothing", "file", "pipe", *LINKS, "loop", "folder", "socket")
# The longest names of a file system, and names with a special meaning to a shell or srcell.
NAMES = ("file", "n" * 255, "é" * 127, "*", "a.partial")


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Contents and times of the files in a folder."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def entries(folder: Path) -> dict[Path, tuple[int, int]]:
    return {x: (x.lstat().st_mode, x.lstat().st_ino) for x in folder.rglob("*")}


def check_output(write: Callable[[Path], object], folder: Path, name: str, kind: str) -> bool:
    """Write a file in an empty folder to a path of that name and kind; return whether the path was accepted."""
    plain, path, target = folder / "plain", folder / name, folder / LINKS["link"]
    write(plain)
    content = plain.read_bytes()
    target.parent.mkdir()
    (folder / "between").symlink_to(LINKS["link"])
    if kind in ("link", "chain"):
        target.write_text("before")
    if kind in LINKS or kind == "loop":
        path.symlink_to(LINKS.get(kind, name))
    elif kind == "file":
        path.write_text("before")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    before = entries(folder)

    error = None
    try:
        write(path)
    except OSError as raised:
        error = raised

    assert (error is not None) == (kind in REFUSED)
    if kind in ("folder", "socket"):
        assert isinstance(error, FileExistsError) and error.filename == str(path)
        assert f"expected a regular file or none, found a {kind}" in str(error)
    after = entries(folder)
    assert after.keys() - before.keys() == {"nothing": {path}, "dangling": {target}}.get(kind, set())
    assert all(after[x][0] == before[x][0] for x in before)
    assert kind == "file" or path not in before or after[path] == before[path]
    if kind == "pipe":
        assert os.read(reader, 1 << 16) == content
        os.close(reader)
    elif kind not in (*REFUSED, "device"):
        assert path.read_bytes() == content
    return error is None
