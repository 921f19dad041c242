"""A machine with systemd and dnf, made of this Debian's own programs and booted in a container.

Its root is a file system in memory. /usr is this machine's, seen through an overlay, so that
nothing is downloaded and nothing that a test installs stays; /etc, /var and the rest are its own.
What is not Amazon Linux about it: the packages are stand-ins, and the kernel is this machine's.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path

ROOT_GIB = 10
# Programs that the machine is made with, and Debian's packages that have them.
NEEDED = {
    "createrepo_c": "createrepo-c",
    "curl": "curl",
    "depmod": "kmod",
    "dnf": "dnf",
    "gcc": "gcc",
    "rpmbuild": "rpm",
    "systemd-nspawn": "systemd-container",
}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = ["env", "-i", f"PATH={_PATH}", "HOME=/root", "LC_ALL=C.UTF-8"]
# Not part of an image: kernel interfaces, what is gone after a restart, logs and caches.
_VOLATILE = {"proc", "sys", "dev", "run", "tmp", "var/log", "var/cache", "var/tmp", "usr"}
_FROM_HOST = (
    "alternatives",
    "dbus-1",
    "debian_version",
    "dnf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "login.defs",
    "nsswitch.conf",
    "pam.d",
    "python3",
    "python3.11",
    "rpm",
    "security",
)
# They ask a person, or for a network.
_MASKED = (
    "systemd-firstboot.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
)


def find_lack() -> str | None:
    """Return why no machine can be made here, or None."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [package for name, package in NEEDED.items() if not shutil.which(name, path=path)]
    if os.geteuid() != 0:
        return "needs root, to mount and to start a container"
    if missing:
        return f"needs Debian's packages {', '.join(missing)}"
    if not Path("/usr/lib/python3.11/ensurepip").exists():
        return "needs Debian's package python3.11-venv"
    try:
        with tempfile.TemporaryDirectory() as folder:
            _run("mount", "-t", "tmpfs", "tmpfs", folder)
            _run("umount", folder)
    except subprocess.CalledProcessError as error:
        return f"needs the right to mount: {error.stderr.strip()}"
    return None


def _run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, check=check, capture_output=True, encoding="utf-8")


class Machine:
    """One machine; between `boot` and `stop` its systemd runs."""

    def __init__(self, folder: Path) -> None:
        self._memory = folder / "memory"
        self.root = self._memory / "root"
        self._upper = self._memory / "upper"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = ""
        self._console = folder / "console"

    def make(self) -> None:
        """Mount the root and fill it."""
        self._memory.mkdir(parents=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={ROOT_GIB}G,mode=755", "tmpfs", str(self._memory))
        for name in ("etc/systemd/system", "var/log", "var/lib", "var/cache", "usr", "home", "opt"):
            (self.root / name).mkdir(parents=True)
        for name in ("run", "proc", "sys", "dev"):
            (self.root / name).mkdir()
        for name in ("tmp", "var/tmp"):
            (self.root / name).mkdir()
            (self.root / name).chmod(0o1777)
        (self.root / "root").mkdir(mode=0o700)
        work = self._memory / "work"
        self._upper.mkdir()
        work.mkdir()
        options = f"lowerdir=/usr,upperdir={self._upper},workdir={work}"
        _run("mount", "-t", "overlay", "overlay", "-o", options, str(self.root / "usr"))
        for name in ("bin", "sbin", "lib", "lib64"):
            (self.root / name).symlink_to(f"usr/{name}")
        (self.root / "var/run").symlink_to("/run")
        shutil.rmtree(self.root / "usr/lib/modules", ignore_errors=True)
        self._fill_etc()

    def _fill_etc(self) -> None:
        etc = self.root / "etc"
        for name in _FROM_HOST:
            source = Path("/etc") / name
            if source.is_dir():
                shutil.copytree(source, etc / name, symlinks=True)
            elif source.exists():
                shutil.copy2(source, etc / name)
        masters = Path("/usr/share/base-passwd")
        users = (masters / "passwd.master").read_text() + "messagebus:x:100:107::/:/bin/false\n"
        (etc / "passwd").write_text(users)
        (etc / "group").write_text((masters / "group.master").read_text() + "messagebus:x:107:\n")
        (etc / "hostname").write_text("image-test\n")
        # Empty, not missing: no first start, at which systemd would enable what Debian brings.
        (etc / "machine-id").touch()
        (etc / "localtime").symlink_to("/usr/share/zoneinfo/Etc/UTC")
        system = etc / "systemd" / "system"
        (system / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
        for name in _MASKED:
            (system / name).symlink_to("/dev/null")

    def _container(self) -> list[str]:
        """Return the options that every start has; without machined, which is the host's."""
        return [
            *("--quiet", "--directory", str(self.root), "--machine", f"image-test-{os.getpid()}"),
            *("--register=no", "--keep-unit", "--private-network"),
        ]

    def boot(self) -> None:
        """Start systemd and wait until it has started its units."""
        with self._console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                ["systemd-nspawn", "--boot", *self._container()],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + 60
        state = ""
        while state not in ("running", "degraded"):
            if time.monotonic() > end or self._nspawn.poll() is not None:
                said = self._console.read_text(errors="replace")[-2000:]
                raise AssertionError(f"the machine did not start ({state}):\n{said}")
            time.sleep(0.2)
            pid = self._nspawn.pid
            self._leader = Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()
            if self._leader:
                state = self.run("systemctl is-system-running", check=False).stdout.strip()

    def stop(self) -> None:
        """Shut the machine down, if it runs."""
        if self._nspawn is None:
            return
        self._nspawn.terminate()
        try:
            self._nspawn.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._nspawn, self._leader = None, ""

    def remove(self) -> None:
        """Stop the machine and take its root away."""
        self.stop()
        _run("umount", str(self.root / "usr"), check=False)
        _run("umount", "--lazy", str(self._memory), check=False)

    def run(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell command as root: in the running machine, or in its root while it is off."""
        enter = ["nsenter", "--target", self._leader, "--all"]
        if not self._leader:
            enter = ["systemd-nspawn", "--pipe", *self._container()]
        done = _run(*enter, *_ENVIRONMENT, "bash", "-c", f"cd /; {command}", check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file of the machine; `path` starts at its root."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)

    def tree(self) -> dict[str, str]:
        """Return what is in the image: path → kind, owner, mode and content of every file."""
        found = {}
        for base, prefix in ((self.root, ""), (self._upper, "usr/")):
            for folder, folders, files in os.walk(base):
                here = Path(folder).relative_to(base)
                names = [*files, *folders]
                if not prefix:
                    folders[:] = [name for name in folders if str(here / name) not in _VOLATILE]
                    names = [name for name in names if str(here / name) not in _VOLATILE]
                for name in names:
                    if name.endswith("-shm"):
                        continue  # SQLite's index in memory, which it makes anew at will
                    found[f"/{prefix}{here / name}"] = _describe(Path(folder) / name)
        return found


def _describe(path: Path) -> str:
    known = path.lstat()
    if stat.S_ISLNK(known.st_mode):
        content = str(path.readlink())
    elif stat.S_ISREG(known.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    else:
        content = ""
    return f"{known.st_mode:o} {known.st_uid}:{known.st_gid} {content}"
