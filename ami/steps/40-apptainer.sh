#!/bin/bash
# Apptainer, for users' own containers; it needs no daemon and no root.
# os: alinux2023
set -euo pipefail
# shellcheck source=ami/steps/common.sh
source "$(dirname "$0")/common.sh"

install_packages spal-release
install_packages apptainer
finish_step
