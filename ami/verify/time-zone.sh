#!/bin/bash
# The time zone is the one that the definition states.
set -euo pipefail
# shellcheck source=ami/verify/common.sh
source "$(dirname "$0")/common.sh"

zone=$(readlink /etc/localtime || true)
zone=${zone##*/zoneinfo/}
zone=${zone:-UTC} # without the file the C library means UTC
if [[ ${zone#Etc/} == "${CLUSTERBOX_TIME_ZONE#Etc/}" ]]; then
  report true "$zone"
else
  report false "$zone; the definition states $CLUSTERBOX_TIME_ZONE"
fi
