#!/bin/bash
# Every Python module that the definition expects can be imported in the science environment.
set -euo pipefail
# shellcheck source=ami/verify/common.sh
source "$(dirname "$0")/common.sh"

python=/opt/clusterbox/science/bin/python
read -ra modules <<<"$CLUSTERBOX_EXPECTED_IMPORTS"
for module in "${modules[@]}"; do
  if [[ ! -x $python ]]; then
    report false "$module: there is no $python"
  elif said=$("$python" -c "import $module" 2>&1); then
    report true "$module"
  else
    report false "$module: $(tail -n 1 <<<"$said")"
  fi
done
