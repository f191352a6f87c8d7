"""Trees of test-time search in numbers: a row for each, and what all of them come to.

The columns are those of the paper's Table 3; U/x says by depth where ends of a tree disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from ds_jax.evaluate import answers
from ds_jax.search import statistics
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
    problem: what it was grown for; an empty answer is not known.
    chosen: see `answers_of`.
    select: the rule that gives the answer.
    seconds: from the tree's start to its end.
    max_depth: of the search.
    stop_ids: any of these ids ends a response.
  """
  is_cut = statistics.cut_ends([tree], stop_ids)
  pairs, disagreements = statistics.split_counts(tree, max_depth)
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
    'pairs': pairs.tolist(),
    'disagreements': disagreements.tolist(),
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


def summarize_trees(rows: Sequence[Row]) -> dict[str, Any]:
  """Mean and deviation of every column of TABLE over trees, U/x by depth, and how many are right.

  `accuracy/RULE` is over problems with a known answer, for each rule of choosing one.

  Args:
    rows: from `tree_row`, each with its `tree` as plain values.
  """
  graded = [row for row in rows if row['gold'] is not None]
  ratios, pairs = split_figures(rows)
  total = lambda name: sum(row['tree']['statistics'].get(name) or 0 for row in rows)
  accuracy = {f'accuracy/{rule}': _accuracy(graded, rule) for rule in answers.SELECTIONS}
  table = {name: _mean_and_deviation([row['table'][name] for row in rows]) for name in TABLE}
  u_over_x = {}
  for depth, ratio in enumerate(ratios):
    if depth and np.isfinite(ratio):
      u_over_x[str(depth)] = ratio
  return {
    'num_problems': len(rows),
    'num_graded': len(graded),
    'num_solved': sum(row['is_solved'] for row in graded),
    **accuracy,
    'table': table,
    'u_over_x': u_over_x,
    'split_pairs': pairs,
    'search/tokens': total('generated_tokens'),
    'search/recomputed_share': total('recomputed_tokens') / max(total('generated_tokens'), 1),
    'search/cut_share': _share_of_ends(rows, 'num_cut'),
    'search/cut_correct_share': _share_of_ends(rows, 'num_cut_correct'),
  }


def split_figures(rows: Sequence[Row]) -> tuple[list[float], list[int]]:
  """U/x and pairs of ends by the depth where they split, over all trees."""
  pairs = np.sum([row['pairs'] for row in rows], axis=0)
  disagreements = np.sum([row['disagreements'] for row in rows], axis=0)
  return statistics.unresolved_over_cost(pairs, disagreements).tolist(), pairs.tolist()


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
