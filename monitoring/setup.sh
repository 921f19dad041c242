#!/bin/bash
# Sets up the monitoring machine, and takes over what was deployed since: a second run changes nothing.
# Its values are in /etc/clusterbox-monitoring/values, which user data writes.
set -euo pipefail
umask 022

root="${CLUSTERBOX_ROOT:-}" # a folder for tests; empty on a machine
etc="$root/etc/clusterbox-monitoring"
opt="$root/opt/clusterbox-monitoring"
exporters="$root/opt/clusterbox-exporters"
data="$root/var/lib/clusterbox-monitoring"
units="$root/etc/systemd/system"
device="${CLUSTERBOX_DEVICE:-/dev/sdf}"
python="${CLUSTERBOX_PYTHON:-python3.11}"
changed=""

say() { printf 'monitoring-setup: %s\n' "$*" >&2; }
die() { say "FAILED: $*"; exit 1; }
note() { changed=1; say "$*"; }

# shellcheck source=/dev/null
source "$etc/values"
export AWS_DEFAULT_REGION="$CLUSTERBOX_REGION"

# write_file PATH MODE <CONTENT: written beside it and renamed; says so only where it differs.
write_file() {
  local new="$1.new.$$"
  mkdir -p "${1%/*}"
  (umask 077; cat >"$new")
  if [[ -f $1 ]] && cmp -s "$1" "$new"; then rm -f "$new"; return 0; fi
  chmod "$2" "$new"
  mv -f "$new" "$1"
  note "wrote $1"
}

# link TARGET PATH: replaced by a rename, so that there is always a link.
link() {
  [[ $(readlink "$2" || true) != "$1" ]] || return 0
  ln -sfn "$1" "$2.new"
  mv -fT "$2.new" "$2"
  note "$2 -> $1"
}

step_python() {
  command -v "$python" >/dev/null || dnf install --assumeyes --quiet python3.11 python3.11-pip ||
    die "$python is missing and cannot be installed"
}

# The site's files and the command, in a folder of their own for each state of them.
step_source() {
  local location release
  location=$(aws ssm get-parameter --name "$CLUSTERBOX_SOURCE_PARAMETER" --query Parameter.Value \
    --output text) || die "cannot read the parameter $CLUSTERBOX_SOURCE_PARAMETER"
  release=$(basename "$location" .zip)
  release="$exporters/${release:0:16}"
  site="$release/site"
  if [[ ! -f $release/.ready ]]; then
    rm -rf "$release"
    mkdir -p "$exporters"
    "$python" -m venv "$release"
    aws s3 cp --only-show-errors "$location" "$release/site.zip"
    "$python" -m zipfile -e "$release/site.zip" "$site"
    "$release/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --require-hashes --no-deps \
      --requirement "$site/monitoring/requirements-exporters.txt"
    touch "$release/.ready"
    note "installed $release"
  fi
  link "${release##*/}" "$exporters/current"
}

step_users() {
  local name
  for name in prometheus grafana; do
    getent passwd "$name" >/dev/null || useradd --system --no-create-home --shell /sbin/nologin "$name"
  done
}

# An empty volume gets a file system; mkfs refuses one that already has something on it.
step_volume() {
  if ! mountpoint --quiet "$data"; then
    local wait=0
    until [[ -e $device ]]; do
      ((wait++ < 60)) || die "the volume $device has not come in 5 minutes"
      sleep 5
    done
    blkid "$device" >/dev/null || mkfs.xfs -q -L clusterbox-data "$device"
    mkdir -p "$data"
    grep -qs '^LABEL=clusterbox-data ' "$root/etc/fstab" ||
      printf 'LABEL=clusterbox-data /var/lib/clusterbox-monitoring xfs defaults,nofail,noatime 0 2\n' >>"$root/etc/fstab"
    mount "$data"
    note "mounted $data"
  fi
  install -d -m 750 -o prometheus -g prometheus "$data/prometheus" "$data/alertmanager"
  install -d -m 750 -o grafana -g grafana "$data/grafana"
}

# install_program NAME VERSION: as pinned, or not at all. The archive holds one folder, whatever its name.
install_program() {
  local archive="$1-$2.linux-$architecture.tar.gz" pinned work folders
  if [[ ! -d $opt/$1-$2 ]]; then
    pinned=$(awk -v name="$archive" '$2 == name' "$site/monitoring/artefacts.sha256")
    [[ $pinned ]] || die "$archive is not pinned in monitoring/artefacts.sha256"
    work=$(mktemp -d "$opt/.work.XXXXXX")
    aws s3 cp --only-show-errors "$CLUSTERBOX_ARTEFACTS/$archive" "$work/$archive" ||
      die "$archive is not in $CLUSTERBOX_ARTEFACTS"
    (cd "$work" && sha256sum --quiet --check <<<"$pinned") ||
      die "$archive of $CLUSTERBOX_ARTEFACTS is not the file that artefacts.sha256 pins"
    tar -xzf "$work/$archive" -C "$work" --no-same-owner
    folders=("$work"/*/)
    [[ ${#folders[@]} == 1 ]] || die "$archive has ${#folders[@]} folders; one was expected"
    mv "${folders[0]}" "$opt/$1-$2"
    rm -rf "$work"
    note "installed $1 $2"
  fi
  link "$1-$2" "$opt/$1"
}

step_programs() {
  local prometheus_version alertmanager_version grafana_version architecture
  case "$(uname -m)" in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) die "no program is pinned for $(uname -m)" ;;
  esac
  # shellcheck source=/dev/null
  source "$site/monitoring/versions.env"
  rm -rf "$opt"/.work.*
  install_program prometheus "$prometheus_version"
  install_program alertmanager "$alertmanager_version"
  install_program grafana "$grafana_version"
}

secret() { aws secretsmanager get-secret-value --secret-id "$1" --query SecretString --output text; }

step_secrets() {
  local before password
  install -d -m 755 "$etc/secrets"
  before=$(cat "$etc/secrets/grafana-password" 2>/dev/null || true)
  password=$(secret "$CLUSTERBOX_GRAFANA_SECRET") || die "cannot read Grafana's password"
  [[ $password ]] || die "Grafana's password is empty"
  write_file "$etc/secrets/grafana-password" 640 < <(printf '%s' "$password")
  chgrp grafana "$etc/secrets/grafana-password"
  if [[ -f $data/grafana/grafana.db && $before != "$password" ]]; then
    printf '%s\n' "$password" | runuser -u grafana -- "$opt/grafana/bin/grafana" cli --homepath "$opt/grafana" \
      --configOverrides "cfg:default.paths.data=$data/grafana" admin reset-admin-password --password-from-stdin >/dev/null
    note "gave Grafana its new password"
  fi
  mail_user=""
  if [[ $CLUSTERBOX_MAIL_SECRET ]]; then
    local mail
    mail=$(secret "$CLUSTERBOX_MAIL_SECRET") || die "cannot read the secret $CLUSTERBOX_MAIL_SECRET"
    mail_user=$("$python" -c 'import json, sys; print(json.load(sys.stdin)["username"])' <<<"$mail") ||
      die "the secret $CLUSTERBOX_MAIL_SECRET has no key username"
    write_file "$etc/secrets/mail-password" 640 < <(
      "$python" -c 'import json, sys; print(json.load(sys.stdin)["password"], end="")' <<<"$mail"
    )
    chgrp prometheus "$etc/secrets/mail-password"
  fi
}

step_configuration() {
  local new="$etc/.new" file
  rm -rf "$new"
  mkdir -p "$new"
  (cd "$site" && "$exporters/current/bin/python" -m clusterbox.cli.main observe config "$CLUSTERBOX_ENVIRONMENT" \
    --output "$new" --home /etc/clusterbox-monitoring --topic "$CLUSTERBOX_TOPIC" \
    ${CLUSTERBOX_REMOTE_WRITE:+--remote-write "$CLUSTERBOX_REMOTE_WRITE"} ${mail_user:+--mail-user "$mail_user"})
  if [[ ! $root ]]; then
    # Never replace a configuration that works by one that does not.
    "$opt/prometheus/promtool" check rules "$new"/rules/*.yml >&2
    "$opt/alertmanager/amtool" check-config "$new/alertmanager.yml" >&2
  fi
  while IFS= read -r -d '' file; do
    write_file "$etc/${file#./}" 644 <"$new/${file#./}"
  done < <(cd "$new" && find . -type f -print0)
  for file in "$etc"/rules/*.yml "$etc"/grafana/dashboards/*.json; do
    [[ ! -e $file || -e $new/${file#"$etc/"} ]] || { rm -f "$file"; note "removed $file"; }
  done
  rm -rf "$new"
  write_file "$root/etc/clusterbox/cost-exporter.env" 644 \
    <<<"COST_ARGUMENTS=--environment $CLUSTERBOX_ENVIRONMENT --slurm none"
}

step_units() {
  local name
  for name in prometheus alertmanager grafana clusterbox-cost-exporter clusterbox-site-exporter \
    clusterbox-tell-failure@ clusterbox-monitoring-update; do
    write_file "$units/$name.service" 644 <"$site/monitoring/units/$name.service"
  done
  write_file "$units/clusterbox-monitoring-update.timer" 644 <"$site/monitoring/units/clusterbox-monitoring-update.timer"
  [[ $changed ]] || return 0
  systemctl daemon-reload
  systemctl enable --quiet --now clusterbox-monitoring-update.timer
  for name in prometheus alertmanager grafana clusterbox-cost-exporter clusterbox-site-exporter; do
    systemctl enable --quiet "$name.service"
    systemctl restart "$name.service"
  done
}

mkdir -p "$etc" "$opt"
for step in python source users volume programs secrets configuration units; do
  "step_$step"
done
say "done${changed:+, with changes}"
