"""How a run learns: its parameters, the batches of a step, and the updates on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ds_jax.config import TrainConfig, num_updates, trained_temperature
from ds_jax.model.decoder import Decoder
from ds_jax.run.beginning import abstract_state_of, begin
from ds_jax.run.engines import Engines
from ds_jax.run.minibatches import PresentPolicy, memory_minibatch, policy_minibatches
from ds_jax.run.prompts import Prompts
from ds_jax.sharding import local_view, num_slot_shards
from ds_jax.train import sft
from ds_jax.train.batch import Batch, row_shapes
from ds_jax.train.memory import Memory
from ds_jax.train.optimizer import make_optimizer
from ds_jax.train.replay import Solution
from ds_jax.train.state import TrainState, search_params
from ds_jax.train.step import adapter_metrics, make_learner, policy_loss_fn, policy_metrics_fn
from ds_jax.types import Trajectory


class Learning:
  """The parameters of a run, and what changes them.

  `begin` sets `state`, once everything else has been found good.
  """

  state: TrainState

  def __init__(self, engines: Engines, prompts: Prompts, before_pass: Callable[[], None]):
    """Prepares the updates; nothing is compiled yet.

    Args:
      engines: of the run.
      prompts: of the training problems.
      before_pass: see `make_learner`.

    Raises:
      InputError: for settings that do not fit the mesh, and if there is nothing to imitate.
    """
    config = engines.session.config
    self.engines, self.config = engines, config
    self.optimizer = make_optimizer(config.train, num_updates(config))
    self.shapes = row_shapes(config.train, num_slot_shards(engines.mesh))
    self.rows = self.shapes[-1]
    self.worked: dict[str, sft.Pair] = {}  # by problem, if the objective is to imitate them
    loss_fn, metrics_fn = policy_loss_fn(config.train), policy_metrics_fn(config.train)
    if config.train.objective == 'imitation':
      worked = sft.worked_solutions(prompts, engines.tokenizer.encode_response)
      note = engines.session.progress.note
      self.worked = sft.fitting_solutions(worked, len(prompts), self.rows.row_length, note)
      loss_fn, metrics_fn = sft.imitation_loss, sft.imitation_metrics
    self.learner = make_learner(
      self.optimizer,
      engines.mesh,
      micro_rows=self.rows.micro_rows,
      loss_fn=loss_fn,
      temperature=trained_temperature(config),
      frozen=config.train.frozen,
      before_pass=before_pass,
      metrics_fn=metrics_fn,
      short_rows=self.shapes[:-1],
    )
    self.is_mid_step = False  # the parameters have moved on from the host's state
    self.reference: Decoder | None = None  # the policy that the run started from
    self.base_digest = ''  # of the frozen weights; '': there are none
    self._search_form: Decoder | None = None

  def abstract_state(self) -> TrainState:
    """What a checkpoint is restored into."""
    return abstract_state_of(self.engines, self.optimizer)

  def begin(self, state: TrainState | None, base_digest: str = '') -> None:
    """Takes the state of a checkpoint; None: that of the initial model. See `beginning.begin`."""
    begun = begin(self.engines, self.optimizer, state, base_digest=base_digest)
    self.state, self.reference, self.base_digest = begun.state, begun.reference, begun.base_digest
    self.learner = dataclasses.replace(self.learner, base=begun.base)

  def params(self) -> Decoder:
    """The parameters in the form for search, on this process's devices; made once per step."""
    if self._search_form is None:
      mesh = self.engines.mesh
      dtype = self.config.model.compute_dtype
      whole = search_params(self.state, mesh, dtype, self.learner.base)
      self._search_form = local_view(whole, mesh, self.engines.search_mesh)
    return self._search_form

  def policy(self) -> PresentPolicy:
    """The policy that updates begin with."""
    self._search_form = None  # it takes memory; the next search has it made again
    policy = self.learner.policy(self.state.params)
    return PresentPolicy(self.config, self.learner, policy, self.reference, shapes=self.shapes)

  def score(self, solutions: Sequence[tuple[str, Solution]]) -> list[Trajectory]:
    """Cached (problem, solution) pairs as trajectories, with log-probs of the present policy."""
    return self.policy().score(solutions)

  def policy_batches(
    self, groups: Sequence[Sequence[Trajectory]], memory: Memory, step: int
  ) -> tuple[list[Batch], dict[str, float]]:
    """Minibatches of whole problems, and their metrics; see `policy_minibatches`.

    All are scored here, before the first update: by the policy that the step began with.
    """
    return policy_minibatches(self.policy(), groups, memory, step=step)

  def further_updates(
    self, memory: Memory, step: int, skipped_in_row: int
  ) -> tuple[dict[str, float], int]:
    """Optimizer updates on memory alone, each scored by the policy that it changes.

    Args:
      memory: of the run, before what the step has found.
      step: training step.
      skipped_in_row: as in `update`.

    Returns:
      Metrics, and `skipped_in_row` by now.
    """
    if self.config.memory.when != 'at_once':
      return {}, skipped_in_row
    num_updates = 0
    for index in range(self.config.memory.further_updates):
      batch = memory_minibatch(self.policy(), memory, step=step, index=index)
      if not len(batch.tokens):
        break
      _, skipped_in_row = self._update_once(batch, skipped_in_row)
      num_updates += 1
    return {'memory/further_updates': num_updates}, skipped_in_row

  def imitation_batches(self, names: Sequence[str]) -> list[Batch]:
    """Minibatches of the worked solutions of some problems."""
    size, row_length = self.config.train.minibatch_problems, self.rows.row_length
    pairs = [self.worked[name] for name in names]
    return [
      sft.imitation_batch(pairs[first : first + size], row_length)
      for first in range(0, len(pairs), size)
    ]

  def update(self, batches: Sequence[Batch], skipped_in_row: int) -> tuple[dict[str, float], int]:
    """`train.epochs` passes over the batches, with one optimizer update per batch.

    A pass is left out if the one before it has moved the policy beyond the bounds.

    Args:
      batches: of one step, at least one.
      skipped_in_row: updates before these whose gradient was not finite.

    Returns:
      Means of the metrics over the updates that have them, and `skipped_in_row` by now.
    """
    config, rows, num_passes = self.config.train, [], 0
    while num_passes < config.epochs and not _has_moved(rows[-len(batches) :], config):
      num_passes += 1
      for batch in batches:
        figures, skipped_in_row = self._update_once(batch, skipped_in_row)
        rows.append(figures)
    figures = update_means(rows) | {'train/updates': len(rows)}
    if config.epochs > 1:
      figures['train/passes'] = num_passes
    if self.config.train.lora_rank:
      figures |= adapter_metrics(self.learner.policy(self.state.params))
    return figures, skipped_in_row

  def _update_once(self, batch: Batch, skipped_in_row: int) -> tuple[dict[str, float], int]:
    """One optimizer update; returns its metrics, and `skipped_in_row` after it."""
    self._search_form = None  # it is of the policy before, and takes memory
    self.state, figures = self.learner.update(self.state, batch)
    self.is_mid_step = True
    if len(batch.tokens):
      skipped_in_row = (skipped_in_row + 1) * int(figures['train/skipped'])
    return figures, skipped_in_row


def _has_moved(rows: Sequence[Mapping[str, float]], config: TrainConfig) -> bool:
  """Whether a pass over the minibatches has moved the policy beyond a bound; not one of nothing."""
  figures = update_means(rows)
  is_clipped = figures.get('train/clip_fraction', 0.0) > config.max_clip_fraction
  distance = abs(figures.get('train/approx_kl', 0.0))
  return is_clipped or 0 < config.max_approx_kl < distance


def update_means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Returns the means of the updates' metrics, each over those that have it.

  ratio_first, the largest ratio of sampler and learner, is that of the first which compares them.
  """
  values: dict[str, list[float]] = {}
  for row in rows:
    for name, value in row.items():
      values.setdefault(name, []).append(value)
  means = {name: float(np.mean(of_updates)) for name, of_updates in values.items()}
  if 'train/ratio_max_log' in values:
    means['train/ratio_first'] = float(np.exp(values['train/ratio_max_log'][0]))
  return means
