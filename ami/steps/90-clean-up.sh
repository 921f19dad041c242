#!/bin/bash
# What must not be in an image: keys, credentials, histories, and what belongs to one machine only.
# os: alinux2023
set -euo pipefail
# shellcheck source=ami/steps/common.sh
source "$(dirname "$0")/common.sh"

shopt -s nullglob dotglob
homes=(/root /home/*)

# remove PATH...: says what it removes, so that the log of a bake shows what its parent brought.
remove() {
  local path
  for path in "$@"; do
    [[ -e $path || -L $path ]] || continue
    rm -rf "$path"
    say "removed $path"
  done
}

remove /etc/ssh/ssh_host_*
for home in "${homes[@]}"; do
  remove "$home"/.ssh/authorized_keys* "$home"/.ssh/id_* "$home"/.ssh/known_hosts* "$home"/*.pem
  remove "$home"/.*_history "$home"/.lesshst "$home"/.viminfo "$home"/.cache/pip
  remove "$home"/.aws "$home"/.netrc "$home"/.git-credentials "$home"/.pypirc "$home"/.docker/config.json
done
# Without its state cloud-init takes the next start for the first one.
if command -v cloud-init >/dev/null; then cloud-init clean --logs; fi
remove /var/lib/cloud/instance /var/lib/cloud/instances/* /var/lib/cloud/data/* /var/lib/cloud/sem/*
remove /var/lib/systemd/random-seed /var/lib/dhcp/*.leases /var/lib/NetworkManager/*.lease
# Empty, not missing: systemd then makes a new one at the first start.
if [[ -s /etc/machine-id ]]; then : >/etc/machine-id; fi
dnf clean all --quiet
rm -rf /var/cache/dnf/*
remove /var/tmp/*.rpm /tmp/parallelcluster
finish_step
