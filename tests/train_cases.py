"""Small decoders, trajectories and batches that the tests of train/ and checkpoint share."""

from __future__ import annotations

import jax
import numpy as np

from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import Decoder, init_decoder
from ds_jax.train.batch import Example
from ds_jax.types import Trajectory

CONFIG = DecoderConfig(vocab_size=64, num_ids=57, num_layers=2, width=32, mlp_width=48,
                       num_heads=4, num_kv_heads=2, head_width=8)


def small_decoder() -> Decoder:
  return init_decoder(CONFIG, jax.random.key(0))


def trajectory(outcomes, values=None, lengths=None, *, correct=False, collected=True, group=0,
               problem='p', tokens=None, seed=0) -> Trajectory:
  """A trajectory whose nodes have these mean outcomes (root first), values and lengths."""
  lengths = [0] + [2] * (len(outcomes) - 1) if lengths is None else lengths
  values = outcomes if values is None else values
  rng = np.random.default_rng(seed)
  size = sum(lengths)
  tokens = rng.integers(1, 57, size) if tokens is None else tokens
  return Trajectory(
      problem_id=problem, group=group, prompt_tokens=np.array([1, 2, 3], np.int32),
      tokens=np.asarray(tokens, np.int32),
      behavior_logprobs=(-4 + 0.3 * rng.normal(size=size)).astype(np.float32),
      entropies=np.ones(size, np.float32), node_ids=np.arange(len(outcomes), dtype=np.int32),
      node_lengths=np.asarray(lengths, np.int32), node_values=np.asarray(values, np.float32),
      node_outcomes=np.asarray(outcomes, np.float32), reward=1.0 if correct else -1.0,
      is_correct=correct, is_collected=collected)


def random_examples(count: int, seed: int = 0, weight: float = 0.02) -> list[Example]:
  rng = np.random.default_rng(seed)
  examples = []
  for _ in range(count):
    prompt = rng.integers(0, 57, rng.integers(1, 6)).astype(np.int32)
    response = rng.integers(0, 57, rng.integers(1, 9)).astype(np.int32)
    examples.append(Example(
        prompt, response, weight, rng.normal(size=len(response)).astype(np.float32),
        (-4 + 0.3 * rng.normal(size=len(response))).astype(np.float32)))
  return examples
