"""New siblings between decoding and backup: their verdicts, their place in the tree."""

from __future__ import annotations

import concurrent.futures
import dataclasses

import numpy as np

from ds_jax.config import SearchConfig
from ds_jax.interfaces import Segments
from ds_jax.search.engine.host_tree import HostTree, Segment
from ds_jax.search.engine.slots import Request, Slot
from ds_jax.search.policies import pays_cut_ends, policy_of
from ds_jax.search.tree import Children
from ds_jax.types import Verdict


@dataclasses.dataclass(eq=False)
class Expansion:
  """New siblings of one node, before their verdicts are in.

  They join their tree, on the host and on the device, in the same moment and order.
  """

  request: Request
  slot: Slot  # whose segment cache holds them, until it takes another request
  segments: list[Segment]  # n of them
  is_ended: np.ndarray  # [n] bool, the last token is an end token
  is_seen: np.ndarray  # [n] bool, … and it ends the path
  is_terminal: np.ndarray  # [n] bool, the path ends here, also at the depth limit
  futures: dict[int, concurrent.futures.Future] = dataclasses.field(default_factory=dict)
  verdicts: list[Verdict | None] = dataclasses.field(default_factory=list)
  rewards: list[float] = dataclasses.field(default_factory=list)

  @property
  def num_tokens(self) -> int:
    return sum(len(segment.tokens) for segment in self.segments)

  def ends(self) -> list[int]:
    return np.flatnonzero(self.is_terminal).tolist()

  def is_verified(self) -> bool:
    return all(future.done() for future in self.futures.values())

  def settle(self, tree: HostTree, config: SearchConfig) -> None:
    """Reads the verdicts and adds the siblings to the host tree."""
    pays = pays_cut_ends(config)
    for j, segment in enumerate(self.segments):
      verdict = self.futures[j].result() if j in self.futures else None
      if not self.is_seen[j]:
        tree.num_cut_correct += verdict is Verdict.CORRECT and not pays
        verdict = verdict_of_cut(verdict, pays=pays)
      reward = reward_of(verdict, config.incomplete_score)
      self.verdicts.append(verdict)
      self.rewards.append(reward)
      node = tree.add_child(
        self.request.node,
        segment,
        verdict=verdict,
        reward=reward,
        is_fork=self.request.is_fork,
      )
      if self.slot.expansion is self:
        self.slot.children[node] = j
    tree.num_expansions += 1

  def write(self, children: Children, index: tuple[int, ...]) -> None:
    """Puts this expansion into blank host arrays, at `index` of their leading axes."""
    children.count[index] = len(self.segments)
    children.first_child[index] = self.request.first_child
    for j, (segment, verdict) in enumerate(zip(self.segments, self.verdicts, strict=True)):
      sibling = (*index, j)
      children.num_tokens[sibling] = len(segment.tokens)
      children.logprob_sum[sibling] = segment.logprobs.sum(dtype=np.float64)
      children.entropy_sum[sibling] = segment.entropies.sum(dtype=np.float64)
      children.end_logprob[sibling] = segment.logprobs[-1] if self.is_ended[j] else 0.0
      children.is_ended[sibling] = self.is_ended[j]
      children.is_terminal[sibling] = self.is_terminal[j]
      children.is_valid[sibling] = verdict is not None and not verdict.is_masked
      children.is_correct[sibling] = verdict is Verdict.CORRECT
      children.reward[sibling] = self.rewards[j]


def verdict_of_cut(verdict: Verdict | None, *, pays: bool) -> Verdict | None:
  """The verdict on an end that the depth limit cut off.

  A wrong answer stays wrong: it must not pay more than one whose response ends.

  Args:
    verdict: what the verifier says of the text; None: the path does not end here.
    pays: whether a right answer pays all the same.
  """
  is_incomplete = verdict is Verdict.NO_ANSWER or (verdict is Verdict.CORRECT and not pays)
  return Verdict.INCOMPLETE if is_incomplete else verdict


def reward_of(verdict: Verdict | None, incomplete_score: float) -> float:
  """+1 correct; the incomplete score for a path cut off before it was complete; 0 for an end masked
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
  segments: Segments,
  index: int,
  request: Request,
  *,
  slot: Slot,
  tree: HostTree,
  config: SearchConfig,
) -> Expansion:
  """Takes one slot's children out of the batch; says which of them are ends.

  An end token in the last place of a segment ends the path as any other, unless the policy repeats
  the released code's defect.

  Args:
    segments: of all slots, on the host.
    index: the slot's, among all.
    request: what the slot was asked for.
    slot: the slot.
    tree: the tree of the request.
    config: `segment_length`, `max_depth`, `policy`.
  """
  count = request.num_children
  room = tree.room(request.node, config)
  lengths = np.minimum(segments.length[index, :count], room)
  is_ended = segments.is_ended[index, :count] & (segments.length[index, :count] <= room)
  is_seen = is_ended
  if policy_of(config).defects.misses_end_in_last_place:
    is_seen = is_ended & (lengths < config.segment_length)
  is_last = tree.depth[request.node] + 1 >= tree.max_depth(config)
  siblings = []
  for j, length in enumerate(lengths.tolist()):
    siblings.append(
      Segment(
        tokens=segments.tokens[index, j, :length].copy(),
        logprobs=segments.logprobs[index, j, :length].copy(),
        entropies=segments.entropies[index, j, :length].copy(),
      )
    )
  return Expansion(
    request=request,
    slot=slot,
    segments=siblings,
    is_ended=is_ended,
    is_seen=is_seen,
    is_terminal=is_seen | is_last,
  )


def blank_children(shape: tuple[int, ...], width: int) -> Children:
  """Host arrays `[*shape]` and `[*shape, W]` of expansions without children."""
  siblings = (*shape, width)
  return Children(
    count=np.zeros(shape, np.int32),
    first_child=np.zeros(shape, np.int32),
    num_tokens=np.zeros(siblings, np.int32),
    logprob_sum=np.zeros(siblings, np.float32),
    entropy_sum=np.zeros(siblings, np.float32),
    end_logprob=np.zeros(siblings, np.float32),
    is_ended=np.zeros(siblings, bool),
    is_terminal=np.zeros(siblings, bool),
    is_valid=np.zeros(siblings, bool),
    is_correct=np.zeros(siblings, bool),
    reward=np.zeros(siblings, np.float32),
  )
