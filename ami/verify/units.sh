#!/bin/bash
# Every systemd unit that the definition expects is enabled and active.
set -euo pipefail
# shellcheck source=ami/verify/common.sh
source "$(dirname "$0")/common.sh"

read -ra units <<<"$CLUSTERBOX_EXPECTED_UNITS"
for unit in "${units[@]}"; do
  enabled=$(systemctl is-enabled "$unit" 2>/dev/null) || true
  active=$(systemctl is-active "$unit" 2>/dev/null) || true
  if [[ $enabled == enabled && $active == active ]]; then
    report true "$unit"
  else
    report false "$unit is ${enabled:-not there} and ${active:-not there}"
  fi
done
