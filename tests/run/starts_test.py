"""Where the rollouts of a batch start: as the policy says, and from which solutions of the data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ds_jax.checks import InputError
from ds_jax.run.starts import started, with_revisits, worked_responses
from ds_jax.run.state import RunState
from ds_jax.search.engine.host_tree import Job
from ds_jax.testing import tiny_run
from ds_jax.train.memory import Rate
from ds_jax.train.prefixes import Prefixes, Source
from ds_jax.types import Problem

PREFIX = tiny_run.config(search=dict(policy='prefix'), prefix=dict(root_share=0.01))
RESPONSE = tuple(range(12))  # one segment of 8 tokens may be given
HOST = RunState(
  hard_ids=('a', 'b', 'c', 'd'),
  prefixes=Prefixes({'d': Source((RESPONSE,), 0.5)}),
)


def problem(name, solution=None):
  return Problem(name, '', '', solution), np.array([1, 2], np.int32)


def starts(names, host, config, worked=None):
  jobs = [Job(*problem(name)) for name in names]
  decode = lambda tokens: ' '.join(map(str, tokens))
  after = started(jobs, host, config, worked=worked or {}, decode=decode, refill=0)
  return [job.given_tokens.tolist() for job in after]


def test_rollouts_start_within_solutions_under_the_policy_alone():
  hosts = [dataclasses.replace(HOST, step=step) for step in range(5)]
  found = [starts(['b', 'd'], host, PREFIX) for host in hosts]
  assert {tuple(given[0]) for given in found} == {()}
  assert sorted({tuple(given[1]) for given in found}) == [(), RESPONSE[:4]]  # half of 8, or root
  direct = tiny_run.config(search=dict(policy='direct'))
  assert starts(['b', 'd'], hosts[0], direct) == [[], []]
  assert with_revisits(['b', 'c'], HOST, direct, refill=0) == ['b', 'c']
  assert sorted(with_revisits(['b', 'c'], HOST, PREFIX, refill=0)) in (['b', 'd'], ['c', 'd'])


def test_solutions_of_the_data_are_read_where_they_are_asked_for():
  encode = lambda text: np.array([*map(int, text.split()), 0])
  prompts = [problem('a', '5 6'), problem('b')]
  assert worked_responses(PREFIX, prompts, encode) == {}
  config = dataclasses.replace(PREFIX, prefix=dataclasses.replace(PREFIX.prefix, worked=True))
  assert worked_responses(config, prompts, encode) == {'a': (5, 6, 0)}
  with pytest.raises(InputError, match='no training problem has one'):
    worked_responses(config, prompts[1:], encode)
  assert worked_responses(tiny_run.config(prefix=dict(worked=True)), prompts, encode) == {}


def test_a_state_of_an_older_version_has_no_prefixes():
  fields = dataclasses.replace(HOST, prefixes=Prefixes(overall=Rate(1, 2))).to_json()
  assert RunState.from_json(fields).prefixes == Prefixes(overall=Rate(1, 2))
  del fields['prefixes']
  assert RunState.from_json(fields).prefixes == Prefixes()
