"""A tree's host side: token text, verdicts, and the order in which nodes were chosen.

The device tree holds statistics, this holds tokens; both number nodes by creation, so they never
need to exchange structure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ds_jax.config import SearchConfig
from ds_jax.types import FinishedTree, Problem, Verdict


@dataclasses.dataclass(frozen=True)
class Job:
  """One tree to grow."""

  problem: Problem
  prompt_tokens: np.ndarray  # [P] int32
  sample: int = 0  # which of several trees of this problem
  process: int = 0  # to which the tree belongs, of those that search together


@dataclasses.dataclass
class HostTree:
  """Grows with the search; entries of the lists are per node, the root first."""

  job: Job
  key: np.ndarray  # [2] uint32, key data of the root
  parent: list[int] = dataclasses.field(default_factory=lambda: [-1])
  depth: list[int] = dataclasses.field(default_factory=lambda: [0])
  tokens: list[np.ndarray] = dataclasses.field(default_factory=lambda: [np.zeros(0, np.int32)])
  logprobs: list[np.ndarray] = dataclasses.field(default_factory=lambda: [np.zeros(0, np.float32)])
  entropies: list[np.ndarray] = dataclasses.field(default_factory=lambda: [np.zeros(0, np.float32)])
  verdict: list[Verdict | None] = dataclasses.field(default_factory=lambda: [None])
  reward: list[float] = dataclasses.field(default_factory=lambda: [0.0])
  is_outcome_chosen: list[bool] = dataclasses.field(default_factory=lambda: [False])
  selections: list[tuple[int, str]] = dataclasses.field(default_factory=list)
  num_expansions: int = 0
  is_encoded: bool = False  # its prompt has been, by some slot
  recomputed_tokens: int = 0  # path tokens encoded again because the search jumped

  def path(self, node: int) -> list[int]:
    """Nodes from the root to `node`, both included."""
    nodes = [node]
    while self.parent[nodes[-1]] >= 0:
      nodes.append(self.parent[nodes[-1]])
    return nodes[::-1]

  def path_tokens(self, node: int) -> np.ndarray:
    """Prompt and response tokens up to the end of `node`; `[S]` int32."""
    return np.concatenate([self.job.prompt_tokens, self.response_tokens(node)])

  def response_tokens(self, node: int) -> np.ndarray:
    """Response tokens from the root to the end of `node`; `[S]` int32."""
    return np.concatenate([self.tokens[i] for i in self.path(node)])

  def common_length(self, a: int, b: int) -> int:
    """Tokens, prompt included, that the paths to nodes `a` and `b` share as nodes."""
    shared = [x for x, y in zip(self.path(a), self.path(b), strict=False) if x == y]
    return len(self.job.prompt_tokens) + sum(len(self.tokens[i]) for i in shared)

  def add_child(
    self,
    parent: int,
    tokens: np.ndarray,
    logprobs: np.ndarray,
    entropies: np.ndarray,
    verdict: Verdict | None,
    reward: float,
    is_fork: bool,
  ) -> int:
    """Appends a node; returns its index. `is_fork`: it was asked for because of an outcome."""
    self.parent.append(parent)
    self.depth.append(self.depth[parent] + 1)
    self.tokens.append(tokens)
    self.logprobs.append(logprobs)
    self.entropies.append(entropies)
    self.verdict.append(verdict)
    self.reward.append(reward)
    self.is_outcome_chosen.append(is_fork or self.is_outcome_chosen[parent])
    return len(self.parent) - 1

  def is_out_of_budget(self, num_collected: int, config: SearchConfig) -> bool:
    """Whether a budget ended the tree before it had collected all it was to."""
    num_tokens = sum(map(len, self.tokens))
    is_spent = self.num_expansions >= config.max_expansions or 0 < config.max_tokens <= num_tokens
    return is_spent and num_collected < config.num_trajectories

  def finish(self, fields: Mapping[str, np.ndarray], is_depth_first: bool) -> FinishedTree:
    """Joins the device's statistics of this tree (one row of the batch) to the tokens.

    Args:
      fields: of the device tree.
      is_depth_first: nodes and selections are numbered and put in depth-first order, where the
        order of creation depends on timing.
    """
    count = len(self.parent)
    order = np.argsort(fields['preorder'][:count]) if is_depth_first else np.arange(count)
    number = np.argsort(order)  # new number of each node
    pick = lambda values: [values[i] for i in order]
    tokens, verdicts = pick(self.tokens), pick(self.verdict)
    parents = np.array(pick(self.parent), np.int32)
    lengths = [len(t) for t in tokens]
    collected = number[fields['collected'][: int(fields['num_collected'])]].astype(np.int32)
    selections = [(int(number[node]), how) for node, how in self.selections]
    statistics: dict[str, Any] = {
      'expansions': self.num_expansions,
      'generated_tokens': sum(lengths),
      'recomputed_tokens': self.recomputed_tokens,
      'nodes': count,
      'ends': sum(v is not None for v in verdicts),
    }
    return FinishedTree(
      problem_id=self.job.problem.id,
      sample=self.job.sample,
      prompt_tokens=self.job.prompt_tokens,
      parent=np.where(parents < 0, -1, number[parents]).astype(np.int32),
      depth=np.array(pick(self.depth), np.int32),
      token_start=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
      tokens=np.concatenate(tokens),
      logprobs=np.concatenate(pick(self.logprobs)),
      entropies=np.concatenate(pick(self.entropies)),
      visit_count=fields['visit_count'][order],
      value_sum=fields['value_sum'][order],
      num_ends=fields['num_ends'][order],
      num_correct=fields['num_correct'][order],
      is_terminal=np.array([v is not None for v in verdicts]),
      is_outcome_chosen=np.array(pick(self.is_outcome_chosen)),
      reward=np.array(pick(self.reward), np.float32),
      verdict=tuple(v.value if v else None for v in verdicts),
      collected=collected,
      selections=tuple(sorted(selections) if is_depth_first else selections),
      statistics=statistics,
    )
