"""Where a run's trees are forked: what its state says of it, and what of that is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from ds_jax.config import Config
from ds_jax.decode.expand import compile_slots
from ds_jax.model.decoder import abstract_decoder, parameters_read
from ds_jax.run.engines import Engines, expand_shape, tree_search
from ds_jax.run.state import RunState
from ds_jax.search.decode_cost import DecodeCost
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.policies import Plan, policy_of
from ds_jax.search.policies.fork_law import fork_plan, split_metrics
from ds_jax.search.policies.fork_sampling import count_forks, fork_odds, sampling_metrics
from ds_jax.train.state import search_form
from ds_jax.types import FinishedTree


def forks_by_sampling(config: Config) -> bool:
  """Whether forks are drawn by what forks have brought."""
  return config.search.policy == 'fork' and config.search.fork_rule == 'sampling'


def known_plan(config: Config, host: RunState) -> Plan | None:
  """The plan of all trees; None where each has its own."""
  if policy_of(config.search).plans_apart:
    return None
  if forks_by_sampling(config):
    return fork_odds(host.fork_counts, config.search.max_depth)
  return fork_plan(host.splits, config.search.max_depth)


def plan_apart(config: Config, host: RunState, jobs: Sequence[Job]) -> Sequence[Job]:
  """The jobs with the plans of their strata, where the policy plans trees apart."""
  if not policy_of(config.search).plans_apart:
    return jobs
  unsolved = fork_plan(host.strata.unsolved, config.search.max_depth)
  solved = fork_plan(host.strata.solved, config.search.max_depth)
  planned = []
  for job in jobs:
    plan = solved if job.problem.id in host.solved else unsolved
    planned.append(dataclasses.replace(job, plan=plan))
  return planned


def fork_figures(
  config: Config, host: RunState, trees: Sequence[FinishedTree], cost: DecodeCost
) -> dict[str, float]:
  """Metrics: where forking pays, by the counts of recent steps, and what was forked in this one.

  Args:
    config: of the run.
    host: the state after the step.
    trees: that the step has searched.
    cost: of a token.
  """
  max_depth = config.search.max_depth
  histories = {
    'pooled': host.splits,
    'unsolved': host.strata.unsolved,
    'solved': host.strata.solved,
  }
  figures = {}
  for which, history in histories.items():
    figures |= split_metrics(history, max_depth, which=which, cost=cost)
    is_shown = which == 'pooled' or policy_of(config.search).plans_apart
    if history.blocks and is_shown:
      name = 'fork_depths' if which == 'pooled' else f'{which}_fork_depths'
      figures[f'search/{name}'] = float(fork_plan(history, max_depth).is_allowed.sum())
  if config.search.policy != 'fork':
    return figures
  forks, rollouts = np.sum([count_forks(tree) for tree in trees], axis=0).tolist()
  figures |= {'search/forks': forks, 'search/further_rollouts': rollouts}
  continuations = np.concatenate([_continuations(tree) for tree in trees])
  if len(continuations):
    figures['search/continuations_per_fork'] = float(continuations.mean())
  if forks_by_sampling(config):
    figures |= sampling_metrics(host.fork_counts, max_depth)
  return figures


def decode_cost(engines: Engines, prompts: Sequence[np.ndarray]) -> DecodeCost:
  """What a token of the session's trees costs where memory traffic bounds decoding.

  Devices that hold parts of the same slots count as one.

  Args:
    engines: of the session.
    prompts: `[P]` int32 each, for their mean length.
  """
  config, decoder_config = engines.session.config, engines.decoder_config
  shape = expand_shape(config, tree_search(config), decoder_config)
  dtype, mesh = config.model.compute_dtype, engines.search_mesh
  params = abstract_decoder(decoder_config)
  form = jax.eval_shape(lambda p: search_form(p, mesh=mesh, dtype=dtype), params)
  slots = jax.eval_shape(compile_slots(decoder_config, mesh, shape))
  parameters = sum(x.size * x.dtype.itemsize for x in parameters_read(form))
  return DecodeCost(
    row_bytes=parameters / (shape.num_slots * shape.width),
    position_bytes=slots.position_bytes,
    num_siblings=shape.width,
    segment_length=shape.segment_length,
    prompt_length=float(np.mean([len(tokens) for tokens in prompts])),
  )


def _continuations(tree: FinishedTree) -> np.ndarray:
  """Children of each node below the root that has several."""
  counts = np.bincount(tree.parent[1:], minlength=len(tree.parent))[1:]
  return counts[counts > 1]
