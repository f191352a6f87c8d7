"""Small decoders, trajectories and batches that the tests of train/ and checkpoint share."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import optax

from ds_jax.config import TrainConfig
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import Decoder, init_decoder
from ds_jax.testing.tolerance import decoder_terms, tolerance
from ds_jax.train.batch import Batch, Example
from ds_jax.types import Trajectory

CONFIG = DecoderConfig(
  vocab_size=64,
  num_ids=57,
  num_layers=2,
  width=32,
  mlp_width=48,
  num_heads=4,
  num_kv_heads=2,
  head_width=8,
)


def small_decoder() -> Decoder:
  return init_decoder(CONFIG, jax.random.key(0))


def arrays_of(batch: Batch) -> dict[str, np.ndarray]:
  """The fields of a batch by name, without those that it does not have."""
  return {name: array for name, array in batch._asdict().items() if array is not None}


def assert_same_state(found, expected, config: TrainConfig, num_updates: int) -> None:
  """States of Adam after the same updates in other orders of summation.

  Adam divides a mean of gradients by a mean of their sizes, so a parameter moves by the rate times
  the relative errors of both, which are large where gradients are small; never by more than twice
  the rate.
  """
  second = optax.tree_utils.tree_get(expected.opt_state, 'nu')
  sizes = [np.sqrt(leaf / (1 - config.beta2)) for leaf in jax.tree.leaves(second)]
  largest = max(float(size.max()) for size in sizes)
  noise = tolerance('float32', decoder_terms(CONFIG, 16, 3) + 8 * 16, largest)
  leaves = zip(jax.tree.leaves(found.params), jax.tree.leaves(expected.params), sizes, strict=True)
  for ours, theirs, size in leaves:
    relative = np.minimum(2.0, 2 * noise / np.maximum(size, 1e-30))
    limit = num_updates * config.learning_rate * relative + tolerance('float32', 4)
    worst = np.max(np.abs(ours - theirs) / limit)
    assert worst <= 1, f'a parameter is off by {worst:.2g} of what rounding explains'


def trajectory(
  outcomes,
  values=None,
  lengths=None,
  *,
  correct=False,
  collected=True,
  group=0,
  problem='p',
  tokens=None,
  seed=0,
) -> Trajectory:
  """A trajectory whose nodes have these mean outcomes (root first), values and lengths.

  By default values are the outcomes, and each node but the root adds two random tokens.
  """
  if lengths is None:
    lengths = [0] + [2] * (len(outcomes) - 1)
  if values is None:
    values = outcomes
  rng = np.random.default_rng(seed)
  size = sum(lengths)
  if tokens is None:
    tokens = rng.integers(1, 57, size)
  return Trajectory(
    problem_id=problem,
    group=group,
    prompt_tokens=np.array([1, 2, 3], np.int32),
    tokens=np.asarray(tokens, np.int32),
    behavior_logprobs=(-4 + 0.3 * rng.normal(size=size)).astype(np.float32),
    node_ids=np.arange(len(outcomes), dtype=np.int32),
    node_lengths=np.asarray(lengths, np.int32),
    node_values=np.asarray(values, np.float32),
    node_outcomes=np.asarray(outcomes, np.float32),
    reward=1.0 if correct else -1.0,
    is_correct=correct,
    is_collected=collected,
  )


def random_tree(
  rng: np.random.Generator, *, width: int = 3, depth: int = 3, length: int = 4, group: int = 0
) -> list[Trajectory]:
  """All ends of a random tree: uneven depths and lengths, mixed verdicts, some not collected."""
  nodes = [_Node((0,), np.zeros(0, np.int32), np.zeros(0, np.float32), 0.0)]
  ends, count = [], 1
  while nodes:
    node = nodes.pop(0)
    for _ in range(rng.integers(1, width + 1)):
      size = rng.integers(1, length + 1)
      tokens = rng.integers(1, 57, size)
      logprobs = -4 + 0.3 * rng.normal(size=size)
      child = _Node(
        (*node.ids, count),
        np.append(node.tokens, tokens).astype(np.int32),
        np.append(node.logprobs, logprobs).astype(np.float32),
        rng.normal(),
        node,
      )
      count += 1
      is_end = len(child.ids) > depth or rng.random() < 0.3
      (ends if is_end else nodes).append(child)
  return _ends(rng, ends, group)


@dataclasses.dataclass(frozen=True)
class _Node:
  ids: tuple[int, ...]  # from the root
  tokens: np.ndarray  # of the whole path
  logprobs: np.ndarray
  value: float
  parent: _Node | None = None

  def path(self) -> list[_Node]:
    """From the root to this node."""
    return [*(self.parent.path() if self.parent else ()), self]


def _ends(rng: np.random.Generator, ends: list[_Node], group: int) -> list[Trajectory]:
  """Trajectories of a tree's ends, with random verdicts; some trees have one outcome alone."""
  correct = rng.random(len(ends)) < rng.choice([0.0, 0.4, 1.0], p=[0.2, 0.6, 0.2])
  collected = rng.random(len(ends)) < 0.7

  def mean_outcome(node: _Node) -> float:
    is_below = [end.ids[: len(node.ids)] == node.ids for end in ends]
    return 2 * np.mean(correct[is_below]) - 1

  prompt = rng.integers(1, 57, rng.integers(1, 6)).astype(np.int32)
  trajectories = []
  for end, is_correct, is_collected in zip(ends, correct, collected, strict=True):
    path = end.path()
    t = trajectory(
      [mean_outcome(node) for node in path],
      [node.value for node in path[:-1]] + [1.0 if is_correct else -1.0],
      np.diff([len(node.tokens) for node in path], prepend=0),
      correct=bool(is_correct),
      collected=bool(is_collected),
      group=group,
      problem=f'p{group}',
      tokens=end.tokens,
    )
    t = dataclasses.replace(
      t,
      prompt_tokens=prompt,
      behavior_logprobs=end.logprobs,
      node_ids=np.array(end.ids, np.int32),
    )
    trajectories.append(t)
  return trajectories


def random_examples(count: int, seed: int = 0, weight: float = 0.02) -> list[Example]:
  """Sequences of at most 13 tokens, with random advantages and behaviour."""
  rng = np.random.default_rng(seed)
  examples = []
  for _ in range(count):
    prompt = rng.integers(0, 57, rng.integers(1, 6)).astype(np.int32)
    response = rng.integers(0, 57, rng.integers(1, 9)).astype(np.int32)
    advantage = rng.normal(size=len(response))
    logprobs = -4 + 0.3 * rng.normal(size=len(response))
    example = Example(
      prompt, response, weight, advantage.astype(np.float32), logprobs.astype(np.float32)
    )
    examples.append(example)
  return examples
