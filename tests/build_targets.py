"""The targets of BUILD, read without Bazel: BUILD is run as Python with stand-ins for its rules.

Shared by build_file_test.py (BUILD says what the code does) and imports_test.py (what no BUILD may
say).
"""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Target:
  kind: str  # 'py_library' | 'py_test' | 'py_binary' | 'filegroup'
  name: str
  srcs: tuple[str, ...]  # paths under the root
  deps: tuple[str, ...]  # target names
  is_for_tests: bool  # a py_test, or testonly


def load_build(root: Path) -> dict[str, Target]:
  """Runs BUILD; returns its targets by name, in its order."""
  targets = {}

  def rule(kind):
    def define(name, srcs=(), deps=(), testonly=False, **attributes):
      del attributes
      assert name not in targets, f'BUILD defines {name!r} twice'
      names = tuple(dep.removeprefix(':') for dep in deps)
      targets[name] = Target(kind, name, tuple(srcs), names, testonly or kind == 'py_test')

    return define

  def glob(include, exclude=()):
    paths = {str(path.relative_to(root)) for pattern in include for path in root.glob(pattern)}
    return sorted(path for path in paths if not any(_matches(path, p) for p in exclude))

  kinds = ('py_library', 'py_test', 'py_binary', 'filegroup')
  names = {kind: rule(kind) for kind in kinds} | {'glob': glob}
  names |= dict.fromkeys(('load', 'package', 'exports_files'), lambda *_, **__: None)
  exec(compile((root / 'BUILD').read_text(), 'BUILD', 'exec'), names)
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


def reached_from(name: str, targets: dict[str, Target]) -> set[str]:
  """Targets that `name` depends on, directly or through others."""
  reached, waiting = set(), [name]
  while waiting:
    target = targets.get(waiting.pop())
    for dep in target.deps if target else ():
      if dep not in reached:
        reached.add(dep)
        waiting.append(dep)
  return reached
