"""New siblings between decoding and backup: their verdicts, their place in the tree."""

from __future__ import annotations

import concurrent.futures
import dataclasses

import numpy as np

from ds_jax.config import SearchConfig
from ds_jax.interfaces import Segments
from ds_jax.search.engine.host_tree import HostTree
from ds_jax.search.engine.slots import Request, Slot
from ds_jax.search.tree import Children
from ds_jax.types import Verdict


@dataclasses.dataclass(eq=False)
class Expansion:
  """New siblings of one node, before their verdicts are in.

  They join their tree, on the host and on the device, in the same moment and order.
  """

  request: Request
  slot: Slot  # whose segment cache holds them, until it takes another request
  tokens: list[np.ndarray]  # n x [t] int32
  logprobs: list[np.ndarray]  # n x [t] float32
  entropies: list[np.ndarray]  # n x [t] float32
  is_ended: np.ndarray  # [n] bool, the last token is an end token
  is_seen: np.ndarray  # [n] bool, … and it ends the path
  is_terminal: np.ndarray  # [n] bool, the path ends here, also at the depth limit
  futures: dict[int, concurrent.futures.Future] = dataclasses.field(default_factory=dict)
  verdicts: list[Verdict | None] = dataclasses.field(default_factory=list)
  rewards: list[float] = dataclasses.field(default_factory=list)

  @property
  def num_tokens(self) -> int:
    return sum(map(len, self.tokens))

  def ends(self) -> list[int]:
    return np.flatnonzero(self.is_terminal).tolist()

  def is_verified(self) -> bool:
    return all(f.done() for f in self.futures.values())

  def settle(self, tree: HostTree, config: SearchConfig) -> None:
    """Reads the verdicts and adds the siblings to the host tree."""
    for j in range(len(self.tokens)):
      verdict = self.futures[j].result() if j in self.futures else None
      if verdict is Verdict.NO_ANSWER and not self.is_seen[j]:  # cut off by the depth limit
        verdict = Verdict.INCOMPLETE
      self.verdicts.append(verdict)
      self.rewards.append(reward_of(verdict, config.incomplete_score))
      node = tree.add_child(
        self.request.node,
        self.tokens[j],
        self.logprobs[j],
        self.entropies[j],
        verdict,
        self.rewards[j],
        self.request.is_fork,
      )
      if self.slot.expansion is self:
        self.slot.children[node] = j
    tree.num_expansions += 1

  def write(self, children: Children, index: tuple[int, ...]) -> None:
    """Puts this expansion into blank host arrays, at `index` of their leading axes."""
    n, values = len(self.tokens), self.verdicts
    children.count[index], children.first_child[index] = n, self.request.first_child
    siblings = (*index, slice(n))
    children.num_tokens[siblings] = [len(t) for t in self.tokens]
    children.logprob_sum[siblings] = [v.sum(dtype=np.float64) for v in self.logprobs]
    children.entropy_sum[siblings] = [v.sum(dtype=np.float64) for v in self.entropies]
    children.end_logprob[siblings] = [
      v[-1] if e else 0.0 for v, e in zip(self.logprobs, self.is_ended, strict=True)
    ]
    children.is_ended[siblings] = self.is_ended
    children.is_terminal[siblings] = self.is_terminal
    children.is_valid[siblings] = [v is not None and not v.is_masked for v in values]
    children.is_correct[siblings] = [v is Verdict.CORRECT for v in values]
    children.reward[siblings] = self.rewards


def reward_of(verdict: Verdict | None, incomplete_score: float) -> float:
  """+1 correct; the incomplete score for a path cut off without an answer; 0 for an end masked
  through our fault or of unknown value, and for no end; -1 otherwise (a hanging answer must not
  pay)."""
  return {
    Verdict.CORRECT: 1.0,
    Verdict.INCOMPLETE: incomplete_score,
    Verdict.ERROR: 0.0,
    Verdict.UNGRADED: 0.0,
    None: 0.0,
  }.get(verdict, -1.0)


def cut_segments(
  tree: HostTree, slot: Slot, b: int, request: Request, segments: Segments, config: SearchConfig
) -> Expansion:
  """Takes slot b's children out of the batch; says which of them are ends.

  An end token in the last place of a segment ends the path here (the released code misses it;
  policy 'faithful' does as well).
  """
  count = request.num_children
  lengths, is_ended = segments.length[b, :count], segments.is_ended[b, :count]
  is_seen = is_ended & ((lengths < config.segment_length) | (config.policy != 'faithful'))
  is_terminal = is_seen | (tree.depth[request.node] + 1 >= config.max_depth)
  cut = lambda values: [values[b, j, : int(lengths[j])].copy() for j in range(count)]
  return Expansion(
    request,
    slot,
    cut(segments.tokens),
    cut(segments.logprobs),
    cut(segments.entropies),
    is_ended,
    is_seen,
    is_terminal,
  )


def blank_children(shape: tuple[int, ...], width: int) -> Children:
  """Host arrays `[*shape]` and `[*shape, W]` of expansions without children."""
  of = lambda dtype, *more: np.zeros((*shape, *more), dtype)
  return Children(
    count=of(np.int32),
    first_child=of(np.int32),
    num_tokens=of(np.int32, width),
    logprob_sum=of(np.float32, width),
    entropy_sum=of(np.float32, width),
    end_logprob=of(np.float32, width),
    is_ended=of(bool, width),
    is_terminal=of(bool, width),
    is_valid=of(bool, width),
    is_correct=of(bool, width),
    reward=of(np.float32, width),
  )
