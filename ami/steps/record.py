"""Record in an image which step ran on it, with the packages and kernels it then has.

Runs with the system's Python, 3.9 on Amazon Linux 2023, and writes only what changed:

    python3 record.py 10-os-updates.sh

/etc/clusterbox/image-release.json has the steps with their SHA-256, the digest of the package
list and the kernels; /etc/clusterbox/image-packages.txt is that list, one package a line.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
TARGET = Path("/etc/clusterbox")
PACKAGE = "%{NAME}-%{EPOCHNUM}:%{VERSION}-%{RELEASE}.%{ARCH}\\n"


def list_packages() -> str:
    """Return the installed packages, sorted, one a line; keys are no packages."""
    words = ["rpm", "--query", "--all", "--queryformat", PACKAGE]
    found = subprocess.run(words, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
    lines = sorted(line for line in found.splitlines() if not line.startswith("gpg-pubkey-"))
    return "".join(f"{line}\n" for line in lines)


def write(path: Path, text: str) -> None:
    """Write `text` beside `path` and rename it, unless it is there already."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)  # noqa: PTH105 - one call for both kinds of path


def main(step: str) -> None:
    """Add `step` to the record."""
    TARGET.mkdir(mode=0o755, exist_ok=True)
    release = TARGET / "image-release.json"
    known = json.loads(release.read_text(encoding="utf-8")) if release.is_file() else {}
    steps = known.get("steps", {})
    steps[step] = hashlib.sha256((HOME / "steps" / step).read_bytes()).hexdigest()
    packages = list_packages()
    write(TARGET / "image-packages.txt", packages)
    modules = Path("/lib/modules")
    record = {
        "bundle": (HOME / "bundle.sha256").read_text(encoding="utf-8").strip(),
        "steps": dict(sorted(steps.items())),
        "packages": hashlib.sha256(packages.encode()).hexdigest(),
        "kernels": sorted(path.name for path in modules.iterdir()) if modules.is_dir() else [],
    }
    write(release, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
