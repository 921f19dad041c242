#!/bin/bash
# Prometheus' node exporter as a systemd unit; the security groups say who may ask it.
# os: alinux2023
set -euo pipefail
# shellcheck source=ami/steps/common.sh
source "$(dirname "$0")/common.sh"

version=1.9.1
case "$(uname -m)" in
  x86_64) platform=linux-amd64 ;;
  aarch64) platform=linux-arm64 ;;
  *) die "no node exporter is pinned for $(uname -m)" ;;
esac
name="node_exporter-$version.$platform"
program=/usr/local/bin/node_exporter-$version
changed=""

if [[ ! -x $program ]]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  fetch_artefact "$name.tar.gz" "$work"
  tar -xzf "$work/$name.tar.gz" -C "$work" --no-same-owner "$name/node_exporter"
  mkdir -p "${program%/*}"
  install -m 755 "$work/$name/node_exporter" "$program.new"
  mv -f "$program.new" "$program"
  changed=1
  say "installed $program"
fi
if write_file /etc/systemd/system/node-exporter.service 644 <<UNIT; then changed=1; fi
[Unit]
Description=Prometheus node exporter
After=network.target
[Service]
ExecStart=$program --web.listen-address=:9100 --collector.systemd
DynamicUser=yes
NoNewPrivileges=yes
ProtectHome=yes
Restart=on-failure
RestartSec=5
[Install]
WantedBy=multi-user.target
UNIT
if [[ $changed ]] || ! systemctl is-enabled --quiet node-exporter.service ||
  ! systemctl is-active --quiet node-exporter.service; then
  enable_unit node-exporter.service
fi
finish_step
