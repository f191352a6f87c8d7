"""What is found of a tree of test-time search: a row of plain values, and text for a terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ds_jax.evaluate.answers import SELECTIONS
from ds_jax.evaluate.searches import SplitFigures, answers_of, split_figures, tree_row
from ds_jax.report.inspect import format_split_depths, format_table, format_tree, tree_to_dict
from ds_jax.report.text import percent
from ds_jax.run.engines import Engines
from ds_jax.run.forking import decode_cost
from ds_jax.search.decode_cost import DecodeCost
from ds_jax.types import FinishedTree, Problem

Summary = dict[str, Any]
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Searched:
  """A problem, the tree that was grown for it, and what a line of results says of that."""

  problem: Problem
  tree: FinishedTree
  row: Row  # from evaluate.searches.tree_row, with the tree as plain values
  text: str  # for a terminal: a line per node, then U/x by depth

  @classmethod
  def of(
    cls, engines: Engines, tree: FinishedTree, problem: Problem, *, select: str, seconds: float
  ) -> Searched:
    """Looks at a finished tree.

    Args:
      engines: that grew it.
      tree: the tree.
      problem: its problem.
      select: which of answers.SELECTIONS gives the answer.
      seconds: from its start to its end.
    """
    row = row_of(engines, tree, problem, select=select, seconds=seconds)
    return cls(problem, tree, row, _tree_text(engines, tree, row))


def row_of(
  engines: Engines, tree: FinishedTree, problem: Problem, *, select: str, seconds: float
) -> Row:
  """What a line of the output holds, as plain values; numbers that are not finite are None."""
  config, decode = engines.session.config, engines.tokenizer.decode_response
  chosen = answers_of(tree, decode, verifier=config.verify.verifier, is_graded=bool(problem.answer))
  row = tree_row(
    tree,
    problem,
    chosen,
    select=select,
    seconds=seconds,
    max_depth=config.search.max_depth,
    stop_ids=engines.tokenizer.stop_ids,
  )
  return row | {'tree': tree_to_dict(tree, decode)}


def _tree_text(engines: Engines, tree: FinishedTree, row: Row) -> str:
  cost = decode_cost(engines, [tree.prompt_tokens])
  shown = format_tree(tree, engines.tokenizer.decode_response)
  return '\n'.join([shown, *_split_lines(split_figures([row], cost))])


def trees_text(figures: Summary, rows: Sequence[Row], cost: DecodeCost) -> str:
  """Many trees for a terminal: the table over them, U/x by depth, how many answers are right.

  Args:
    figures: from `summarize_trees`.
    rows: those that it is about.
    cost: of a token.
  """
  tables = [format_table(figures['table']), *_split_lines(split_figures(rows, cost))]
  return '\n'.join([*tables, _accuracy_line(figures)])


def _split_lines(figures: Mapping[str, SplitFigures]) -> list[str]:
  """U/x by depth as text, of all problems and of those whose past is known."""
  names = {'all': 'all problems', 'unsolved': 'unsolved before', 'solved': 'solved before'}
  lines = []
  for which, figure in figures.items():
    intervals = {'tokens': figure.in_tokens}
    if figure.in_time is not None:
      intervals['predicted time'] = figure.in_time
    lines.append(format_split_depths(names[which], figure.pairs, intervals))
  return lines


def _accuracy_line(figures: Summary) -> str:
  if not figures['num_graded']:
    return 'No answer is known: nothing was graded.'
  shares = []
  for rule in SELECTIONS:
    shares.append(f'{rule.replace("_", " ")} {percent(figures[f"accuracy/{rule}"])}')
  return f'correct of {figures["num_graded"]} with a known answer: ' + ', '.join(shares)
