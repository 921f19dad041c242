#!/bin/bash
# The newest installed kernel runs, no newer than the cap allows, and has the modules that are expected.
set -euo pipefail
# shellcheck source=ami/verify/common.sh
source "$(dirname "$0")/common.sh"

running=$(uname -r)
newest=$(find /lib/modules -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -V | tail -n 1)
if [[ $newest == "$running" ]]; then
  report true "$running runs and is the newest installed"
else
  report false "$running runs, but ${newest:-none} is the newest installed"
fi
if [[ $CLUSTERBOX_KERNEL_NEWEST ]]; then
  # Only the numbers before the dash count: the rest is the distribution's.
  last=$(printf '%s\n' "${running%%-*}" "$CLUSTERBOX_KERNEL_NEWEST" | sort -V | tail -n 1)
  if [[ $last == "$CLUSTERBOX_KERNEL_NEWEST" ]]; then
    report true "$running is not newer than the cap $CLUSTERBOX_KERNEL_NEWEST"
  else
    report false "$running is newer than the cap $CLUSTERBOX_KERNEL_NEWEST"
  fi
fi
read -ra modules <<<"$CLUSTERBOX_EXPECTED_KERNEL_MODULES"
for module in "${modules[@]}"; do
  built_for=$(modinfo --set-version "$running" --field vermagic "$module" 2>/dev/null) || built_for=""
  if [[ ! $built_for ]]; then
    report false "module $module is not there for $running"
  elif [[ ${built_for%% *} == "$running" ]]; then
    report true "module $module"
  else
    report false "module $module was built for ${built_for%% *}, and $running runs"
  fi
done
