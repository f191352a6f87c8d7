#!/usr/bin/env bash
# Creates TPU slices through the queue of Cloud TPU, waits for them, shows their state, deletes them.
#
#   launch/tpu_queued_resource.sh create my-tpu --zone=us-west4-a --type=v5litepod-16 --spot
#   launch/tpu_queued_resource.sh wait   my-tpu --zone=us-west4-a
#   launch/tpu_queued_resource.sh status my-tpu --zone=us-west4-a     # a state, ABSENT if there is none
#   launch/tpu_queued_resource.sh delete my-tpu --zone=us-west4-a     # with its slices
#
#   --zone=ZONE --project=PROJECT   default: $ZONE and $PROJECT, else gcloud's own configuration
#   --type=TYPE         v4-8, v5litepod-16, v5p-8, v6e-8, …; create only
#   --nodes=N           slices, which then train as one job (default 1)
#   --spot              cheaper, may be taken away at any time
#   --reserved          from your reservation
#   --runtime=VERSION   software of the machines; default: what --type needs
#   --valid-for=6h      create: give up if there is no capacity by then
#   --timeout=SECONDS   wait: give up then (default: never)
#   --dry-run           prints the gcloud command and does nothing
#   -- FLAGS            further flags of gcloud, e.g. -- --service-account=… --network=…
#
# Exit codes: 0 done · 1 gcloud failed · 2 bad input, a quota included · 3 will not become active.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/install.sh"

POLL_SECONDS="${POLL_SECONDS:-20}"

# Runtime of a slice; the table of cloud.google.com/tpu/docs/runtimes.
runtime_of() {
  case "$1" in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5e-*) refuse "Google calls ${1} v5litepod-${1#v5e-}; use that as --type." ;;
    tpu7x-* | v7x-*) refuse "Cloud TPU's queue has no $1: from 7x on TPUs belong to GKE and Compute" \
      'Engine. See launch/gke_jobset.yaml.' ;;
    *) refuse "Expected --type like v5litepod-16, v5p-8 or v6e-8, got '$1'." ;;
  esac
}

AFTER_DASHES='Flags of gcloud'

take_flag() {
  case "$1" in
    --zone=*) zone="${1#*=}" ;;
    --project=*) project="${1#*=}" ;;
    --type=*) type="${1#*=}" ;;
    --nodes=*) nodes="${1#*=}" ;;
    --runtime=*) runtime="${1#*=}" ;;
    --valid-for=*) valid="${1#*=}" ;;
    --timeout=*) timeout="${1#*=}" ;;
    --spot) spot=1 ;;
    --reserved) reserved=1 ;;
    --dry-run) dry_run=1 ;;
    *) return 1 ;;
  esac
}

parse() {
  verb="${1:-}" zone="${ZONE:-}" project="${PROJECT:-}" type='' nodes=1 runtime=''
  valid='' timeout='' dry_run='' spot='' reserved=''
  case "$verb" in
    create | wait | status | delete) shift ;;
    *) refuse "Expected create, wait, status or delete, got '$verb'; --help says more." ;;
  esac
  read_arguments "$@"
  [ -n "$name" ] || refuse "Expected a name: launch/tpu_queued_resource.sh $verb NAME"
  place=(${zone:+--zone="$zone"} ${project:+--project="$project"} --quiet)
}

# Runs gcloud, or prints the command that would run.
gcloud_tpus() {
  if [ -n "$dry_run" ]; then
    { printf 'gcloud compute tpus queued-resources' && printf ' %q' "$@" && echo; }
  else
    gcloud compute tpus queued-resources "$@"
  fi
}

create() {
  local error status=0 which=(--node-id="$name")
  [ -n "$type" ] || refuse 'Expected --type=TYPE, e.g. --type=v5litepod-16.'
  [ -z "$spot" ] || [ -z "$reserved" ] || refuse 'Give --spot or --reserved, not both.'
  [[ "$nodes" =~ ^[1-9][0-9]*$ ]] || refuse "Expected --nodes of 1 or more, got '$nodes'."
  [ -n "$runtime" ] || runtime="$(runtime_of "$type")"
  [ "$nodes" -eq 1 ] || which=(--node-count="$nodes" --node-prefix="$name")
  set -- create "$name" "${place[@]}" --accelerator-type="$type" --runtime-version="$runtime" \
    "${which[@]}" ${spot:+--spot} ${reserved:+--reserved} \
    ${valid:+--valid-until-duration="$valid"} ${arguments[@]+"${arguments[@]}"}
  { error="$(gcloud_tpus "$@" 2>&1 >&3)" || status=$?; } 3>&1
  [ -z "$error" ] || printf '%s\n' "$error" >&2
  [ "$status" -ne 0 ] || return 0
  case "$error" in
    *[Qq]uota* | *QUOTA*) refuse "There is no quota for $type${spot:+ (spot)} in ${zone:-the zone}." \
      'Ask for it at https://console.cloud.google.com/iam-admin/quotas, or use another --zone.' ;;
  esac
  return 1
}

# Prints the state, ABSENT if there is no such resource; fails where gcloud cannot tell.
status() {
  local output code=0
  output="$(gcloud_tpus describe "$name" "${place[@]}" --format='value(state.state)' 2>&1)" || code=$?
  if [ "$code" -eq 0 ]; then
    printf '%s\n' "$output" | tail -n 1
  elif [[ "$output" == *NOT_FOUND* || "$output" == *'was not found'* ]]; then
    echo ABSENT
  else
    printf '%s\n' "$output" >&2
    return 1
  fi
}

wait_until_active() {
  local state before='' started="$SECONDS"
  while :; do
    state="$(status)"
    [ "$state" = "$before" ] || echo "$name: $state ($((SECONDS - started)) s)" >&2
    before="$state"
    case "$state" in
      ACTIVE) return ;;
      FAILED | SUSPENDING | SUSPENDED | DELETING | ABSENT)
        echo "$name is $state and will not become active; delete it and create it again." >&2
        return 3
        ;;
    esac
    [ -z "$timeout" ] || [ "$((SECONDS - started))" -lt "$timeout" ] || {
      echo "$name is still $state after $timeout s." >&2
      return 3
    }
    sleep "$POLL_SECONDS"
  done
}

delete() {
  if [ -z "$dry_run" ] && [ "$(status)" = ABSENT ]; then
    return 0
  fi
  gcloud_tpus delete "$name" "${place[@]}" --force
}

answer_help "${BASH_SOURCE[0]}" "$@"
parse "$@"
[ -n "$dry_run" ] || command -v gcloud > /dev/null || refuse \
  'gcloud is missing; install it from https://cloud.google.com/sdk/docs/install.'
case "$verb" in
  create) create ;;
  status) status ;;
  wait) if [ -n "$dry_run" ]; then status; else wait_until_active; fi ;;
  delete) delete ;;
esac
