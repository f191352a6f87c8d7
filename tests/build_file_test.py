"""BUILD states what the code does: every file owned once, deps equal to the imports, no cycles.

The same checks run on small broken trees below, to show that each of them can fail.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from build_targets import Target, load_build, owners
from import_graph import FIRST_PARTY, imports_of, module_file, source_files

# Extras whose packages are imported where a person asks for them.
EXTRAS = ('hf', 'gym', 'wandb')
# Distributions that must be installed although we import nothing of theirs, and why.
INDIRECT = {
  'array-record': 'tensorflow-datasets reads and writes its files with it',
  'importlib-resources': 'tensorflow-datasets needs it for builders that live in a package',
  'pytest-xdist': 'launch/test.sh runs pytest with it',
  'ruff': 'layout_test.py runs it',
  'ipykernel': 'colab_test.py runs the notebook with it',
  'nbclient': 'likewise, where it is installed',
  'nbformat': 'likewise',
  'gcsfs': 'jax and orbax open gs:// paths with it',
}


def ownership_errors(root: Path) -> list[str]:
  """Files that no target owns, or several; sources that do not exist; tests without a py_test."""
  targets = load_build(root)
  by_path = owners(targets)
  paths = [str(path.relative_to(root)) for path in source_files(root)]
  tested = {path for t in targets.values() if t.kind == 'py_test' for path in t.srcs}
  errors = []
  for path in paths:
    names = by_path.get(path, [])
    if len(names) != 1:
      errors.append(f'{path}: owned by {names}; list it in srcs of one target')
    if path.endswith('_test.py') and path not in tested:
      errors.append(f'{path}: no py_test; list it in srcs of one')
  for path, names in by_path.items():
    if path not in paths:
      errors.append(f'{path}: in srcs of {names} but not in the tree')
  return errors


def needed_targets(target: Target, owner: dict[str, str], root: Path) -> dict[str, str]:
  """{target that the files of this one import: where the first import stands}; '?' has no owner."""
  needed = {}
  for path in target.srcs:
    if not (root / path).is_file():
      continue  # ownership_errors names it
    for imported in imports_of(root / path, root):
      file = module_file(imported.module, root)
      if file is not None:
        name = owner.get(str(file.relative_to(root)), '?')
        needed.setdefault(name, f'{path}:{imported.line}')
  needed.pop(target.name, None)
  return needed


def lost_modules(target: Target, root: Path) -> list[str]:
  """Imports of modules of ours that do not exist."""
  errors = []
  for path in target.srcs:
    for imported in imports_of(root / path, root) if (root / path).is_file() else ():
      if imported.top in FIRST_PARTY and module_file(imported.module, root) is None:
        errors.append(f'{path}:{imported.line}: no module {imported.module!r}')
  return errors


def dependency_errors(root: Path) -> list[str]:
  """Targets whose deps are not the targets that their files import.

  Tests share one list of deps, so theirs may name more than one of them imports.
  """
  targets = load_build(root)
  owner = {path: names[0] for path, names in owners(targets).items()}
  errors = []
  for target in targets.values():
    if target.kind == 'filegroup':
      continue
    errors += lost_modules(target, root)
    needed = needed_targets(target, owner, root)
    missing = sorted(needed.keys() - set(target.deps))
    unused = [] if target.is_for_tests else sorted(set(target.deps) - needed.keys())
    if missing or unused:
      deps = ', '.join(f'":{name}"' for name in sorted(needed))
      where = ', '.join(f'{name} at {needed[name]}' for name in missing)
      errors.append(
        f'{target.name}: write deps = [{deps}] (missing: {where or "none"}; unused: {unused}), '
        'or move what should not be imported there'
      )
  return errors


def order_errors(targets: dict[str, Target]) -> list[str]:
  """Deps that are no targets, or stand below: BUILD lists the layers from the base upwards.

  So there are no cycles either.
  """
  errors, above = [], set()
  for target in targets.values():
    for dep in target.deps:
      if dep not in targets:
        errors.append(f'{target.name}: no target {dep!r}')
      elif dep not in above:
        errors.append(
          f'{target.name} depends on {dep}, which stands below it in BUILD: a lower layer must not '
          f'import a higher one; move what {target.name} needs down'
        )
    above.add(target.name)
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
    extras = set().union(*(declared.get(name, set()) for name in EXTRAS))
    tests = declared['test'] if relative.startswith('tests/') else set()
    if relative.startswith('ds_jax/examples/'):
      extras |= declared.get('examples', set())
    allowed = declared['core'] | extras | tests
    for imported in imports_of(path, root):
      if imported.top in sys.stdlib_module_names or module_file(imported.module, root):
        continue
      if imported.top in FIRST_PARTY:
        continue  # dependency_errors names it
      providers = {_normalized(d) for d in distributions.get(imported.top, [imported.top])}
      used |= providers
      if not providers & allowed:
        errors.append(
          f'{relative}:{imported.line}: {imported.module} is not in pyproject.toml; '
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


def test_deps_stand_above(root):
  expect_none(order_errors(load_build(root)))


def test_third_party_imports_are_declared(root):
  expect_none(third_party_errors(root))


# The checks can fail: one small tree, broken in one place at a time.

TREE = {
  'BUILD': """
py_library(name = "types", srcs = ["ds_jax/types.py"])
py_library(name = "hub", srcs = ["ds_jax/hub.py"])
py_library(name = "search", srcs = glob(["ds_jax/search/*.py"]), deps = [":types"])
py_test(name = "search_test", srcs = ["tests/search_test.py"], deps = [":search"])
""",
  'pyproject.toml': """
[project]
dependencies = ['numpy>=2', 'rich']
optional-dependencies = { test = ['pytest>=8'] }
""",
  'ds_jax/types.py': 'import dataclasses\nimport numpy as np\n',
  'ds_jax/hub.py': '',
  'ds_jax/search/__init__.py': '',
  'ds_jax/search/tree.py': 'def f():\n  from ds_jax import types\n  import rich.table\n',
  'tests/search_test.py': 'import pytest\nfrom ds_jax.search.tree import f\n',
}


def all_errors(root: Path) -> list[str]:
  return (
    ownership_errors(root)
    + dependency_errors(root)
    + order_errors(load_build(root))
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
    ('BUILD', 'py_test', 'py_library', 'search_test.py: no py_test'),
    ('BUILD', 'deps = [":types"]', 'deps = []', 'missing: types at ds_jax/search/tree.py:2'),
    ('BUILD', 'deps = [":types"]', 'deps = [":types", ":hub"]', "unused: ['hub']"),
    ('BUILD', 'deps = [":search"]', 'deps = []', 'missing: search at tests/search_test.py:2'),
    ('BUILD', 'deps = [":search"]', 'deps = [":lost"]', "no target 'lost'"),
    ('BUILD', '["ds_jax/types.py"]', '["ds_jax/types.py"], deps = [":search"]', 'stands below it'),
    ('ds_jax/types.py', 'import dataclasses', 'import ds_jax.search.tree', 'deps = [":search"]'),
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
  assert any(message in error for error in all_errors(root))


def test_a_test_may_depend_on_more_than_it_imports(tmp_path):
  build = TREE['BUILD'].replace('deps = [":search"]', 'deps = [":search", ":types"]')
  expect_none(all_errors(write_tree(tmp_path, {**TREE, 'BUILD': build})))
