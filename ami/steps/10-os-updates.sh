#!/bin/bash
# Updates of the operating system, as far as the kernel policy of the image allows.
# os: alinux2023
set -euo pipefail
# shellcheck source=ami/steps/common.sh
source "$(dirname "$0")/common.sh"

# On a cluster image ParallelCluster has already built modules for the kernel that runs, and pinned
# what belongs to them: neither may move under them.
bound_to_the_kernel=('kernel*' 'kmod-*' 'lustre*' 'efa*' 'nvidia*' 'libfabric*')
# Without `latest` dnf stays in the release of Amazon Linux that the parent image was made from.
words=(--assumeyes --quiet --releasever=latest)

list_packages() { rpm -qa --qf '%{NAME} %{VERSION}-%{RELEASE}.%{ARCH}\n' | sort; }

if [[ $CLUSTERBOX_PARALLELCLUSTER_VERSION ]]; then
  for name in "${bound_to_the_kernel[@]}"; do words+=("--exclude=$name"); done
elif [[ $CLUSTERBOX_KERNEL_POLICY != full ]]; then
  words+=('--exclude=kernel*')
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
list_packages >"$work/before"
say "kernel policy: $CLUSTERBOX_KERNEL_POLICY; runs: $(uname -r)"
case "$CLUSTERBOX_KERNEL_POLICY" in
  full | capped) retry dnf upgrade "${words[@]}" ;;
  minimal) retry dnf upgrade-minimal --security "${words[@]}" ;;
  *) die "CLUSTERBOX_KERNEL_POLICY must be full, minimal or capped: $CLUSTERBOX_KERNEL_POLICY" ;;
esac
list_packages >"$work/after"
if cmp -s "$work/before" "$work/after"; then
  say "every package is up to date"
else
  say "changed packages, < old and > new:"
  diff "$work/before" "$work/after" >"$work/changes" || (($? == 1)) # 1 says that they differ
  grep '^[<>]' "$work/changes"
fi
# After the updates and before other steps: the advisories of two bakes can be compared.
say "$(python3 "$image_home/steps/record.py" --advisories)"
finish_step
