"""A real Docker engine of its own for tests: Debian's docker.io, no network, one tiny image."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

IMAGE = "box:1"
_PROGRAMS = {"dockerd": "docker.io", "docker": "docker.io", "busybox": "busybox-static"}
_PATH = f"/usr/sbin:/usr/bin:{os.environ.get('PATH', os.defpath)}"


def _missing() -> str:
    missing = {p for name, p in _PROGRAMS.items() if shutil.which(name, path=_PATH) is None}
    if missing:
        return f"packages are missing: {' '.join(sorted(missing))}"
    return "" if os.geteuid() == 0 else "dockerd needs root"


needs_docker = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(_missing()), reason=_missing() or "docker is here"),
]


@dataclass
class DockerService:
    """An engine that runs; `pause` and `resume` stop and continue it."""

    socket: Path
    process: subprocess.Popen[bytes]

    def docker(self, *words: str) -> str:
        """Run a command of Docker's own client, and return what it printed."""
        done = subprocess.run(
            ["docker", "--host", f"unix://{self.socket}", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={"PATH": _PATH, "HOME": str(self.socket.parent)},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def run(self, name: str, script: str, *words: str) -> None:
        """Start a container with a script of busybox's shell."""
        shell = ("/bin/busybox", "sh", "-c", script)
        self.docker("run", "--detach", "--network=none", f"--name={name}", *words, IMAGE, *shell)

    def inspect(self, name: str, template: str) -> str:
        """Return what Docker says of a container."""
        return self.docker("inspect", "--format", template, name)

    def pause(self) -> None:
        """Keep the engine from answering."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it answer again."""
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def docker_service() -> Iterator[DockerService]:
    """Start an engine in a folder of its own, and end it and its containers."""
    # The path of a socket may have 107 letters.
    with tempfile.TemporaryDirectory(prefix="dock") as name:
        folder = Path(name)
        socket = folder / "docker.sock"
        words = [
            shutil.which("dockerd", path=_PATH) or "dockerd",
            f"--data-root={folder / 'data'}",
            f"--exec-root={folder / 'exec'}",
            f"--pidfile={folder / 'pid'}",
            f"--host=unix://{socket}",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--storage-driver=vfs",
        ]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                words, stdout=log, stderr=log, env={"PATH": _PATH, "HOME": name}
            )
        service = DockerService(socket, process)
        try:
            _wait(service, folder / "log")
            _make_image(service, folder)
            yield service
        finally:
            service.resume()
            _end(service)


def _wait(service: DockerService, log: Path) -> None:
    limit = time.monotonic() + 60
    while service.process.poll() is None and time.monotonic() < limit:
        try:
            service.docker("version", "--format", "{{json .Server.Version}}")
        except AssertionError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"dockerd does not start: {log.read_text(errors='replace')[-2000:]}")


def _make_image(service: DockerService, folder: Path) -> None:
    root = folder / "root"
    (root / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox", path=_PATH) or "busybox", root / "bin" / "busybox")
    archive = folder / "root.tar"
    subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
    service.docker("import", str(archive), IMAGE)


def _end(service: DockerService) -> None:
    if service.process.poll() is None:
        if names := service.docker("ps", "--all", "--quiet").split():
            service.docker("rm", "--force", *names)
        service.process.terminate()
    try:
        service.process.wait(30)
    except subprocess.TimeoutExpired:
        service.process.kill()
        service.process.wait(10)
