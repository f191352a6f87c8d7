"""Several sources in one text: `2*gym:chain_sum?max_terms=3 + file:gsm8k.jsonl`.

Sources are joined by ` + `; `2*` in front of one is its weight, 1 where there is none. Weights say
which share of the places in a batch each has (train/curriculum.py). In metrics and in the ids of
problems a source has a short name: `chain_sum`, `gsm8k`.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
from collections.abc import Sequence

from ds_jax.checks import InputError

KINDS = ('tfds', 'file', 'hf', 'gym')
EMBEDDED = ('countdown', 'chain')  # tasks that need no more than their names
# A ` + ` within the name of a file is followed by something else.
_JOINT = re.compile(
  rf'\s\+\s+(?=(?:[^\s*:]+\s*\*\s*)?(?:(?:{"|".join(EMBEDDED)})\b|(?:{"|".join(KINDS)}):))'
)
_WEIGHT = re.compile(r'([^\s*:?]+?)\s*\*\s*(.*)', re.DOTALL)
_SUFFIXES = ('.jsonl', '.json', '.parquet', '.csv')


@dataclasses.dataclass(frozen=True)
class Part:
  """One of the sources."""

  source: str  # as it would stand alone
  weight: float  # > 0; shares are these over their sum
  name: str  # unique among the parts; '' of a source alone


def parse_sources(text: str) -> tuple[Part, ...]:
  """Returns the sources of config.data.source; one alone has no weight to speak of.

  Raises:
    InputError: if a weight is no number above 0.
  """
  sources, weights, names = [], [], []
  for item in _JOINT.split(text):
    source, weight = _split_weight(item.strip())
    sources.append(source)
    weights.append(weight)
    names.append(_short_name(source))
  if len(sources) == 1:
    return (Part(sources[0], 1.0, ''),)
  parts = []
  for i, (source, weight) in enumerate(zip(sources, weights, strict=True)):
    count = names[: i + 1].count(names[i])
    parts.append(Part(source, weight, f'{names[i]}#{count}' if count > 1 else names[i]))
  return tuple(parts)


def joined(parts: Sequence[Part]) -> str:
  """The text of several sources; `parse_sources` reads the same parts of it."""
  items = []
  for part in parts:
    weight = f'{part.weight:g}' if float(f'{part.weight:g}') == part.weight else f'{part.weight!r}'
    items.append(part.source if part.weight == 1 else f'{weight}*{part.source}')
  return ' + '.join(items)


def _split_weight(item: str) -> tuple[str, float]:
  """A source and its weight."""
  match = _WEIGHT.fullmatch(item)
  if match is None:
    return item, 1.0
  try:
    weight = float(match[1])
  except ValueError:
    weight = math.nan
  if not 0 < weight < math.inf:
    raise InputError(
      f'Expected a number above 0 for the weight of a source, got {match[1]!r} in {item!r}, e.g. '
      "'2*gym:chain_sum + 1*file:gsm8k.jsonl'."
    )
  return match[2], weight


def _short_name(source: str) -> str:
  """What metrics call a source: the task, or the last part of a name or path without its suffix."""
  kind, _, name = source.partition(':')
  if kind == 'gym':
    name = name.partition('?')[0]
  elif kind == 'hf':
    name = name.partition(':')[0]
  base = pathlib.PurePath(name).name or kind
  for suffix in _SUFFIXES:
    base = base.removesuffix(suffix)
  if re.fullmatch(r'[*?\[\]\d.\-]*', base):  # of a pattern: the folder tells more
    base = pathlib.PurePath(name).parent.name or kind
  return re.sub(r'[^\w.\-]+', '_', base)
