#!/bin/bash
# GDAL's commands, and a Python environment that is locked with hashes.
# os: alinux2023
set -euo pipefail
# shellcheck source=ami/steps/common.sh
source "$(dirname "$0")/common.sh"

lock="$image_home/requirements-science.txt"
base=/opt/clusterbox/science
# Named after its lock: an environment that is there is the right one, and it cannot be half made.
release="$base-$(sha256sum "$lock" | cut -c 1-12)"

# gdal is in Amazon's supplementary packages (SPAL), which are a repository of their own.
install_packages spal-release
install_packages gdal python3.11 python3.11-pip
if [[ ! -e $release/.complete ]]; then
  rm -rf "$release"
  python3.11 -m venv "$release"
  # Wheels only: building a source distribution would fetch tools that no hash pins.
  retry "$release/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
    --no-cache-dir --require-hashes --only-binary :all: -r "$lock"
  touch "$release/.complete"
  say "made $release"
fi
if [[ $(readlink "$base" || true) != "$release" ]]; then
  ln -sfn "$release" "$base.new"
  mv -fT "$base.new" "$base"
  say "$base -> $release"
fi
# Not a link: Python looks for its environment beside the name by which it is called.
write_file /usr/local/bin/science-python 755 <<WRAPPER || true
#!/bin/sh
exec $base/bin/python "\$@"
WRAPPER
finish_step
