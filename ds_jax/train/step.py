"""One optimizer update: gradients accumulated over micro-batches of one fixed shape, then applied.

Rows are split over data x fsdp, parameters and gradients as sharding.py says. Shapes are fixed, so
a second update compiles nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ds_jax.checks import check_divides
from ds_jax.config import TrainConfig
from ds_jax.model.decoder import Decoder, Rows
from ds_jax.model.sharded import mesh_logprobs
from ds_jax.sharding import num_slot_shards, parameter_shardings, put_rows, replicated
from ds_jax.train.batch import Batch, micro_batches
from ds_jax.train.losses import collapsed_loss, reference_kl
from ds_jax.train.optimizer import without_frozen
from ds_jax.train.state import TrainState


class Statistics(NamedTuple):
  """Sums over copies of response tokens (one maximum aside), so that micro-batches add up."""

  loss: jax.Array  # [] float32, the weighted loss itself
  num_tokens: jax.Array  # [] float32
  num_distinct: jax.Array  # [] float32, copies of a token counted once
  entropy: jax.Array  # [] float32, nats
  num_clipped: jax.Array | float = 0.0  # [] float32
  num_clipped_lower: jax.Array | float = 0.0  # [] float32
  approx_kl: jax.Array | float = 0.0  # [] float32, behaviour minus policy log-prob
  reference_kl: jax.Array | float = 0.0  # [] float32
  max_log_ratio: jax.Array | float = 0.0  # [] float32, largest |log ratio|


# loss_fn(logprobs [R, S], entropies [R, S], batch) -> (loss [], Statistics).
LossFn = Callable[[jax.Array, jax.Array, Batch], tuple[jax.Array, Statistics]]


@dataclasses.dataclass(frozen=True)
class Learner:
  """The compiled parts of an update; made by `make_learner`."""

  mesh: jax.sharding.Mesh
  micro_rows: int  # rows per pass, over all devices
  start: Callable[..., Any]  # (params) -> zero gradients and statistics
  accumulate: Callable[..., Any]  # (params, (grads, statistics), batch) -> the same, summed
  apply: Callable[..., Any]  # (state, grads) -> (state, gradient norm, is_applied); state donated
  score_rows: Callable[..., Any]  # (params, batch) -> (logprobs, entropies), [micro_rows, S]
  before_pass: Callable[[], None]  # called when the pass before has ended; may raise

  def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, float]]:
    """Runs one optimizer update over a whole minibatch.

    A gradient that is not finite is not applied: parameters, moments and step stay as they are and
    `train/skipped` is 1. The same holds for a batch without rows, where every figure is 0.

    Args:
      state: donated.
      batch: `[R, S]` on the host, any number of rows; S the same in every call.

    Returns:
      The new state and the metrics `train/…`, documented in `metrics`.
    """
    if not len(batch.tokens):
      zeros = Statistics(*[0.0] * len(Statistics._fields))
      return state, metrics(zeros, grad_norm=0.0, is_applied=False)
    total = self.start(state.params)
    for micro in micro_batches(batch, self.micro_rows):
      rows = self._on_mesh(micro)
      jax.block_until_ready(total)
      self.before_pass()
      total = self.accumulate(state.params, total, rows)
    grads, statistics = total
    del total
    state, grad_norm, is_applied = self.apply(state, grads)
    return state, metrics(*jax.device_get((statistics, grad_norm, is_applied)))

  def score(self, params: Decoder, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Log-probs of the targets and entropies (nats), `[R, S]` float32 on the host."""
    num_rows = len(batch.tokens)
    if not num_rows:
      return tuple(np.zeros(batch.tokens.shape, np.float32) for _ in range(2))
    scored = []
    for micro in micro_batches(batch, self.micro_rows):
      self.before_pass()
      scored.append(jax.device_get(self.score_rows(params, self._on_mesh(micro))))
    return tuple(np.concatenate(x)[:num_rows] for x in zip(*scored, strict=True))

  def _on_mesh(self, batch: Batch) -> Batch:
    return put_rows(batch, self.mesh)


def make_learner(
  optimizer: optax.GradientTransformation,
  mesh: jax.sharding.Mesh,
  *,
  micro_rows: int,
  loss_fn: LossFn,
  temperature: float = 1.0,
  frozen: str = '',
  before_pass: Callable[[], None] = lambda: None,
) -> Learner:
  """Returns the learner of one loss on one mesh.

  Args:
    optimizer: from optimizer.py.
    mesh: the whole mesh.
    micro_rows: rows per forward and backward pass, over all devices.
    loss_fn: `policy_loss_fn(config)` or `sft.imitation_loss`.
    temperature: the sampler's, > 0: the policy is the full softmax at that temperature.
    frozen: regular expression over the paths of parameters that are constants; '': none.
    before_pass: called before each pass over rows, when the one before has ended. What it raises
      ends the update, which has changed nothing by then.

  Raises:
    InputError: if the rows do not divide the mesh; nothing has been compiled by then.
  """
  check_divides('train.micro_rows', micro_rows, 'mesh data x fsdp', num_slot_shards(mesh))
  shard = lambda tree: jax.lax.with_sharding_constraint(tree, parameter_shardings(tree, mesh))

  def score(params: Decoder, batch: Batch) -> tuple[jax.Array, jax.Array]:
    rows = Rows(batch.tokens, batch.positions, batch.key_end, batch.tokens, batch.predecessor)
    return mesh_logprobs(params, rows, mesh=mesh, temperature=temperature)

  def loss_of(params: Decoder, batch: Batch) -> tuple[jax.Array, Statistics]:
    return loss_fn(*score(without_frozen(params, frozen), batch), batch)

  def start(params: Decoder):
    zeros = Statistics(*[jnp.zeros(())] * len(Statistics._fields))
    return shard(jax.tree.map(jnp.zeros_like, params)), zeros

  def accumulate(params: Decoder, total, batch: Batch):
    grads, statistics = jax.grad(loss_of, has_aux=True)(params, batch)
    summed = jax.tree.map(jnp.add, total, (grads, statistics))
    largest = jnp.maximum(total[1].max_log_ratio, statistics.max_log_ratio)
    return shard(summed[0]), summed[1]._replace(max_log_ratio=largest)

  def apply(state: TrainState, grads: Decoder):
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    updated = TrainState(optax.apply_updates(state.params, updates), opt_state, state.step + 1)
    is_applied = jnp.isfinite(grad_norm)
    chosen = jax.tree.map(lambda new, old: jnp.where(is_applied, new, old), updated, state)
    return shard(chosen), grad_norm, is_applied

  return Learner(
    mesh,
    micro_rows,
    start=jax.jit(start),
    accumulate=jax.jit(accumulate, donate_argnums=1),
    apply=jax.jit(apply, donate_argnums=0),
    score_rows=jax.jit(score, out_shardings=replicated(mesh)),
    before_pass=before_pass,
  )


def policy_loss_fn(config: TrainConfig) -> LossFn:
  """The Tree-GRPO loss of a packed batch, summed over the copies of each response token.

  loss = sum of weight * (clipped loss + kl_coefficient * KL - entropy_coefficient * entropy)
  """
  clip = {'clip_low': config.clip_low, 'clip_high': config.clip_high, 'dual_clip': config.dual_clip}

  def loss_fn(
    logprobs: jax.Array, entropies: jax.Array, batch: Batch
  ) -> tuple[jax.Array, Statistics]:
    mask = batch.num_copies > 0
    # Positions that predict nothing get ratio 1 before exp, so that no inf meets a weight of 0.
    logprobs = jnp.where(mask, logprobs, batch.behavior_logprobs)
    per_token = collapsed_loss(
      logprobs,
      batch.behavior_logprobs,
      batch.positive,
      batch.negative,
      batch.num_positive,
      batch.num_negative,
      **clip,
    )
    loss = jnp.sum(per_token.loss)
    kl = jnp.zeros_like(logprobs)
    if config.kl_coefficient:
      kl = reference_kl(logprobs, jnp.where(mask, batch.reference_logprobs, logprobs))
      loss += config.kl_coefficient * jnp.sum(batch.weight * kl)
    if config.entropy_coefficient:
      loss -= config.entropy_coefficient * jnp.sum(batch.weight * entropies)
    log_ratio = logprobs - batch.behavior_logprobs
    total = lambda x: jnp.sum(batch.num_copies * x)
    return loss, Statistics(
      loss=loss,
      num_tokens=total(1.0),
      num_distinct=jnp.sum(mask, dtype=jnp.float32),
      entropy=total(entropies),
      num_clipped=jnp.sum(per_token.num_clipped),
      num_clipped_lower=jnp.sum(per_token.num_clipped_lower),
      approx_kl=total(-log_ratio),
      reference_kl=total(kl),
      max_log_ratio=jnp.abs(log_ratio).max(),
    )

  return loss_fn


def metrics(statistics: Statistics, grad_norm: float, is_applied: bool) -> dict[str, float]:
  """The figures of one update, means over its response tokens unless stated.

  loss: the aggregated loss. clip_fraction: share of tokens whose clipped branch is larger.
  clip_fraction_lower: share that the dual clip bounds. approx_kl: behaviour minus policy log-prob.
  ratio_max_log: largest |log ratio|; 0 up to float noise at the first update on fresh samples.
  entropy: nats. reference_kl: to the reference policy, if the loss has it. grad_norm: before
  clipping. num_tokens: a count. copies_per_token: path tokens / distinct tokens. skipped: 1 if not
  applied.
  """
  s = statistics
  mean = lambda x: float(x) / max(float(s.num_tokens), 1.0)
  return {
    'train/loss': float(s.loss),
    'train/clip_fraction': mean(s.num_clipped),
    'train/clip_fraction_lower': mean(s.num_clipped_lower),
    'train/approx_kl': mean(s.approx_kl),
    'train/ratio_max_log': float(s.max_log_ratio),
    'train/entropy': mean(s.entropy),
    'train/reference_kl': mean(s.reference_kl),
    'train/grad_norm': float(grad_norm),
    'train/num_tokens': float(s.num_tokens),
    'train/copies_per_token': float(s.num_tokens) / max(float(s.num_distinct), 1.0),
    'train/skipped': float(not is_applied),
  }
