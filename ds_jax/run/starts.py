"""Where the rollouts of a step start under the policy 'prefix' (train/prefixes.py)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from ds_jax.checks import InputError
from ds_jax.config import Config, PrefixConfig
from ds_jax.run.batches import Prompt
from ds_jax.run.state import RunState
from ds_jax.search.engine.host_tree import Job
from ds_jax.train import prefixes as prefixes_lib
from ds_jax.train.advantages import is_uniform
from ds_jax.train.prefixes import Prefixes, Response
from ds_jax.train.sft import worked_solutions
from ds_jax.types import Trajectory


def worked_responses(
  config: Config, prompts: Iterable[Prompt], encode: Callable[[str], np.ndarray]
) -> dict[str, Response]:
  """Worked solutions of the data that prefixes are cut from, by problem; none unless set so.

  Args:
    config: of the run.
    prompts: of the training problems.
    encode: text to token ids, the end token included.

  Raises:
    InputError: if no problem has a worked solution, or one has a token that the model lacks.
  """
  if config.search.policy != 'prefix' or not config.prefix.worked:
    return {}
  worked = worked_solutions(list(prompts), encode)
  if not worked:
    raise InputError(
      'prefix.worked cuts prefixes from worked solutions, and no training problem has one; give '
      'the data a solution field, or set prefix.worked=False.'
    )
  return {name: tuple(response.tolist()) for name, (_, response) in worked.items()}


def with_revisits(names: Sequence[str], host: RunState, config: Config, refill: int) -> list[str]:
  """The hard problems of a batch, some of them replaced by others that have a prefix.

  Args:
    names: in turn.
    host: the state before the step.
    config: of the run; without the policy 'prefix' nobody is replaced.
    refill: which further batch of the step; 0: its first.
  """
  if config.search.policy != 'prefix':
    return list(names)
  return prefixes_lib.with_revisits(
    host.prefixes,
    config.prefix,
    names,
    among=host.hard_ids,
    draw=(config.seed, host.step, refill),
  )


def started(
  jobs: Sequence[Job],
  host: RunState,
  config: Config,
  *,
  worked: Mapping[str, Response],
  decode: Callable[[np.ndarray], str],
  refill: int,
) -> list[Job]:
  """The hard problems of a batch, each from where its rollouts start.

  Args:
    jobs: of these problems.
    host: the state before the step.
    config: of the run; jobs are as they are unless its policy is 'prefix'.
    worked: from `worked_responses`.
    decode: token ids to text.
    refill: which further batch of the step; 0: its first.
  """
  if config.search.policy != 'prefix':
    return list(jobs)
  starts = prefixes_lib.draw_starts(
    host.prefixes,
    config.prefix,
    [job.problem.id for job in jobs],
    worked=worked,
    longest=functools.partial(prefixes_lib.longest_prefix, config=config.search, decode=decode),
    draw=(config.seed, host.step, refill),
  )
  return [dataclasses.replace(job, given=given) for job, given in zip(jobs, starts, strict=True)]


def prefix_figures(
  groups: Sequence[Sequence[Trajectory]], prefixes: Prefixes, config: PrefixConfig
) -> dict[str, float]:
  """Metrics of the groups that started from prefixes, and of what the run knows of its prefixes.

  Args:
    groups: of a step, those from the root too.
    prefixes: of the run, after the step.
    config: of them.
  """
  given = [group for group in groups if group and group[0].num_given]
  solved = [name for name, source in prefixes.solutions.items() if source.responses]
  figures = {
    'prefix/share': len(given) / len(groups),
    'prefix/problems_with_solution': len(solved),
    'prefix/withdrawn': sum(prefixes.is_withdrawn(name, config) for name in solved),
  }
  if not given:
    return figures
  lengths, rates = [], []
  for group in given:
    lengths.append(np.mean([t.num_given / len(t.response_tokens) for t in group]))
    rates.append(np.mean([t.is_correct for t in group]))
  return figures | {
    'prefix/failure_share': float(np.mean([not group[0].is_given_right for group in given])),
    'prefix/length': float(np.mean(lengths)),
    'prefix/solve_rate': float(np.mean([rate > 0 for rate in rates])),
    'prefix/right_share': float(np.mean(rates)),
    'prefix/contrast_share': float(np.mean([not is_uniform(group) for group in given])),
  }
