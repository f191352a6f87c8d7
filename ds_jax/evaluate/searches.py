"""Trees of test-time search in numbers: a row for each, and what all of them come to.

The columns are those of the paper's Table 3; U/x says by depth where ends of a tree disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ds_jax.evaluate import answers
from ds_jax.search import statistics
from ds_jax.search.decode_cost import DecodeCost
from ds_jax.search.policies.fork_law import RatioInterval, ratio_interval, split_table
from ds_jax.types import FinishedTree, Problem

# Columns of the paper's Table 3, one number per tree; mean and deviation are over trees.
TABLE = (
  'search_depth',
  'trajectory_entropy',
  'trajectory_reward',
  'iterations',
  'time_per_iteration',
  'time_per_tree',
)
Row = dict[str, Any]


def answers_of(
  tree: FinishedTree, decode: Callable[[np.ndarray], str], *, verifier: str, is_graded: bool
) -> dict[str, dict[str, Any] | None]:
  """The end that each rule of answers.SELECTIONS chooses; None where there is no answer.

  Args:
    tree: the finished tree.
    decode: text of `[n]` int32 tokens.
    verifier: its name; it says how an answer is read.
    is_graded: whether the right answer is known.
  """
  ends = answers.find_ends(tree, decode, answers.answer_reader(verifier))
  group_answers = answers.answer_grouper(verifier)
  chosen: dict[str, dict[str, Any] | None] = {}
  for rule, choose in answers.SELECTIONS.items():
    end = choose(ends, group_answers)
    chosen[rule] = None if end is None else _end_fields(end, is_graded)
  return chosen


def tree_row(
  tree: FinishedTree,
  problem: Problem,
  chosen: dict[str, dict[str, Any] | None],
  *,
  select: str,
  seconds: float,
  max_depth: int,
  stop_ids: Collection[int],
) -> Row:
  """What a line of the output says of a tree, as plain values.

  Args:
    tree: the finished tree.
    problem: what it was grown for; an empty answer is not known. Whether it was solved before is in
      its metadata, if it came from the lines of an earlier search.
    chosen: see `answers_of`.
    select: the rule that gives the answer.
    seconds: from the tree's start to its end.
    max_depth: of the search.
    stop_ids: any of these ids ends a response.
  """
  is_cut = statistics.cut_ends([tree], stop_ids)
  pairs, disagreements, tokens_left = split_table(tree, max_depth)
  was_solved = problem.metadata.get('is_solved')
  return {
    'id': problem.id,
    'question': problem.prompt,
    'gold': problem.answer or None,
    'is_solved': tree.is_solved if problem.answer else None,
    'selected': chosen[select],
    'answers': chosen,
    'table': table_row(tree, seconds),
    'num_ends': len(is_cut),
    'num_cut': sum(is_cut),
    'num_cut_correct': tree.num_cut_correct(stop_ids),
    'pairs': pairs.astype(int).tolist(),
    'disagreements': disagreements.astype(int).tolist(),
    'tokens_left': tokens_left.tolist(),
    'was_solved': was_solved if isinstance(was_solved, bool) else None,
  }


def table_row(tree: FinishedTree, seconds: float) -> dict[str, float | None]:
  """The columns of TABLE for one tree; None where it collected nothing.

  Depth (segments), reward and policy entropy (nats a token) are means over the collected ends;
  an iteration is an expansion; times are seconds of the clock, during which other trees grew too.
  """
  ends = tree.collected
  entropies = [tree.along_path(tree.entropies, end).mean() for end in ends.tolist()]
  iterations = tree.statistics['expansions']
  return {
    'search_depth': _mean(tree.depth[ends]),
    'trajectory_entropy': _mean(entropies),
    'trajectory_reward': _mean(tree.reward[ends]),
    'iterations': iterations,
    'time_per_iteration': seconds / max(iterations, 1),
    'time_per_tree': seconds,
  }


def summarize_trees(rows: Sequence[Row], cost: DecodeCost) -> dict[str, Any]:
  """Mean and deviation of every column of TABLE over trees, U/x by depth, and how many are right.

  `accuracy/RULE` is over problems with a known answer, for each rule of choosing one. U/x is there
  in tokens (`u_over_x`) and in predicted time (`u_over_x_time`), each with the bounds of its
  interval; of problems that were or were not solved before as well (`unsolved_u_over_x` and so on),
  where that is known.

  Args:
    rows: from `tree_row`, each with its `tree` as plain values.
    cost: of a token.
  """
  graded = [row for row in rows if row['gold'] is not None]
  figures = split_figures(rows, cost)
  total = lambda name: sum(row['tree']['statistics'].get(name) or 0 for row in rows)
  accuracy = {f'accuracy/{rule}': _accuracy(graded, rule) for rule in answers.SELECTIONS}
  table = {name: _mean_and_deviation([row['table'][name] for row in rows]) for name in TABLE}
  return {
    'num_problems': len(rows),
    'num_graded': len(graded),
    'num_solved': sum(row['is_solved'] for row in graded),
    **accuracy,
    'table': table,
    **_ratios_by_depth(figures),
    'split_pairs': figures['all'].pairs,
    'search/tokens': total('generated_tokens'),
    'search/recomputed_share': total('recomputed_tokens') / max(total('generated_tokens'), 1),
    'search/cut_share': _share_of_ends(rows, 'num_cut'),
    'search/cut_correct_share': _share_of_ends(rows, 'num_cut_correct'),
  }


class SplitFigures(NamedTuple):
  """What pairs of ends say of some trees, by the depth where they split."""

  pairs: list[int]
  in_tokens: RatioInterval  # U/x
  in_time: RatioInterval | None  # None: lines of an older version do not tell their tokens


def split_figures(rows: Sequence[Row], cost: DecodeCost) -> dict[str, SplitFigures]:
  """U/x of all trees, and of those whose problems were 'unsolved' and 'solved' before, with the
  intervals of a bootstrap over problems. Which they were was known before the trees grew."""
  figures = {'all': _split_figures(rows, cost)}
  for which, was_solved in (('unsolved', False), ('solved', True)):
    if chosen := [row for row in rows if row.get('was_solved') is was_solved]:
      figures[which] = _split_figures(chosen, cost)
  return figures


def _split_figures(rows: Sequence[Row], cost: DecodeCost) -> SplitFigures:
  has_tokens = all('tokens_left' in row for row in rows)
  names = ('pairs', 'disagreements', 'tokens_left') if has_tokens else ('pairs', 'disagreements')
  tables = np.array([[row[name] for name in names] for row in rows], float)
  return SplitFigures(
    pairs=np.sum([row['pairs'] for row in rows], axis=0).tolist(),
    in_tokens=ratio_interval(tables),
    in_time=ratio_interval(tables, cost) if has_tokens else None,
  )


def _ratios_by_depth(figures: Mapping[str, SplitFigures]) -> dict[str, dict[str, float]]:
  """U/x and its bounds below the root by depth, as far as they are finite."""
  by_depth = {}
  for which, figure in figures.items():
    prefix = '' if which == 'all' else f'{which}_'
    for name, interval in (('u_over_x', figure.in_tokens), ('u_over_x_time', figure.in_time)):
      for bound, values in interval._asdict().items() if interval else ():
        finite = {str(d): float(values[d]) for d in np.flatnonzero(np.isfinite(values)) if d}
        suffix = '' if bound == 'ratio' else f'_{bound}'
        by_depth[f'{prefix}{name}{suffix}'] = finite
  return by_depth


def _end_fields(end: answers.End, is_graded: bool) -> dict[str, Any]:
  return {
    'node': end.node,
    'answer': end.answer,
    'response': end.text,
    'q': end.q,
    'is_correct': end.is_correct if is_graded else None,
  }


def _accuracy(graded: Sequence[Row], rule: str) -> float | None:
  """Share of the problems whose answer by this rule is correct; None of no problems."""
  if not graded:
    return None
  correct = [bool((row['answers'][rule] or {}).get('is_correct')) for row in graded]
  return sum(correct) / len(graded)


def _share_of_ends(rows: Sequence[Row], name: str) -> float | None:
  """Share of all ends that the rows count under a name; None of no ends."""
  counted = [row for row in rows if name in row]  # a file may have lines of an older version
  num_ends = sum(row['num_ends'] for row in counted)
  return sum(row[name] for row in counted) / num_ends if num_ends else None


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
  return float(np.mean(values)) if len(values) else None


def _mean_and_deviation(values: Sequence[float | None]) -> dict[str, float] | None:
  known = [value for value in values if value is not None]
  if not known:
    return None
  return {'mean': float(np.mean(known)), 'deviation': float(np.std(known)), 'trees': len(known)}
