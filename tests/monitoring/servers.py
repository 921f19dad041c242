"""Prometheus and Alertmanager on free ports of the loopback address, and a mail server that keeps."""

from __future__ import annotations

import email
import json
import os
import shutil
import socket
import socketserver
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

Found = TypeVar("Found")
WAIT_SECONDS = 60.0
PROGRAMS = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
}
_missing = sorted({package for name, package in PROGRAMS.items() if shutil.which(name) is None})

# Skipped, and counted as such, where the packages are not installed.
needs_prometheus = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(_missing), reason=f"packages are missing: {' '.join(_missing)}"),
]


def run_tool(*command: str) -> str:
    """Run promtool or amtool; return what it says, and fail with that where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(what: str, look: Callable[[], Found | None], seconds: float = WAIT_SECONDS) -> Found:
    """Return what `look` finds as soon as it is something; fail where it stays nothing."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    pytest.fail(f"in {seconds:g} s there was no {what}")


@dataclass
class Server:
    """A program that answers at `url`."""

    url: str
    log: Path

    def get(self, path: str) -> Any:
        """Return the JSON at a path."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:  # noqa: S310
            return json.load(answer)

    def post(self, path: str, body: Any) -> None:
        """Send JSON to a path."""
        request = urllib.request.Request(  # noqa: S310
            f"{self.url}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310

    def is_ready(self) -> bool:
        """Return whether it says so."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError):
            return False


@contextmanager
def running(folder: Path, port: int, *command: str, **variables: str) -> Iterator[Server]:
    """Run a server until the end of the block; only what stands in `variables` and PATH is set."""
    log = folder / f"{Path(command[0]).name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **variables},
        )
    server = Server(f"http://127.0.0.1:{port}", log)
    try:
        wait_for(f"answer of {command[0]}", server.is_ready)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def prometheus(folder: Path, config: dict[str, Any], **variables: str) -> Iterator[Server]:
    """Run Prometheus with a configuration."""
    port = free_port()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    arguments = (
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=debug",
    )
    with running(folder, port, "prometheus", *arguments, **variables) as server:
        yield server


@contextmanager
def alertmanager(folder: Path, config: dict[str, Any]) -> Iterator[Server]:
    """Run Alertmanager with a configuration, without a cluster of them."""
    port = free_port()
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    arguments = (
        f"--config.file={path}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    )
    with running(folder, port, "prometheus-alertmanager", *arguments) as server:
        yield server


@dataclass
class MailSink:
    """The mails that a server of SMTP got."""

    port: int
    mails: list[EmailMessage] = field(default_factory=list)

    @property
    def subjects(self) -> list[str]:
        """The subject of each mail."""
        return [str(mail["Subject"]) for mail in self.mails]


@contextmanager
def mail_sink() -> Iterator[MailSink]:
    """Run a mail server that takes everything and delivers nothing."""

    class Handler(socketserver.StreamRequestHandler):
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
            message = email.message_from_bytes(b"".join(lines), policy=policy.default)
            assert isinstance(message, EmailMessage)
            sink.mails.append(message)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        sink = MailSink(int(server.server_address[1]))
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        yield sink
        server.shutdown()
