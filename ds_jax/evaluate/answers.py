"""The answer of a finished tree: its first correct end, its best end by Q, or a vote of its ends.

Test-time search has many ends and one answer to give. Ends that were masked (garbled texts,
verification failed through our fault) and ends without an answer have no say.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ds_jax.types import FinishedTree, Verdict
from ds_jax.verify import extract

MAX_COMPARED = 200  # characters; longer answers are the same only letter by letter
MAX_SPELLINGS = 16  # of one vote that the verifier compares with one another, the most frequent

# From answers to their classes: the same number for those that are one answer.
GroupAnswers = Callable[[Sequence[str]], list[int]]


@dataclasses.dataclass(frozen=True)
class End:
  """A finished path that gives an answer."""

  node: int
  text: str  # the whole response
  answer: str  # what the text comes to
  is_correct: bool
  q: float  # see `path_quality`
  logprob: float  # mean over the path's tokens


def read_boxed(text: str) -> str | None:
  """Returns the answer of a mathematical response: its last box, with those joined to it."""
  return extract.boxed_answer(text) or None


def read_whole(text: str) -> str | None:
  """Returns a response that is nothing but its answer, with single spaces; None if it is blank."""
  return ' '.join(text.split()) or None


def read_bare(text: str) -> str | None:
  """Returns the answer of a mathematical response that need not be boxed."""
  return extract.final_answer(text) or None


def read_last_number(text: str) -> str | None:
  """Returns the last number of a response."""
  return extract.last_number(text) or None


_READERS = {'math': read_boxed, 'math_bare': read_bare, 'last_number': read_last_number}


def answer_reader(verifier: str) -> Callable[[str], str | None]:
  """How the answer of a response is read whose ends a verifier of this name judges."""
  return _READERS.get(verifier, read_whole)


def find_ends(
  tree: FinishedTree, decode: Callable[[np.ndarray], str], read_answer: Callable[[str], str | None]
) -> list[End]:
  """Returns the ends that give an answer: collected ones in order, then others by creation.

  Args:
    tree: the finished tree.
    decode: returns the text of `[n]` int32 tokens; it may be hostile.
    read_answer: returns the answer of a response text, or None.
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
  """Returns the mean of Q = value_sum / visit_count over a path's visited nodes but the root.

  The visited nodes of an end that was passed over are its ancestors: it is as good as they are.
  A path without a visited node has quality 0.
  """
  nodes = np.asarray(path[1:])
  visits = tree.visit_count[nodes]
  if not (visits > 0).any():
    return 0.0
  return float((tree.value_sum[nodes] / np.maximum(visits, 1))[visits > 0].mean())


def first_correct(ends: Sequence[End], group_answers: GroupAnswers | None = None) -> End | None:
  """Returns the first correct end; where there is none, or no answer is known, the vote's."""
  for end in ends:
    if end.is_correct:
      return end
  return vote(ends, group_answers)


def best_q(ends: Sequence[End], group_answers: GroupAnswers | None = None) -> End | None:
  """Returns the end with the highest path quality, of equals the most confident one.

  Q holds the verdicts, so this is no blind guess where the gold answer is known.
  """
  del group_answers  # nobody votes
  return max(ends, key=lambda end: (round(end.q, 6), end.logprob), default=None)


def vote(ends: Sequence[End], group_answers: GroupAnswers | None = None) -> End | None:
  """Returns the most confident end of the answer that most ends give.

  Of answers that equally many ends give, the one with the most confident end wins.

  Args:
    ends: of one problem.
    group_answers: says which answers are one; default: `group_equal`.
  """
  classes = (group_answers or group_equal)([end.answer for end in ends])
  groups: dict[int, list[End]] = {}
  for answer_class, end in zip(classes, ends, strict=True):
    groups.setdefault(answer_class, []).append(end)
  if not groups:
    return None
  candidates = [(len(group), max(group, key=_confidence)) for group in groups.values()]
  _, winner = max(candidates, key=lambda candidate: (candidate[0], _confidence(candidate[1])))
  return winner


def answer_grouper(verifier: str) -> GroupAnswers:
  """How answers are grouped for a vote that a verifier of this name judges."""
  return group_equal if verifier in _READERS else group_spellings


def group_spellings(answers: Sequence[str]) -> list[int]:
  """Classes of answers of one `compared_form`, numbered by their first members."""
  classes: dict[str, int] = {}
  return [classes.setdefault(compared_form(answer), len(classes)) for answer in answers]


def group_equal(answers: Sequence[str]) -> list[int]:
  """Classes of answers that the verifier `math` holds equal.

  Spellings of one form are one class at once. The MAX_SPELLINGS most frequent of the others, of
  which few decide a vote, are compared with one another: some 0.01 s per problem, however many
  samples it has, and a few seconds if all are different integrals and series.
  """
  spellings = group_spellings(answers)
  members = dict(zip(reversed(spellings), reversed(answers), strict=True))  # the first of each
  counts = collections.Counter(i for i in spellings if len(members[i]) <= MAX_COMPARED)
  compared = sorted(spelling for spelling, _ in counts.most_common(MAX_SPELLINGS))
  if len(compared) < 2:
    return spellings
  from ds_jax.verify.grade_math import group_answers

  classes = group_answers([members[spelling] for spelling in compared])
  first: dict[int, int] = {}  # class: the first spelling in it
  merged = {}
  for spelling, answer_class in zip(compared, classes, strict=True):
    merged[spelling] = first.setdefault(answer_class, spelling)
  return [merged.get(spelling, spelling) for spelling in spellings]


def compared_form(answer: str) -> str:
  """Returns a form that answers of one spelling or one rational value share.

  Nothing is evaluated, and answers of more than MAX_COMPARED characters stay as they are.
  """
  if len(answer) > MAX_COMPARED:
    return answer
  from ds_jax.verify.grade_math import equivalence_key

  return equivalence_key(answer)


def _confidence(end: End) -> float:
  return end.logprob


SELECTIONS: dict[str, Callable[[Sequence[End], GroupAnswers | None], End | None]] = {
  'first_correct': first_correct,
  'best_q': best_q,
  'vote': vote,
}
