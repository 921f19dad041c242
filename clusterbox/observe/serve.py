"""Serve metrics over HTTP until the process is told to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from clusterbox.errors import InputError
from clusterbox.observe.refresh import Refreshed

# A scraper that connects and says nothing does not hold a thread for ever.
_REQUEST_SECONDS = 30.0
_SHARED_SECONDS = 1.0


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`; raises InputError for another text."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 <= int(port) < 65536:
        raise InputError(f"--listen must be HOST:PORT such as 127.0.0.1:9341, not {text!r}")
    return host.strip("[]"), int(port)


class MetricsServer(ThreadingHTTPServer):
    """A server of one registry on /metrics; `port` is the one that it got."""

    daemon_threads = True
    # Many scrapers may come at the same moment.
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry) -> None:
        """Listen; raises InputError where the address cannot be had."""
        try:
            super().__init__(address, _handler(registry))
        except OSError as error:
            host, port = address
            raise InputError(f"cannot listen on {host}:{port}: {error.strerror}") from error

    @property
    def port(self) -> int:
        """The port."""
        return int(self.server_address[1])


def serve(server: MetricsServer, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` gets the port once it listens."""

    def stop(*_: Any) -> None:
        threading.Thread(target=server.shutdown, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    ready(server.port)
    try:
        server.serve_forever(poll_interval=0.2)
    finally:
        server.server_close()


def _handler(registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    # Many scrapers at the same moment get one text: writing it takes longer than sending it.
    texts: dict[str, Refreshed[bytes]] = {}
    lock = threading.Lock()

    def render(accept: str) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        with lock:
            text = texts.setdefault(
                content_type, Refreshed(lambda: encode(registry), _SHARED_SECONDS)
            )
        return text.get(), content_type

    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_SECONDS

        def do_GET(self) -> None:
            if self.path.split("?")[0] != "/metrics":
                self._answer(404, "text/plain", b"metrics are at /metrics\n")
                return
            try:
                body, content_type = render(self.headers.get("Accept", ""))
            except Exception as error:
                # A scrape that fails must be seen as such, and say why.
                self._answer(500, "text/plain", f"{type(error).__name__}: {error}\n".encode())
                raise
            self._answer(200, content_type, body)

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            try:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Say nothing about each scrape."""

    return Handler
