"""Signs that nothing can be learnt, in words: nothing is right, nothing was read, all was cut.

A sign says what is so and what to do; '' where there is none.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ds_jax.config import Config, response_limit
from ds_jax.evaluate.metrics import is_cut_correct
from ds_jax.search.statistics import cut_ends
from ds_jax.types import FinishedTree, Trajectory, Verdict
from ds_jax.verify.verifiers import READERS_OF_BOXES

_UNREAD = frozenset({Verdict.NO_ANSWER.value, Verdict.INCOMPLETE.value})


class Ends(NamedTuple):
  """What became of the finished paths of some trees."""

  verdicts: collections.Counter[str]
  num_cut: int  # cut off at the depth limit, whatever the verdict
  num_cut_correct: int = 0  # those of them with the right answer, whether it pays or not

  @property
  def count(self) -> int:
    return self.verdicts.total()


def ends_of(trees: Iterable[FinishedTree], stop_ids: Collection[int]) -> Ends:
  """Counts the ends of trees, or of rollouts.

  Args:
    trees: any number.
    stop_ids: any of these ids ends a response.
  """
  trees = list(trees)
  verdicts = collections.Counter(v for tree in trees for v in tree.verdict if v is not None)
  num_cut_correct = sum(tree.num_cut_correct(stop_ids) for tree in trees)
  return Ends(verdicts, sum(cut_ends(trees, stop_ids)), num_cut_correct)


def ends_of_rows(rows: Sequence[Mapping[str, Any]]) -> Ends:
  """Counts the ends of rollouts, from the rows of their samples."""
  verdicts = collections.Counter(row['verdict'] for row in rows)
  num_cut_correct = sum(is_cut_correct(row) for row in rows)
  return Ends(verdicts, sum(row['is_cut'] for row in rows), num_cut_correct)


def sign_of_ends(ends: Ends, config: Config) -> str:
  """Returns what is wrong if all ends failed alike, or none is right."""
  count, verdicts = ends.count, ends.verdicts
  if not count or verdicts[Verdict.UNGRADED.value] == count:
    return ''
  num_correct = verdicts[Verdict.CORRECT.value]
  if verdicts[Verdict.ERROR.value] == count:
    return (
      f'Verification failed through our fault for all {count:,} responses (error): the notes above '
      'say why; verify.memory_mb and verify.wall_seconds limit the workers.'
    )
  if ends.num_cut == count or (ends.num_cut_correct and not num_correct):
    return _sign_of_cut(ends, config)
  if num_correct:
    return ''
  if _UNREAD.issuperset(verdicts):
    return _sign_of_unread(count, config.verify.verifier)
  if verdicts[Verdict.TIMEOUT.value] == count:
    return f'All {count:,} verifications took too long (timeout): raise verify.cpu_seconds.'
  if verdicts[Verdict.DEGENERATE.value] == count:
    return (
      f'All {count:,} responses are garbled or repeat themselves (degenerate): see whether '
      'tokenizer, chat template and weights belong together, or lower the temperature.'
    )
  return (
    f'None of {count:,} responses is right ({_listed(verdicts)}): the problems are too hard for '
    'this model, or the verifier does not read its answers. Evaluations keep what it wrote '
    '(WORKDIR/evaluations); `ds-jax grade --explain` says how a pair is decided.'
  )


def sign_of_no_ends(num_trees: int) -> str:
  """Returns what is wrong where trees were grown and none of them has an end."""
  return (
    f'None of {num_trees:,} trees has a finished response: raise search.max_expansions or '
    'search.max_tokens, or lower search.max_depth.'
  )


def sign_of_skips(
  groups: Sequence[Sequence[Trajectory]], config: Config, *, num_updates: int, num_empty: int
) -> str:
  """Returns why a step whose updates were all skipped learnt nothing.

  Args:
    groups: the trajectories of each problem.
    config: of the run.
    num_updates: of the step, all of them skipped.
    num_empty: those of them that had nothing to train on; the gradient of others was not finite.
  """
  reasons = []
  if num_empty:
    reasons.append(f'{num_empty:,} had nothing to train on')
  if num_empty < num_updates:
    reasons.append(
      f'{num_updates - num_empty:,} had a gradient that is not finite '
      f'({config.train.max_skipped} in a row end the run: train.max_skipped)'
    )
  sign = f'Nothing was learnt: of {num_updates:,} updates {", ".join(reasons)}.'
  return f'{sign} {_sign_of_groups(groups, config)}' if num_empty else sign


def _sign_of_groups(groups: Sequence[Sequence[Trajectory]], config: Config) -> str:
  if not groups:
    return (
      f'No problem has right and wrong ends in {config.train.max_refills + 1} batches '
      '(train.max_refills): take easier problems where all is wrong, harder ones where all is '
      'right, or more trajectories (search.num_trajectories).'
    )
  kinds = collections.Counter(map(_kind_of_group, groups))
  sign = f'Of {len(groups):,} problems: {_listed(kinds)}.'
  if config.train.uniform_trees == 'drop' and (kinds[_ALL_WRONG] or kinds[_ALL_RIGHT]):
    sign += (
      ' train.uniform_trees=drop leaves out those without both: take easier problems where all is '
      'wrong, harder ones where all is right, or more trajectories (search.num_trajectories).'
    )
  return sign


_NO_END, _BOTH = 'without a verified end', 'with right and wrong ends'
_ALL_WRONG, _ALL_RIGHT = 'with only wrong ends', 'with only right ends'


def _kind_of_group(group: Sequence[Trajectory]) -> str:
  outcomes = {trajectory.is_correct for trajectory in group}
  if not outcomes:
    return _NO_END
  if len(outcomes) > 1:
    return _BOTH
  return _ALL_RIGHT if True in outcomes else _ALL_WRONG


def _sign_of_cut(ends: Ends, config: Config) -> str:
  """All ends were cut off, or all those that have the right answer."""
  which = 'All' if ends.num_cut == ends.count else f'{ends.num_cut:,} of'
  does_not_count = ''
  if ends.num_cut_correct and not ends.verdicts[Verdict.CORRECT.value]:
    does_not_count = ', which does not count (search.cut_ends)'
  return (
    f'{which} {ends.count:,} responses were cut off at the limit of {response_limit(config):,} '
    f'tokens, {ends.num_cut_correct:,} of them with the right answer{does_not_count}: raise '
    'search.max_depth or search.segment_length, or see whether the model ends its responses '
    '(tokenizer, chat template).'
  )


def _sign_of_unread(count: int, verifier: str) -> str:
  sign = f'verify.verifier={verifier} read no answer in any of {count:,} responses (no_answer): '
  if verifier in READERS_OF_BOXES:
    return sign + (
      'it reads what stands in \\boxed{…}; ask for that by data.instruction, or take a verifier '
      'that fits what the model writes.'
    )
  return sign + 'ask for the form that it reads by data.instruction, or take another verifier.'


def _listed(counts: collections.Counter[str]) -> str:
  """Returns '40 wrong, 20 no_answer', the most frequent first."""
  return ', '.join(f'{count:,} {name}' for name, count in counts.most_common() if count)
