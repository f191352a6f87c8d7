#!/usr/bin/env bash
# Runs ds-jax on all workers of a TPU slice: sends the committed code, installs, starts, shows the log.
#
#   launch/tpu_submit.sh my-tpu --zone=us-west4-a --store=gs://my-bucket -- \
#     train --config=configs/deepsearch_1_5b.py --workdir=/mnt/ds_jax/runs/first …
#   launch/tpu_submit.sh my-tpu --zone=us-west4-a --attach     # shows a job that is running
#   launch/tpu_submit.sh my-tpu --zone=us-west4-a --stop       # it saves and ends with 42
#
#   --zone=ZONE --project=PROJECT   default: $ZONE and $PROJECT, else gcloud's own configuration
#   --store=STORE       gs://BUCKET or HOST:/SHARE (NFS), mounted as /mnt/ds_jax on every worker
#   --type=TYPE         the slice's, e.g. v5litepod-16: chooses the settings of launch/env.sh
#   --env=NAME=VALUE    for the job; may be repeated, e.g. --env=XLA_PROFILE=overlap
#   --detach            returns once the job runs
#
# The job does not depend on this connection. Exit codes: those of the job · 2 bad input · 5 there is
# no job to attach to · 75 the slice could not be reached.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/install.sh"

POLL_SECONDS="${POLL_SECONDS:-20}"
MAX_FAILED_POLLS="${MAX_FAILED_POLLS:-10}"

AFTER_DASHES='Arguments of ds-jax'

take_flag() {
  case "$1" in
    --zone=*) zone="${1#*=}" ;;
    --project=*) project="${1#*=}" ;;
    --store=*) environment+=("MOUNT=${1#*=}" STORE=/mnt/ds_jax) ;;
    --type=*) environment+=("ACCEL=${1#*=}") ;;
    --env=*=*) environment+=("${1#*=}") ;;
    --detach) detach=1 ;;
    --attach | --stop) mode="${1#--}" ;;
    *) return 1 ;;
  esac
}

parse() {
  zone="${ZONE:-}" project="${PROJECT:-}" mode=submit detach=''
  environment=(${ACCEL:+ACCEL="$ACCEL"})
  read_arguments "$@"
  [ -n "$name" ] || refuse 'Expected the name of a queued resource; --help shows an example.'
  [ "$mode" != submit ] || [ "${#arguments[@]}" -gt 0 ] || refuse \
    'Expected a command of ds-jax after --, e.g. -- train --config=… --workdir=…'
  place=(${zone:+--zone="$zone"} ${project:+--project="$project"} --quiet)
  flags=(${zone:+--zone="$zone"} ${project:+--project="$project"})
}

# Runs words as a command on the given workers; every word arrives as it is written here.
remote() {
  local node="$1" worker="$2"
  shift 2
  gcloud compute tpus queued-resources ssh "$name" "${place[@]}" --node="$node" \
    --worker="$worker" --command="$(printf '%q ' "$@")"
}

# The checkout of the workers: one folder per commit, so that a running job keeps its code.
send_code() {
  local archive status=0
  [ -z "$(git -C "$ROOT" status --porcelain)" ] || refuse \
    "$ROOT has changes that are not committed; what runs should be a commit: commit or stash them."
  checkout="ds_jax-$(git -C "$ROOT" rev-parse --short=12 HEAD)"
  archive="$(mktemp -d)/$checkout.tar.gz"
  git -C "$ROOT" archive --format=tar.gz --prefix="$checkout/" --output="$archive" HEAD
  gcloud compute tpus queued-resources scp "$archive" "$name:" "${place[@]}" --node=all \
    --worker=all >&2 || status=$?
  rm -r "$(dirname "$archive")"
  [ "$status" -eq 0 ] || return 75
  remote all all tar -xzf "$checkout.tar.gz" >&2 || return 75
}

# Prints one word per worker: running, lost, absent or an exit code. Fails if one does not answer.
states() {
  local output
  output="$(remote all all ds_jax-current/launch/run_worker.sh status "$job" 2> /dev/null)" || return
  awk '$1 == "ds_jax_worker" { print $3 }' <<< "$output"
}

# The exit code of the job: the reason comes before its consequences on other workers. A worker that
# was restarted or replaced counts as killed.
job_code() {
  local found code unusual
  found="$(sed -E 's/lost|absent/137/' <<< "$1")"
  unusual="$(grep -vxE '0|1|2|42|74|134' <<< "$found" | head -n 1 || true)"
  for code in 2 1 74 $unusual 42 134; do
    if grep -qx "$code" <<< "$found"; then
      echo "$code"
      return
    fi
  done
  echo 0
}

# Prints what worker 0 has written since the last time.
show_log() {
  local new
  new="$(mktemp)"
  remote 0 0 ds_jax-current/launch/run_worker.sh log "$job" "$shown" > "$new" 2> /dev/null || true
  cat "$new"
  shown=$((shown + $(wc -c < "$new")))
  rm "$new"
}

is_active() {
  [ "$("$ROOT/launch/tpu_queued_resource.sh" status "$name" ${flags[@]+"${flags[@]}"} \
    2> /dev/null)" = ACTIVE ]
}

# Shows the log until the job has ended on all workers; returns its exit code.
follow() {
  local found failed=0
  shown=0
  while :; do
    if found="$(states)" && [ -n "$found" ]; then
      failed=0
      show_log
      if ! grep -qx running <<< "$found"; then
        return "$(job_code "$found")"
      fi
    else
      failed=$((failed + 1))
      if [ "$failed" -ge "$MAX_FAILED_POLLS" ] || ! is_active; then
        echo "$name cannot be reached any more." >&2
        return 75
      fi
    fi
    sleep "$POLL_SECONDS"
  done
}

submit() {
  local status=0
  send_code || return
  remote all all env ${environment[@]+"${environment[@]}"} "$checkout/launch/setup_tpu_vm.sh" >&2 \
    || { echo "The setup failed on a worker of $name; see above." >&2; return 75; }
  job="$(date +%Y%m%d-%H%M%S)-$$"
  remote all all ln -sfn "$checkout" ds_jax-current || return 75
  remote all all env ${environment[@]+"${environment[@]}"} "$checkout/launch/run_worker.sh" \
    start "$job" "${arguments[@]}" >&2 || status=$?
  case "$status" in
    0) ;;
    2) return 2 ;; # another job runs there
    *) return 75 ;;
  esac
  echo "Job $job runs on $name." >&2
  [ -n "$detach" ] || follow
}

answer_help "${BASH_SOURCE[0]}" "$@"
parse "$@"
command -v gcloud > /dev/null || refuse \
  'gcloud is missing; install it from https://cloud.google.com/sdk/docs/install.'
job=''
case "$mode" in
  submit) submit ;;
  stop) remote all all ds_jax-current/launch/run_worker.sh stop ;;
  attach)
    job="$(remote 0 0 cat ds_jax_jobs/current 2> /dev/null)" || exit 5
    follow
    ;;
esac
