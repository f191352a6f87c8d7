"""Finished trees of which only the shape and the outcomes count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ds_jax.types import FinishedTree


def finished_tree(
  parent: Sequence[int],
  lengths: Sequence[int],
  *,
  problem_id: str = 'p',
  is_correct: np.ndarray,
  is_valid: np.ndarray | None = None,
  is_outcome_chosen: np.ndarray | None = None,
) -> FinishedTree:
  """A tree whose leaves are ends.

  Args:
    parent: of each node, -1 of the root.
    lengths: tokens of each node.
    problem_id: whose it is.
    is_correct: `[N]` bool, of ends.
    is_valid: `[N]` bool, ends that were verified; None: all.
    is_outcome_chosen: `[N]` bool; None: none is.
  """
  count, parent = len(parent), np.array(parent, np.int32)
  depth = np.zeros(count, np.int32)
  for node in range(1, count):
    depth[node] = depth[parent[node]] + 1
  is_end = ~np.isin(np.arange(count), parent)
  none, numbers = np.zeros(0, np.float32), np.zeros(count, np.float32)
  return FinishedTree(
    problem_id=problem_id,
    sample=0,
    prompt_tokens=np.zeros(0, np.int32),
    parent=parent,
    depth=depth,
    token_start=np.append(0, np.cumsum(lengths)),
    tokens=none,
    logprobs=none,
    entropies=none,
    visit_count=numbers,
    value_sum=numbers,
    num_ends=(is_end if is_valid is None else is_end & is_valid).astype(np.int32),
    num_correct=(is_end & is_correct).astype(np.int32),
    is_terminal=is_end,
    is_outcome_chosen=np.zeros(count, bool) if is_outcome_chosen is None else is_outcome_chosen,
    reward=numbers,
    verdict=(None,) * count,
    collected=np.zeros(0, np.int32),
    selections=(),
    statistics={},
  )
