#!/usr/bin/env bash
# Keeps a job going on a TPU slice until it is done: creates the slice, submits, and after a preemption
# deletes what is left, creates it again and continues. Run it in tmux on a machine that stays on.
#
#   launch/tpu_babysit.sh my-tpu --zone=us-west4-a --type=v5litepod-16 --spot \
#     --store=gs://my-bucket -- \
#     train --config=configs/deepsearch_1_5b.py --workdir=/mnt/ds_jax/runs/first …
#
#   --zone --project --type --nodes --spot --reserved --runtime --valid-for   of tpu_queued_resource.sh
#   --create-flag=FLAG   of gcloud when a slice is created; may be repeated
#   --store --env        of tpu_submit.sh
#   --max-crashes=N      crashes without an hour of work in between (default 5)
#   --max-preemptions=N  default 1000
#   --keep               leave the slice when all is over; otherwise it is deleted, as it costs money
#
# What happens after the job ended with
#   0                          all is over
#   42, or a lost slice        a preemption: again, as often as --max-preemptions
#   134, 137, other signals    a crash, here or of a peer: again after a pause, at most --max-crashes
#   1, 2, 74                   a defect, bad input, a full disk: another try would end alike; stops
# Started again by hand, it attaches to a job that still runs. Ctrl-C leaves slice and job alone.
# Exit codes: those of the job · 2 bad input, a quota included · 3 too many crashes or preemptions.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/install.sh"

POLL_SECONDS="${POLL_SECONDS:-20}"
PAUSE_SECONDS="${PAUSE_SECONDS:-30}" # after the first crash; doubled with each further one
HEALTHY_SECONDS="${HEALTHY_SECONDS:-3600}"

say() {
  printf '%(%F %T)T %s\n' -1 "$*" >&2
}

AFTER_DASHES='Arguments of ds-jax'

take_flag() {
  case "$1" in
    --zone=* | --project=*) place+=("$1") ;;
    --type=*) type="${1#*=}" ;;
    --nodes=* | --spot | --reserved | --runtime=* | --valid-for=*) shape+=("$1") ;;
    --create-flag=*) create_flags+=("${1#*=}") ;;
    --store=* | --env=*) job+=("$1") ;;
    --max-crashes=*) max_crashes="${1#*=}" ;;
    --max-preemptions=*) max_preemptions="${1#*=}" ;;
    --keep) keep=1 ;;
    *) return 1 ;;
  esac
}

parse() {
  place=() shape=() create_flags=() job=() type='' keep=''
  max_crashes=5 max_preemptions=1000
  read_arguments "$@"
  if [ -z "$name" ] || [ -z "$type" ] || [ "${#arguments[@]}" -eq 0 ]; then
    refuse 'Expected NAME --type=TYPE … -- COMMAND of ds-jax; --help shows an example.'
  fi
}

queue() {
  "$ROOT/launch/tpu_queued_resource.sh" "$1" "$name" ${place[@]+"${place[@]}"} "${@:2}"
}

submit() {
  "$ROOT/launch/tpu_submit.sh" "$name" ${place[@]+"${place[@]}"} --type="$type" \
    ${job[@]+"${job[@]}"} "$@"
}

# The end of everything: deletes the slice, unless it is to be kept.
finish() {
  say "$2"
  if [ -z "$keep" ]; then
    queue delete || say "$name could not be deleted and costs money: delete it by hand."
  fi
  exit "$1"
}

# Counts a preemption, once per run of the job; it explains crashes before it.
note_preemption() {
  crashes=0
  [ -z "$noted" ] || return 0
  noted=1 preemptions=$((preemptions + 1))
  say "$name was preempted (time $preemptions)."
  [ "$preemptions" -le "$max_preemptions" ] || finish 3 'That was once too often; giving up.'
}

# Counts a crash and pauses: each time for longer, but never for more than ten minutes.
note_crash() {
  local pause
  [ "$((SECONDS - started))" -lt "$HEALTHY_SECONDS" ] || crashes=0
  crashes=$((crashes + 1))
  [ "$crashes" -le "$max_crashes" ] || finish 3 "$1 That was crash $crashes in a row; giving up."
  pause=$((PAUSE_SECONDS << (crashes < 6 ? crashes - 1 : 5)))
  [ "$pause" -le 600 ] || pause=600
  say "$1 Crash $crashes of at most $max_crashes; trying again in $pause s."
  sleep "$pause"
}

remove() {
  queue delete || sleep "$POLL_SECONDS"
}

create() {
  local code=0
  say "Creating $name ($type)."
  unreachable=0 started="$SECONDS"
  queue create --type="$type" ${shape[@]+"${shape[@]}"} \
    ${create_flags[@]+-- "${create_flags[@]}"} || code=$?
  case "$code" in
    0) ;;
    2) exit 2 ;; # a quota or bad input; nothing was created
    *) note_crash "$name could not be created." ;;
  esac
}

# A slice that keeps silent although the queue calls it active has been preempted, or is broken.
replace_silent() {
  unreachable=$((unreachable + 1))
  if [ "$unreachable" -ge 2 ]; then
    note_preemption
    remove
  fi
}

# Runs the job once, or attaches to it, and decides what its end means.
run_job() {
  local code=5
  noted='' started="$SECONDS"
  if [ -n "$attach" ]; then
    code=0
    submit --attach || code=$?
  fi
  attach=''
  if [ "$code" -eq 5 ]; then
    code=0
    submit -- "${arguments[@]}" || code=$?
  fi
  case "$code" in
    0) finish 0 'Done.' ;;
    1 | 2 | 74) finish "$code" "The job ended with exit code $code; another try would end alike." ;;
    42) note_preemption && sleep "$POLL_SECONDS" ;;
    *)
      # A slice that is being taken away is no crash of ours.
      [ "$(queue status || echo UNKNOWN)" = ACTIVE ] || return 0
      note_crash "The job ended with exit code $code."
      [ "$code" -ne 75 ] || replace_silent
      ;;
  esac
}

answer_help "${BASH_SOURCE[0]}" "$@"
parse "$@"
crashes=0 preemptions=0 unreachable=0 noted='' attach=1 started="$SECONDS" before=''
while :; do
  state="$(queue status || echo UNKNOWN)"
  [ "$state" = "$before" ] || say "$name is $state."
  before="$state"
  case "$state" in
    ABSENT) create ;;
    ACTIVE) run_job ;;
    SUSPENDED)
      note_preemption
      remove
      ;;
    FAILED)
      remove
      note_crash "The queue could not provide $name."
      ;;
    UNKNOWN) note_crash "gcloud does not tell the state of $name." ;;
    *) sleep "$POLL_SECONDS" ;;
  esac
done
