"""Tree search with any language model: a function that samples continuations of a text is enough.

The engine's own decoder keeps what it has read in caches on the device (decode/expand.py). Here a
slot is the path that it stands at, as tokens, which the model reads anew for every node. That is
slow, and the same search: whoever wants it fast writes an ExpandFn (interfaces.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ds_jax import sharding
from ds_jax.config import SearchConfig
from ds_jax.interfaces import ExpandFn, Segments, SlotPlan, Tokenizer, VerifyFn
from ds_jax.search.engine.engine import Engine, run
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose, base_key_data
from ds_jax.search.policies import policy_of
from ds_jax.types import FinishedTree, Problem


class Sample(NamedTuple):
  """Continuations of one path; what follows an end token does not count."""

  tokens: Any  # [n, t] integers, 1 <= t <= search.segment_length
  logprobs: Any  # [n, t], of these tokens under the model
  entropies: Any  # [n, t], nats, of the distribution that each was drawn from


# sample_fn(path, count, seed) -> that many continuations of the tokens `path` `[S]` int32. The seed
# (in [0, 2**63)) belongs to the node: the same one gives the same continuations.
SampleFn = Callable[[np.ndarray, int, int], Sample]


def search_with(
  sample_fn: SampleFn,
  tokenizer: Tokenizer,
  verify_fn: VerifyFn,
  *,
  problems: Sequence[Problem],
  config: SearchConfig,
  seed: int = 0,
) -> list[FinishedTree]:
  """Grows one tree per problem.

  Args:
    sample_fn: the model.
    tokenizer: of the model, e.g. from `ds_jax.load_tokenizer`.
    verify_fn: says what ends are worth, e.g. `verify` of a VerifierPool.
    problems: any number; ids must differ.
    config: of the search.
    seed: all random numbers follow from it, as far as the model keeps to its seeds.

  Returns:
    The trees, in the order of `problems`.
  """
  search = policy_of(config).as_searched(config)
  engine = Engine(
    config=search,
    mesh=sharding.make_mesh(devices=jax.devices()[:1]),
    expand_fn=expand_with(sample_fn, tokenizer.stop_ids, search),
    make_slots=lambda: [_PathSlot() for _ in range(search.num_slots)],
    verify_fn=verify_fn,
    decode_text=tokenizer.decode_response,
  )
  jobs = [Job(problem, tokenizer.encode_prompt(problem.prompt)) for problem in problems]
  trees: dict[str, FinishedTree] = {}

  def keep(tree: FinishedTree) -> None:
    trees[tree.problem_id] = tree

  run(engine, None, jobs, base_key_data(seed, Purpose.SEARCH, 0, 0), on_finish=keep)
  return [trees[problem.id] for problem in problems]


class _PathSlot:
  """A slot of the decoder as tokens: its path, and the children that it sampled last."""

  def __init__(self) -> None:
    self.path: list[int] = []
    self.children: list[list[int]] = []

  def move(self, plan: SlotPlan, b: int) -> None:
    """Goes to where slot `b` of the plan is to sample, the tokens of other slots aside."""
    if plan.append_child[b] >= 0:
      self.path += self.children[plan.append_child[b]]
    replayed = plan.replay_tokens[b, : plan.replay_length[b]]
    self.path = self.path[: plan.keep_length[b]] + replayed.tolist()


def expand_with(sample_fn: SampleFn, stop_ids: Collection[int], config: SearchConfig) -> ExpandFn:
  """The ExpandFn of a model that samples continuations of a path, on one device.

  Args:
    sample_fn: the model.
    stop_ids: any of these ids ends a response.
    config: sizes of slots, children and segments.
  """

  def expand(params: Any, slots: list[_PathSlot], plan: SlotPlan) -> tuple[Any, Segments]:
    del params
    segments = _no_segments(config)
    for b, slot in enumerate(slots):
      slot.move(plan, b)
    for b in np.flatnonzero(plan.copy_from >= 0):
      slots[b].path = slots[plan.copy_from[b]].path[: plan.keep_length[b]]
    for b in np.flatnonzero(plan.num_children):
      slot, count = slots[b], int(plan.num_children[b])
      slot.path.append(int(plan.pending_token[b]))
      seed = np.random.default_rng([*plan.key[b].tolist(), int(plan.first_child[b])])
      sample = sample_fn(np.array(slot.path, np.int32), count, int(seed.integers(2**63)))
      slot.children = _write(segments, b, sample, stop_ids)
    return slots, segments

  return expand


def _no_segments(config: SearchConfig) -> Segments:
  """Segments `[B, W, T]` without a child."""
  shape = config.num_slots, config.width, config.segment_length
  return Segments(
    tokens=np.zeros(shape, np.int32),
    logprobs=np.zeros(shape, np.float32),
    sampled_logprobs=np.zeros(shape, np.float32),
    entropies=np.zeros(shape, np.float32),
    length=np.zeros(shape[:2], np.int32),
    is_ended=np.zeros(shape[:2], bool),
  )


def _write(
  segments: Segments, b: int, sample: Sample, stop_ids: Collection[int]
) -> list[list[int]]:
  """Writes the children of slot `b`, each up to its first end token; returns their tokens."""
  children = []
  all_tokens, logprobs, entropies = map(np.asarray, sample)
  for j, tokens in enumerate(all_tokens):
    is_stop = np.isin(tokens, list(stop_ids))
    length = int(is_stop.argmax()) + 1 if is_stop.any() else len(tokens)
    segments.tokens[b, j, :length] = tokens[:length]
    segments.logprobs[b, j, :length] = logprobs[j, :length]
    segments.sampled_logprobs[b, j, :length] = logprobs[j, :length]
    segments.entropies[b, j, :length] = entropies[j, :length]
    segments.length[b, j] = length
    segments.is_ended[b, j] = is_stop.any()
    children.append(tokens[:length].tolist())
  return children
