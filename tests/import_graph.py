"""What every Python file imports, read from its syntax tree; nothing is run.

Shared by imports_test.py, build_file_test.py (BUILD's deps) and layout_test.py.
Imports inside functions and under TYPE_CHECKING count, and so do the lazy names of a module-level
`_EXPORTS` dict and `importlib.import_module('literal')`.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

PROJECT = 'ds_jax'
FIRST_PARTY = (PROJECT, 'configs', 'tests')


@dataclasses.dataclass(frozen=True)
class Import:
  """One imported module."""

  module: str  # 'ds_jax.search.tree', 'numpy', …
  line: int
  is_lazy: bool  # inside a function or in _EXPORTS: not when the file is imported
  is_typing: bool  # under `if TYPE_CHECKING:`: never at run time

  @property
  def top(self) -> str:
    return self.module.split('.')[0]


def source_files(root: Path) -> list[Path]:
  """Every Python file of the project under `root`, sorted."""
  return sorted(path for folder in FIRST_PARTY for path in (root / folder).rglob('*.py'))


def module_name(path: Path, root: Path) -> str:
  """'ds_jax.search' for ds_jax/search/__init__.py, 'ds_jax.cli' for ds_jax/cli.py."""
  parts = path.relative_to(root).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def module_file(module: str, root: Path) -> Path | None:
  """The file of a first-party module; None if there is none."""
  base = root.joinpath(*module.split('.'))
  # tests/ is on the path while pytest runs, tests/benchmarks/ while one of its scripts does, and
  # configs/ while one of its files is read: what lies there is imported by its bare name.
  bases = [base]
  if module.split('.')[0] not in FIRST_PARTY:
    bases = [root / folder / module for folder in ('tests', 'tests/benchmarks', 'configs')]
  candidates = [c for b in bases for c in (b.with_suffix('.py'), b / '__init__.py')]
  return next((c for c in candidates if c.is_file()), None)


def imports_of(path: Path, root: Path) -> list[Import]:
  """Every module that the file imports; `from package import module` counts as that module."""
  imports = []
  for node, is_lazy, is_typing in _walk(parse(path), False, False):
    imports += _imports_at(node, is_lazy, is_typing, path, root)
  return imports


def parse(path: Path) -> ast.Module:
  """The syntax tree of a file."""
  return _parse(path.read_bytes(), str(path))


@functools.lru_cache(maxsize=1024)
def _parse(source: bytes, filename: str) -> ast.Module:
  return ast.parse(source, filename=filename)


def _walk(node: ast.AST, is_lazy: bool, is_typing: bool) -> Iterator[tuple[ast.AST, bool, bool]]:
  """Every node with whether it is in a function, and whether it is for type checkers only."""
  yield node, is_lazy, is_typing
  if isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(node.test):
    for child in node.body:
      yield from _walk(child, is_lazy, True)
    for child in node.orelse:
      yield from _walk(child, is_lazy, is_typing)
    return
  is_lazy = is_lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
  for child in ast.iter_child_nodes(node):
    yield from _walk(child, is_lazy, is_typing)


def _imports_at(
  node: ast.AST, is_lazy: bool, is_typing: bool, path: Path, root: Path
) -> list[Import]:
  if isinstance(node, ast.Import):
    modules = [alias.name for alias in node.names]
  elif isinstance(node, ast.ImportFrom):
    modules = _from_modules(node, path, root)
  elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '_EXPORTS':
    modules, is_lazy = sorted(set(ast.literal_eval(node.value).values())), True
  elif (
    isinstance(node, ast.Call)
    and ast.unparse(node.func).endswith('import_module')
    and isinstance(node.args[0], ast.Constant)
  ):
    modules = [node.args[0].value]
  else:
    modules = []
  return [Import(m, node.lineno, is_lazy, is_typing) for m in modules if m != '__future__']


def _from_modules(node: ast.ImportFrom, path: Path, root: Path) -> list[str]:
  module = node.module or ''
  if node.level:
    package = path.relative_to(root).parent.parts
    module = '.'.join([*package[: len(package) - node.level + 1], *module.split('.')]).strip('.')
  names = [f'{module}.{alias.name}' for alias in node.names]
  modules = [name if module_file(name, root) else module for name in names]
  return sorted(set(modules))
