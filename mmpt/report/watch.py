"""A live page on this machine alone: made anew when a trial starts or ends."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mmpt.report.load import find_runs
from mmpt.runs.failures import SWEEPS
from mmpt.runs.status import STATUS

HOST = "127.0.0.1"


def state(paths: Sequence[Path]) -> str:
    """A text that changes when a run below the paths starts or ends."""
    files = [path for path in paths if path.is_file()]
    for folder in (path for path in paths if path.is_dir()):
        files += [run / name for run in find_runs(folder) for name in (STATUS, "result.json")]
        files += folder.glob(f"{SWEEPS}/**/*")  # trials that failed before they had a run directory
    stamps = []
    for file in files:
        with contextlib.suppress(OSError):  # not written yet
            stamps.append((str(file), file.stat().st_mtime_ns))
    return f"{hash(tuple(stamps)):x}"


def serve(paths: Sequence[Path], make: Callable[[str], str], ready: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C.

    Args:
        paths: Of the runs.
        make: The state -> the page.
        ready: Called with the address.
    """
    lock, made = threading.Lock(), ("", "")

    class Handler(BaseHTTPRequestHandler):
        """Answers ``/`` and ``/state``, asked for under this machine's own name only."""

        def do_GET(self) -> None:
            """Answer a request."""
            nonlocal made
            own = {f"{name}:{server.server_port}" for name in (HOST, "localhost")}
            if self.headers.get("Host") not in own or self.path not in ("/", "/state"):
                self.send_error(404)
                return
            with lock:  # matplotlib draws for one request at a time
                now = state(paths)
                if self.path == "/" and made[0] != now:
                    made = now, make(now)
            kind, text = ("plain", now) if self.path == "/state" else ("html", made[1])
            self.send_response(200)
            self.send_header("Content-Type", f"text/{kind}; charset=utf-8")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(text.encode("utf-8", "replace"))

        def log_message(self, format: str, *args: object) -> None:
            """Requests are no news."""

    with ThreadingHTTPServer((HOST, 0), Handler) as server, contextlib.suppress(KeyboardInterrupt):
        ready(f"http://{HOST}:{server.server_port}/")
        server.serve_forever()
