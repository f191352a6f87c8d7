"""Which node gets children next: the policies by the name that SearchConfig.policy gives."""

from __future__ import annotations

import functools

from ds_jax.checks import PYTHON, InputError, import_python
from ds_jax.config import SearchConfig
from ds_jax.search.policies.base import Allocation, ForkPlan, Plan, Policy, no_forks
from ds_jax.search.policies.released import FAITHFUL
from ds_jax.search.policies.serial import DEEPSEARCH
from ds_jax.search.policies.waves import DIRECT, FORK, FORK_BY_SAMPLING, FORK_BY_STRATUM

__all__ = [
  'FORK_RULES',
  'POLICIES',
  'Allocation',
  'ForkPlan',
  'Plan',
  'Policy',
  'no_forks',
  'pays_cut_ends',
  'policy_of',
]

POLICIES: dict[str, Policy] = {
  'deepsearch': DEEPSEARCH,
  'faithful': FAITHFUL,
  'direct': DIRECT,
  'fork': FORK,
  'prefix': DIRECT,  # where its trees start is the run's to say (train/prefixes.py)
}
# What 'fork' is, by search.fork_rule.
FORK_RULES: dict[str, Policy] = {
  'law': FORK,
  'strata': FORK_BY_STRATUM,
  'sampling': FORK_BY_SAMPLING,
}


def policy_of(search: SearchConfig) -> Policy:
  """The policy that the settings name.

  Raises:
    InputError: if it is the user's own and cannot be imported, or is none.
  """
  if search.policy.startswith(PYTHON):
    return _own_policy(search.policy)
  if search.policy == 'fork':
    return FORK_RULES[search.fork_rule]
  return POLICIES[search.policy]


@functools.cache
def _own_policy(name: str) -> Policy:
  policy = import_python('search.policy', name)
  if not isinstance(policy, Policy):
    raise InputError(
      f'Expected search.policy = {name} to be a Policy (ds_jax/search/policies/base.py), got '
      f'{policy!r:.80}.'
    )
  return policy


def pays_cut_ends(search: SearchConfig) -> bool:
  """Whether a right answer pays although the depth limit cut its response off."""
  return search.cut_ends == 'graded' or policy_of(search).defects.pays_cut_ends
