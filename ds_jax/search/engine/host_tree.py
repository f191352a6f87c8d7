"""A tree's host side: token text, verdicts, and the order in which nodes were chosen.

The device tree holds statistics, this holds tokens; both number nodes by creation, so they never
need to exchange structure.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ds_jax.config import SearchConfig
from ds_jax.search.policies.base import Plan
from ds_jax.search.tree import Tree
from ds_jax.types import FinishedTree, Given, Problem, Verdict


@dataclasses.dataclass(frozen=True)
class Job:
  """One tree to grow."""

  problem: Problem
  prompt_tokens: np.ndarray  # [P] int32
  sample: int = 0  # which of several trees of this problem
  process: int = 0  # to which the tree belongs, of those that search together
  given: Given | None = None  # what the tree starts from besides the prompt
  temperature: float | None = None  # that it is sampled at; None: the engine's
  plan: Plan | None = None  # where its forks pay, for a policy that plans trees apart

  @property
  def given_tokens(self) -> np.ndarray:
    """The beginning of every response of the tree, `[G]` int32."""
    return NO_TOKENS.tokens if self.given is None else self.given.tokens

  @property
  def start_tokens(self) -> np.ndarray:
    """Prompt and given tokens: where the root stands."""
    return np.concatenate([self.prompt_tokens, self.given_tokens])


class Segment(NamedTuple):
  """The tokens that one node adds."""

  tokens: np.ndarray  # [t] int32
  logprobs: np.ndarray  # [t] float32
  entropies: np.ndarray  # [t] float32, nats


class Prefix(NamedTuple):
  """What a tree starts from without its last token, as a lane encodes it before the first children.

  That is the prompt, and the beginning of a response where one is given.
  """

  data: bytes  # of the tokens, which are quickly compared so
  length: int


NO_TOKENS = Segment(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.float32))


class DeviceFields(NamedTuple):
  """What the host takes from a device tree that is done; a leading `[B]` for a batch."""

  visit_count: np.ndarray  # [N] int32
  value_sum: np.ndarray  # [N] float32
  num_ends: np.ndarray  # [N] int32
  num_correct: np.ndarray  # [N] int32
  preorder: np.ndarray  # [N] int32
  collected: np.ndarray  # [K] int32
  num_collected: np.ndarray  # [] int32

  @classmethod
  def of(cls, tree: Tree) -> DeviceFields:
    nodes = tree.nodes
    return cls(
      visit_count=nodes.visit_count,
      value_sum=nodes.value_sum,
      num_ends=nodes.num_ends,
      num_correct=nodes.num_correct,
      preorder=nodes.preorder,
      collected=tree.collected,
      num_collected=tree.num_collected,
    )

  def row(self, index: int) -> DeviceFields:
    """One tree of a batch; a copy, so that the batch can be freed."""
    return DeviceFields(*(np.array(values[index]) for values in self))


@dataclasses.dataclass
class HostTree:
  """Grows with the search; entries of the lists are per node, the root first."""

  job: Job
  key: np.ndarray  # [2] uint32, key data of the root
  capacity: int | None = None  # N of the device tree; None: not told
  parent: list[int] = dataclasses.field(default_factory=lambda: [-1])
  depth: list[int] = dataclasses.field(default_factory=lambda: [0])
  segments: list[Segment] = dataclasses.field(default_factory=lambda: [NO_TOKENS])
  verdict: list[Verdict | None] = dataclasses.field(default_factory=lambda: [None])
  reward: list[float] = dataclasses.field(default_factory=lambda: [0.0])
  is_outcome_chosen: list[bool] = dataclasses.field(default_factory=lambda: [False])
  selections: list[tuple[int, str]] = dataclasses.field(default_factory=list)
  num_expansions: int = 0
  is_encoded: bool = False  # its prompt has been, by some slot
  num_cut_correct: int = 0  # ends with a right answer that do not pay, being cut off
  recomputed_tokens: int = 0  # path tokens encoded again because the search jumped

  @functools.cached_property
  def prefix(self) -> Prefix:
    tokens = self.job.start_tokens[:-1]
    return Prefix(tokens.tobytes(), len(tokens))

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
    """Response tokens up to the end of `node`, given ones included; `[S]` int32."""
    segments = [self.segments[i].tokens for i in self.path(node)]
    return np.concatenate([self.job.given_tokens, *segments])

  def common_length(self, a: int, b: int) -> int:
    """Tokens, prompt included, that the paths to nodes `a` and `b` share as nodes."""
    length = len(self.job.prompt_tokens) + len(self.job.given_tokens)
    for x, y in zip(self.path(a), self.path(b), strict=False):
      if x != y:
        break
      length += len(self.segments[x].tokens)
    return length

  def max_depth(self, config: SearchConfig) -> int:
    """Depth at which paths are cut off: given tokens take the place of the segments they fill."""
    return config.max_depth - len(self.job.given_tokens) // config.segment_length

  def room(self, node: int, config: SearchConfig) -> int:
    """Tokens that a child of `node` may add: a segment, or what the response limit leaves of it.

    Where given tokens fill the last of their segments in part, the last one sampled lacks as many.
    What the decoder drew beyond is dropped.
    """
    if self.depth[node] + 1 < self.max_depth(config):
      return config.segment_length
    return config.segment_length - len(self.job.given_tokens) % config.segment_length

  def add_child(
    self,
    parent: int,
    segment: Segment,
    *,
    verdict: Verdict | None,
    reward: float,
    is_fork: bool,
  ) -> int:
    """Appends a node; returns its index. `is_fork`: it was asked for because of an outcome.

    Raises:
      ValueError: if the device tree has no room for it.
    """
    node = len(self.parent)
    if self.capacity is not None and node >= self.capacity:
      raise ValueError(
        f'Expected at most {self.capacity} nodes of {self.job.problem.id!r}, got {node + 1}; make '
        'the tree with more room.'
      )
    self.parent.append(parent)
    self.depth.append(self.depth[parent] + 1)
    self.segments.append(segment)
    self.verdict.append(verdict)
    self.reward.append(reward)
    self.is_outcome_chosen.append(is_fork or self.is_outcome_chosen[parent])
    return node

  def num_tokens(self) -> int:
    """Tokens that were sampled."""
    return sum(len(segment.tokens) for segment in self.segments)

  def is_out_of_budget(self, num_collected: int, config: SearchConfig) -> bool:
    """Whether a budget ended the tree before it had collected all it was to."""
    has_no_tokens = 0 < config.max_tokens <= self.num_tokens()
    is_spent = self.num_expansions >= config.max_expansions or has_no_tokens
    return is_spent and num_collected < config.num_trajectories

  def finish(self, fields: DeviceFields, *, is_depth_first: bool) -> FinishedTree:
    """Joins the device's statistics of this tree to the tokens.

    Args:
      fields: of the device tree.
      is_depth_first: nodes and selections are numbered and put in depth-first order, where the
        order of creation depends on timing.
    """
    count = len(self.parent)
    order = np.argsort(fields.preorder[:count]) if is_depth_first else np.arange(count)
    new_number = np.argsort(order)  # of each node
    parent = np.array(self.parent, np.int32)[order]
    segments = [self.segments[i] for i in order]
    verdicts = [self.verdict[i] for i in order]
    lengths = [len(segment.tokens) for segment in segments]
    collected = fields.collected[: int(fields.num_collected)]
    selections = [(int(new_number[node]), how) for node, how in self.selections]
    statistics: dict[str, Any] = {
      'expansions': self.num_expansions,
      'generated_tokens': sum(lengths),
      'recomputed_tokens': self.recomputed_tokens,
      'nodes': count,
      'ends': sum(verdict is not None for verdict in verdicts),
    }
    if self.num_cut_correct:  # as without them, else
      statistics['cut_correct'] = self.num_cut_correct
    if self.job.temperature is not None:
      statistics['temperature'] = self.job.temperature
    return FinishedTree(
      problem_id=self.job.problem.id,
      sample=self.job.sample,
      prompt_tokens=self.job.start_tokens,
      parent=np.where(parent < 0, -1, new_number[parent]).astype(np.int32),
      depth=np.array(self.depth, np.int32)[order],
      token_start=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
      tokens=np.concatenate([segment.tokens for segment in segments]),
      logprobs=np.concatenate([segment.logprobs for segment in segments]),
      entropies=np.concatenate([segment.entropies for segment in segments]),
      visit_count=fields.visit_count[order],
      value_sum=fields.value_sum[order],
      num_ends=fields.num_ends[order],
      num_correct=fields.num_correct[order],
      is_terminal=np.array([verdict is not None for verdict in verdicts]),
      is_outcome_chosen=np.array(self.is_outcome_chosen)[order],
      reward=np.array(self.reward, np.float32)[order],
      verdict=_names(verdicts),
      collected=new_number[collected].astype(np.int32),
      selections=tuple(sorted(selections) if is_depth_first else selections),
      statistics=statistics,
      num_given=len(self.job.given_tokens),
      is_given_right=self.job.given is not None and self.job.given.is_right,
    )


def _names(verdicts: Sequence[Verdict | None]) -> tuple[str | None, ...]:
  return tuple(verdict.value if verdict else None for verdict in verdicts)
