#!/usr/bin/env bash
# Runs ds-jax on one worker (a TPU VM, a pod, a Slurm task) with the environment of launch/env.sh.
#
#   launch/run_worker.sh run train --config=… --workdir=…         # in the foreground
#   launch/run_worker.sh start JOB train --config=… --workdir=…   # detached; JOB is any new name
#   launch/run_worker.sh status [JOB]       # running, lost, absent or the exit code
#   launch/run_worker.sh log JOB BYTES      # what it has written after so many bytes
#   launch/run_worker.sh stop               # SIGTERM: it saves and ends with 42
#
# A machine's chips serve one process, so a second run is refused with exit code 2. `start` of a JOB
# that was started before changes nothing: gcloud repeats a command whose connection drops. Logs and
# exit codes are kept in $JOBS (~/ds_jax_jobs). Relative paths start at the checkout.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/install.sh"

JOBS="${JOBS:-$HOME/ds_jax_jobs}"
# Slurm starts a task per GPU: there each task has a lock of its own.
LOCK="${LOCK:-/tmp/ds_jax.$(id -u)${SLURM_LOCALID:+.$SLURM_LOCALID}.lock}"
LIBTPU_LOCK="${LIBTPU_LOCK:-/tmp/libtpu_lockfile}"

is_running() {
  [ -e "$LOCK" ] && ! flock --nonblock "$LOCK" true
}

# Removes the file that a killed process left behind, unless a live one holds it.
remove_stale_libtpu_lock() {
  [ -e "$LIBTPU_LOCK" ] || return 0
  if command -v fuser > /dev/null && fuser -s "$LIBTPU_LOCK"; then
    return 0
  fi
  rm -f "$LIBTPU_LOCK" 2> /dev/null || sudo -n rm -f "$LIBTPU_LOCK" || true
}

run() {
  # Python inherits descriptor 9, so the lock is held until it ends, however it ends.
  exec 9>> "$LOCK"
  flock --timeout 3 9 || refuse "ds-jax runs on this machine already (process $(cat "$LOCK"))." \
    'Wait for it, or end it with launch/run_worker.sh stop.'
  echo "$$" > "$LOCK"
  remove_stale_libtpu_lock
  # shellcheck source=env.sh
  . "$ROOT/launch/env.sh" || exit 2
  cd "$ROOT"
  # exec: a SIGTERM to this process reaches Python and not a shell in front of it.
  exec "$VENV/bin/python" -m ds_jax "$@"
}

start() {
  local job="$JOBS/$1"
  shift
  mkdir -p "$JOBS"
  if [ -d "$job" ]; then
    echo "${job##*/} was started before."
    return
  fi
  if is_running; then
    refuse "ds-jax runs on this machine already: job $(cat "$JOBS/current" 2> /dev/null || echo '?')."
  fi
  mkdir "$job"
  echo "${job##*/}" > "$JOBS/current"
  # `trap :` rather than ignoring: the shell survives to note the exit code, Python gets the default.
  # shellcheck disable=SC2016  # expanded by the inner shell
  JOB="$job" setsid bash -c 'trap : TERM INT HUP
    "$0" run "$@" > "$JOB/log" 2>&1
    echo "$?" > "$JOB/exit_code.new" && mv "$JOB/exit_code.new" "$JOB/exit_code"' \
    "$ROOT/launch/run_worker.sh" "$@" < /dev/null > /dev/null 2>&1 &
  echo "Started ${job##*/}."
}

status() {
  local job
  job="$JOBS/${1:-$(cat "$JOBS/current" 2> /dev/null || echo none)}"
  if [ -e "$job/exit_code" ]; then
    cat "$job/exit_code"
  elif [ ! -d "$job" ]; then
    echo absent
  elif is_running; then
    echo running
  else
    # It has just begun or just ended, or the machine was restarted under it.
    sleep 2
    cat "$job/exit_code" 2> /dev/null || { is_running && echo running || echo lost; }
  fi
}

stop() {
  if is_running; then
    kill -TERM "$(cat "$LOCK")"
  fi
}

verb="${1:-}"
case "$verb" in
  run | start | status | log | stop) shift ;;
  --help | -h) print_usage "${BASH_SOURCE[0]}"; exit ;;
  *) refuse "Expected run, start, status, log or stop, got '$verb'; --help says more." ;;
esac
case "$verb" in
  run) run "$@" ;;
  start) start "$@" ;;
  # The label tells these lines from others, when gcloud mixes the output of many workers.
  status) echo "ds_jax_worker $(hostname) $(status "$@")" ;;
  log) tail -c "+$(($2 + 1))" "$JOBS/$1/log" 2> /dev/null || true ;;
  stop) stop ;;
esac
