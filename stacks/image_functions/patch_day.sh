#!/bin/bash
# Runs a patch day in CodeBuild, in an archive of this repository; the stack sets the variables.
#
# The run itself is resumable: its record and its lease are in the logs bucket. What it changes of
# the repository, ami/images.lock.yaml, lies in an archive that is thrown away, so it is kept there
# too, and taken up by the next build as long as nobody has changed the lock in the repository.
set -euo pipefail
: "${CLUSTERBOX_ENVIRONMENT:?}" "${CLUSTERBOX_RECORDS:?s3://BUCKET/FOLDER}"
: "${CLUSTERBOX_ALARMS:?ARN of a topic}"
lock=ami/images.lock.yaml
kept=$CLUSTERBOX_RECORDS/lock
work=${CLUSTERBOX_WORK:-/tmp/clusterbox-patch-day}
poll_seconds=${CLUSTERBOX_POLL_SECONDS:-15}
mkdir -p "$work"

# Content of an object, or nothing where there is none: listing tells absent from refused.
fetch() {
  local found
  found=$(aws s3api list-objects-v2 --bucket "$bucket" --prefix "$folder/lock/$1" --query 'KeyCount' --output text)
  [[ $found == 0 ]] || aws s3 cp --only-show-errors "$kept/$1" -
}

step_restore() {
  sha256sum <"$lock" >"$work/given"
  cp "$lock" "$work/last"
  fetch base >"$work/base"
  if cmp -s "$work/given" "$work/base"; then
    fetch images.lock.yaml >"$work/images.lock.yaml"
    cp "$work/images.lock.yaml" "$lock"
    cp "$lock" "$work/last"
    echo "the lock of the last patch day is not in the repository yet; going on with it" >&2
  fi
}

# The base goes last: a lock is only taken up together with what it was made from.
keep_lock() {
  cmp -s "$lock" "$work/last" || {
    cp "$lock" "$work/now" &&
      aws s3 cp --only-show-errors "$work/now" "$kept/images.lock.yaml" &&
      aws s3 cp --only-show-errors "$work/given" "$kept/base" &&
      mv "$work/now" "$work/last"
  }
}

# While it runs, so that a build that is stopped loses nothing.
keep_going() {
  until [[ -e $work/over ]]; do
    keep_lock || echo "the lock could not be kept; trying again" >&2
    sleep "$poll_seconds"
  done
}

step_run() {
  local status=0
  rm -f "$work/over"
  keep_going &
  make patch-day-run ENV="$CLUSTERBOX_ENVIRONMENT" TARGET=aws YES=1 || status=$?
  touch "$work/over"
  wait
  keep_lock || status=1
  return "$status"
}

step_tell() {
  sha256sum <"$lock" | cmp -s - "$work/given" && return
  printf '%s\n' \
    "The patch day of $CLUSTERBOX_ENVIRONMENT has changed the lock of images. Commit it:" \
    "  aws s3 cp $kept/images.lock.yaml $lock" \
    "Until it is merged, clusterbox deploy refuses to undo what was rolled out." >"$work/message"
  aws sns publish --topic-arn "$CLUSTERBOX_ALARMS" --message "file://$work/message" \
    --subject "[$CLUSTERBOX_ENVIRONMENT] images to be committed" >/dev/null
}

place=${CLUSTERBOX_RECORDS#s3://}
bucket=${place%%/*} folder=${place#*/}
step_restore
status=0
step_run || status=$?
# A failed one may have rolled out something too.
step_tell
exit "$status"
