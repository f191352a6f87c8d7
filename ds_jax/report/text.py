"""Numbers, times and hostile text for people to read. Standard library only."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping
from typing import Any


def visible(text: str, *, keep: str = '') -> str:
  r"""Returns `text` with every unprintable character written as an escape (\n, \x1b, \u202e).

  Model output may hold terminal escapes, text-direction overrides or halves of characters; none of
  them reaches a terminal or a page. Characters in `keep` pass.
  """

  def shown(character: str) -> str:
    if character.isprintable() or character in keep:
      return character
    return character.encode('unicode_escape').decode()

  return ''.join(map(shown, text))


def escaped(value: Any) -> str:
  """Returns a value as text for HTML: escaped, unprintable characters visible; line breaks stay."""
  return html.escape(visible(str(value), keep='\n'))


def shorten(text: str, limit: int) -> str:
  """Returns `text` cut to `limit` characters; the end stays, since answers stand there."""
  if len(text) <= limit:
    return text
  head = (limit - 1) * 2 // 3
  tail = limit - 1 - head
  return f'{text[:head]}…{text[len(text) - tail :]}'


def number(value: float | int | str) -> str:
  """Returns '12,345', '0.0123', '1.2e-07'; text as it is, with unprintable characters escaped."""
  if isinstance(value, str):
    return visible(value)
  if isinstance(value, int):
    return f'{value:,}'
  if not math.isfinite(value):
    return str(value)
  if 1000 <= abs(value) < 1e12:
    return f'{value:,.0f}'
  return f'{value:.3g}'


def percent(share: float | None) -> str:
  """Returns '11.3 %' of 0.113; '–' of None."""
  return or_dash(share, lambda x: f'{100 * x:.1f} %')


def or_dash(value: Any, write: Callable[[Any], str]) -> str:
  """Returns `write(value)`; '–' of None."""
  return '–' if value is None else write(value)


def duration(seconds: float) -> str:
  """Returns '3.2 s', '4 min 05 s', '2 h 05 min'."""
  if seconds < 59.95:
    return f'{seconds:.1f} s'
  minutes, seconds = divmod(round(seconds), 60)
  if minutes < 60:
    return f'{minutes} min {seconds:02d} s'
  hours, minutes = divmod(minutes, 60)
  return f'{hours} h {minutes:02d} min'


def fields_line(fields: Mapping[str, float | int | str]) -> str:
  """Returns 'solved 5 · tokens/s 4,210' for the fields of a progress update."""
  parts = []
  for name, value in fields.items():
    parts.append(f'{visible(name).replace("_", " ")} {number(value)}')
  return ' · '.join(parts)


def phase_state(
  completed: int,
  total: int | None,
  elapsed: float,
  *,
  fields: Mapping[str, float | int | str],
  is_done: bool,
) -> str:
  """Returns '34/60 (57 %) · 1 min 02 s elapsed · 47.1 s left · solved 12'.

  Args:
    completed: units done.
    total: of units; None: unknown.
    elapsed: seconds.
    fields: what is shown beside the count.
    is_done: the phase has ended.
  """
  count = f'{completed:,}'
  if total is not None:
    count += f'/{total:,}'
  if total:
    count += f' ({100 * completed / total:.0f} %)'
  parts = [count, f'done in {duration(elapsed)}' if is_done else f'{duration(elapsed)} elapsed']
  if not is_done and total and 0 < completed < total:  # the time left at the pace so far
    parts.append(f'{duration(elapsed / completed * (total - completed))} left')
  if fields:
    parts.append(fields_line(fields))
  return ' · '.join(parts)
