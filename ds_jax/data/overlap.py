"""Decontamination: which training problems share 13 words in a row with a benchmark problem.

13-grams of lower-case words and numbers, as in the decontamination of GPT-3 (arXiv:2005.14165,
appendix C). A text of fewer words counts as one gram: it must be there as the whole question.
Overlap is reported and not removed: stock phrases share 13 words as well.
"""

from __future__ import annotations

import collections
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
  """Finds all pairs that share a gram, the largest share first."""
  owners: dict[tuple[str, ...], set[int]] = {}  # {gram: indices in the benchmark}
  num_grams = []
  for i, problem in enumerate(benchmark):
    distinct_grams = set(grams(problem.prompt))
    num_grams.append(len(distinct_grams))
    for gram in distinct_grams:
      owners.setdefault(gram, set()).add(i)
  overlaps = []
  for problem in problems:
    num_shared: collections.Counter[int] = collections.Counter()
    for gram in owners.keys() & set(grams(problem.prompt)):
      num_shared.update(owners[gram])
    for i, count in num_shared.items():
      overlaps.append(Overlap(problem.id, benchmark[i].id, share=count / num_grams[i]))
  return sorted(overlaps, key=lambda o: (-o.share, o.problem_id, o.benchmark_id))


def shared_questions(problems: Iterable[Problem], held_out: Iterable[Problem]) -> list[Problem]:
  """Held-out problems whose questions are training questions, whatever their case and space."""
  questions = {normal_question(problem.prompt) for problem in problems}
  return [problem for problem in held_out if normal_question(problem.prompt) in questions]


def normal_question(text: str) -> str:
  """A question without what makes no other one of it: case and white space."""
  return ' '.join(text.split()).casefold()


def grams(text: str) -> Iterator[tuple[str, ...]]:
  """Yields the 13-grams of a question without its suffix; all of its words if they are fewer."""
  words = _WORD.findall(text.strip().removesuffix(RELEASED_SUFFIX).lower())
  if not words:
    return
  for start in range(max(len(words) - GRAM, 0) + 1):
    yield tuple(words[start : start + GRAM])
