#!/bin/bash
# Starts the update of a head node and comes back at once; run again it only tells how it goes.
#
# update.sh FOLDER: FOLDER has steps/10-os-updates.sh with what that needs, and gets `log` and, at the
# end, `status` (its exit code and the boot in which it ran). It runs on its own because the update may
# replace the agent of Systems Manager, which would end what that agent has started.
# Prints: running | done | failed CODE, and on failure the end of the log.
set -euo pipefail

folder=$1
boot=$(cat "${CLUSTERBOX_BOOT_ID:-/proc/sys/kernel/random/boot_id}")

tell() {
  local code in_boot
  read -r code in_boot <"$folder/status"
  if [[ $code == 0 ]]; then
    printf 'done %s\n' "$in_boot"
  else
    printf 'failed %s\n' "$code"
    tail -n 30 "$folder/log"
  fi
}

if [[ -s $folder/status ]]; then
  tell
  exit 0
fi
exec 9>"$folder/lock"
if ! flock --nonblock 9; then
  printf 'running\n'
  exit 0
fi
# It may have ended between the two looks.
if [[ -s $folder/status ]]; then
  tell
  exit 0
fi
# The lock is held by what runs: a reboot or a kill lets go of it, and the update starts anew, which
# changes nothing that is up to date.
# shellcheck disable=SC2016 # the shell that is started expands it
setsid --fork bash -c '
  code=0
  "$1/steps/10-os-updates.sh" >"$1/log" 2>&1 || code=$?
  sync
  printf "%s %s\n" "$code" "$2" >"$1/status.new"
  mv "$1/status.new" "$1/status"
' update "$folder" "$boot" </dev/null >/dev/null 2>&1
printf 'running\n'
