#!/bin/bash
# The mount helper of EFS, with encryption in transit and IAM.
# os: alinux2023
set -euo pipefail
# shellcheck source=ami/steps/common.sh
source "$(dirname "$0")/common.sh"

install_packages amazon-efs-utils
finish_step
