"""A tree's host side: token text, verdicts, and the order in which nodes were chosen.

The device tree holds statistics, this holds tokens; both number nodes by creation, so they never
need to exchange structure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ds_jax.types import FinishedTree, Problem, Verdict


@dataclasses.dataclass(frozen=True)
class Job:
  """One tree to grow."""
  problem: Problem
  prompt_tokens: np.ndarray  # [P] int32
  sample: int = 0  # which of several trees of this problem


@dataclasses.dataclass
class HostTree:
  """Grows with the search; entries of the lists are per node, the root first."""
  job: Job
  key: np.ndarray  # [2] uint32, key data of the root
  parent: list[int] = dataclasses.field(default_factory=lambda: [-1])
  depth: list[int] = dataclasses.field(default_factory=lambda: [0])
  num_children: list[int] = dataclasses.field(default_factory=lambda: [0])
  tokens: list[np.ndarray] = dataclasses.field(default_factory=lambda: [np.zeros(0, np.int32)])
  logprobs: list[np.ndarray] = dataclasses.field(default_factory=lambda: [np.zeros(0, np.float32)])
  entropies: list[np.ndarray] = dataclasses.field(
      default_factory=lambda: [np.zeros(0, np.float32)])
  verdict: list[Verdict | None] = dataclasses.field(default_factory=lambda: [None])
  reward: list[float] = dataclasses.field(default_factory=lambda: [0.0])
  selections: list[tuple[int, str]] = dataclasses.field(default_factory=list)
  num_expansions: int = 0
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

  def add_child(self, parent: int, tokens: np.ndarray, logprobs: np.ndarray,
                entropies: np.ndarray) -> int:
    """Appends a node; returns its index."""
    self.parent.append(parent)
    self.depth.append(self.depth[parent] + 1)
    self.num_children.append(0)
    self.num_children[parent] += 1
    self.tokens.append(tokens)
    self.logprobs.append(logprobs)
    self.entropies.append(entropies)
    self.verdict.append(None)
    self.reward.append(0.0)
    return len(self.parent) - 1

  def finish(self, fields: Mapping[str, np.ndarray]) -> FinishedTree:
    """Joins the device's statistics of this tree (one row of the batch) to the tokens."""
    count = len(self.parent)
    lengths = [len(t) for t in self.tokens]
    statistics: dict[str, Any] = {
        'expansions': self.num_expansions, 'generated_tokens': sum(lengths),
        'recomputed_tokens': self.recomputed_tokens, 'nodes': count,
        'ends': sum(v is not None for v in self.verdict)}
    return FinishedTree(
        problem_id=self.job.problem.id, sample=self.job.sample,
        prompt_tokens=self.job.prompt_tokens, parent=np.array(self.parent, np.int32),
        depth=np.array(self.depth, np.int32),
        token_start=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        tokens=np.concatenate(self.tokens), logprobs=np.concatenate(self.logprobs),
        entropies=np.concatenate(self.entropies), visit_count=fields['visit_count'][:count],
        value_sum=fields['value_sum'][:count], num_ends=fields['num_ends'][:count],
        num_correct=fields['num_correct'][:count],
        is_terminal=np.array([v is not None for v in self.verdict]),
        reward=np.array(self.reward, np.float32),
        verdict=tuple(v.value if v else None for v in self.verdict),
        collected=fields['collected'][:int(fields['num_collected'])],
        selections=tuple(self.selections), statistics=statistics)
