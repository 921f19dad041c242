#!/bin/bash
# Packs the exporters into a folder: this repository's wheel, the wheels of what it needs, the site's
# files and the units. Upload it with `aws s3 sync FOLDER s3://BUCKET/exporters`.
# Usage: monitoring/pack-exporters.sh FOLDER [x86_64|aarch64]
set -euo pipefail
umask 022

die() { printf 'pack-exporters: FAILED: %s\n' "$*" >&2; exit 1; }

[[ $# -ge 1 && $# -le 2 ]] || die "usage: monitoring/pack-exporters.sh FOLDER [x86_64|aarch64]"
repository="$(cd "$(dirname "$0")/.." && pwd)"
folder="$1"
machine="${2:-$(uname -m)}"
[[ $machine == x86_64 || $machine == aarch64 ]] || die "no wheels are packed for $machine"
[[ ! -e $folder ]] || die "$folder exists; nothing is overwritten"
uv="$repository/.venv/bin/uv"
[[ -x $uv ]] || die "$uv is missing; run \`make setup\`"

work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/wheels"
"$uv" build --quiet --wheel --out-dir "$work/wheels" "$repository"
rm -f "$work/wheels/.gitignore"
"$repository/.venv/bin/python" -m pip download --quiet --require-hashes --no-deps --only-binary :all: \
  --python-version 3.11 --platform "manylinux_2_28_$machine" --platform "manylinux_2_17_$machine" \
  --platform "manylinux2014_$machine" --dest "$work/wheels" --requirement "$repository/monitoring/requirements-exporters.txt"
cp "$repository/monitoring/requirements-exporters.txt" "$work/"
cp -R "$repository/monitoring/units" "$work/units"
site=(ami/images ami/images.lock.yaml cdk.json cluster_configs environments)
if [[ -d $repository/prices ]]; then site+=(prices); fi
tar -C "$repository" -czf "$work/site.tar.gz" --sort=name --mtime=@0 --owner=0 --group=0 "${site[@]}"
sums=$(cd "$work" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
printf '%s\n' "$sums" >"$work/SHA256SUMS"
chmod 755 "$work"
mv "$work" "$folder"
trap - EXIT
printf 'pack-exporters: %s for %s, sha256 of SHA256SUMS %s\n' "$folder" "$machine" \
  "$(sha256sum <"$folder/SHA256SUMS" | cut -d' ' -f1)"
