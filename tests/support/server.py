"""A local web server that answers as a test says: whole, cut, with a wrong length, another code, from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

Answer = Callable[["Handler", bytes], None]


class Server:
    """The files that it has, by path, and what it does at each request for one of them; at further ones, the last."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[tuple[str, int]] = []  # path, and the byte from which on it was asked for

    def offer(self, path: str, content: bytes, *answers: Answer) -> str:
        """Offer a file, and return its address."""
        self.files[path], self.answers[path] = content, list(answers) or [whole]
        return f"{self.address}{path}"


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Web

    def do_GET(self) -> None:
        """Answer as the server is told."""
        known, found = self.server.known, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        self.begin = int(found[1]) if found else 0
        known.requests.append((self.path, self.begin))
        answers = known.answers.get(self.path, [status(404)])
        (answers.pop(0) if len(answers) > 1 else answers[0])(self, known.files.get(self.path, b""))

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def send(self, code: int, content: bytes, length: int | None = None, **headers: str) -> None:
        """Send a code, a length (by default the true one), headers, and the content."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)


class Web(ThreadingHTTPServer):
    """The server of ``served``."""

    known: Server
    daemon_threads = True


def whole(handler: Handler, content: bytes) -> None:
    """Send a file, or the rest of it."""
    cut(len(content))(handler, content)


def cut(count: int, begin: int = 0) -> Answer:
    """Send so many bytes of what was asked for, of which ``begin`` are others than asked for, and close."""

    def answer(handler: Handler, content: bytes) -> None:
        if handler.begin > len(content) or (content and handler.begin == len(content)):
            handler.send(416, b"")
            return
        first = handler.begin + begin
        rest = content[first:]
        headers = {"Content_Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if handler.begin else {}
        handler.send(206 if handler.begin else 200, rest[:count], len(rest), **headers)

    return answer


def from_the_begin(count: int) -> Answer:
    """As a server that knows no parts: send so many bytes from the first one on, and close."""
    return lambda handler, content: handler.send(200, content[:count], len(content))


def of_length(length: int) -> Answer:
    """Say another length than the content has."""
    return lambda handler, content: handler.send(200, content, length)


def status(code: int, **headers: str) -> Answer:
    """Answer with a code."""
    return lambda handler, content: handler.send(code, b"", **headers)


def redirect(path: str) -> Answer:
    """Send to another path."""
    return status(302, Location=path)


@contextmanager
def served() -> Iterator[Server]:
    """A server on this machine."""
    with Web(("127.0.0.1", 0), Handler) as web:
        web.known = Server(f"http://127.0.0.1:{web.server_port}")
        thread = Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield web.known
        finally:
            web.shutdown()
            thread.join()
