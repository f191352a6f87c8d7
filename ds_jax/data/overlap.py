"""Decontamination: which training problems share 13 words in a row with a benchmark problem.

13-grams of lower-case words and numbers, as in the decontamination of GPT-3 (arXiv:2005.14165,
appendix C). A text of fewer words counts as one gram: it must be there as the whole question.
Overlap is reported and not removed: stock phrases share 13 words as well.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence

from ds_jax.data.layouts import RELEASED_SUFFIX
from ds_jax.types import Problem

GRAM = 13  # words

_WORD = re.compile(r'[^\W_]+')


@dataclasses.dataclass(frozen=True)
class Overlap:
  """A training problem and a benchmark problem that share a gram."""

  problem_id: str
  benchmark_id: str
  share: float  # of the benchmark problem's grams, in (0, 1]


def find_overlaps(problems: Iterable[Problem], benchmark: Sequence[Problem]) -> list[Overlap]:
  """All pairs that share a gram, the largest share first."""
  owners: dict[tuple[str, ...], set[int]] = {}
  sizes = []
  for i, problem in enumerate(benchmark):
    found = set(grams(problem.prompt))
    sizes.append(len(found))
    for gram in found:
      owners.setdefault(gram, set()).add(i)
  overlaps = []
  for problem in problems:
    shared: dict[int, int] = {}
    for gram in set(grams(problem.prompt)) & owners.keys():
      for i in owners[gram]:
        shared[i] = shared.get(i, 0) + 1
    overlaps += [
      Overlap(problem.id, benchmark[i].id, count / sizes[i]) for i, count in shared.items()
    ]
  return sorted(overlaps, key=lambda o: (-o.share, o.problem_id, o.benchmark_id))


def grams(text: str) -> Iterator[tuple[str, ...]]:
  """The 13-grams of a question without its suffix; all of its words if they are fewer."""
  words = _WORD.findall(text.strip().removesuffix(RELEASED_SUFFIX).lower())
  if not words:
    return
  for start in range(max(len(words) - GRAM, 0) + 1):
    yield tuple(words[start : start + GRAM])
