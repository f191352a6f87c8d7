"""The answer of a finished tree: its first correct end, its best end by q, or a vote of its ends.

Test-time search has many ends and one answer to give. Ends that were masked (garbled texts,
verification failed through our fault) and ends without an answer have no say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ds_jax.types import FinishedTree, Verdict
from ds_jax.verify.extract import last_boxed
from ds_jax.verify.normalize import normalize, parse_rational, squeeze

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
  """The answer of a mathematical response: what its last box holds."""
  return last_boxed(text) or None


def read_whole(text: str) -> str | None:
  """The answer of a response that is one: the embedded task, short texts."""
  return ' '.join(text.split()) or None


def answer_reader(verifier: str) -> Callable[[str], str | None]:
  """How the answer of a response is read whose ends a verifier of this name judges."""
  return read_boxed if verifier == 'math' else read_whole


def find_ends(
  tree: FinishedTree, decode: Callable[[np.ndarray], str], read_answer: Callable[[str], str | None]
) -> list[End]:
  """Ends with an answer: the collected ones in order, then the others as they were created.

  Args:
    tree: the finished tree.
    decode: text of `[n]` int32 tokens; may be hostile.
    read_answer: response text -> its answer, or None.
  """
  ends = []
  for node in tree.ends():
    text = decode(tree.along_path(tree.tokens, node))
    answer = read_answer(text)
    if answer is None:
      continue
    ends.append(
      End(
        node=node,
        text=text,
        answer=answer,
        is_correct=tree.verdict[node] == Verdict.CORRECT.value,
        q=path_quality(tree, tree.path(node)),
        logprob=float(tree.along_path(tree.logprobs, node).mean()),
      )
    )
  return ends


def path_quality(tree: FinishedTree, path: Sequence[int]) -> float:
  """Mean of Q = value_sum / visit_count over the visited nodes of a path, the root left out.

  The visited nodes of an end that was passed over are its ancestors: it is as good as they are.
  """
  nodes = np.asarray(path[1:])
  visits = tree.visit_count[nodes]
  if not (visits > 0).any():
    return 0.0
  return float((tree.value_sum[nodes] / np.maximum(visits, 1))[visits > 0].mean())


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
  text = normalize(answer)
  value = parse_rational(text)
  return squeeze(text) if value is None else str(value)


SELECTIONS: dict[str, Callable[[Sequence[End]], End | None]] = {
  'first_correct': first_correct,
  'best_q': best_q,
  'vote': vote,
}
