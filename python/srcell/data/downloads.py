"""Downloads files: goes on where a cut connection ended, tries again, tries mirrors, and checks what came.

The file readers of this folder call it.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .._shared.extras import extra

PAUSES = (1.0, 3.0, 9.0, 27.0)  # seconds before another try, as long as tries bring nothing new
TIMEOUT = 60  # seconds without data
CHUNK = 2**16  # bytes
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers that another try may change


class _FaultError(Exception):
    """Why a try failed."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


def download(urls: Sequence[str], target: Path, md5: str = "", *, by_hand: str = "") -> None:
    """Download a file, unless it is there.

    Until it is whole, its name has ".partial" behind it. What has come is kept, and a later call goes on from there. If
    two processes download one file, the second waits for the first.

    Args:
        urls: where it is; each is tried in turn.
        target: where to put it.
        md5: its MD5 digest; if empty, any content is taken, and no part of an earlier call is.
        by_hand: what to do with a file that was got by hand; by default, to put it at ``target``.

    Raises:
        ConnectionError: no address gave it; the message says why, and how to get it by hand.
        OSError: it could not be written.
        ImportError: filelock is not installed.

    """
    with extra("train"):
        from filelock import FileLock
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.with_name(f".{target.name}.lock")
    with FileLock(lock):
        try:
            if not (target.is_file() and (not md5 or md5_of(target) == md5)):
                _download(urls, target, md5, by_hand or f"put it at {target}")
        finally:
            lock.unlink(missing_ok=True)


def md5_of(path: Path) -> str:
    """The MD5 digest of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        digest = hashlib.md5(usedforsecurity=False)
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _download(urls: Sequence[str], target: Path, md5: str, by_hand: str) -> None:
    partial, faults, left = target.with_name(f"{target.name}.partial"), [], list(urls)
    if not md5:
        partial.unlink(missing_ok=True)
    elif partial.exists() and md5_of(partial) == md5:
        os.replace(partial, target)
        return
    while left:
        url, of_earlier = left.pop(0), _size(partial)
        try:
            with _shown(target.name) as show:
                _fetch(url, partial, show)
        except _FaultError as fault:
            faults.append(f"{url}: {fault}")
            continue
        found = md5_of(partial)
        if not md5 or found == md5:
            os.replace(partial, target)
            return
        partial.unlink()
        if of_earlier:  # which may have been of another file
            left.insert(0, url)
        else:
            faults.append(f"{url}: sent another file, of MD5 {found}")
    kept = f", the {_size(partial):,} bytes that came are kept" if md5 and _size(partial) else ""
    digest = f" (MD5 {md5})" if md5 else ""
    raise ConnectionError(
        f"{target.name} could not be downloaded ({'; '.join(faults)}): "
        f"try again{kept}; or fetch it by hand{digest} and {by_hand}"
    )


def _fetch(url: str, partial: Path, show: Callable[[int, int | None], None]) -> None:
    """Bring the rest of a file, with as many tries as bring something and a few that do not."""
    pauses, most = iter(PAUSES), 0
    while True:
        try:
            _receive(url, partial, show)
            return
        except _FaultError as fault:
            if _size(partial) > most:
                most, pauses = _size(partial), iter(PAUSES)
            pause = None if fault.final else next(pauses, None)
            if pause is None:
                raise
        time.sleep(pause)


def _receive(url: str, partial: Path, show: Callable[[int, int | None], None]) -> None:
    """Append to a file what it lacks, or write it anew if the server sends it from its begin."""
    from urllib.request import Request, urlopen  # slow to import

    done = _size(partial)
    headers = {"User-Agent": "srcell", **({"Range": f"bytes={done}-"} if done else {})}
    with _faults(partial):
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    with response, open(partial, "ab") as file:
        begin = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if response.status != 206 or begin is None or int(begin[1]) != done:
            file.truncate(0)
            if response.status == 206:
                raise _FaultError(f"sent another part than that from byte {done:,} on")
            done = 0
        total = None if response.length is None else done + response.length
        while True:
            with _faults(partial):
                chunk = response.read(CHUNK)
            if not chunk:
                break
            file.write(chunk)
            done += len(chunk)
            show(done, total)
    if total is not None and done < total:
        raise _FaultError(f"the connection was cut after {done:,} of {total:,} bytes")


@contextmanager
def _faults(partial: Path) -> Iterator[None]:
    """Turn errors of the network, raised in the block, into those of a try."""
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError

    try:
        yield
    except HTTPError as error:
        if error.code == 416:  # there is nothing from there on
            partial.unlink(missing_ok=True)
        code = f"answered {error.code} {error.reason.splitlines()[0]}" if error.reason else f"answered {error.code}"
        raise _FaultError(code, final=error.code not in {*AGAIN, 416}) from None
    except URLError as error:
        raise _FaultError(f"no connection ({error.reason})") from None
    except (OSError, HTTPException) as error:
        raise _FaultError(f"the connection failed ({str(error) or type(error).__name__})") from None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _shown(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A function that shows how many bytes have come; without a terminal, nothing is shown."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with extra("train"):
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
