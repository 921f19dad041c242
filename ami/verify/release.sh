#!/bin/bash
# The image's record names every step as it was baked, and the packages are still those it lists.
set -euo pipefail
# shellcheck source=ami/verify/common.sh
source "$(dirname "$0")/common.sh"

release=/etc/clusterbox/image-release.json
if [[ ! -f $release ]]; then
  report false "there is no $release: no step has finished"
  exit 0
fi
read -ra steps <<<"$CLUSTERBOX_STEPS"
for step in "${steps[@]}"; do
  digest=$(sha256sum "$image_home/steps/$step" | cut -d ' ' -f 1)
  if grep -qF "\"$step\": \"$digest\"" "$release"; then
    report true "$step"
  else
    report false "$step has not finished as it is in $image_home/steps"
  fi
done
listed=$(sha256sum /etc/clusterbox/image-packages.txt | cut -d ' ' -f 1)
installed=$(python3 -c 'import sys; sys.path.insert(0, sys.argv[1]); sys.dont_write_bytecode = True
import record; print(record.list_packages(), end="")' "$image_home/steps" | sha256sum | cut -d ' ' -f 1)
if [[ $listed == "$installed" ]] && grep -qF "\"packages\": \"$installed\"" "$release"; then
  report true "packages $installed"
else
  report false "the installed packages are not those of /etc/clusterbox/image-packages.txt"
fi
