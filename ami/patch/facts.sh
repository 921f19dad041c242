#!/bin/bash
# Facts of a head node as JSON: what must be the same after it was patched, and what may change.
#
# facts.sh                        facts of now
# facts.sh FILE                   the same, kept in FILE; one that is there already stays, and is printed
# facts.sh --changes FILE FILE    how the packages of the second differ from those of the first
#
# Packages are kept in FILE and not printed: they are more than Systems Manager returns.
set -euo pipefail

without_packages='import json, sys; facts = json.load(sys.stdin); facts.pop("packages"); print(json.dumps(facts))'
if [[ ${1:-} == --changes ]]; then
  exec python3 - "$2" "$3" <<'PROGRAM'
import json
import pathlib
import sys

before, after = (json.loads(pathlib.Path(path).read_text())["packages"] for path in sys.argv[1:])
print(json.dumps({
    "added": {name: after[name] for name in sorted(after.keys() - before.keys())},
    "removed": {name: before[name] for name in sorted(before.keys() - after.keys())},
    "upgraded": {
        name: [before[name], after[name]]
        for name in sorted(before.keys() & after.keys())
        if before[name] != after[name]
    },
}))
PROGRAM
fi
if [[ ${1:-} && -s ${1:-} ]]; then
  python3 -c "$without_packages" <"$1"
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat "${CLUSTERBOX_BOOT_ID:-/proc/sys/kernel/random/boot_id}" >"$work/boot_id"
uname -r >"$work/kernel"
lsmod | awk 'NR > 1 {print $1}' | sort >"$work/modules"
systemctl list-unit-files --type=service --state=enabled --no-legend --plain |
  awk '$2 == "enabled" {print $1}' | sort >"$work/enabled"
systemctl list-units --type=service --state=active --no-legend --plain |
  awk '$3 == "active" {print $1}' | sort >"$work/active"
rpm -qa --qf '%{NAME} %{VERSION}-%{RELEASE}\n' | sort >"$work/packages"
awk '/^(MemTotal|MemAvailable):/ {print $1, $2}' "${CLUSTERBOX_MEMINFO:-/proc/meminfo}" >"$work/memory"
facts=$(python3 - "$work" <<'PROGRAM'
import json
import pathlib
import sys

folder = pathlib.Path(sys.argv[1])


def lines(name):
    return [line for line in (folder / name).read_text().splitlines() if line.strip()]


memory = dict(line.split() for line in lines("memory"))
packages = {}
for line in lines("packages"):
    name, version = line.split(" ", 1)
    if name != "gpg-pubkey":
        # Several kernels are installed side by side.
        packages[name] = f"{packages[name]}, {version}" if name in packages else version
print(json.dumps({
    "boot_id": lines("boot_id")[0],
    "kernel": lines("kernel")[0],
    "modules": lines("modules"),
    "enabled": lines("enabled"),
    "active": lines("active"),
    "packages": packages,
    "memory_total_kib": int(memory.get("MemTotal:", 0)),
    "memory_available_kib": int(memory.get("MemAvailable:", 0)),
}))
PROGRAM
)
if [[ ${1:-} ]]; then
  mkdir -p "${1%/*}"
  printf '%s\n' "$facts" >"$1.new"
  mv "$1.new" "$1"
fi
python3 -c "$without_packages" <<<"$facts"
