#!/bin/bash
# No key, credential, history or state is older than this machine's start: they would be the image's.
set -euo pipefail
# shellcheck source=ami/verify/common.sh
source "$(dirname "$0")/common.sh"

shopt -s nullglob dotglob
homes=(/root /home/*)
started=$(started_at)
found=""

leftover() {
  report false "$1"
  found=1
}

for home in "${homes[@]}"; do
  # The instance that is verified is started without a key pair, so nothing new may be here either.
  for path in "$home"/.ssh/authorized_keys* "$home"/.ssh/id_* "$home"/*.pem "$home"/.*_history \
    "$home"/.aws/credentials "$home"/.netrc "$home"/.git-credentials "$home"/.pypirc \
    "$home"/.docker/config.json; do
    if [[ -s $path ]]; then leftover "$path"; fi
  done
done
for path in /etc/ssh/ssh_host_* /var/lib/cloud/instances/*; do
  # Made anew at the first start of every machine.
  if (($(stat -c %Y "$path") < started)); then leftover "$path is older than the start of this machine"; fi
done
for path in /etc/pip.conf /etc/yum.repos.d/*.repo /etc/dnf/dnf.conf /etc/environment; do
  if [[ -f $path ]] && grep -Eq '://[^/@[:space:]]+:[^/@[:space:]]+@' "$path"; then
    leftover "$path holds a URL with a password"
  fi
done
if [[ ! $found ]]; then report true "no keys, credentials or histories"; fi
