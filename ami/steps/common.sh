# What every step has: the values of the image's definition, and functions that change only what differs.
# shellcheck shell=bash
set -euo pipefail
umask 022

image_home="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
step_name="$(basename "$0")"
retry_seconds="${CLUSTERBOX_RETRY_SECONDS:-10}"
# shellcheck source=/dev/null
source "$image_home/image.env"

say() { printf '%s: %s\n' "$step_name" "$*"; }
die() { say "FAILED: $*" >&2; exit 1; }

# retry COMMAND...: a plain command only, since `until` switches `set -e` off inside a function.
retry() {
  local attempt=1
  until "$@"; do
    ((attempt < 4)) || die "gave up after $attempt attempts: $*"
    say "attempt $attempt of 4 failed, again in $((retry_seconds * attempt)) s: $*" >&2
    sleep "$((retry_seconds * attempt))"
    attempt=$((attempt + 1))
  done
}

# install_packages NAME...: those that are missing; `rpm -q` first, so that nothing is asked twice.
install_packages() {
  local name missing=()
  for name in "$@"; do rpm -q "$name" >/dev/null 2>&1 || missing+=("$name"); done
  ((${#missing[@]})) || return 0
  retry dnf install --assumeyes --quiet --releasever=latest "${missing[@]}"
  say "installed ${missing[*]}"
}

# write_file PATH MODE <CONTENT: written beside it and renamed; returns 1 when nothing differs.
write_file() {
  local content
  content=$(cat)
  if [[ -f $1 && $(stat -c %a "$1") == "$2" ]] && cmp -s "$1" <<<"$content"; then return 1; fi
  mkdir -p "${1%/*}"
  printf '%s\n' "$content" >"$1.new"
  chmod "$2" "$1.new"
  mv -f "$1.new" "$1"
  say "wrote $1"
}

# fetch_artefact NAME FOLDER: a file that no package registry has, as pinned in artefacts.sha256.
fetch_artefact() {
  local pinned
  pinned=$(awk -v name="$1" '$2 == name' "$image_home/artefacts.sha256")
  [[ $pinned ]] || die "$1 is not pinned in artefacts.sha256"
  case "$CLUSTERBOX_ARTEFACTS" in
    s3://*) retry aws s3 cp --only-show-errors "$CLUSTERBOX_ARTEFACTS/$1" "$2/$1" ;;
    /*) cp "$CLUSTERBOX_ARTEFACTS/$1" "$2/$1" ;;
    *) die "CLUSTERBOX_ARTEFACTS must be s3://BUCKET/PREFIX or a folder: $CLUSTERBOX_ARTEFACTS" ;;
  esac
  (cd "$2" && sha256sum --quiet --check <<<"$pinned") ||
    die "$1 of $CLUSTERBOX_ARTEFACTS is not the file that artefacts.sha256 pins"
}

# enable_unit NAME: enabled for every boot and running now, after its files changed too.
enable_unit() {
  systemctl daemon-reload
  systemctl enable --quiet "$1"
  systemctl restart "$1"
  say "enabled and started $1"
}

# finish_step: the last line of every step; tells the image's record what ran.
finish_step() {
  python3 "$image_home/steps/record.py" "$step_name"
  say "done"
}
