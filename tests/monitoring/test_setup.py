"""What sets up the monitoring machine, with stand-ins for what belongs to the machine and to AWS."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "amd64")
VERSIONS = dict(
    line.split("=")
    for line in (ROOT / "monitoring/versions.env").read_text(encoding="utf-8").splitlines()
    if "=" in line and not line.startswith("#")
)
PROGRAMS = ("prometheus", "alertmanager", "grafana")
# Commands that would change the machine only say that they were called.
SAYING = ("systemctl", "useradd", "mount", "mkfs.xfs", "install", "chgrp", "runuser", "dnf")
AWS = """#!/bin/bash
echo "aws $*" >>"$CALLS"
case "$1 $2" in
  "ssm get-parameter") echo s3://assets/$RELEASE.zip ;;
  "secretsmanager get-secret-value") cat "$SECRETS/$4" ;;
  "s3 cp") cp "$BUCKET/$(basename "$4")" "$5" ;;
  *) echo "no such call: $*" >&2; exit 9 ;;
esac
"""
# `python -m venv` and `pip` are not what is tested here: the interpreter of the tests does for both.
PYTHON = f"""#!/bin/bash
case "$2" in
  venv) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  pip) echo "pip $*" >>"$CALLS" ;;
  *) exec {sys.executable} "$@" ;;
esac
"""


class Machine:
    """A folder that setup.sh takes for a machine."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.bucket = folder / "bucket"
        self.secrets = folder / "secrets"
        self.calls_file = folder / "calls"
        self.bin = folder / "bin"
        self.release = "a" * 64
        for path in (self.root, self.bucket, self.secrets, self.bin):
            path.mkdir()
        (self.root / "device").touch()
        for name in SAYING:
            self._command(name, f'#!/bin/bash\necho "{name} $*" >>"$CALLS"\n')
        self._command("mountpoint", "#!/bin/bash\nexit 0\n")
        self._command("getent", "#!/bin/bash\nexit 0\n")
        self._command("aws", AWS)
        self._command("python", PYTHON)
        self.give_secret("grafana", "first-password")
        values = {
            "CLUSTERBOX_REGION": "us-west-2",
            "CLUSTERBOX_ENVIRONMENT": "ws-dev",
            "CLUSTERBOX_SOURCE_PARAMETER": "/clusterbox/ws-dev/monitoring/source",
            "CLUSTERBOX_TOPIC": "arn:aws:sns:us-west-2:427491229895:alerts",
            "CLUSTERBOX_GRAFANA_SECRET": "grafana",
            "CLUSTERBOX_MAIL_SECRET": "",
            "CLUSTERBOX_REMOTE_WRITE": "",
            "CLUSTERBOX_ARTEFACTS": "s3://config/monitoring/artefacts",
        }
        etc = self.root / "etc/clusterbox-monitoring"
        etc.mkdir(parents=True)
        lines = "".join(f"{name}={value}\n" for name, value in values.items())
        (etc / "values").write_text(lines, encoding="utf-8")
        self.pins = "".join(self._archive(name) for name in PROGRAMS)
        self.publish()

    def _command(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def _archive(self, name: str) -> str:
        """Put an archive into the bucket; return the line that pins it."""
        version = VERSIONS[f"{name}_version"]
        folder = self.bucket.parent / f"{name}-made"
        folder.mkdir()
        (folder / name).write_text("a program", encoding="utf-8")
        path = self.bucket / f"{name}-{version}.linux-{ARCHITECTURE}.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder, f"{name}-{version}")
        return f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"

    def publish(self, **replaced: str) -> None:
        """Publish the repository's files, with pins, and `replaced` by path."""
        files = ["LICENSE", "cdk.json", "pyproject.toml"]
        for folder in ("ami", "cluster_configs", "clusterbox", "environments", "monitoring"):
            files += [
                str(path.relative_to(ROOT))
                for path in sorted((ROOT / folder).rglob("*"))
                if path.is_file() and "__pycache__" not in path.parts
            ]
        texts = {"monitoring/artefacts.sha256": self.pins, **self._section(), **replaced}
        with zipfile.ZipFile(self.bucket / f"{self.release}.zip", "w") as archive:
            for name in files:
                if name in texts:
                    archive.writestr(name, texts[name])
                else:
                    archive.write(ROOT / name, name)

    @staticmethod
    def _section() -> dict[str, str]:
        path = "environments/ws-dev.yaml"
        text = (ROOT / path).read_text(encoding="utf-8")
        section = "monitoring:\n  image: admin\n  subnet: compute.a\n  notify: [ada@example.gov]\n"
        return {path: f"{text}\n{section}"}

    def give_secret(self, name: str, text: str) -> None:
        (self.secrets / name).write_text(text, encoding="utf-8")

    def setup(self) -> subprocess.CompletedProcess[str]:
        self.calls_file.write_text("", encoding="utf-8")
        return subprocess.run(
            ["bash", str(ROOT / "monitoring/setup.sh")],
            env={
                "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
                "CLUSTERBOX_ROOT": str(self.root),
                "CLUSTERBOX_DEVICE": str(self.root / "device"),
                "CLUSTERBOX_PYTHON": "python",
                "CALLS": str(self.calls_file),
                "BUCKET": str(self.bucket),
                "SECRETS": str(self.secrets),
                "RELEASE": self.release,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    @property
    def calls(self) -> str:
        return self.calls_file.read_text(encoding="utf-8")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_everything_is_installed_and_started_and_a_second_run_changes_nothing(
    machine: Machine,
) -> None:
    first = machine.setup()
    assert first.returncode == 0, first.stderr
    etc = machine.root / "etc/clusterbox-monitoring"
    assert (etc / "prometheus.yml").is_file()
    assert (etc / "rules/slurm.yml").is_file()
    password = etc / "secrets/grafana-password"
    assert password.read_text(encoding="utf-8") == "first-password"
    assert password.stat().st_mode & 0o777 == 0o640
    assert "first-password" not in first.stdout + first.stderr + machine.calls
    for name in ("prometheus", "alertmanager", "grafana", "clusterbox-site-exporter"):
        assert f"systemctl restart {name}.service" in machine.calls
        assert (machine.root / f"etc/systemd/system/{name}.service").is_file()
    second = machine.setup()
    assert second.returncode == 0, second.stderr
    assert second.stderr == "monitoring-setup: done\n"
    assert "systemctl" not in machine.calls


def test_an_archive_that_is_not_pinned_is_not_installed(machine: Machine) -> None:
    machine.pins = ""
    machine.publish()
    done = machine.setup()
    assert done.returncode == 1
    assert "is not pinned in monitoring/artefacts.sha256" in done.stderr
    assert "systemctl" not in machine.calls


def test_an_archive_that_is_another_than_the_pinned_one_is_not_installed(machine: Machine) -> None:
    (archive,) = machine.bucket.glob("prometheus-*")
    archive.write_bytes(b"something else")
    done = machine.setup()
    assert done.returncode == 1
    assert "is not the file that artefacts.sha256 pins" in done.stderr
    assert not list((machine.root / "opt/clusterbox-monitoring").glob("prometheus*"))


def test_a_rule_that_is_gone_from_the_repository_goes_from_the_machine(machine: Machine) -> None:
    assert machine.setup().returncode == 0
    stale = machine.root / "etc/clusterbox-monitoring/rules/stale.yml"
    stale.write_text("groups: []\n", encoding="utf-8")
    done = machine.setup()
    assert done.returncode == 0, done.stderr
    assert not stale.exists()
    assert "systemctl restart prometheus.service" in machine.calls


def test_a_new_password_reaches_grafana_and_no_log(machine: Machine) -> None:
    assert machine.setup().returncode == 0
    database = machine.root / "var/lib/clusterbox-monitoring/grafana/grafana.db"
    database.parent.mkdir(parents=True)
    database.touch()
    machine.give_secret("grafana", "second-password")
    done = machine.setup()
    assert done.returncode == 0, done.stderr
    assert "reset-admin-password --password-from-stdin" in machine.calls
    assert "second-password" not in done.stderr + machine.calls


@pytest.mark.parametrize("unit", ["prometheus", "alertmanager", "grafana"])
def test_a_program_listens_to_this_machine_alone_and_tells_when_it_fails(unit: str) -> None:
    text = (ROOT / f"monitoring/units/{unit}.service").read_text(encoding="utf-8")
    assert set(re.findall(r"\d+\.\d+\.\d+\.\d+", text)) == {"127.0.0.1"}
    assert "OnFailure=clusterbox-tell-failure@%n.service" in text
    assert "NoNewPrivileges=yes" in text
