#!/bin/bash
# Makes the daily cost report of an account, keeps it and mails a short text. CodeBuild runs it in an
# archive of this repository; the stack sets the variables.
#
# A report that lacks something (a denied call) is kept and mailed as partial. Without a report the
# script fails, and so does the build, which is told by mail: silence never means that all is well.
set -euo pipefail
: "${CLUSTERBOX_ENVIRONMENT:?}" "${CLUSTERBOX_ACCOUNT:?}" "${AWS_REGION:?}"
: "${CLUSTERBOX_REPORTS:?s3://BUCKET/FOLDER}" "${CLUSTERBOX_ALARMS:?ARN of a topic}"
# The mail has names from tags, in any language; file:// is else read as the locale says.
export AWS_CLI_FILE_ENCODING=UTF-8
work=${CLUSTERBOX_WORK:-/tmp/clusterbox-report}
python="$work/venv/bin/python"
mkdir -p "$work/history"

step_install() {
  python3 -m venv --clear "$work/venv"
  "$python" -m pip install --quiet --disable-pip-version-check --no-input \
    --require-hashes --only-binary :all: -r requirements.txt
}

step_fetch_history() {
  aws s3 sync --only-show-errors "$CLUSTERBOX_REPORTS/history" "$work/history"
}

# The whole account, so that what carries no tag is in it. The command ends with 1 where the report
# is partial.
step_report() {
  rm -f "$work/report.html"
  "$python" -m clusterbox.cli.main costs report --target aws \
    --account "$CLUSTERBOX_ACCOUNT" --region "$AWS_REGION" \
    --history "$work/history" --format html --output "$work/report.html" || partial="partial "
  [[ -s $work/report.html ]]
  local days=("$work"/history/*.json)
  day=${days[-1]##*/} day=${day%.json} # the one just written, also around midnight
}

step_keep() {
  aws s3 sync --only-show-errors "$work/history" "$CLUSTERBOX_REPORTS/history"
  aws s3 cp --only-show-errors "$work/report.html" "$CLUSTERBOX_REPORTS/$day.html"
}

# SNS takes a subject of 100 characters and a message of 256 KiB.
step_tell() {
  "$python" stacks/cost_functions/summary.py "$work/history/$day.json" >"$work/summary"
  head --bytes 200000 "$work/summary" >"$work/message"
  printf '\nThe whole report:\n  aws s3 cp %s .\n' "$CLUSTERBOX_REPORTS/$day.html" >>"$work/message"
  aws sns publish --topic-arn "$CLUSTERBOX_ALARMS" --message "file://$work/message" \
    --subject "[$CLUSTERBOX_ENVIRONMENT] ${partial}costs of $day"
}

partial="" day=""
for step in step_install step_fetch_history step_report step_keep step_tell; do
  echo "$step" >&2
  "$step"
done
