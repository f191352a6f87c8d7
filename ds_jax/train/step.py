"""One optimizer update: gradients accumulated over micro-batches of one fixed shape, then applied.

Rows are split over data x fsdp, parameters and gradients as sharding.py says. Shapes are fixed, few
for a run and one for an update, so a second update of the same shape compiles nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ds_jax.checks import check_divides, check_shape
from ds_jax.config import TrainConfig
from ds_jax.model.decoder import Decoder, Rows
from ds_jax.model.lora import Adapted, measure_change, num_trained
from ds_jax.model.sharded import mesh_logprobs
from ds_jax.sharding import num_slot_shards, parameter_shardings, put_rows, replicated
from ds_jax.train.batch import Batch, RowShape, micro_batches
from ds_jax.train.losses import (
  Clip,
  CollapsedLoss,
  Copies,
  collapsed_loss,
  reference_kl,
  sequence_loss,
  weighted_loss,
)
from ds_jax.train.optimizer import without_frozen
from ds_jax.train.state import Policy, Trained, TrainState, policy_of


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


def zero_statistics(zero: Any) -> Statistics:
  """Returns statistics of nothing, each of them `zero`."""
  return Statistics._make([zero] * len(Statistics._fields))


# loss_fn(logprobs [R, S], entropies [R, S], batch) -> (loss [], Statistics).
LossFn = Callable[[jax.Array, jax.Array, Batch], tuple[jax.Array, Statistics]]

# metrics_fn(statistics) -> figures.
MetricsFn = Callable[[Statistics], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Learner:
  """The compiled parts of an update; made by `make_learner`."""

  mesh: jax.sharding.Mesh
  micro_rows: int  # rows per pass, over all devices
  start: Callable[..., Any]  # (params) -> zero gradients and statistics
  accumulate: Callable[..., Any]  # (params, (grads, statistics), batch, base) -> the same, summed
  apply: Callable[..., Any]  # (state, grads) -> (state, gradient norm, is_applied); state donated
  score_rows: Callable[..., Any]  # (policy, batch) -> (logprobs, entropies), [micro_rows, S]
  before_pass: Callable[[], None]  # called when the pass before has ended; may raise
  metrics_fn: MetricsFn  # figures of the loss, besides those that every update has
  # row length -> rows per pass, of rows that are shorter than the others
  short_rows: Mapping[int, int] = dataclasses.field(default_factory=dict)
  # Frozen parameters, whose adapters are trained; None: all are trained.
  base: Decoder | None = None

  def policy(self, params: Trained) -> Policy:
    """What is trained, with the frozen parameters."""
    return policy_of(params, self.base)

  def passes(self, batch: Batch) -> Iterator[Batch]:
    """Yields the rows of each pass, padded to one shape."""
    row_length = batch.tokens.shape[1]
    return micro_batches(batch, self.short_rows.get(row_length, self.micro_rows))

  def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, float]]:
    """Runs one optimizer update over a whole minibatch.

    A gradient that is not finite is not applied: parameters, moments and step stay as they are and
    `train/skipped` is 1. The same holds for a batch without rows, of which nothing else is known.

    Args:
      state: donated.
      batch: `[R, S]` on the host, any number of rows; another S compiles another pass.

    Returns:
      The new state and the metrics `train/…`, documented in `update_metrics` and `clip_metrics`.
    """
    if not len(batch.tokens):
      return state, {'train/num_tokens': 0.0, 'train/skipped': 1.0}
    total = self.start(state.params)
    for micro in self.passes(batch):
      rows = put_rows(micro, self.mesh)
      jax.block_until_ready(total)  # the rows travel while the pass before is at work
      self.before_pass()
      total = self.accumulate(state.params, total, rows, self.base)
    grads, statistics = total
    state, grad_norm, is_applied = self.apply(state, grads)
    statistics, grad_norm, is_applied = jax.device_get((statistics, grad_norm, is_applied))
    figures = update_metrics(statistics, grad_norm, is_applied) | self.metrics_fn(statistics)
    return state, figures

  def score(self, policy: Policy, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Log-probs of the targets and entropies (nats), `[R, S]` float32 on the host."""
    num_rows = len(batch.tokens)
    if not num_rows:
      nothing = np.zeros(batch.tokens.shape, np.float32)
      return nothing, nothing
    logprobs, entropies = [], []
    for micro in self.passes(batch):
      self.before_pass()
      rows = put_rows(micro, self.mesh)
      scores = jax.device_get(self.score_rows(policy, rows))
      logprobs.append(scores[0])
      entropies.append(scores[1])
    # The last pass may hold rows of padding.
    return np.concatenate(logprobs)[:num_rows], np.concatenate(entropies)[:num_rows]


def make_learner(
  optimizer: optax.GradientTransformation,
  mesh: jax.sharding.Mesh,
  *,
  micro_rows: int,
  loss_fn: LossFn,
  temperature: float = 1.0,
  frozen: str = '',
  before_pass: Callable[[], None] = lambda: None,
  metrics_fn: MetricsFn | None = None,
  short_rows: Sequence[RowShape] = (),
) -> Learner:
  """Returns the learner of one loss on one mesh.

  Args:
    optimizer: from optimizer.py.
    mesh: the whole mesh.
    micro_rows: rows per forward and backward pass, over all devices.
    loss_fn: `policy_loss_fn(config)` or `sft.imitation_loss`.
    temperature: the sampler's, > 0: the policy is the full softmax at that temperature. Of a batch
      that has temperatures it is not read.
    frozen: regular expression over the paths of parameters that are constants; '': none.
    before_pass: called before each pass over rows, when the one before has ended. What it raises
      ends the update, which has changed nothing by then.
    metrics_fn: the figures of the loss; None: those of a clipped objective.
    short_rows: shapes of passes over rows that are shorter than most.

  Raises:
    InputError: if the rows do not divide the mesh; nothing has been compiled by then.
  """
  check_divides('train.micro_rows', micro_rows, 'mesh data x fsdp', num_slot_shards(mesh))

  def shard(tree: Any) -> Any:
    return jax.lax.with_sharding_constraint(tree, parameter_shardings(tree, mesh))

  def score(policy: Policy, batch: Batch) -> tuple[jax.Array, jax.Array]:
    rows = Rows(
      batch.tokens,
      batch.positions,
      batch.key_end,
      targets=batch.tokens,
      predecessor=batch.predecessor,
      temperature=batch.temperature,
    )
    return mesh_logprobs(policy, rows, mesh=mesh, temperature=temperature)

  def loss_of(params: Trained, batch: Batch, base: Decoder | None) -> tuple[jax.Array, Statistics]:
    policy = policy_of(without_frozen(params, frozen), base)
    logprobs, entropies = score(policy, batch)
    return loss_fn(logprobs, entropies, batch)

  def start(params: Trained) -> tuple[Trained, Statistics]:
    statistics = zero_statistics(jnp.zeros(()))
    return shard(jax.tree.map(jnp.zeros_like, params)), statistics

  def accumulate(
    params: Trained,
    total: tuple[Trained, Statistics],
    batch: Batch,
    base: Decoder | None = None,
  ) -> tuple[Trained, Statistics]:
    _, statistics_so_far = total
    pass_grads, pass_statistics = jax.grad(loss_of, has_aux=True)(params, batch, base)
    grads, statistics = jax.tree.map(jnp.add, total, (pass_grads, pass_statistics))
    # The one figure that is no sum.
    largest = jnp.maximum(statistics_so_far.max_log_ratio, pass_statistics.max_log_ratio)
    return shard(grads), statistics._replace(max_log_ratio=largest)

  def apply(state: TrainState, grads: Trained) -> tuple[TrainState, jax.Array, jax.Array]:
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    updated = TrainState(params, opt_state, state.step + 1)
    # One entry that is not finite makes the norm so: the whole state stays as it was then.
    is_applied = jnp.isfinite(grad_norm)
    chosen = jax.tree.map(lambda new, old: jnp.where(is_applied, new, old), updated, state)
    return shard(chosen), grad_norm, is_applied

  return Learner(
    mesh=mesh,
    micro_rows=micro_rows,
    start=jax.jit(start),
    accumulate=jax.jit(accumulate, donate_argnums=1),
    apply=jax.jit(apply, donate_argnums=0),
    score_rows=jax.jit(score, out_shardings=replicated(mesh)),
    before_pass=before_pass,
    metrics_fn=metrics_fn or clip_metrics,
    short_rows={shape.row_length: shape.micro_rows for shape in short_rows},
  )


def policy_loss_fn(config: TrainConfig) -> LossFn:
  """Returns the Tree-GRPO loss of a packed batch, summed over the copies of each response token.

  loss = sum of weight * (policy loss + kl_coefficient * KL - entropy_coefficient * entropy)

  The policy loss is that of `losses.collapsed_loss`, `sequence_loss` or `weighted_loss`, as
  `policy_loss` says; KL that of `losses.reference_kl`. A term whose coefficient is 0 is not
  computed.
  """
  policy_loss = POLICY_LOSSES[config.policy_loss]

  def loss_fn(
    logprobs: jax.Array, entropies: jax.Array, batch: Batch
  ) -> tuple[jax.Array, Statistics]:
    check_shape('logprobs', logprobs, batch.tokens.shape)
    check_shape('entropies', entropies, batch.tokens.shape)
    mask = batch.num_copies > 0
    # Positions that predict nothing get ratio 1 before exp, so that no inf meets a weight of 0.
    logprobs = jnp.where(mask, logprobs, batch.behavior_logprobs)
    per_token = policy_loss(logprobs, batch, config)
    loss = jnp.sum(per_token.loss)
    kl = jnp.zeros_like(logprobs)
    if config.kl_coefficient:
      kl = reference_kl(logprobs, jnp.where(mask, batch.reference_logprobs, logprobs))
      loss += config.kl_coefficient * jnp.sum(batch.weight * kl)
    if config.entropy_coefficient:
      loss -= config.entropy_coefficient * jnp.sum(batch.weight * entropies)
    log_ratio = logprobs - batch.behavior_logprobs
    return loss, Statistics(
      loss=loss,
      num_tokens=sum_over_copies(1.0, batch),
      num_distinct=jnp.sum(mask, dtype=jnp.float32),
      entropy=sum_over_copies(entropies, batch),
      num_clipped=jnp.sum(per_token.num_clipped),
      num_clipped_lower=jnp.sum(per_token.num_clipped_lower),
      approx_kl=sum_over_copies(-log_ratio, batch),
      reference_kl=sum_over_copies(kl, batch),
      max_log_ratio=jnp.abs(log_ratio).max(),
    )

  return loss_fn


def _ppo(logprobs: jax.Array, batch: Batch, config: TrainConfig) -> CollapsedLoss:
  clip = Clip(config.clip_low, config.clip_high, config.dual_clip)
  return collapsed_loss(logprobs, batch.behavior_logprobs, _copies(batch), clip=clip)


def _gspo(logprobs: jax.Array, batch: Batch, config: TrainConfig) -> CollapsedLoss:
  return sequence_loss(
    logprobs - batch.behavior_logprobs,
    batch.key_end,
    batch.num_copies > 0,
    ends=batch.ends,
    clip=Clip(config.gspo_clip_low, config.gspo_clip_high, config.dual_clip),
  )


def _cispo(logprobs: jax.Array, batch: Batch, config: TrainConfig) -> CollapsedLoss:
  return weighted_loss(logprobs, batch.behavior_logprobs, _copies(batch), cap=config.cispo_cap)


# policy_loss(logprobs [R, S], batch, config) -> sums over the copies of each token; log-probs are
# the behaviour's where nothing is scored.
POLICY_LOSSES = {'ppo': _ppo, 'gspo': _gspo, 'cispo': _cispo}


def _copies(batch: Batch) -> Copies:
  return Copies(batch.positive, batch.negative, batch.num_positive, batch.num_negative)


def sum_over_copies(values: jax.Array | float, batch: Batch) -> jax.Array:
  """Returns the sum of per-token values `[R, S]` over all copies of response tokens."""
  return jnp.sum(batch.num_copies * values)


def update_metrics(statistics: Statistics, grad_norm: float, is_applied: bool) -> dict[str, float]:
  """Returns the figures of one update, means over its response tokens unless stated.

  loss: the aggregated loss. entropy: nats. grad_norm: before clipping. num_tokens: a count.
  copies_per_token: path tokens / distinct tokens. skipped: 1 if not applied.
  """
  num_tokens = float(statistics.num_tokens)
  return {
    'train/loss': float(statistics.loss),
    'train/entropy': _mean(statistics.entropy, statistics),
    'train/grad_norm': float(grad_norm),
    'train/num_tokens': num_tokens,
    'train/copies_per_token': num_tokens / max(float(statistics.num_distinct), 1.0),
    'train/skipped': float(not is_applied),
  }


def clip_metrics(statistics: Statistics) -> dict[str, float]:
  """Returns the figures of a clipped objective, means over response tokens unless stated.

  clip_fraction: share of tokens whose clipped branch is larger; of gspo, whose trajectory's is; of
  cispo, whose weight is cut. clip_fraction_lower: share that the dual clip bounds. approx_kl:
  behaviour minus policy log-prob. ratio_max_log: largest |log ratio|; 0 up to float noise at the
  first update on fresh samples.
  """
  return {
    'train/clip_fraction': _mean(statistics.num_clipped, statistics),
    'train/clip_fraction_lower': _mean(statistics.num_clipped_lower, statistics),
    'train/approx_kl': _mean(statistics.approx_kl, statistics),
    'train/ratio_max_log': float(statistics.max_log_ratio),
  }


def adapter_metrics(policy: Adapted) -> dict[str, float]:
  """Returns the figures of a policy with adapters.

  lora_norm: Frobenius norm of what is added to all kernels. lora_moved_share: share of the adapted
  weights that differ from the frozen ones once rounded to their dtype. lora_trained_share: numbers
  in adapters over those in the model.
  """
  change = jax.device_get(measure_change(policy))
  return {
    'train/lora_norm': float(change.norm),
    'train/lora_moved_share': float(change.moved_share),
    'train/lora_trained_share': num_trained(policy.adapters) / policy.base.config.num_parameters(),
  }


def policy_metrics_fn(config: TrainConfig) -> MetricsFn:
  """Returns the figures of `policy_loss_fn(config)`: `clip_metrics`, and what else it computes.

  reference_kl: KL to the reference policy, if the loss has it.
  """

  def metrics_fn(statistics: Statistics) -> dict[str, float]:
    figures = clip_metrics(statistics)
    if config.kl_coefficient:
      figures['train/reference_kl'] = _mean(statistics.reference_kl, statistics)
    return figures

  return metrics_fn


def _mean(total: jax.Array | float, statistics: Statistics) -> float:
  """Returns the mean over the copies of response tokens."""
  return float(total) / max(float(statistics.num_tokens), 1.0)
