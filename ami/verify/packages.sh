#!/bin/bash
# Every package that the definition expects is installed.
set -euo pipefail
# shellcheck source=ami/verify/common.sh
source "$(dirname "$0")/common.sh"

read -ra packages <<<"$CLUSTERBOX_EXPECTED_PACKAGES"
for package in "${packages[@]}"; do
  if found=$(rpm -q "$package" 2>/dev/null); then
    report true "$found"
  else
    report false "$package is not installed"
  fi
done
