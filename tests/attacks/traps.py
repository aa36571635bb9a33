"""What shows that an attack came through: a file that a command leaves, a server that was asked."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

MARKER = "pwned"


class Trap:
    """A folder where commands leave ``MARKER``, and an address of this machine that counts its visitors."""

    def __init__(self, folder: Path) -> None:
        self.marker = folder / MARKER
        self.requests = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:
                self.requests += 1
                handler.send_error(404)

            do_HEAD = do_POST = do_GET

            def log_message(handler, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/model.yaml"

    def sprung(self) -> int:
        """How often something came through since the last time."""
        count = self.requests + self.marker.exists()
        self.requests = 0
        self.marker.unlink(missing_ok=True)
        return count


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    trap = Trap(tmp_path)
    thread = threading.Thread(target=trap.server.serve_forever, daemon=True)
    thread.start()
    yield trap
    trap.server.shutdown()
    trap.server.server_close()
    thread.join()
