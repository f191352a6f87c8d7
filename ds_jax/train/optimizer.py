"""Optimizers: global-norm clip, AdamW with a decay mask, and learning-rate schedules."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ds_jax.config import TrainConfig, WarmstartConfig
from ds_jax.sharding import path_name

_NOT_DECAYED = re.compile(r'(scale|bias)$')  # norms and biases


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
  """The policy's optimizer: clip by global norm, then AdamW with linear warm-up."""
  return _adamw(linear_warmup(config.learning_rate, config.warmup_steps), config.weight_decay,
                config.beta1, config.beta2, config.max_grad_norm)


def make_warmstart_optimizer(config: WarmstartConfig) -> optax.GradientTransformation:
  """The warm start's: linear warm-up over 5 % of the steps, then cosine to a tenth of the peak."""
  warmup_steps = max(1, config.num_steps // 20)
  decay = optax.cosine_decay_schedule(
      config.learning_rate, max(1, config.num_steps - warmup_steps), alpha=0.1)
  schedule = optax.join_schedules(
      [linear_warmup(config.learning_rate, warmup_steps), decay], [warmup_steps])
  return _adamw(schedule, config.weight_decay, beta1=0.9, beta2=0.98, max_grad_norm=1.0)


def linear_warmup(peak: float, num_steps: int) -> optax.Schedule:
  """peak * min(1, (count + 1) / num_steps): the first update already moves; 0: constant."""
  return lambda count: peak * jnp.minimum(1.0, (count + 1) / max(num_steps, 1))


def decay_mask(params: Any) -> Any:
  """True for parameters that weight decay shrinks: all but norms and biases."""
  return jax.tree_util.tree_map_with_path(
      lambda path, leaf: not _NOT_DECAYED.search(path_name(path)), params)


def _adamw(schedule: optax.Schedule, weight_decay: float, beta1: float, beta2: float,
           max_grad_norm: float) -> optax.GradientTransformation:
  return optax.chain(
      optax.clip_by_global_norm(max_grad_norm),
      optax.adamw(schedule, b1=beta1, b2=beta2, weight_decay=weight_decay, mask=decay_mask))
