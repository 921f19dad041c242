#!/bin/bash
# The root file system has the size that the definition states, and room.
set -euo pipefail
# shellcheck source=ami/verify/common.sh
source "$(dirname "$0")/common.sh"

read -r size used < <(df --block-size=1 --output=size,used / | tail -n 1)
# The boot partition and the file system's own records take some of the volume.
least=$((CLUSTERBOX_ROOT_GIB * 1024 * 1024 * 1024 * 93 / 100))
if ((size >= least)); then
  report true "root file system of $((size / 1024 / 1024 / 1024)) GiB"
else
  report false "root file system of $((size / 1024 / 1024 / 1024)) GiB; the definition states $CLUSTERBOX_ROOT_GIB GiB"
fi
if ((used * 100 > size * 90)); then
  report false "the root file system is full by $((used * 100 / size)) %; 90 % is the most"
fi
