# What every check has: the values of the image's definition, and how a result is told.
# shellcheck shell=bash
set -euo pipefail

image_home="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
check_name="$(basename "$0" .sh)"
# shellcheck source=/dev/null
source "$image_home/image.env"

# report true|false DETAIL: one JSON object on a line of its own.
report() {
  local detail=$2
  detail=${detail//\\/\\\\}
  detail=${detail//\"/\\\"}
  printf '{"check": "%s", "ok": %s, "detail": "%s"}\n' "$check_name" "$1" "${detail//[[:cntrl:]]/ }"
}

# started_at: when the machine started, in seconds since 1970; in a container, when that did.
started_at() {
  local boot ticks
  boot=$(awk '$1 == "btime" { print $2 }' /proc/stat)
  ticks=$(sed 's/.*) //' /proc/1/stat | cut -d ' ' -f 20)
  echo $((boot + ticks / $(getconf CLK_TCK)))
}
