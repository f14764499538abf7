"""Files that are written and read: targets that are not regular files, concurrent writers, text without an end."""

from __future__ import annotations

import errno
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from srcell import hardware
from srcell._shared import files
from srcell._shared.files import is_partial, partial_name, write_atomically, write_output
from srcell.cli import main
from srcell.models import SRCClassifier
from srcell.training import TrainingConfig, train
from support.outputs import KINDS, NAMES, check_output

LAYER = [[1, -2, 3], [0, 5, -8]]


@functools.cache
def network() -> SRCClassifier:
    return SRCClassifier(4, [], 2)


# Every function that writes a file to a path that the user names.
WRITERS: dict[str, Callable[[Path], None]] = {
    "export": lambda path: network().export(path),
    "header": lambda path: hardware.write_header(path, [LAYER], num_classes=2),
    "weights": lambda path: hardware.write_weights(path, LAYER),
    "frames": lambda path: hardware.write_frames(path, [[1, 0], [0, 1]], label=1),
    "file": lambda path: write_output(path, b"whole"),
}
every_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


@pytest.mark.parametrize("kind", KINDS)
@every_writer
def test_links_pipes_and_devices_stay_and_folders_are_refused(
    write: Callable[[Path], None], kind: str, tmp_path: Path
) -> None:
    check_output(write, tmp_path, "file", kind)


@every_writer
@pytest.mark.parametrize("name", NAMES[1:])
def test_any_name_can_be_written(name: str, write: Callable[[Path], None], tmp_path: Path) -> None:
    check_output(write, tmp_path, name, "nothing")


@every_writer
def test_a_missing_folder_is_named(write: Callable[[Path], None], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"^{tmp_path}/none is not a folder: choose another for file$"):
        write(tmp_path / "none" / "file")


@every_writer
def test_a_full_device_is_an_error(write: Callable[[Path], None]) -> None:
    with pytest.raises(OSError, match=r"No space left .*: '/dev/full'"):
        write(Path("/dev/full"))


def test_a_folder_without_permission_is_found_before_long_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(PermissionError, match=rf"expected a folder in which files can be made: '{tmp_path}'"):
        files.check_output(tmp_path / "file")
    files.check_output(Path("/dev/null"))
    (tmp_path / "link").symlink_to("nowhere/file")
    with pytest.raises(FileNotFoundError, match=rf"expected a folder for the file: '{tmp_path}/nowhere'"):
        files.check_output(tmp_path / "link")


def test_the_error_of_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "metrics.csv"
    with pytest.raises(OSError, match=rf"No space left .*: '{path}'"):
        write_atomically(path, b"epoch")
    assert not any(tmp_path.iterdir())


def test_a_file_of_a_run_does_not_replace_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "result.json")
    with pytest.raises(FileExistsError, match=r"expected a regular file or none, found a named pipe.*result\.json"):
        write_atomically(tmp_path / "result.json", b"")


@pytest.mark.landing
def test_a_network_is_exported_to_a_pipe_of_the_shell(tmp_path: Path) -> None:
    train(TrainingConfig(hidden_sizes=(), epochs=1, steps=5, train_samples=100), tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "net.srcell")]) == 0
    command = [sys.executable, "-m", "srcell", "export", str(tmp_path / "run"), "/dev/stdout"]
    expected = (tmp_path / "net.srcell").read_bytes()
    piped = subprocess.run(command, check=True, capture_output=True)
    assert piped.stdout == expected and not piped.stderr
    for name in ("redirected", "appended"):
        path = tmp_path / name
        path.write_bytes(b"" if name == "redirected" else b"before")
        with path.open("ab") as file:
            subprocess.run(command, check=True, stdout=file)
        assert path.read_bytes() == (b"" if name == "redirected" else b"before") + expected


@every_writer
def test_threads_write_to_one_path_at_the_same_time(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / "plain")
    with ThreadPoolExecutor(6) as pool:
        start = threading.Barrier(6)

        def write_often(_: int) -> None:
            start.wait(60)
            for _ in range(10):
                write(tmp_path / "target")

        list(pool.map(write_often, range(6)))  # raises the error of a thread
    assert (tmp_path / "target").read_bytes() == (tmp_path / "plain").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_temporary_files_are_distinguished_by_the_whole_name() -> None:
    names = ["a" * 40 + "1", "a" * 40 + "2", "a"]
    for name in names:
        made = Path(partial_name(name))
        assert [other for other in names if is_partial(made, [other])] == [name]
    assert not is_partial(Path("a.7.partial"), names)


# Text on which a backtracking search would take hours. Each is refused, or read, at once.
BLANKS, WEIGHTS = (
    " " * 10**5,
    "constant r : natural := 2; constant c : natural := 2; type m is array (0 to 1) of integer;",
)
ENDLESS = {
    "blanks in an element": f"{WEIGHTS} constant v:m:=(({BLANKS}));",
    "blanks after a sign": f"{WEIGHTS} constant v:m:=((1,-{BLANKS}x),(1,2));",
    "blanks before the end": f"{WEIGHTS} constant v:m:={BLANKS}",
    "blanks after a row": f"{WEIGHTS} constant v:m:=((1,2){BLANKS}x(1,2));",
    "digits": f"{WEIGHTS} constant v:m:=(({'1' * 10**5}x,2),(1,2));",
    "digits of an index": f"{WEIGHTS} constant v:m:=({'1' * 10**5}(1,2),(1,2));",
    "a large number": f"{WEIGHTS} constant v:m:=(({'1' * 10**5},2),(1,2));",
    "underscores": f"constant r : natural := {'1_' * 10**5};",
    "beginnings of comments": "/*" * 10**5,
    "beginnings of types": "type m is array (" * 10**4,
    "ends of types": f"type m is array ({')' * 10**5}",
    "ends of types, apart": f"type m is array ({(')' + ' ' * 300) * 300}",
    "beginnings of constants": "constant a : natural := " * 10**4,
    "words": "constant " + "a" * 10**5,
    "blanks in a constant": f"constant{BLANKS}a{BLANKS}:{BLANKS}natural{BLANKS}",
}
STATE = "} n_state;\n"
ENDLESS_HEADERS = {
    "beginnings of arrays": STATE + "static const int8_t n_weights_0[\n" * 10**4,
    "arrays without an end": STATE + "static const int8_t n_weights_0[1][1] = {\n" * 10**4,
    "words": "} " + "n_state" * 10**5,
    "digits": f"{STATE}#define N_INPUTS {'1' * 10**5}x\n",
    "a large number": f"{STATE}#define N_INPUTS {'1' * 10**5}\n",
}


def test_reading_text_takes_time_proportional_to_its_length(tmp_path: Path) -> None:
    """The time limit is not a measurement: a file takes either some milliseconds or hours."""
    for reader, texts in (("read_weights", ENDLESS), ("read_header", ENDLESS_HEADERS)):
        for name, text in texts.items():
            path = tmp_path / f"{reader} {name}"
            path.write_text(text)
    program = (
        "import pathlib, sys\nfrom srcell import hardware\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    print(path.name, flush=True)\n"
        "    try:\n        getattr(hardware, path.name.partition(' ')[0])(path)\n"
        "    except ValueError as error:\n        assert str(error).startswith(str(path)) and len(str(error)) < 400\n"
        "    else:\n        raise AssertionError('expected to be refused')\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=120)


def test_numbers_with_too_many_digits_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "network.h"
    hardware.write_header(path, [LAYER], num_classes=2)
    path.write_text(path.read_text().replace("-8", "-" + "8" * 30))
    with pytest.raises(ValueError, match=rf"{path}: expected integers of at most 18 digits, got -8888"):
        hardware.read_header(path)
