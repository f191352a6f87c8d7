"""Pages of the trees of a search: where they are written, and what may be replaced there."""

from __future__ import annotations

import pathlib
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ds_jax.checks import InputError
from ds_jax.report.tree_page import GENERATOR, overview_page, tree_page
from ds_jax.run.disk import is_writable, with_remedy
from ds_jax.run.durable import write_atomically
from ds_jax.run.session import Session

Row = Mapping[str, Any]  # a line of the output of `ds-jax search`


def check_pages(path: str) -> None:
  """Raises InputError if no page can be written there, or it would replace something else."""
  page = pathlib.Path(path)
  if page.is_dir():
    raise InputError(f'{page} is a folder; name a file for --html, e.g. tree.html.')
  if not is_writable(page.parent):
    raise InputError(f'{page.parent} cannot be written; name another file with --html.')
  if page.exists() and not _is_ours(page):
    raise InputError(f'{page} is no page of trees; choose another --html.')


def _is_ours(page: pathlib.Path) -> bool:
  with page.open('rb') as file:
    return GENERATOR.encode() in file.read(1024)


def write_tree(session: Session, path: str, row: Row) -> dict[str, str]:
  """Writes the page of one tree; returns what the summary says of it, see `_told`."""
  return _told(session, path, lambda: _write(pathlib.Path(path), tree_page(row)))


def write_trees(session: Session, path: str, rows: Sequence[Row]) -> dict[str, str]:
  """Writes an overview, and the page of each tree into a folder beside it that is named like it.

  Pages are numbered like `rows`. Returns what the summary says of it, see `_told`.
  """
  overview = pathlib.Path(path)
  folder = overview.with_suffix('')
  digits = len(str(len(rows)))
  names = [f'{number:0{digits}d}.html' for number in range(1, len(rows) + 1)]
  quote = urllib.parse.quote

  def write() -> None:
    for i, row in enumerate(rows):
      links = {'all problems': f'../{quote(overview.name)}'}
      if i > 0:
        links['‹ before'] = names[i - 1]
      if i + 1 < len(rows):
        links['next ›'] = names[i + 1]
      _write(folder / names[i], tree_page(row, links=links))
    addresses = [f'{quote(folder.name)}/{name}' for name in names]
    _write(overview, overview_page(rows, addresses, title=f'Trees of {len(rows):,} problems'))

  return _told(session, path, write)


def _write(path: pathlib.Path, page: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  write_atomically(path, page)


def _told(session: Session, path: str, write: Callable[[], None]) -> dict[str, str]:
  """Writes; returns fields of the summary. A full disk does not lose what the search found."""
  try:
    write()
  except OSError as e:
    error = with_remedy(e)
    session.progress.note(f'ds-jax: {error}')
    return {'status': 'cannot_write', 'error': error}
  session.progress.note(f'Trees to look at: {path}')
  return {'html': path}
