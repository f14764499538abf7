"""The Free Spoken Digit Dataset: recordings of ten English digits by six speakers.

Only ``srcell.data`` calls this.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import tempfile
import zlib
from pathlib import Path

from .._shared.arguments import check_choice
from .dataset import Dataset
from .downloads import download as fetch
from .sounds import LabelledSounds, read_wav

DIGITS, RECORDINGS, TEST_RECORDINGS = 10, 50, 5
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
RATE = 8000
FOLDERS = ("spoken-digits", "free-spoken-digit-dataset")
NAMES = {
    f"{digit}_{speaker}_{number}.wav": (digit, speaker, number)
    for digit in range(DIGITS)
    for speaker in SPEAKERS
    for number in range(RECORDINGS)
}

URL = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz"
# Of the recordings of that tag: each file's name and content, in the order of NAMES. GitHub compresses an archive anew
# from time to time, so a checksum of the archive itself would not last.
SHA256 = "5d5a299946078ca71869da21daa58081192a50cf31fa3e26146836e7053c774e"


def load_spoken_digits(root: str | Path, *, held_out: str | None = None, download: bool = False) -> Dataset:
    """Load the Free Spoken Digit Dataset: 3,000 recordings of the digits "zero" to "nine" at 8 kHz, 0.14 to 2.3 s long.

    Each of six speakers (george, jackson, lucas, nicolas, theo, yweweler) said each digit fifty times. In the official
    split, recordings 0 to 4 of each speaker and digit are for testing, 300 in all, and the other 2,700 for training: a
    network has heard every speaker before the test. ``held_out`` tests on a speaker whom the network has never heard.

    Args:
        root: the folder that holds ``spoken-digits`` or ``free-spoken-digit-dataset`` with ``recordings`` in it, or
            that holds ``recordings`` itself. Other files are ignored.
        held_out: the speaker whose 500 recordings are the test samples; the 2,500 of the others are for training. None
            for the official split.
        download: if the data set is not in ``root``, download version 1.0.10 (16 MB) from GitHub and check it.

    Returns:
        A ``Dataset`` of ``LabelledSounds`` in the order of digits, speakers and numbers, of ten classes. Its
        ``input_shape`` is (1, 1, 1), one number per sample of a sound; the encoding determines a network's inputs.

    Raises:
        FileNotFoundError: the data set or one of its recordings is missing.
        ValueError: a recording or the download is corrupt; the message names it. Or there is no such speaker.
        ConnectionError: the download failed.
        ImportError: scipy is not installed.

    Source: Z. Jackson and others, https://github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0.

    Example:
        >>> load_spoken_digits("no-such-folder")
        Traceback (most recent call last):
        FileNotFoundError: no spoken digits in no-such-folder: expected the folder spoken-digits or ...
        >>> load_spoken_digits("no-such-folder", held_out="bob")
        Traceback (most recent call last):
        ValueError: held_out: expected one of george, jackson, lucas, nicolas, theo, yweweler, got 'bob'

    """
    if held_out is not None:
        check_choice("held_out", held_out, SPEAKERS)
    root = Path(root)
    folder = _find(root)
    if folder is None and download:
        _download(root)
        folder = _find(root)
    if folder is None:
        raise FileNotFoundError(
            f"no spoken digits in {root}: expected the folder {' or '.join(FOLDERS)} there, with recordings in it; "
            "name another root, or download it"
        )
    missing = [name for name in NAMES if not (folder / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: incomplete, lacks {len(missing)} of {len(NAMES)} recordings, the first is {missing[0]}: "
            "delete it and download it again"
        )
    try:
        waves = {name: read_wav(folder / name, RATE) for name in NAMES}
    except ValueError as error:
        raise ValueError(f"{error}: delete {folder} and download it again") from error
    parts: dict[bool, list[str]] = {False: [], True: []}  # names of files, for training and for testing
    for name, (_, speaker, number) in NAMES.items():
        parts[number < TEST_RECORDINGS if held_out is None else speaker == held_out].append(name)
    train, test = (
        LabelledSounds.of([waves[name] for name in names], [NAMES[name][0] for name in names], RATE)
        for names in parts.values()
    )
    return Dataset(train, test, DIGITS, (1, 1, 1))


def _find(root: Path) -> Path | None:
    """The folder of the recordings; it has at least one of them."""
    for folder in (*(root / name for name in FOLDERS), root):
        recordings = folder / "recordings"
        if recordings.is_dir() and not NAMES.keys().isdisjoint(os.listdir(recordings)):
            return recordings
    return None


def _download(root: Path) -> None:
    """Download the recordings into ``root``, where either all of them appear at once, or none."""
    root.mkdir(parents=True, exist_ok=True)
    target = root / FOLDERS[1]
    with tempfile.TemporaryDirectory(dir=root, prefix=".spoken-digits-", suffix=".partial") as partial:
        archive, whole = Path(partial) / "v1.0.10.tar.gz", Path(partial) / target.name
        fetch([URL], archive, by_hand=f"unpack it into {root} as {target.name}")
        recordings = _unpack(archive)
        (whole / "recordings").mkdir(parents=True)
        for name, content in recordings.items():
            (whole / "recordings" / name).write_bytes(content)
        try:
            os.rename(whole, target)
        except OSError:
            if _find(root) is None:  # otherwise another process has downloaded it meanwhile
                raise


def _unpack(archive: Path) -> dict[str, bytes]:
    """The recordings in an archive, by name; no other member is read, and no path of the archive is used.

    Raises:
        ValueError: the archive is corrupt, or its recordings are not those of the data set.

    """
    found = {}
    try:
        with tarfile.open(archive, mode="r:gz") as members:
            for member in members:
                path = re.fullmatch(r"[^/]+/recordings/([^/]+)", member.name)
                if path and path[1] in NAMES and member.isreg():
                    file = members.extractfile(member)
                    assert file is not None
                    found[path[1]] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{URL}: the download is corrupt or truncated ({error}): try again") from error
    if len(found) < len(NAMES):
        raise ValueError(f"{URL}: expected {len(NAMES)} recordings in the download, got {len(found)}")
    digest = hashlib.sha256(b"".join(name.encode() + found[name] for name in NAMES))
    if digest.hexdigest() != SHA256:
        raise ValueError(f"{URL}: the recordings in the download are not those of version 1.0.10 (by their SHA-256)")
    return {name: found[name] for name in NAMES}
