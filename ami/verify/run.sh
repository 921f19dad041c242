#!/bin/bash
# Verify a booted instance: run.sh [CHECK...], by default the checks of the image's definition.
# One JSON object a line, {"check", "ok", "detail"}. Exit code: 0 all hold, 1 one does not, 2 unknown check.
set -euo pipefail

folder="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=/dev/null
source "$folder/../image.env"

checks=("$@")
if ((${#checks[@]} == 0)); then read -ra checks <<<"$CLUSTERBOX_VERIFY"; fi
for check in "${checks[@]}"; do
  if [[ ! $check =~ ^[a-z-]+$ || $check == run || $check == common || ! -f $folder/$check.sh ]]; then
    echo "there is no check '$check' in $folder" >&2
    exit 2
  fi
done

failed=0
for check in "${checks[@]}"; do
  status=0
  results=$(bash "$folder/$check.sh") || status=$?
  if [[ $results ]]; then printf '%s\n' "$results"; fi
  # A check that breaks off, or says nothing, has shown nothing.
  if ((status != 0)); then
    printf '{"check": "%s", "ok": false, "detail": "the check broke off with exit code %d"}\n' "$check" "$status"
    failed=1
  elif [[ ! $results ]]; then
    printf '{"check": "%s", "ok": false, "detail": "the check said nothing"}\n' "$check"
    failed=1
  elif grep -q '"ok": false' <<<"$results"; then
    failed=1
  fi
done
exit "$failed"
