# shellcheck shell=bash
# Sourced by the other scripts: makes .venv and installs ds_jax into it, editable; reads arguments.
#
#   . launch/install.sh
#   install_ds_jax            # or: install_ds_jax test, with the extra of that name
#
# Uses uv where there is one, else python3 -m venv and pip. Returns at once when the installation is
# up to date with pyproject.toml. Leaves ROOT (the checkout) and VENV (the environment) behind.
# PYTHON names another interpreter, WANTED_PYTHON (3.13) a version, VENV another place for the
# environment, and CONSTRAINTS a file of versions.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${VENV:-$ROOT/.venv}"

# Says what is wrong and ends the script with the exit code of bad input.
refuse() {
  printf '%s\n' "$@" >&2
  exit 2
}

# Prints the comment that opens a script.
print_usage() {
  sed -n '2,/^$/s/^#\( \|$\)//p' "$1"
}

# Prints the usage of the script SCRIPT and ends it, where one of its arguments asks for that.
#   answer_help SCRIPT "$@"
answer_help() {
  local script="$1" argument
  shift
  for argument in "$@"; do
    case "$argument" in
      --help | -h) print_usage "$script"; exit ;;
      --) return ;;
    esac
  done
}

# Reads `NAME --flag=value … -- ARGUMENTS` into `name` and `arguments`. The script defines take_flag,
# which takes one flag and fails if it does not know it, and AFTER_DASHES: what the arguments are.
read_arguments() {
  name='' arguments=()
  while [ "$#" -gt 0 ]; do
    case "$1" in
      --)
        shift
        arguments=("$@")
        return
        ;;
      -*)
        take_flag "$1" || refuse \
          "Unknown flag $1; --help lists them. $AFTER_DASHES come after --."
        ;;
      *)
        [ -z "$name" ] || refuse "Expected one name, got '$name' and '$1'."
        name="$1"
        ;;
    esac
    shift
  done
}

# Whether an interpreter is of the version that is wanted, or else new enough.
is_supported() {
  "$1" -c "import sys
version, wanted = sys.version_info[:2], '${WANTED_PYTHON:-}'
sys.exit('%d.%d' % version != wanted if wanted else version < (3, 11))" 2> /dev/null
}

# Prints the first interpreter that is supported. pyenv's are not on the PATH unless chosen.
find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} ${WANTED_PYTHON:+"python$WANTED_PYTHON"} \
      python3 python3.13 python3.12 python3.11 \
      ${WANTED_PYTHON:+"${PYENV_ROOT:-$HOME/.pyenv}/versions/$WANTED_PYTHON".*/bin/python}; do
    if is_supported "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

# Ends the script where Debian's python3 lacks the part that makes environments.
require_venv() {
  if ! "$1" -c 'import ensurepip, venv' 2> /dev/null; then
    local version sudo='sudo '
    version="$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    [ "$(id -u)" -eq 0 ] && sudo=''
    refuse "$1 cannot make virtual environments: its venv package is missing. Install it with" \
      "  ${sudo}apt install python$version-venv" \
      'and run this script again.'
  fi
}

make_venv_with_uv() {
  local python
  # Where none is supported, uv fetches one.
  python="$(find_python)" || python="${WANTED_PYTHON:-3.13}"
  uv venv --quiet --allow-existing --python "$python" "$VENV" || refuse \
    "uv found no Python ${WANTED_PYTHON:-3.11 or newer} and could not fetch one. Install it with" \
    "  uv python install ${WANTED_PYTHON:-3.13}" \
    'and run this script again.'
}

make_venv_with_pip() {
  local python
  python="$(find_python)" || refuse \
    "Expected Python ${WANTED_PYTHON:-3.11 or newer}, got $(python3 --version 2>&1 || true)." \
    'Looked for python3, python3.13, python3.12 and python3.11; install one of them, or name one:' \
    "  PYTHON=/path/to/python${WANTED_PYTHON:-3.12} $0"
  require_venv "$python"
  "$python" -m venv "$VENV"
}

# Installs into VENV; pip's progress is shown to people and kept out of log files.
install_packages() {
  local target="$ROOT${1:+[$1]}" quiet=--quiet
  local constraints=(${CONSTRAINTS:+"--constraint=$CONSTRAINTS"})
  [ -t 1 ] && quiet=''
  if command -v uv > /dev/null; then
    is_supported "$VENV/bin/python" || make_venv_with_uv
    uv pip install $quiet --python "$VENV/bin/python" \
      ${constraints[@]+"${constraints[@]}"} --editable "$target"
  else
    "$VENV/bin/python" -m pip --version > /dev/null 2>&1 || make_venv_with_pip
    "$VENV/bin/python" -m pip install $quiet --disable-pip-version-check \
      ${constraints[@]+"${constraints[@]}"} --editable "$target"
  fi
}

# Installs ds_jax, with the extra named by the first argument if there is one.
install_ds_jax() {
  local extra="${1:-}" started="$SECONDS" state
  state="$ROOT $(cat "$ROOT/pyproject.toml" ${CONSTRAINTS:+"$CONSTRAINTS"} | cksum)"
  if is_supported "$VENV/bin/python" \
      && [ "$(cat "$VENV/.ds_jax-$extra" 2> /dev/null)" = "$state" ]; then
    return
  fi
  echo "Installing ds_jax${extra:+[$extra]} into $VENV (1.3 GB; a minute or two with pip) ..."
  install_packages "$extra"
  # Written last, so that an interrupted installation is taken up again. An extra contains the rest.
  printf '%s' "$state" | tee "$VENV/.ds_jax-" "$VENV/.ds_jax-$extra" > /dev/null
  echo "Installed in $((SECONDS - started)) s."
}
