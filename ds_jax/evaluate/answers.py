"""The answer of a finished tree: its first correct end, its best end by q, or a vote of its ends.

Test-time search has many ends and one answer to give. Ends that were masked (garbled texts,
verification failed through our fault) and ends without an answer have no say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ds_jax.types import FinishedTree, Verdict
from ds_jax.verify.extract import boxed_answer

MAX_COMPARED = 200  # characters; longer answers are the same only letter by letter


@dataclasses.dataclass(frozen=True)
class End:
  """A finished path that gives an answer."""

  node: int
  text: str  # the whole response
  answer: str  # what it comes to
  is_correct: bool
  q: float  # see `path_quality`
  logprob: float  # mean over the path's tokens


def read_boxed(text: str) -> str | None:
  """The answer of a mathematical response: what its last box holds, with those joined to it."""
  return boxed_answer(text) or None


def read_whole(text: str) -> str | None:
  """The answer of a response that is one: the embedded task, short texts."""
  return ' '.join(text.split()) or None


def find_ends(
  tree: FinishedTree, decode: Callable[[np.ndarray], str], read_answer: Callable[[str], str | None]
) -> list[End]:
  """Ends with an answer: the collected ones in order, then the others as they were created.

  Args:
    tree: the finished tree.
    decode: text of `[n]` int32 tokens; may be hostile.
    read_answer: response text -> its answer, or None.
  """
  masked = {verdict.value for verdict in Verdict if verdict.is_masked}
  collected = tree.collected.tolist()
  others = [i for i in np.flatnonzero(tree.is_terminal).tolist() if i not in set(collected)]
  ends = []
  for node in collected + others:
    if tree.verdict[node] in masked:
      continue
    path = tree.path(node)
    join = lambda values, path=path: np.concatenate([values[tree.node_slice(i)] for i in path])
    text = decode(join(tree.tokens))
    answer = read_answer(text)
    if answer is not None:
      ends.append(
        End(
          node,
          text,
          answer,
          tree.verdict[node] == Verdict.CORRECT.value,
          path_quality(tree, path),
          float(join(tree.logprobs).mean()),
        )
      )
  return ends


def path_quality(tree: FinishedTree, path: Sequence[int]) -> float:
  """Mean of Q = value_sum / visit_count over the visited nodes of a path, the root left out.

  The visited nodes of an end that was passed over are its ancestors: it is as good as they are.
  """
  nodes = np.asarray(path[1:])
  visits = tree.visit_count[nodes]
  return (
    float((tree.value_sum[nodes] / np.maximum(visits, 1))[visits > 0].mean())
    if (visits > 0).any()
    else 0.0
  )


def first_correct(ends: Sequence[End]) -> End | None:
  """The first correct end in order; where there is none (or no answer is known), the vote's."""
  return next((end for end in ends if end.is_correct), None) or vote(ends)


def best_q(ends: Sequence[End]) -> End | None:
  """The end with the highest path quality, the most confident of equals.

  Q holds the verdicts: with a known answer this is no blind guess.
  """
  return max(ends, key=lambda end: (round(end.q, 6), end.logprob), default=None)


def vote(ends: Sequence[End]) -> End | None:
  """The most confident end of the answer that most ends give; of equally many, the same."""
  groups: dict[str, list[End]] = {}
  for end in ends:
    groups.setdefault(compared_form(end.answer), []).append(end)
  confidence = lambda end: end.logprob
  best = max(
    groups.values(), default=None, key=lambda group: (len(group), max(map(confidence, group)))
  )
  return None if best is None else max(best, key=confidence)


def compared_form(answer: str) -> str:
  """Answers of one spelling or one rational value are one answer; nothing is evaluated."""
  if len(answer) > MAX_COMPARED:
    return answer
  from ds_jax.verify.grade_math import equivalence_key

  return equivalence_key(answer)


SELECTIONS: dict[str, Callable[[Sequence[End]], End | None]] = {
  'first_correct': first_correct,
  'best_q': best_q,
  'vote': vote,
}
