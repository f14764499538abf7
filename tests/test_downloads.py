"""Downloads from a server that cuts, lies about lengths, answers other codes and sends elsewhere."""

from __future__ import annotations

import hashlib
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from srcell import data
from srcell.cli import main
from srcell.data import downloads
from srcell.data.downloads import download
from support.formats import FORMATS, write_mnist
from support.server import Server, cut, from_the_begin, of_length, redirect, served, status, whole

CONTENT = np.random.default_rng(0).bytes(3 * downloads.CHUNK + 5)
PART = 2 * downloads.CHUNK
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloads, "PAUSES", (0.0, 0.0))
    with served() as server:
        yield server


def left(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


WAYS: dict[str, tuple[list[Any], list[int]]] = {  # what the server does, and from where on it is asked
    "whole": ([whole], [0]),
    "cut": ([cut(PART), whole], [0, PART]),
    "cut often": ([cut(9), cut(9), cut(9), cut(9), whole], [0, 9, 18, 27, 36]),
    "knows no parts": ([from_the_begin(PART), whole], [0, PART]),
    "begins anew": ([cut(PART), from_the_begin(len(CONTENT))], [0, PART]),
    "another part": ([cut(PART), cut(99, begin=7), whole], [0, PART, 0]),
    "too long a length": ([of_length(len(CONTENT) + 9), whole, whole], [0, len(CONTENT), 0]),
    "busy": ([status(503), status(429), whole], [0, 0, 0]),
    "nothing at first": ([cut(0), cut(0), whole], [0, 0, 0]),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_file_comes_whole(way: str, server: Server, tmp_path: Path) -> None:
    answers, begins = WAYS[way]
    url = server.offer("/file.bin", CONTENT, *answers)
    for _ in range(2):  # the second time nothing is requested
        download([url], tmp_path / "below/file.bin", MD5)
        assert left(tmp_path / "below") == {"file.bin": CONTENT}
        assert server.requests == [("/file.bin", begin) for begin in begins]


def test_a_later_call_goes_on(server: Server, tmp_path: Path) -> None:
    url = server.offer("/file.bin", CONTENT, cut(PART), cut(0), cut(0), cut(0), whole)
    with pytest.raises(ConnectionError, match=f"the connection was cut after {PART:,} of .* {PART:,} bytes that came"):
        download([url], tmp_path / "file.bin", MD5)
    assert left(tmp_path) == {"file.bin.partial": CONTENT[:PART]}
    download([url], tmp_path / "file.bin", MD5)
    assert left(tmp_path) == {"file.bin": CONTENT} and server.requests[-1] == ("/file.bin", PART)


def test_a_whole_part_needs_no_server(tmp_path: Path) -> None:
    (tmp_path / "file.bin.partial").write_bytes(CONTENT)
    download(["http://127.0.0.1:9/file.bin"], tmp_path / "file.bin", MD5)
    assert left(tmp_path) == {"file.bin": CONTENT}


def test_a_part_of_another_file_is_not_kept(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.partial").write_bytes(b"other")
    download([server.offer("/file.bin", CONTENT)], tmp_path / "file.bin", MD5)
    assert left(tmp_path) == {"file.bin": CONTENT} and server.requests == [("/file.bin", 5), ("/file.bin", 0)]


def test_a_mirror_helps_out_and_a_redirection_is_followed(server: Server, tmp_path: Path) -> None:
    server.offer("/elsewhere.bin", CONTENT, cut(PART), whole)
    urls = [server.address + "/none.bin", server.offer("/file.bin", CONTENT, redirect("/elsewhere.bin"))]
    (tmp_path / "file.bin").write_bytes(b"another")  # what is no such file is replaced
    download(urls, tmp_path / "file.bin", MD5)
    assert left(tmp_path) == {"file.bin": CONTENT}
    asked = [("/none.bin", 0), ("/file.bin", 0), ("/elsewhere.bin", 0), ("/file.bin", PART), ("/elsewhere.bin", PART)]
    assert server.requests == asked


FAULTS = {
    "none": (status(404), "answered 404 Not Found", 1),
    "forbidden": (status(403), "answered 403 Forbidden", 1),
    "down": (status(503), "answered 503 Service Unavailable", 3),
    "a circle": (redirect("/file.bin"), "answered 302 .*", 1),
    "to nowhere": (redirect("http://127.0.0.1:9/x"), r"no connection \(.*refused.*\)", 3),
    "another file": (lambda handler, _: handler.send(200, b"<html>"), "sent another file, of MD5 [0-9a-f]{32}", 1),
    "too short a length": (of_length(7), "sent another file, of MD5 [0-9a-f]{32}", 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_message_says_what_to_do(fault: str, server: Server, tmp_path: Path) -> None:
    answer, message, requests = FAULTS[fault]
    url, target = server.offer("/file.bin", CONTENT, answer), tmp_path / "file.bin"
    expected = rf"file.bin could not be downloaded \({url}: {message}\): try again; or fetch it by hand \(MD5 {MD5}\) "
    with pytest.raises(ConnectionError, match=f"^{expected}and put it at {re.escape(str(target))}$"):
        download([url], target, MD5)
    assert left(tmp_path) == {} and (len(server.requests) == requests or fault == "a circle")


def test_a_server_that_sends_no_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "PAUSES", ())
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            connection.recv(1000)
            connection.sendall(b"220 ready\r\n")
            connection.close()

        thread = Thread(target=answer)
        thread.start()
        with pytest.raises(ConnectionError, match=r"the connection failed \(220 ready"):
            download([f"http://127.0.0.1:{listening.getsockname()[1]}/file"], tmp_path / "file.bin", MD5)
        thread.join()


def test_two_at_once_download_once(server: Server, tmp_path: Path) -> None:
    url = server.offer("/file.bin", CONTENT)
    threads = [Thread(target=download, args=([url], tmp_path / "file.bin", MD5)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left(tmp_path) == {"file.bin": CONTENT} and len(server.requests) == 1


def test_a_full_disk_is_no_fault_of_the_network(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.partial").mkdir()
    with pytest.raises(IsADirectoryError):
        download([server.offer("/file.bin", CONTENT)], tmp_path / "file.bin", MD5)


# The data sets


def test_images_are_downloaded(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torchvision.datasets import MNIST

    arrays = write_mnist(tmp_path / "made")
    files = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    for name, content in files.items():
        server.offer(f"/mirror/{name}", content, cut(20), whole)
    monkeypatch.setattr(MNIST, "resources", [(name, hashlib.md5(x).hexdigest()) for name, x in files.items()])
    monkeypatch.setattr(MNIST, "mirrors", [f"{server.address}/gone/", f"{server.address}/mirror/"])
    for _ in range(2):
        dataset = data.load_mnist(tmp_path, download=True)
        assert dataset.train.labels.tolist() == arrays["train-labels-idx1-ubyte"].tolist()
        assert len(server.requests) == 3 * len(files)
    monkeypatch.setattr(MNIST, "mirrors", [f"{server.address}/gone/"])
    assert main(["train", "mnist", "--download", "--data", str(tmp_path / "new"), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"srcell: {next(iter(files))} could not be downloaded (") and said.count("\n") == 1


@pytest.mark.landing
@pytest.mark.parametrize(
    ("name", "of_tonic", "parts"),
    [
        ("nmnist", "NMNIST", ("Train", "Test")),
        ("dvs128-gesture", "DVSGesture", ("ibmGestureTrain", "ibmGestureTest")),
        ("shd", "SHD", ("shd_train.h5", "shd_test.h5")),
        ("ssc", "SSC", ("ssc_train.h5", "ssc_test.h5")),
    ],
)
def test_recordings_are_downloaded_and_unpacked(
    name: str, of_tonic: str, parts: tuple[str, str], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("tonic.datasets", reason='pip install "srcell[nmnist]"')
    known, made = getattr(datasets, of_tonic), tmp_path / "made"
    FORMATS[name].write(made)
    monkeypatch.setattr(known, "base_url", f"{server.address}/", raising=False)
    for part, member in zip(("train", "test"), parts, strict=True):
        file = getattr(known, f"{part}_filename", f"{member}.zip")
        kind = "zip" if file.endswith("zip") else "gztar"
        base = next(made.rglob(member)).parent
        content = Path(shutil.make_archive(str(tmp_path / part), kind, base, member)).read_bytes()
        monkeypatch.setattr(known, f"{part}_url", server.offer(f"/{file}", content, cut(50), whole), raising=False)
        monkeypatch.setattr(known, f"{part}_md5", hashlib.md5(content).hexdigest())
    for _ in range(2):
        loaded = data.load(name, tmp_path / "new", download=True)
        assert len(loaded.train.labels) == len(loaded.test.labels) == 2
        assert [begin for _, begin in server.requests] == [0, 50, 0, 50]
