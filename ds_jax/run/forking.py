"""Where a run's trees are forked: what its state says of it, and what of that is shown."""

from __future__ import annotations

import dataclasses
import functools
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


@dataclasses.dataclass(frozen=True)
class ForkFigures:
  """Metrics of where forking pays, and of what was forked."""

  engines: Engines
  prompts: Sequence[np.ndarray]  # of training problems, [P] int32 each

  @functools.cached_property
  def cost(self) -> DecodeCost:
    return decode_cost(self.engines, self.prompts)

  def of_step(self, host: RunState, trees: Sequence[FinishedTree]) -> dict[str, float]:
    """Where forking pays by the counts of recent steps, and what this step has forked.

    Args:
      host: the state after the step.
      trees: that the step has searched.
    """
    config = self.engines.session.config
    figures = _paying_figures(config, host, self.cost)
    if config.search.policy != 'fork':
      return figures
    figures |= _forked_figures(trees)
    if forks_by_sampling(config):
      figures |= sampling_metrics(host.fork_counts, config.search.max_depth)
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


def _paying_figures(config: Config, host: RunState, cost: DecodeCost) -> dict[str, float]:
  """U/x of recent steps by stratum, and the depths that it allows."""
  max_depth, plans_apart = config.search.max_depth, policy_of(config.search).plans_apart
  histories = {
    'pooled': host.splits,
    'unsolved': host.strata.unsolved,
    'solved': host.strata.solved,
  }
  figures = {}
  for which, history in histories.items():
    figures |= split_metrics(history, max_depth, which=which, cost=cost)
    is_pooled = which == 'pooled'
    if history.blocks and (is_pooled or plans_apart):
      name = 'fork_depths' if is_pooled else f'{which}_fork_depths'
      figures[f'search/{name}'] = float(fork_plan(history, max_depth).is_allowed.sum())
  return figures


def _forked_figures(trees: Sequence[FinishedTree]) -> dict[str, float]:
  """What was forked because of an outcome, and how many continuations there are at a state."""
  figures = {'search/forks': 0, 'search/further_rollouts': 0}
  continuations: list[int] = []
  for tree in trees:
    forks, rollouts = count_forks(tree)
    figures['search/forks'] += forks
    figures['search/further_rollouts'] += rollouts
    num_children = np.bincount(tree.parent[1:], minlength=len(tree.parent))[1:]
    continuations += num_children[num_children > 1].tolist()
  if continuations:
    figures['search/continuations_per_fork'] = float(np.mean(continuations))
  return figures
