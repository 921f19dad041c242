"""Record in an image which step ran on it, with the packages and kernels it then has.

Runs with the system's Python, 3.9 on Amazon Linux 2023, and writes only what changed:

    python3 record.py 10-os-updates.sh
    python3 record.py --advisories

/etc/clusterbox/image-release.json has the steps with their SHA-256, the digest of the package
list, the kernels and the security advisories that dnf knew after the updates: those whose packages
are `installed`, and those that are `available` and were left out; null where dnf did not tell.
/etc/clusterbox/image-packages.txt is the list of packages, one a line.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
TARGET = Path("/etc/clusterbox")
RELEASE = TARGET / "image-release.json"
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


def ask_dnf(*words: str) -> str:
    """Return what `dnf updateinfo` says of security advisories."""
    command = ["dnf", "--quiet", "--releasever=latest", "updateinfo", *words, "--security"]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, encoding="utf-8", env=environment
    )
    return done.stdout


def parse_info(text: str) -> dict:
    """Return the advisories of `dnf updateinfo info`: id → severity and CVEs."""
    found = {}
    advisory = None
    key = ""
    in_title = False
    for line in text.splitlines():
        if line.startswith("====="):
            in_title = not in_title
            continue
        parts = re.fullmatch(r" *([A-Za-z ]*?): ?(.*)", line)
        if in_title or parts is None:
            continue
        # A line without a name goes on with the one before.
        key, value = parts[1] or key, parts[2].strip()
        if key == "Update ID":
            advisory = found.setdefault(value, {"severity": "", "cves": []})
        elif advisory is not None and key == "CVEs":
            advisory["cves"].append(value)
        elif advisory is not None and key == "Severity":
            advisory["severity"] = value
    return found


def list_advisories(state: str) -> list:
    """Return the security advisories of a state, `installed` or `available`, sorted by id."""
    found = parse_info(ask_dnf("info", f"--{state}"))
    packages = {}
    for line in ask_dnf("list", f"--{state}").splitlines():
        words = line.split()  # id, severity, package
        if len(words) == 3 and words[0] in found:
            packages.setdefault(words[0], set()).add(words[2])
    return [
        {
            "id": name,
            "severity": advisory["severity"],
            "cves": sorted(set(advisory["cves"])),
            "packages": sorted(packages.get(name, ())),
        }
        for name, advisory in sorted(found.items())
    ]


def read_record() -> dict:
    """Return the record as it is; nothing where there is none."""
    return json.loads(RELEASE.read_text(encoding="utf-8")) if RELEASE.is_file() else {}


def write_record(record: dict) -> None:
    """Write the record of the image."""
    write(RELEASE, json.dumps(record, indent=2) + "\n")


def record_advisories() -> None:
    """Put into the record what dnf says of security advisories now; null where it does not."""
    TARGET.mkdir(mode=0o755, exist_ok=True)
    try:
        found = {state: list_advisories(state) for state in ("installed", "available")}
    except (OSError, subprocess.CalledProcessError) as error:
        # An image is none the worse for what is not known of it.
        sys.stdout.write(f"security advisories are not known: {error}\n")
        found = None
    else:
        installed, available = found["installed"], found["available"]
        sys.stdout.write(
            f"security advisories: {len(installed)} installed, {len(available)} left out\n"
        )
    write_record({**read_record(), "advisories": found})


def record_step(step: str) -> None:
    """Add `step` to the record."""
    TARGET.mkdir(mode=0o755, exist_ok=True)
    known = read_record()
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
        "advisories": known.get("advisories"),
    }
    write_record(record)


if __name__ == "__main__":
    if sys.argv[1] == "--advisories":
        record_advisories()
    else:
        record_step(sys.argv[1])
