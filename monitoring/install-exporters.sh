#!/bin/bash
# Installs exporters on this host from what pack-exporters.sh has packed, and starts them. A second
# run changes nothing; a run that breaks off leaves what ran before.
# Usage: install-exporters.sh s3://BUCKET/exporters|FOLDER slurm|cost|container|gpu...
# CLUSTERBOX_EXPORTERS_SHA256, where it is set, is what SHA256SUMS must have.
set -euo pipefail
umask 022

# Tests install below a folder of their own.
root="${CLUSTERBOX_ROOT:-}"
home="$root/opt/clusterbox-exporters"
units="$root/etc/systemd/system"
python="${CLUSTERBOX_PYTHON:-python3.11}"

say() { printf 'install-exporters: %s\n' "$*"; }
die() { say "FAILED: $*" >&2; exit 1; }

[[ $# -ge 2 ]] || die "usage: install-exporters.sh s3://BUCKET/exporters|FOLDER slurm|cost|container|gpu..."
source="$1"
shift
for name in "$@"; do
  case "$name" in slurm | cost | container | gpu) ;; *) die "$name is no exporter: slurm, cost, container, gpu" ;; esac
done
if ! command -v "$python" >/dev/null; then
  dnf install --assumeyes --quiet python3.11 python3.11-pip || die "$python is missing and cannot be installed"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case "$source" in
  s3://*) aws s3 sync --only-show-errors "$source" "$work" ;;
  /*) cp -R "$source/." "$work/" ;;
  *) die "where the exporters are must be s3://BUCKET/PREFIX or an absolute folder: $source" ;;
esac
[[ -f $work/SHA256SUMS ]] || die "$source has no SHA256SUMS"
sum=$(sha256sum <"$work/SHA256SUMS" | cut -d' ' -f1)
if [[ ${CLUSTERBOX_EXPORTERS_SHA256:-$sum} != "$sum" ]]; then
  die "SHA256SUMS of $source is not the pinned one"
fi
(cd "$work" && sha256sum --quiet --check SHA256SUMS) || die "a file of $source is not what SHA256SUMS says"
# Only what is listed is used: another file beside it is none of ours.
(cd "$work" && find . -type f ! -name SHA256SUMS -print0 | LC_ALL=C sort -z | xargs -0 sha256sum |
  cmp -s - SHA256SUMS) || die "$source holds files that SHA256SUMS does not list"

release="$home/${sum:0:16}"
changed=""
if [[ ! -f $release/.ready ]]; then
  rm -rf "$release"
  mkdir -p "$home"
  "$python" -m venv "$release"
  "$release/bin/python" -m pip install --quiet --no-index --find-links "$work/wheels" --require-hashes \
    --no-deps --requirement "$work/requirements-exporters.txt"
  "$release/bin/python" -m pip install --quiet --no-index --no-deps "$work"/wheels/clusterbox-*.whl
  mkdir "$release/site"
  tar -xzf "$work/site.tar.gz" -C "$release/site" --no-same-owner
  touch "$release/.ready"
  say "installed $release"
fi
if [[ $(readlink "$home/current" || true) != "${release##*/}" ]]; then
  ln -sfn "${release##*/}" "$home/current.new"
  mv -fT "$home/current.new" "$home/current"
  changed=1
fi
mkdir -p "$units"
if [[ " $* " == *" gpu "* ]]; then install -D -m 644 "$work/units/dcgm-counters.csv" "$root/etc/clusterbox/dcgm-counters.csv"; fi
for name in "$@"; do
  unit="clusterbox-$name-exporter.service"
  unit_changed="$changed"
  if ! cmp -s "$work/units/$unit" "$units/$unit"; then
    install -m 644 "$work/units/$unit" "$units/$unit.new"
    mv -f "$units/$unit.new" "$units/$unit"
    systemctl daemon-reload
    unit_changed=1
    say "wrote $units/$unit"
  fi
  if [[ $unit_changed ]] || ! systemctl is-enabled --quiet "$unit" || ! systemctl is-active --quiet "$unit"; then
    systemctl enable --quiet "$unit"
    systemctl restart "$unit"
    say "enabled and started $unit"
  fi
done
# The one before it stays, to go back to.
find "$home" -mindepth 1 -maxdepth 1 -type d ! -path "$release" -printf '%T@ %p\n' | sort -rn |
  tail -n +2 | cut -d' ' -f2- | xargs -r rm -rf
say "done"
