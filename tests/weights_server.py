"""A web server on the loopback that serves one file in every wrong way, and a copy of the zoo that fetches there."""

import gzip
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CONTENT = random.Random(0).randbytes(4_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2
PIECE = 600_000  # more than a client has in its buffers when the connection breaks

ENTRY = """
[entry.{id}]
backbone = "r50-d8"
dataset = "camvid"
split = "val"
crop = [8, 8]
metrics = {{ mIoU = 50 }}
metrics_source = "measured"
iterations = 1
batch = 1
optimizer = "SGD"
lr = 0.1
url = "{url}"
mirrors = {mirrors}
sha256 = "{sha256}"
format = "safetensors"
code_licence = "MIT"
weights_licence = "MIT"
"""


@dataclass
class Request:
    path: str
    range: str | None


@dataclass
class Server:
    """Where it listens, and what it was asked."""

    url: str
    requests: list[Request] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)  # lets /stall and /hang go on

    def count(self, path: str) -> int:
        return sum(request.path == path for request in self.requests)


class _Handler(BaseHTTPRequestHandler):
    server: "_HTTPServer"
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        state = self.server.state
        state.requests.append(Request(self.path, self.headers["Range"]))
        self.close_connection = True
        nth = state.count(self.path)
        name = self.path.rpartition("/")[2].partition("?")[0]
        start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if self.headers["Range"] else 0
        if name in ("404", "403", "500"):
            self.send_error(int(name))
        elif name in HOSTILE:
            with suppress(OSError):  # the client has had enough
                HOSTILE[name](self, start)
        elif name == "busy" and nth < 3:
            self.send_error(503)
        elif name == "hang":
            state.release.wait(20)
        elif name == "moved":
            self.send_response(302)
            self.send_header("Location", "/good")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif name == "wrong":
            self._send(bytes(len(CONTENT)), 200, len(CONTENT))
        elif name == "wrong-end":
            self._send(CONTENT[start:HALF] + bytes(len(CONTENT) - max(start, HALF)), 206 if start else 200, None, start)
        elif name == "too-long":  # promises more than it has
            self._send(CONTENT[start:], 206 if start else 200, len(CONTENT) - start + 1000, start)
            time.sleep(0.3)
        elif name == "too-short":  # promises less than it has
            self._send(CONTENT, 200, HALF)
        elif name == "no-length":
            self._send(CONTENT, 200, None)
        elif name == "no-range":  # cut once, and from the start again whatever is asked
            self._send(CONTENT[: HALF if nth == 1 else None], 200, len(CONTENT))
        elif name == "other-range" and start:
            self._send(CONTENT[:1000], 206, 1000, 0)
        elif start > len(CONTENT):
            self.send_error(416)
        else:
            end = {"cut": HALF if nth == 1 else None, "other-range": HALF if nth == 1 else None}.get(name)
            end = start + PIECE if name == "always-cut" else end
            body = CONTENT[start:end]
            self._send(body, 206 if start else 200, len(CONTENT) - start, start, slow=name in ("slow", "stall"))

    def _send(self, body: bytes, status: int, length: int | None, start: int = 0, slow: bool = False) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        half = len(body) // 2
        self.wfile.write(body[:half])
        self.wfile.flush()
        if slow:
            self.server.state.release.wait(20 if self.path.endswith("stall") else 0.5)
        self.wfile.write(body[half:])

    def redirect(self, to: str | None) -> None:
        self.send_response(302)
        if to is not None:
            self.send_header("Location", to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def begin(self, *lines: str, status: str = "200 OK") -> None:
        """Status and headers as they are given, right or wrong."""
        self.wfile.write("".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *lines, "")).encode("latin1"))

    def drip(self, piece: bytes, seconds: float = 0.02) -> None:
        """The piece again and again, until the client goes."""
        while not self.server.state.release.wait(seconds):
            self.wfile.write(piece)

    def log_message(self, *args: Any) -> None: ...


def _endless(handler: _Handler, start: int) -> None:
    handler.begin()
    handler.wfile.write(CONTENT)
    handler.drip(bytes(PIECE), 0)


def _endless_chunks(handler: _Handler, start: int) -> None:
    handler.begin("Transfer-Encoding: chunked")
    handler.drip(b"%x\r\n%s\r\n" % (PIECE, bytes(PIECE)), 0)


def _bomb(handler: _Handler, start: int) -> None:
    handler.begin("Content-Encoding: gzip")
    handler.wfile.write(gzip.compress(CONTENT + bytes(40_000_000), 1))


def _promise(length: str, status: str = "200 OK", *lines: str) -> Callable[[_Handler, int], None]:
    def send(handler: _Handler, start: int) -> None:
        handler.begin(f"Content-Length: {length}", *lines, status=status)
        handler.wfile.write(CONTENT)
        handler.drip(bytes(PIECE), 0)

    return send


def _trickle(handler: _Handler, start: int) -> None:
    handler.begin(f"Content-Length: {len(CONTENT)}")
    handler.drip(b"x")


def _trickled_status(handler: _Handler, start: int) -> None:
    handler.wfile.write(b"HTTP/1.1 200 ")
    handler.drip(b"O")


def _trickled_headers(handler: _Handler, start: int) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    handler.drip(b"A: b\r\n")


def _trickled_chunk(handler: _Handler, start: int) -> None:
    handler.begin("Transfer-Encoding: chunked")
    handler.wfile.write(b"5;")
    handler.drip(b"x")


def _never_ready(handler: _Handler, start: int) -> None:
    handler.drip(b"HTTP/1.1 102 Processing\r\n\r\n")


def _steady(handler: _Handler, start: int) -> None:
    """20 kB a second."""
    handler.begin(
        f"Content-Length: {len(CONTENT) - start}",
        f"Content-Range: bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}",
        status="206 Partial Content" if start else "200 OK",
    )
    for offset in range(start, len(CONTENT), 1000):
        handler.wfile.write(CONTENT[offset : offset + 1000])
        handler.server.state.release.wait(0.05)


HOSTILE: dict[str, Callable[[_Handler, int], None]] = {
    "endless": _endless,
    "endless-chunks": _endless_chunks,
    "bomb": _bomb,
    "promise": _promise(str(10**15)),
    "huge-promise": _promise("9" * 400),
    "negative": _promise("-5"),
    "no-number": _promise("many"),
    "other-part": _promise(str(len(CONTENT)), "206 Partial Content", "Content-Range: bytes 1000-2000/3000"),
    "no-content": _promise("0", "204 No Content"),
    "escape": _promise("0", "503 \x1b[2Jgone\x07"),
    "garbage": lambda handler, start: handler.drip(b"\x00\xff\x1b[2J" * 100, 0),
    "hung-up": lambda handler, start: None,
    "trickle": _trickle,
    "trickled-status": _trickled_status,
    "trickled-headers": _trickled_headers,
    "trickled-chunk": _trickled_chunk,
    "never-ready": _never_ready,
    "to-file": lambda handler, start: handler.redirect("file:///etc/passwd"),
    "to-ftp": lambda handler, start: handler.redirect("ftp://127.0.0.1/x"),
    "to-data": lambda handler, start: handler.redirect("data:text/plain,x"),
    "to-odd": lambda handler, start: handler.redirect("http://[::1/x"),
    "to-nowhere": lambda handler, start: handler.redirect(None),
    "to-itself": lambda handler, start: handler.redirect("/to-itself"),
    "to-home": lambda handler, start: handler.redirect(f"http://127.0.0.1:{handler.server.server_port}/good"),
    "to-home-by-name": lambda handler, start: handler.redirect(f"http://localhost:{handler.server.server_port}/good"),
    "steady": _steady,
}


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    state: Server

    def handle_error(self, *args: Any) -> None: ...


@contextmanager
def serve() -> Iterator[Server]:
    """The server, for as long as the block runs."""
    httpd = _HTTPServer(("127.0.0.1", 0), _Handler)
    httpd.state = Server(f"http://127.0.0.1:{httpd.server_port}")
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield httpd.state
    finally:
        httpd.state.release.set()
        httpd.shutdown()
        httpd.server_close()


@dataclass
class Zoo:
    """A checkout of its own, with one head ``toy`` more."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "checkpoints" / "downloads"

    def start(self, *args: str, before: str = "", **environment: str) -> "subprocess.Popen[str]":
        """``python -m zoo ARGS``; ``before`` is run first in the same process."""
        hidden = ("CONTEXTZOO_HOME", "CONTEXTZOO_OFFLINE", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy")
        env = {name: value for name, value in os.environ.items() if name not in hidden} | environment
        code = f"{before}\nimport sys; from zoo.__main__ import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, *(["-c", code] if before else ["-m", "zoo"]), *args]
        pipe = subprocess.PIPE
        former = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        try:
            return subprocess.Popen(command, cwd=self.root, env=env, stdout=pipe, stderr=pipe, text=True)
        finally:
            signal.signal(signal.SIGINT, former)

    def run(self, *args: str, before: str = "", **environment: str) -> tuple[int, str, str]:
        """Exit status, output and errors of a command."""
        with self.start(*args, before=before, **environment) as process:
            out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def add(self, name: str, url: str, mirrors: list[str] | None = None, sha256: str = SHA256) -> str:
        """Add weights to the index; returns their id."""
        path = self.root / "zoo" / "index" / "semantic" / "toy.toml"
        id = f"toy_r50-d8_camvid-8x8_{name}"
        if not path.exists():
            path.write_text('name = "Toy"\npaper = "none"\n')
        with path.open("a") as file:
            file.write(ENTRY.format(id=id, url=url, mirrors=mirrors or [], sha256=sha256))
        return id


def copy_zoo(folder: Path) -> Zoo:
    """A copy of the package in a folder that looks like a checkout."""
    shutil.copytree(ROOT / "zoo", folder / "zoo", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "checkpoints").mkdir()
    (folder / "pyproject.toml").touch()
    return Zoo(folder)


def wait_for(condition: Any, seconds: float = 20) -> None:
    """Until ``condition()`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
