"""Optimizers: global-norm clip, then AdamW, Adafactor or Muon; schedules; frozen parameters."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ds_jax.checks import InputError
from ds_jax.config import TrainConfig, WarmstartConfig
from ds_jax.sharding import path_name

_NOT_DECAYED = re.compile(r'(scale|bias)$')  # norms and biases

# (pattern over the parameter's path, axes that its matrix product sums over, axes that it makes):
# what Muon orthogonalizes. Axis 0 is the layer. Embeddings, heads, norms and biases go to AdamW.
_MATRICES = (
  (r'(query|key|value)_kernel$', (1,), (2, 3)),  # [L, M, H|C, D]
  (r'output_kernel$', (1, 2), (3,)),  # [L, H, D, M]
  (r'(gate|up|down)_kernel$', (1,), (2,)),  # [L, M, F], [L, F, M]
)


def make_optimizer(config: TrainConfig, num_updates: int = 0) -> optax.GradientTransformation:
  """The policy's optimizer: clip by global norm, then `config.optimizer`; the rest is `frozen`.

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
  label = lambda is_frozen: 'frozen' if is_frozen else 'trained'
  return optax.partition(
    {'frozen': optax.set_to_zero(), 'trained': optimizer},
    lambda params: jax.tree.map(label, frozen_mask(params, config.frozen)),
  )


def make_warmstart_optimizer(config: WarmstartConfig) -> optax.GradientTransformation:
  """The warm start's: linear warm-up over 5 % of the steps, then cosine to a tenth of the peak."""
  warmup_steps = max(1, config.num_steps // 20)
  schedule = with_warmup(
    optax.cosine_decay_schedule(
      config.learning_rate, max(1, config.num_steps - warmup_steps), alpha=0.1
    ),
    config.learning_rate,
    warmup_steps,
  )
  return optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(schedule, b1=0.9, b2=0.98, weight_decay=config.weight_decay, mask=decay_mask),
  )


def make_schedule(config: TrainConfig, num_updates: int) -> optax.Schedule:
  """Linear warm-up to the peak, then constant, or falling to `final_rate_share` of it.

  Raises:
    ValueError: if the schedule falls and `num_updates` says not until when.
  """
  peak, warmup = config.learning_rate, config.warmup_steps
  if config.schedule == 'constant':
    return linear_warmup(peak, warmup)
  if num_updates < 1:
    raise ValueError(
      f'Expected num_updates >= 1 for the schedule {config.schedule!r}, got {num_updates}.'
    )
  length = max(1, num_updates - warmup)
  falling = {
    'linear': optax.linear_schedule(peak, peak * config.final_rate_share, length),
    'cosine': optax.cosine_decay_schedule(peak, length, alpha=config.final_rate_share),
  }
  return with_warmup(falling[config.schedule], peak, warmup)


def with_warmup(schedule: optax.Schedule, peak: float, num_steps: int) -> optax.Schedule:
  """`schedule`, begun after a linear warm-up."""
  return optax.join_schedules([linear_warmup(peak, num_steps), schedule], [num_steps])


def linear_warmup(peak: float, num_steps: int) -> optax.Schedule:
  """peak * min(1, (count + 1) / num_steps): the first update already moves; 0: constant."""
  return lambda count: peak * jnp.minimum(1.0, (count + 1) / max(num_steps, 1))


def decay_mask(params: Any) -> Any:
  """True for parameters that weight decay shrinks: all but norms and biases."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: not _NOT_DECAYED.search(path_name(path)), params
  )


def frozen_mask(params: Any, pattern: str) -> Any:
  """True for parameters whose path, e.g. 'layers/query_kernel', the regular expression finds.

  Raises:
    InputError: if it finds none of them, or all.
  """
  is_frozen = lambda path: bool(re.search(pattern, path_name(path)))
  names = {
    path_name(path): is_frozen(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)
  }
  if len(set(names.values())) < 2:
    raise InputError(
      f'train.frozen = {pattern!r} finds {"all" if any(names.values()) else "none"} '
      f'of the parameters {", ".join(sorted(names))}; expected some of them.'
    )
  return jax.tree_util.tree_map_with_path(lambda path, leaf: is_frozen(path), params)


def without_frozen(params: Any, pattern: str) -> Any:
  """The parameters, the frozen ones as constants: their gradients are 0 and cost nothing."""
  if not pattern:
    return params
  return jax.tree.map(
    lambda leaf, is_frozen: jax.lax.stop_gradient(leaf) if is_frozen else leaf,
    params,
    frozen_mask(params, pattern),
  )


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
  """The axes of every parameter's matrix product; None where it is none."""

  def of(path, leaf):
    del leaf
    found = [axes for pattern, *axes in _MATRICES if re.search(pattern, path_name(path))]
    return optax.contrib.MuonDimensionNumbers(*found[0]) if found else None

  return jax.tree_util.tree_map_with_path(of, params)


OPTIMIZERS = {'adamw': _adamw, 'adafactor': _adafactor, 'muon': _muon}
