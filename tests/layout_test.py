"""How the tree is laid out and how it reads: limits that are counted, and one formatter."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from import_graph import PROJECT, imports_of, parse

MAX_FILES_AT_THE_TOP = 7
MAX_FIRST_PARTY_IMPORTS = 15
MAX_POSITIONAL = 5
MAX_SHARE_ABOVE = 0.02  # of the functions of ds_jax may have more positional parameters
EXIT_CODES = 'ds_jax/run/stopping.py'
# Files that may end a process with a number of their own, and why.
OWN_EXITS = {'ds_jax/verify/worker.py': "a grader's worker: its parent starts another"}


def package_files(root: Path) -> list[Path]:
  return sorted(p for name in (PROJECT, 'configs') for p in (root / name).rglob('*.py'))


def import_errors(root: Path) -> list[str]:
  """Files that import too many modules of ours."""
  errors = []
  for path in package_files(root):
    modules = {found.module for found in imports_of(path, root) if found.top == PROJECT}
    if len(modules) > MAX_FIRST_PARTY_IMPORTS:
      errors.append(
        f'{path.relative_to(root)}: imports {len(modules)} modules of {PROJECT}, at most '
        f'{MAX_FIRST_PARTY_IMPORTS}; split the file by what it does: {", ".join(sorted(modules))}'
      )
  return errors


def positional_errors(root: Path) -> list[str]:
  """Functions with many positional parameters, where their share of all is too large."""
  num_functions, long = 0, []
  for path in sorted((root / PROJECT).rglob('*.py')):
    for node in ast.walk(parse(path)):
      if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        continue
      num_functions += 1
      parameters = [a.arg for a in node.args.posonlyargs + node.args.args]
      count = sum(name not in ('self', 'cls') for name in parameters)
      if count > MAX_POSITIONAL:
        long.append(f'{path.relative_to(root)}:{node.lineno}: {node.name} has {count}')
  if len(long) <= MAX_SHARE_ABOVE * num_functions:
    return []
  summary = (
    f'{len(long)} of {num_functions} functions have more than {MAX_POSITIONAL} positional '
    f'parameters, at most {int(MAX_SHARE_ABOVE * num_functions)} may; group those that travel '
    'together or make them keyword-only:'
  )
  return [summary, *long]


def exit_errors(root: Path) -> list[str]:
  """Exit codes as numbers, in exits or in constants, outside the file that lists them."""
  errors = []
  for path in sorted((root / PROJECT).rglob('*.py')):
    where = str(path.relative_to(root))
    if where == EXIT_CODES or where in OWN_EXITS:
      continue
    for node in ast.walk(parse(path)):
      if _is_exit_with_number(node) or _is_exit_constant(node):
        errors.append(f'{where}:{node.lineno}: {ast.unparse(node)}: take it from {EXIT_CODES}')
  return errors


def _is_exit_with_number(node: ast.AST) -> bool:
  """`sys.exit(2)`, `os._exit(2)`, `SystemExit(2)`."""
  return (
    isinstance(node, ast.Call)
    and re.search(r'(^|[._])(exit|SystemExit)$', ast.unparse(node.func)) is not None
    and any(isinstance(a, ast.Constant) and isinstance(a.value, int) for a in node.args)
  )


def _is_exit_constant(node: ast.AST) -> bool:
  """`EXIT_DONE = 0`, also several at once; `exit_code: int = 0` counts as well."""
  if isinstance(node, ast.Assign):
    names = ' '.join(map(ast.unparse, node.targets))
  elif isinstance(node, ast.AnnAssign) and node.value is not None:
    names = ast.unparse(node.target)
  else:
    return False
  constants = [n for n in ast.walk(node.value) if isinstance(n, ast.Constant)]
  is_number = bool(constants) and all(type(constant.value) is int for constant in constants)
  return is_number and re.search(r'\bexit_|\bexit\b|_exit\b', names.lower()) is not None


def run_ruff(root: Path, *arguments: str) -> str:
  """What ruff has to say; nothing where it is content."""
  pinned = re.search(r"'ruff==([\d.]+)'", (root / 'pyproject.toml').read_text())[1]
  ruff = shutil.which('ruff', path=Path(sys.executable).parent) or shutil.which('ruff')
  if ruff is None:
    pytest.fail(f'ruff=={pinned} is not installed; launch/test.sh installs it', pytrace=False)
  version = subprocess.run([ruff, '--version'], capture_output=True, text=True).stdout.split()[-1]
  if version != pinned:  # others format a few lines differently
    pytest.fail(f'ruff is {version}, pyproject.toml says {pinned}: launch/test.sh installs it')
  done = subprocess.run(
    [ruff, *arguments, '--no-cache', '.'], cwd=root, capture_output=True, text=True
  )
  return (done.stdout + done.stderr) if done.returncode else ''


def expect_none(errors: list[str]) -> None:
  if errors:
    pytest.fail('\n'.join(errors), pytrace=False)


def test_few_files_at_the_top(root):
  names = sorted(path.name for path in (root / PROJECT).glob('*.py'))
  assert len(names) <= MAX_FILES_AT_THE_TOP, f'move one into the folder that it serves: {names}'


def test_few_imports_per_file(root):
  expect_none(import_errors(root))


def test_few_positional_parameters(root):
  expect_none(positional_errors(root))


def test_exit_codes_stand_in_one_file(root):
  expect_none(exit_errors(root))


@pytest.mark.parametrize('arguments', [['format', '--check'], ['check', '--output-format=concise']])
def test_ruff_is_content(root, arguments):
  problems = run_ruff(root, *arguments)
  assert not problems, f'run `ruff {arguments[0]} .`\n{problems}'


def test_pin_of_ruff_is_read(root):
  project = tomllib.loads((root / 'pyproject.toml').read_text())['project']
  assert any(re.fullmatch(r'ruff==[\d.]+', d) for d in project['optional-dependencies']['test'])


# The checks can fail.


def test_many_imports_are_reported(tmp_path):
  names = [f'm{i}' for i in range(MAX_FIRST_PARTY_IMPORTS + 1)]
  for name in names:
    _write(tmp_path / PROJECT / 'model' / f'{name}.py', '')
  path = tmp_path / PROJECT / 'run' / 'x.py'
  _write(path, f'from ds_jax.model import {", ".join(names[1:])}\nimport numpy, jax')
  assert not import_errors(tmp_path)
  _write(path, f'def f():\n  from ds_jax.model import {", ".join(names)}')
  assert 'ds_jax/run/x.py: imports 16 modules' in import_errors(tmp_path)[0]


def test_many_positional_parameters_are_reported(tmp_path):
  path = tmp_path / PROJECT / 'x.py'
  good = 'def f(self, a, b, c, d, e, *, g): ...\n'
  _write(path, good * 49 + 'def h(a, b, c, d, e, f): ...\n')
  assert not positional_errors(tmp_path)
  _write(path, good * 48 + 'def h(a, b, c, d, e, f): ...\n')
  assert 'ds_jax/x.py:49: h has 6' in positional_errors(tmp_path)


@pytest.mark.parametrize(
  'code',
  [
    'EXIT_DONE = 0',
    'EXIT_FITS, EXIT_TOO_LARGE = 0, 3',
    'class A:\n  exit_code: int = 2',
    'import sys\nsys.exit(2)',
    'import os\nos._exit(42)',
    'raise SystemExit(1)',
  ],
)
def test_an_exit_code_elsewhere_is_reported(tmp_path, code):
  path = tmp_path / PROJECT / 'cli' / 'x.py'
  _write(path, 'import sys\nsys.exit(main())\nexit_code = stopping.Exit.DONE\nexits = 3')
  _write(tmp_path / EXIT_CODES, code)
  assert not exit_errors(tmp_path)
  _write(path, code)
  assert 'ds_jax/run/stopping.py' in exit_errors(tmp_path)[0]


def _write(path: Path, code: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  ast.parse(code)
  path.write_text(code)
