#!/bin/bash
# The node exporter answers on the loopback address, with metrics of its own.
set -euo pipefail
# shellcheck source=ami/verify/common.sh
source "$(dirname "$0")/common.sh"

url=http://127.0.0.1:9100/metrics
# It may have been started only now.
if ! metrics=$(curl --silent --show-error --fail --max-time 5 --retry 5 --retry-delay 1 \
  --retry-connrefused "$url" 2>&1); then
  report false "$url: $(tail -n 1 <<<"$metrics")"
elif build=$(grep '^node_exporter_build_info' <<<"$metrics"); then
  report true "$build"
else
  report false "$url answers, but not as the node exporter"
fi
