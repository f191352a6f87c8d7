"""Optimizers: global-norm clip, then AdamW, Adafactor or Muon; schedules; frozen parameters."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ds_jax.checks import InputError
from ds_jax.config import TrainConfig, WarmstartConfig
from ds_jax.sharding import path_name

_NOT_DECAYED = re.compile(r'(scale|bias)$')  # norms and biases


class _Matrix(NamedTuple):
  """Parameters that Muon orthogonalizes as matrices, one per layer (axis 0)."""

  pattern: re.Pattern[str]  # finds their paths
  summed: tuple[int, ...]  # axes that the matrix product sums over
  made: tuple[int, ...]  # axes that it makes


# Embeddings, heads, norms and biases are none of these: AdamW updates them.
_MATRICES = (
  _Matrix(re.compile(r'(query|key|value)_kernel$'), summed=(1,), made=(2, 3)),  # [L, M, H|C, D]
  _Matrix(re.compile(r'output_kernel$'), summed=(1, 2), made=(3,)),  # [L, H, D, M]
  _Matrix(re.compile(r'(gate|up|down)_kernel$'), summed=(1,), made=(2,)),  # [L, M, F], [L, F, M]
)


def make_optimizer(config: TrainConfig, num_updates: int = 0) -> optax.GradientTransformation:
  """Returns the policy's optimizer: clip by global norm, then `config.optimizer`.

  Parameters that `config.frozen` finds get no update and no moments.

  Args:
    config: `optimizer`, `schedule`, `frozen` and the numbers that belong to them.
    num_updates: of the whole run; a schedule that falls ends there.
  """
  schedule = make_schedule(config, num_updates)
  optimizer = optax.chain(
    optax.clip_by_global_norm(config.max_grad_norm), OPTIMIZERS[config.optimizer](config, schedule)
  )
  if not config.frozen:
    return optimizer

  def labels(params: Any) -> Any:
    mask = frozen_mask(params, config.frozen)
    return jax.tree.map(lambda is_frozen: 'frozen' if is_frozen else 'trained', mask)

  return optax.partition({'frozen': optax.set_to_zero(), 'trained': optimizer}, labels)


def make_warmstart_optimizer(config: WarmstartConfig) -> optax.GradientTransformation:
  """Returns the warm start's optimizer: AdamW after a clip of the global norm to 1.

  The rate warms up linearly over 5 % of the steps, then falls as a cosine to a tenth of the peak.
  """
  peak = config.learning_rate
  warmup_steps = max(1, config.num_steps // 20)
  falling_steps = max(1, config.num_steps - warmup_steps)
  falling = optax.cosine_decay_schedule(peak, falling_steps, alpha=0.1)
  schedule = with_warmup(falling, peak, warmup_steps)
  return optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(schedule, b1=0.9, b2=0.98, weight_decay=config.weight_decay, mask=decay_mask),
  )


def make_schedule(config: TrainConfig, num_updates: int) -> optax.Schedule:
  """Returns the rate by update: a linear warm-up, then constant or falling.

  A rate that falls ends at `final_rate_share` of the peak.

  Raises:
    ValueError: if the schedule falls and `num_updates` does not say until when.
  """
  peak, warmup_steps = config.learning_rate, config.warmup_steps
  if config.schedule == 'constant':
    return linear_warmup(peak, warmup_steps)
  if num_updates < 1:
    raise ValueError(
      f'Expected num_updates >= 1 for the schedule {config.schedule!r}, got {num_updates}.'
    )
  falling_steps = max(1, num_updates - warmup_steps)
  if config.schedule == 'linear':
    end = peak * config.final_rate_share
    falling = optax.linear_schedule(peak, end, falling_steps)
  else:
    falling = optax.cosine_decay_schedule(peak, falling_steps, alpha=config.final_rate_share)
  return with_warmup(falling, peak, warmup_steps)


def with_warmup(schedule: optax.Schedule, peak: float, num_steps: int) -> optax.Schedule:
  """Returns `schedule` with a linear warm-up before its first update."""
  return optax.join_schedules([linear_warmup(peak, num_steps), schedule], [num_steps])


def linear_warmup(peak: float, num_steps: int) -> optax.Schedule:
  """peak * min(1, (count + 1) / num_steps): the first update already moves; 0: constant."""

  def rate(count: jax.Array) -> jax.Array:
    return peak * jnp.minimum(1.0, (count + 1) / max(num_steps, 1))

  return rate


def decay_mask(params: Any) -> Any:
  """Returns True for parameters that weight decay shrinks: all but norms and biases."""

  def is_decayed(path: Any, leaf: Any) -> bool:
    del leaf
    return not _NOT_DECAYED.search(path_name(path))

  return jax.tree_util.tree_map_with_path(is_decayed, params)


def frozen_mask(params: Any, pattern: str) -> Any:
  """Returns True for parameters whose path, e.g. 'layers/query_kernel', a pattern finds.

  Args:
    params: the parameters.
    pattern: a regular expression.

  Raises:
    InputError: if it finds none of them, or all.
  """

  def is_frozen(path: Any, leaf: Any) -> bool:
    del leaf
    return bool(re.search(pattern, path_name(path)))

  mask = jax.tree_util.tree_map_with_path(is_frozen, params)
  flags = jax.tree.leaves(mask)
  if all(flags) or not any(flags):
    names = sorted(path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params))
    raise InputError(
      f'train.frozen = {pattern!r} finds {"all" if any(flags) else "none"} '
      f'of the parameters {", ".join(names)}; expected some of them.'
    )
  return mask


def without_frozen(params: Any, pattern: str) -> Any:
  """Returns the parameters with frozen ones as constants: their gradients are 0, at no cost."""
  if not pattern:
    return params

  def fixed(leaf: Any, is_frozen: bool) -> Any:
    return jax.lax.stop_gradient(leaf) if is_frozen else leaf

  return jax.tree.map(fixed, params, frozen_mask(params, pattern))


def _adamw(config: TrainConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
  return optax.adamw(
    schedule, b1=config.beta1, b2=config.beta2, weight_decay=config.weight_decay, mask=decay_mask
  )


def _adafactor(config: TrainConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
  """Adafactor (arXiv:1804.04235) without its relative step, so that rates mean AdamW's."""
  return optax.chain(
    optax.scale_by_factored_rms(),
    optax.clip_by_block_rms(1.0),
    optax.add_decayed_weights(config.weight_decay, decay_mask),
    optax.scale_by_learning_rate(schedule),
  )


def _muon(config: TrainConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
  """Muon (Jordan et al. 2024) on matrices, with updates of AdamW's size (arXiv:2502.16982)."""
  return optax.contrib.muon(
    schedule,
    beta=config.beta1,
    weight_decay=config.weight_decay,
    adam_b1=config.beta1,
    adam_b2=config.beta2,
    consistent_rms=0.2,
    muon_weight_dimension_numbers=_matrices,
  )


def _matrices(params: Any) -> Any:
  """Returns the axes of every parameter's matrix product; None for what is no matrix."""

  def axes_of(path: Any, leaf: Any) -> optax.contrib.MuonDimensionNumbers | None:
    del leaf
    for matrix in _MATRICES:
      if matrix.pattern.search(path_name(path)):
        return optax.contrib.MuonDimensionNumbers(matrix.summed, matrix.made)
    return None

  return jax.tree_util.tree_map_with_path(axes_of, params)


OPTIMIZERS = {'adamw': _adamw, 'adafactor': _adafactor, 'muon': _muon}
