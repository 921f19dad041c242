#!/bin/bash
# Sets every queue of a cluster to one state; runs as root on its head node. Systems Manager puts
# UP or DOWN in the place of the parameter.
#
# DOWN: no job starts, running ones go on, submitted ones wait. Not DRAIN, which lets what already
# waits start. Not INACTIVE, at which ParallelCluster ends the nodes with their jobs: a queue in
# that state belongs to a stopped fleet and is left alone.
set -euo pipefail
state='{{ State }}'
PATH="/opt/slurm/bin:$PATH"

queues=$(scontrol --oneliner show partition)
[[ $queues == PartitionName=* ]] || { echo "no queues: $queues" >&2; exit 1; }
while read -r queue; do
  name=${queue#PartitionName=} name=${name%% *}
  [[ $queue =~ \ State=([A-Z]+) ]] || { echo "$name: no state in: $queue" >&2; exit 1; }
  before=${BASH_REMATCH[1]}
  if [[ $before == "$state" || $before == INACTIVE ]]; then
    echo "$name: stays $before"
  else
    scontrol update PartitionName="$name" State="$state"
    echo "$name: $before, now $state"
  fi
done <<<"$queues"
