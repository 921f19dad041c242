#!/bin/bash
# What a job must find on a node of a new image; GATE_… say what. One line of JSON for each check.
#
# CLUSTERBOX_MOUNTS is a folder in front of the mounts, for trials on a machine that has none; what
# AWS_ENDPOINT_URL says takes the place of S3's own address, as for every program of AWS.
set -uo pipefail
PATH="/opt/slurm/bin:$PATH:/usr/local/bin"
failures=0

# tell CHECK OK DETAIL: the detail in one line, without what JSON would have to escape.
tell() {
  local detail
  # shellcheck disable=SC1003 # a backslash it is
  detail=$(printf '%s' "$3" | tr '\n\t\\' '  /' | tr -d '\000-\037"' | tail -c 400)
  printf '{"check": "%s", "ok": %s, "detail": "%s"}\n' "$1" "$2" "$detail"
  [[ $2 == true ]] || failures=$((failures + 1))
}

# check NAME COMMAND...: holds where the command succeeds; it must be over within two minutes.
check() {
  local name=$1 output code=0
  shift
  output=$(timeout 120 "$@" 2>&1) || code=$?
  if ((code == 0)); then tell "$name" true "$output"; else tell "$name" false "${output:-exit code $code}"; fi
}

# The image that this node runs, which the service of each instance knows (IMDSv2).
token=$(curl -sf -m 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
  http://169.254.169.254/latest/api/token || true)
if [[ $token ]]; then
  printf 'ami: %s\n' "$(curl -sf -m 2 -H "X-aws-ec2-metadata-token: $token" \
    http://169.254.169.254/latest/meta-data/ami-id || true)"
fi
printf 'node: %s\nkernel: %s\n' "${SLURMD_NODENAME:-$(hostname)}" "$(uname -r)"

if [[ $GATE_IMPORTS ]]; then
  imports=$GATE_IMPORTS
  python=$(command -v science-python || printf /opt/clusterbox/science/bin/python)
  check imports "$python" -c "import ${imports// /, }"
fi

while IFS= read -r mount; do
  [[ $mount ]] || continue
  folder="${CLUSTERBOX_MOUNTS:-}$mount"
  # A folder that is no mount would be written to without anybody noticing.
  if [[ -z ${CLUSTERBOX_MOUNTS:-} ]] && ! mountpoint -q "$folder"; then
    tell "mount $mount" false "is not mounted"
    continue
  fi
  file="$folder/.clusterbox-gate-${SLURM_JOB_ID:-$$}"
  # shellcheck disable=SC2016 # the shell that is started expands it
  check "mount $mount" bash -c 'echo gate >"$1" && [[ $(cat "$1") == gate ]]; code=$?; rm -f "$1"; exit $code' _ "$file"
done <<<"$GATE_MOUNTS"

check dns getent hosts "$GATE_ENDPOINT"
# Any answer of S3 will do: whether this node may read the bucket is not the image's affair.
url="${AWS_ENDPOINT_URL:-https://$GATE_ENDPOINT}/$GATE_BUCKET"
check s3 curl -sS -o /dev/null -m 20 --head "$url"

if [[ $GATE_SLURM_VERSION ]]; then
  version=$(srun --version 2>&1)
  if [[ $version == "slurm $GATE_SLURM_VERSION" ]]; then
    tell slurm true "$version"
  else
    tell slurm false "$version, and must be $GATE_SLURM_VERSION"
  fi
fi
printf 'gate: done, %s failed\n' "$failures"
exit $((failures > 0))
