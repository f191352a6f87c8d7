#!/usr/bin/env bash
# Installs ds_jax with what its tests need and runs the suite on the CPU.
#
#   launch/test.sh                                  # the suite: minutes
#   launch/test.sh --all                            # with the tests marked `long`
#   launch/test.sh tests/search -k journal          # other arguments go to pytest
#   launch/test.sh --python=3.13 --newest           # with the versions of constraints-newest.txt
#   launch/test.sh --python=3.11 --oldest           # with those of constraints-oldest.txt
#
# Each of these has an environment of its own beside .venv: .venv-3.13-newest, .venv-3.11-oldest.
# JAX_PLATFORMS, where set, chooses another backend. Exit codes are those of pytest.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/install.sh"

answer_help "${BASH_SOURCE[0]}" "$@"
arguments=() name=''
for argument in "$@"; do
  case "$argument" in
    --all)
      arguments+=(-m '' -o faulthandler_timeout=0)  # some take longer than a hang is let
      # Programs are those of a run; without this, tests compile them without optimisation.
      export XLA_FLAGS="${XLA_FLAGS:-} --xla_backend_optimization_level=3"
      ;;
    --python=*) WANTED_PYTHON="${argument#*=}" ;;
    --newest | --oldest) name="-${argument#--}" ;;
    *) arguments+=("$argument") ;;
  esac
done
[ -z "$name" ] || CONSTRAINTS="$ROOT/launch/constraints$name.txt"
name="${WANTED_PYTHON:+-$WANTED_PYTHON}$name"
[ -z "$name" ] || VENV="$ROOT/.venv$name"

install_ds_jax test
cd "$ROOT"
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
# Tests of one file share compiled programs, so a file stays on one worker; conftest.py says which
# files come first. A test that hung ends its worker, and is tried once more.
exec "$VENV/bin/python" -m pytest -n logical --maxprocesses 8 --dist loadfile \
  --no-loadscope-reorder --max-worker-restart 1 \
  ${arguments[@]+"${arguments[@]}"}
