#!/bin/bash
# The CloudWatch agent, which sends the system's logs; a cluster's nodes get theirs from ParallelCluster.
# os: alinux2023
set -euo pipefail
# shellcheck source=ami/steps/common.sh
source "$(dirname "$0")/common.sh"

unit=amazon-cloudwatch-agent.service
configuration=/opt/aws/amazon-cloudwatch-agent/etc/amazon-cloudwatch-agent.d/clusterbox.json
changed=""

[[ ! $CLUSTERBOX_PARALLELCLUSTER_VERSION ]] ||
  die "ParallelCluster installs and configures the agent of a cluster image: leave this step out"
install_packages amazon-cloudwatch-agent
if write_file "$configuration" 644 <<JSON; then changed=1; fi
{
  "logs": {
    "logs_collected": {
      "files": {
        "collect_list": [
          {
            "file_path": "/var/log/clusterbox-setup.log",
            "log_group_name": "/clusterbox/$CLUSTERBOX_IMAGE",
            "log_stream_name": "{instance_id}/setup",
            "timezone": "UTC"
          },
          {
            "file_path": "/var/log/cloud-init-output.log",
            "log_group_name": "/clusterbox/$CLUSTERBOX_IMAGE",
            "log_stream_name": "{instance_id}/cloud-init",
            "timezone": "UTC"
          }
        ]
      }
    }
  }
}
JSON
if [[ $changed ]] || ! systemctl is-enabled --quiet "$unit" || ! systemctl is-active --quiet "$unit"; then
  enable_unit "$unit"
fi
finish_step
