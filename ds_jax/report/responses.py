"""A few responses of an evaluation for people to read: right and wrong ones of each set."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import Any

from ds_jax.types import Verdict

Row = Mapping[str, Any]  # of evaluate/samples.py


def choose_responses(rows: Iterable[Row], count: int) -> list[Row]:
  """Returns the first right and the first wrong responses of each set, of different problems.

  Responses that could not be verified through our fault are neither.

  Args:
    rows: the samples of an evaluation, in any order; they are read once and not kept.
    count: right responses of a set, and wrong ones likewise.
  """
  chosen: dict[tuple[str, bool], dict[str, Row]] = collections.defaultdict(dict)
  for row in rows:
    is_right = row['verdict'] == Verdict.CORRECT.value
    group = chosen[row.get('set', ''), not is_right]
    is_new = row['verdict'] != Verdict.ERROR.value and row['id'] not in group
    if is_new and len(group) < count:
      group[row['id']] = row
  return [row for key in sorted(chosen) for row in chosen[key].values()]
