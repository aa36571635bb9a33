"""A web server on the loopback that serves one file in every wrong way, and a copy of the zoo that fetches there."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
decode_head = {{ type = "Toy" }}
dataset = "camvid"
split = "val"
crop = [8, 8]
align_corners = false
miou = 50
miou_source = "measured"
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
        name = self.path.rpartition("/")[2]
        start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if self.headers["Range"] else 0
        if name in ("404", "403", "500"):
            self.send_error(int(name))
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

    def log_message(self, *args: Any) -> None: ...


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
        path = self.root / "zoo" / "index" / "toy.toml"
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
