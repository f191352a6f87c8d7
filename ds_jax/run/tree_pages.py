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


def page_writer(session: Session, path: str, *, is_overview: bool) -> Callable[..., dict[str, str]]:
  """Returns a function of rows that writes their pages, and returns what the summary says of them.

  A failure to write is told and stands in the summary: a full disk does not lose what the search
  found.

  Args:
    session: of the search.
    path: of the page, or of the overview beside which a folder of the same name has the pages.
    is_overview: else there is one row.

  Raises:
    InputError: if no page can be written there, or it would replace something else.
  """
  _check(pathlib.Path(path), is_overview=is_overview)
  write = _write_overview if is_overview else _write_tree

  def show(rows: Sequence[Row]) -> dict[str, str]:
    try:
      write(pathlib.Path(path), rows)
    except OSError as e:
      error = with_remedy(e)
      session.progress.note(f'ds-jax: {error}')
      return {'status': 'cannot_write', 'error': error}
    session.progress.note(f'Trees to look at: {path}')
    return {'html': path}

  return show


def _check(page: pathlib.Path, *, is_overview: bool) -> None:
  if page.is_dir():
    raise InputError(f'{page} is a folder; name a file for --html, e.g. tree.html.')
  if not is_writable(page.parent):
    raise InputError(f'{page.parent} cannot be written; name another file with --html.')
  replaced = [page] if page.exists() else []
  if is_overview:
    folder = page.with_suffix('')
    if folder.exists() and not folder.is_dir():
      raise InputError(f'{folder} is a file, and the pages are to stand there; rename --html.')
    replaced += folder.glob('*.html')
  for other in replaced:
    if not _is_ours(other):
      raise InputError(f'{other} is no page of trees; choose another --html.')


def _is_ours(page: pathlib.Path) -> bool:
  with page.open('rb') as file:
    return GENERATOR.encode() in file.read(1024)


def _write_tree(page: pathlib.Path, rows: Sequence[Row]) -> None:
  (row,) = rows
  _write(page, tree_page(row))


def _write_overview(overview: pathlib.Path, rows: Sequence[Row]) -> None:
  """Pages are numbered like `rows`; each links to those beside it."""
  folder, quote = overview.with_suffix(''), urllib.parse.quote
  digits = len(str(len(rows)))
  names = [f'{number:0{digits}d}.html' for number in range(1, len(rows) + 1)]
  for i, row in enumerate(rows):
    links = {'all problems': f'../{quote(overview.name)}'}
    if i > 0:
      links['‹ before'] = names[i - 1]
    if i + 1 < len(rows):
      links['next ›'] = names[i + 1]
    _write(folder / names[i], tree_page(row, links=links))
  addresses = [f'{quote(folder.name)}/{name}' for name in names]
  _write(overview, overview_page(rows, addresses, title=f'Trees of {len(rows):,} problems'))


def _write(path: pathlib.Path, page: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  write_atomically(path, page)
