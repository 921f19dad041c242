#!/bin/bash
# Slurm is the one that this version of ParallelCluster brings.
set -euo pipefail
# shellcheck source=ami/verify/common.sh
source "$(dirname "$0")/common.sh"

expected="slurm $CLUSTERBOX_SLURM_VERSION"
if ! found=$(/opt/slurm/bin/sinfo -V 2>&1); then
  report false "sinfo -V: $(tail -n 1 <<<"$found")"
elif [[ $found == "$expected" ]]; then
  report true "$found"
else
  report false "$found is installed; ParallelCluster $CLUSTERBOX_PARALLELCLUSTER_VERSION brings $expected"
fi
