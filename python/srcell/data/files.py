"""Finds and downloads the files of data sets, and tells whether a file, an argument or the machine is at fault.

The file readers of this folder call it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._shared.extras import extra
from .downloads import download

ARGUMENTS = ("bin_width:", "prefix:")  # how messages about arguments of the readers begin


def find_folder(
    name: str, root: Path, folders: Sequence[str], files: Sequence[str], expected: str, advice: str = "download it"
) -> Path:
    """The first of the folders in ``root`` that has all of the files.

    Raises:
        FileNotFoundError: there is none; the message says what was expected, and the advice.

    """
    for folder in (root / folder for folder in folders):
        if folder.is_dir() and all((folder / file).exists() for file in files):
            return folder
    raise FileNotFoundError(f"no {name} in {root}: expected {expected}; name another root, or {advice}")


def download_with_tonic(name: str, root: str | Path) -> None:
    """Download both parts of a data set that tonic knows, and let tonic unpack them."""
    with extra("nmnist"):
        from tonic import datasets
    of_tonic = getattr(datasets, name)

    def fetch(self: Any) -> None:
        download([self.url], Path(self.location_on_system, self.filename), self.file_md5)
        of_tonic.download(self)  # which finds the file

    ours = type(name, (of_tonic,), {"download": fetch})
    for part in ("train", "test"):
        ours(str(root), **({"split": part} if name == "SSC" else {"train": part == "train"}))


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
