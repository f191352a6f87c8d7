"""BUILD states what the code does: every file owned once, deps equal to the imports, no cycles.

BUILD is run as Python with stand-ins for Bazel's rules, so no Bazel is needed. The same checks run
on small broken trees below, to show that each of them can fail.
"""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from import_graph import FIRST_PARTY, imports_of, module_file, source_files

# Distributions that must be installed although we import nothing of theirs, and why.
INDIRECT = {
  'array-record': 'tensorflow-datasets reads and writes its files with it',
  'jinja2': "transformers' chat templates are written in it",
  'importlib-resources': 'tensorflow-datasets needs it for builders that live in a package',
  'pytest-xdist': 'launch/test.sh runs pytest with it',
  'ruff': 'run by hand',
  'gcsfs': 'jax and orbax open gs:// paths with it',
}


@dataclasses.dataclass(frozen=True)
class Target:
  kind: str  # 'py_library' | 'py_test' | 'py_binary' | 'filegroup'
  name: str
  srcs: tuple[str, ...]  # paths under the root
  deps: frozenset[str]  # target names


def load_build(root: Path) -> dict[str, Target]:
  """Runs BUILD with stand-ins for its rules; returns its targets by name."""
  targets = {}

  def rule(kind):
    def define(name, srcs=(), deps=(), **attributes):
      del attributes
      assert name not in targets, f'BUILD defines {name!r} twice'
      targets[name] = Target(kind, name, tuple(srcs), frozenset(d.removeprefix(':') for d in deps))

    return define

  def glob(include, exclude=()):
    paths = (str(p.relative_to(root)) for pattern in include for p in root.glob(pattern))
    return sorted({p for p in paths if not any(_matches(p, pattern) for pattern in exclude)})

  kinds = ('py_library', 'py_test', 'py_binary', 'filegroup')
  ignored = dict.fromkeys(('load', 'package', 'exports_files'), lambda *_, **__: None)
  rules = {kind: rule(kind) for kind in kinds}
  exec(compile((root / 'BUILD').read_text(), 'BUILD', 'exec'), {**rules, **ignored, 'glob': glob})
  return targets


def _matches(path: str, pattern: str) -> bool:
  return fnmatch.fnmatch(path, pattern.replace('**/', '*'))


def owners(targets: dict[str, Target]) -> dict[str, list[str]]:
  """{path: names of the Python targets that list it}."""
  by_path = collections.defaultdict(list)
  for target in targets.values():
    if target.kind != 'filegroup':
      for path in target.srcs:
        by_path[path].append(target.name)
  return by_path


def ownership_errors(root: Path) -> list[str]:
  """Files that no target owns, or several; sources that do not exist; tests without a py_test."""
  targets = load_build(root)
  by_path = owners(targets)
  paths = [str(path.relative_to(root)) for path in source_files(root)]
  errors = [
    f'{path}: owned by {by_path.get(path, [])}; list it in srcs of one target'
    for path in paths
    if len(by_path.get(path, [])) != 1
  ]
  errors += [
    f'{path}: in srcs of {names} but not in the tree'
    for path, names in by_path.items()
    if path not in paths
  ]
  tested = {path for t in targets.values() if t.kind == 'py_test' for path in t.srcs}
  return errors + [
    f'{path}: no py_test; add "{Path(path).stem}" to TESTS'
    for path in paths
    if path.endswith('_test.py') and path not in tested
  ]


def dependency_errors(root: Path) -> list[str]:
  """Targets whose deps are not the targets that their files import."""
  targets = load_build(root)
  owner = {path: names[0] for path, names in owners(targets).items()}
  errors = []
  for target in targets.values():
    if target.kind == 'filegroup':
      continue
    needed = set()
    for path in target.srcs:
      if not (root / path).is_file():
        continue  # ownership_errors names it
      for found in imports_of(root / path, root):
        file = module_file(found.module, root)
        if file is not None:
          needed.add(owner.get(str(file.relative_to(root)), '?'))
        elif found.top in FIRST_PARTY:
          errors.append(f'{path}:{found.line}: no module {found.module!r}')
    if needed - {target.name} != target.deps:
      deps = ', '.join(f'":{name}"' for name in sorted(needed - {target.name}))
      errors.append(
        f'{target.name}: write deps = [{deps}] '
        f'(missing {sorted(needed - {target.name} - target.deps)}, '
        f'unused {sorted(target.deps - needed)})'
      )
  return errors


def cycle_errors(targets: dict[str, Target]) -> list[str]:
  """Targets that depend on themselves through others, and deps that are no targets."""
  errors, done = [], set()

  def visit(name, trail):
    if name in trail:
      errors.append(' -> '.join([*trail[trail.index(name) :], name]))
    elif name not in targets:
      errors.append(f'{trail[-1]}: no target {name!r}')
    elif name not in done:
      for dep in sorted(targets[name].deps):
        visit(dep, [*trail, name])
      done.add(name)

  for name in targets:
    visit(name, [])
  return errors


def _normalized(name: str) -> str:
  return re.sub(r'[-_.]+', '-', name).lower()


def declared_packages(root: Path) -> dict[str, set[str]]:
  """{'core': distributions of [project] dependencies, extra: …}, names normalized."""
  project = tomllib.loads((root / 'pyproject.toml').read_text())['project']
  groups = {'core': project['dependencies'], **project.get('optional-dependencies', {})}
  return {
    group: {_normalized(re.match(r'[\w.-]+', requirement).group()) for requirement in requirements}
    for group, requirements in groups.items()
  }


def third_party_errors(root: Path) -> list[str]:
  """Imported packages that pyproject.toml does not declare, and declared ones nobody imports."""
  declared = declared_packages(root)
  distributions = importlib.metadata.packages_distributions()
  errors, used = [], set()
  for path in source_files(root):
    relative = str(path.relative_to(root))
    extras = declared.get('hf', set()) | declared.get('gym', set())  # imported where asked for
    tests = declared['test'] if relative.startswith('tests/') else set()
    allowed = declared['core'] | extras | tests
    for found in imports_of(path, root):
      if found.top in sys.stdlib_module_names or module_file(found.module, root):
        continue
      if found.top in FIRST_PARTY:
        continue  # dependency_errors names it
      providers = {_normalized(d) for d in distributions.get(found.top, [found.top])}
      used |= providers
      if not providers & allowed:
        errors.append(
          f'{relative}:{found.line}: {found.module} is not in pyproject.toml; '
          f'declare one of {sorted(providers)}'
        )
  unused = (declared['core'] | declared['test']) - used - set(INDIRECT)
  return errors + [
    f'pyproject.toml: nothing imports {name}; remove it, or say why in INDIRECT'
    for name in sorted(unused)
  ]


def expect_none(errors: list[str]) -> None:
  if errors:
    pytest.fail('\n'.join(errors), pytrace=False)


def test_every_file_is_owned_once(root):
  expect_none(ownership_errors(root))


def test_deps_are_the_imports(root):
  expect_none(dependency_errors(root))


def test_no_cycles(root):
  expect_none(cycle_errors(load_build(root)))


def test_third_party_imports_are_declared(root):
  expect_none(third_party_errors(root))


# The checks can fail: one small tree, broken in one place at a time.

TREE = {
  'BUILD': """
py_library(name = "types", srcs = ["ds_jax/types.py"])
py_library(name = "search", srcs = glob(["ds_jax/search/*.py"]), deps = [":types"])
py_test(name = "search_test", srcs = ["tests/search_test.py"], deps = [":search"])
""",
  'pyproject.toml': """
[project]
dependencies = ['numpy>=2', 'rich']
optional-dependencies = { test = ['pytest>=8'] }
""",
  'ds_jax/types.py': 'import dataclasses\nimport numpy as np\n',
  'ds_jax/search/__init__.py': '',
  'ds_jax/search/tree.py': 'def f():\n  from ds_jax import types\n  import rich.table\n',
  'tests/search_test.py': 'import pytest\nfrom ds_jax.search.tree import f\n',
}


def all_errors(root: Path) -> list[str]:
  return (
    ownership_errors(root)
    + dependency_errors(root)
    + cycle_errors(load_build(root))
    + third_party_errors(root)
  )


def write_tree(root: Path, files: dict[str, str]) -> Path:
  for name, text in files.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  return root


def test_sound_tree_passes(tmp_path):
  expect_none(all_errors(write_tree(tmp_path, TREE)))


@pytest.mark.parametrize(
  ('name', 'old', 'new', 'message'),
  [
    ('BUILD', 'srcs = ["ds_jax/types.py"]', 'srcs = []', 'ds_jax/types.py: owned by []'),
    ('BUILD', 'glob(["ds_jax/search/*.py"])', 'glob(["ds_jax/**/*.py"])', "['types', 'search']"),
    ('BUILD', '"ds_jax/types.py"', '"ds_jax/types.py", "ds_jax/gone.py"', 'not in the tree'),
    ('BUILD', 'py_test', 'py_library', 'add "search_test" to TESTS'),
    ('BUILD', ', deps = [":types"]', '', "missing ['types']"),
    ('BUILD', 'deps = [":search"]', 'deps = [":search", ":types"]', "unused ['types']"),
    ('BUILD', 'deps = [":search"]', 'deps = [":lost"]', "no target 'lost'"),
    ('ds_jax/types.py', 'import dataclasses', 'import ds_jax.search.tree', 'search -> types'),
    ('ds_jax/types.py', 'import dataclasses', 'import ds_jax.lost', "no module 'ds_jax.lost'"),
    ('ds_jax/types.py', 'numpy as np', 'sympy, numpy', 'sympy is not in pyproject.toml'),
    ('ds_jax/types.py', 'import dataclasses', 'import pytest', 'types.py:1: pytest is not in'),
    (
      'ds_jax/types.py',
      'import dataclasses',
      'from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  from ds_jax.search.tree import f',
      'types: write deps = [":search"]',
    ),
    (
      'ds_jax/types.py',
      'import dataclasses',
      "_EXPORTS = {'f': 'ds_jax.search.tree'}",
      'types: write deps = [":search"]',
    ),
    ('pyproject.toml', "'rich'", "'rich', 'optax'", 'nothing imports optax'),
  ],
)
def test_broken_tree_is_reported(tmp_path, name, old, new, message):
  assert old in TREE[name]
  root = write_tree(tmp_path, {**TREE, name: TREE[name].replace(old, new)})
  if message == 'search -> types':  # the cycle needs BUILD to agree with the imports
    root.joinpath('BUILD').write_text(
      TREE['BUILD'].replace('["ds_jax/types.py"]', '["ds_jax/types.py"], deps = [":search"]')
    )
  assert any(message in error for error in all_errors(root))
