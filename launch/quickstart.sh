#!/usr/bin/env bash
# Installs ds_jax into .venv and runs the main job on its embedded task: warm start, then sampling,
# verifying, learning, evaluation; it ends with a table and the place of the report.
#
#   launch/quickstart.sh                                        # into runs/quickstart
#   WORKDIR=runs/seed1 launch/quickstart.sh --config.seed=1     # arguments go to both commands
#
# Needs python3 (3.11 or newer) and, to be quick, uv. Ctrl-C or SIGTERM saves; the same command
# continues. An environment elsewhere: VENV=DIR. Another interpreter: PYTHON=/path/to/python3.12.
# Exit codes are those of ds-jax: 0 done, 2 bad input, 42 saved after SIGTERM, 130 after Ctrl-C.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/install.sh"

answer_help "${BASH_SOURCE[0]}" "$@"

# Runs a command that is not the last one, so that a SIGTERM to this script reaches it. (Ctrl-C
# reaches it from the terminal; a background job would ignore that without the reset.)
run() {
  local child status=0 started="$SECONDS"
  (trap - INT; exec "$@") &
  child=$!
  trap 'kill -TERM "$child" 2> /dev/null' TERM
  trap : INT
  wait "$child" || status=$?
  # A trapped signal ends `wait` early: go on until the command has saved and ended.
  while kill -0 "$child" 2> /dev/null; do
    status=0
    wait "$child" || status=$?
  done
  trap - TERM INT
  [ "$status" -eq 0 ] || exit "$status"
  echo "$2 took $((SECONDS - started)) s."
}

install_ds_jax ""
settings=(--config="$ROOT/configs/quickstart.py" --workdir="${WORKDIR:-$ROOT/runs/quickstart}" "$@")
run "$VENV/bin/ds-jax" warmstart "${settings[@]}"
exec "$VENV/bin/ds-jax" train "${settings[@]}"
