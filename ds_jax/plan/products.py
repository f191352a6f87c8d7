"""FLOPs of the matrix products of a program, from its jaxpr: per device, loops multiplied out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jax.extend.core import jaxprs_in_params


def count_flops(
  jaxpr: Any, trips: Mapping[str, float], *, loop: str | None = None, platform: str = ''
) -> float:
  """FLOPs (a multiplication and an addition are two) of every matrix product.

  Of `lax.cond`, the branch with more counts, or the share of it that `trips` names; of a kernel,
  what it declares, or the share of it that `trips` names by its scope. What is
  recomputed in the backward pass counts as often as it is computed. Shapes are those of the jaxpr:
  inside `shard_map` those of a device.

  Args:
    jaxpr: `jax.stages.Traced.jaxpr`, or one inside it.
    trips: how often `lax.while_loop`s run, by the `jax.named_scope` right around them.
    loop: if given, one run of the body of the loop of that scope instead of the whole.
    platform: of the devices, for what differs between them.

  Raises:
    ValueError: for a while loop whose scope is not in `trips`, or if there is none of `loop`.
  """
  jaxpr = getattr(jaxpr, 'jaxpr', jaxpr)
  if loop is not None:
    body = _find_body(jaxpr, loop)
    if body is None:
      raise ValueError(f'The program has no loop under the scope {loop!r}.')
    return count_flops(body, trips, platform=platform)
  return sum(_of_equation(equation, trips, platform) for equation in jaxpr.eqns)


def declared_bytes(jaxpr: Any) -> dict[str, float]:
  """Bytes that kernels declare to read, by their scope: a GPU's compiled program does not say."""
  declared: dict[str, float] = {}
  for equation in getattr(jaxpr, 'jaxpr', jaxpr).eqns:
    if equation.primitive.name == 'pallas_call':
      declared[_scope(equation)] = equation.params['cost_estimate'].bytes_accessed
    for inner in jaxprs_in_params(equation.params):
      declared |= declared_bytes(inner)
  return declared


def _of_equation(equation: Any, trips: Mapping[str, float], platform: str) -> float:
  """FLOPs of one equation, with what it calls."""
  name, params = equation.primitive.name, equation.params
  count = lambda inner: count_flops(inner, trips, platform=platform)
  if name == 'dot_general':
    (contracted, _), _ = params['dimension_numbers']
    left = equation.invars[0].aval.shape
    size = math.prod(equation.outvars[0].aval.shape)
    return 2.0 * size * math.prod(left[axis] for axis in contracted)
  if name == 'pallas_call':
    return trips.get(_scope(equation), 1.0) * params['cost_estimate'].flops
  if name == 'scan':
    return params['length'] * count(params['jaxpr'])
  if name == 'cond':
    branches = [count(branch) for branch in params['branches']]
    if params.get('branches_platforms'):  # of lax.platform_dependent
      return branches[_branch_of(params['branches_platforms'], platform)]
    share = trips.get(_scope(equation), 1.0)
    return share * max(branches) + (1 - share) * min(branches)
  if name == 'while':
    inside = count(params['body_jaxpr'])
    return inside * _trips_of(equation, trips) if inside else 0.0
  return sum(map(count, jaxprs_in_params(params)))


def _branch_of(platforms: Sequence[tuple[str, ...] | None], platform: str) -> int:
  """Index of the branch of `lax.platform_dependent`; None is its default."""
  name = {'gpu': 'cuda'}.get(platform, platform)
  return next(i for i, names in enumerate(platforms) if names is None or name in names)


def _trips_of(equation: Any, trips: Mapping[str, float]) -> float:
  scope = _scope(equation)
  if scope not in trips:
    raise ValueError(
      f'The length of the loop under the scope {scope!r} is not known; known: {sorted(trips)}.'
    )
  return trips[scope]


def _scope(equation: Any) -> str:
  """The innermost named scope, without the transforms around it."""
  return str(equation.source_info.name_stack).rstrip(')').replace('(', '/').split('/')[-1]


def _find_body(jaxpr: Any, loop: str) -> Any:
  """The body of the first loop under a scope; None if there is none."""
  for equation in getattr(jaxpr, 'jaxpr', jaxpr).eqns:
    if equation.primitive.name == 'while' and _scope(equation) == loop:
      return equation.params['body_jaxpr']
    for inner in jaxprs_in_params(equation.params):
      body = _find_body(inner, loop)
      if body is not None:
        return body
  return None
