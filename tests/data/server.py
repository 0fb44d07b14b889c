"""A web server on this machine that knows ranges, and misbehaves as it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """What one answer does wrong."""

    status: int | None = None  # answers with this instead
    cut: int | None = None  # closes the connection after so many bytes
    deaf: bool = False  # knows no ranges
    body: bytes | None = None  # sends this instead
    headers: dict[str, str] = field(default_factory=dict)
    unstated: bool = False  # does not say how much comes
    stalls: bool = False  # keeps the connection open after that, and silent


@dataclass
class Web:
    """What is served, what goes wrong next, and what was asked for."""

    folder: Path
    url: str
    faults: list[Fault] = field(default_factory=list)  # of the next answers, in turn
    always: Fault = field(default_factory=Fault)  # of all others
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # file, Range

    def serve(self, name: str, data: bytes) -> str:
        (self.folder / name).write_bytes(data)
        return self.url + name


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Whoever asked has gone; that is what some tests are about."""


@contextmanager
def web(folder: Path) -> Iterator[Web]:
    folder.mkdir()
    served = Web(folder, "")

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            served.asked.append((self.path[1:], wanted))
            fault = served.faults.pop(0) if served.faults else served.always
            file = folder / self.path[1:]
            data = fault.body if fault.body is not None else file.read_bytes() if file.is_file() else None
            if fault.status or data is None:
                self.answer(fault.status or 404, b"sorry", fault, {})
                return
            if wanted is None or fault.deaf:
                self.answer(200, data, fault, {})
                return
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if first >= len(data):
                self.answer(416, b"", fault, {})
                return
            stated = f"bytes {first}-{len(data) - 1}/{len(data)}"
            self.answer(206, data[first:], fault, {"Content-Range": stated})

        def answer(self, status: int, data: bytes, fault: Fault, headers: dict[str, str]) -> None:
            self.send_response(status)
            if not fault.unstated:
                self.send_header("Content-Length", str(len(data)))
            for name, value in (headers | fault.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data[: fault.cut])
            if fault.stalls:
                self.wfile.flush()
                self.rfile.read(1)  # until the other side goes

    with Server(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
