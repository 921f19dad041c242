"""What a rehearsal watches with: exporters, Prometheus, Alertmanager and a mail server that keeps.

All of it listens on free ports of the loopback address and ends with its block.
"""

from __future__ import annotations

import email
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, TypeVar

import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from clusterbox.errors import ClusterboxError, InputError
from clusterbox.files import write_whole
from clusterbox.observe.serve import MetricsServer

Found = TypeVar("Found")
# Programs, which are named as the packages of Debian that have them.
PROGRAMS = ("prometheus", "prometheus-alertmanager")
NODE_EXPORTER = "prometheus-node-exporter"
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_LOG_LINES = 5


def require_programs() -> None:
    """Raise InputError with what to install where Prometheus or Alertmanager is missing."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        raise InputError(
            f"programs are missing; install their packages as root with\n"
            f"  apt-get install --no-install-recommends {' '.join(missing)}"
        )


def wait_for(what: str, find: Callable[[], Found | None], seconds: float) -> Found:
    """Return what `find` finds as soon as it is something; raises ClusterboxError if it is not."""
    limit = time.monotonic() + seconds
    while not (found := find()):
        if time.monotonic() > limit:
            raise ClusterboxError(f"there was no {what} within {seconds:g} s")
        time.sleep(0.2)
    return found


def fetch_json(url: str) -> Any:
    """Return the JSON at a URL of a server here."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
        return json.load(answer)


@contextmanager
def prometheus(folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Run Prometheus with a configuration and its data in a folder; yield its URL."""
    path = folder / "prometheus.yml"
    write_whole(path, yaml.safe_dump(dict(config), sort_keys=False))
    port = _free_port()
    words = [
        PROGRAMS[0],
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with _running(words, folder, port, "/-/ready") as url:
        yield url


@contextmanager
def alertmanager(folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Run Alertmanager with a configuration, without a cluster of them; yield its URL."""
    path = folder / "alertmanager.yml"
    write_whole(path, yaml.safe_dump(dict(config), sort_keys=False))
    port = _free_port()
    words = [
        PROGRAMS[1],
        f"--config.file={path}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with _running(words, folder, port, "/-/ready") as url:
        yield url


@contextmanager
def node_exporter(folder: Path) -> Iterator[str | None]:
    """Run the node exporter of this machine; yield its URL, None where it is not installed."""
    if shutil.which(NODE_EXPORTER) is None:
        yield None
        return
    port = _free_port()
    words = [NODE_EXPORTER, f"--web.listen-address=127.0.0.1:{port}"]
    with _running(words, folder, port, "/") as url:
        yield url


@contextmanager
def exporter(collector: Collector) -> Iterator[str]:
    """Serve the metrics of a collector; yield the URL of its server."""
    registry = CollectorRegistry()
    registry.register(collector)
    with MetricsServer(("127.0.0.1", 0), registry) as server, _serving(server):
        yield f"http://127.0.0.1:{server.port}"


@contextmanager
def repeating(call: Callable[[], object], seconds: float) -> Iterator[None]:
    """Call something again and again, with a pause, beside the block."""
    is_over = threading.Event()

    def run() -> None:
        while not is_over.is_set():
            call()
            is_over.wait(seconds)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@dataclass
class MailSink:
    """The mails that a mail server got, the oldest first."""

    address: str
    mails: list[EmailMessage]


@contextmanager
def mail_sink() -> Iterator[MailSink]:
    """Run a mail server that takes everything and delivers nothing."""
    with _MailServer(("127.0.0.1", 0), _MailHandler) as server, _serving(server):
        yield MailSink(f"127.0.0.1:{server.server_address[1]}", server.mails)


class _MailServer(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.mails: list[EmailMessage] = []


class _MailHandler(socketserver.StreamRequestHandler):
    """As much of SMTP (RFC 5321) as takes a mail."""

    def handle(self) -> None:
        self.wfile.write(b"220 sink ESMTP\r\n")
        while line := self.rfile.readline():
            word = line.strip().upper().partition(b" ")[0]
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                self._take()
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
            if word == b"QUIT":
                return

    def _take(self) -> None:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b"."))
        mail = email.message_from_bytes(b"".join(lines), policy=policy.default)
        if isinstance(mail, EmailMessage) and isinstance(self.server, _MailServer):
            self.server.mails.append(mail)


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def _running(words: list[str], folder: Path, port: int, ready: str) -> Iterator[str]:
    """Run a server until the end of the block; yield its URL once it answers at `ready`."""
    log = folder / f"{words[0]}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            words,
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            # Neither proxies nor credentials of whoever rehearses.
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder)},
            # Ctrl-C reaches this process alone, which ends it when nobody needs it any more.
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(words[0], process, f"{url}{ready}", log)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(name: str, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    def has_answered() -> bool:
        if process.poll() is not None:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
            raise ClusterboxError(f"{name} ended at its start and said:\n" + "\n".join(lines))
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    wait_for(f"answer of {name}", has_answered, _START_SECONDS)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
