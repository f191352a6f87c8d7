"""The learner's state on the mesh, and the second form of its parameters that the search reads."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ds_jax.model.decoder import Decoder
from ds_jax.model.lora import Adapted, Adapters, merge
from ds_jax.sharding import parameter_shardings

Trained = Decoder | Adapters  # all parameters, or adapters of frozen ones
Policy = Decoder | Adapted  # what is trained, with what is frozen


class TrainState(NamedTuple):
  """What an update changes. Parameters and moments are float32, split over fsdp and tensor."""

  params: Trained
  opt_state: optax.OptState
  step: jax.Array  # [] int32, updates applied (skipped ones do not count)


def policy_of(params: Trained, base: Decoder | None) -> Policy:
  """Returns what is trained with what is frozen, `base`; None: nothing is."""
  return params if base is None else Adapted(base, params)


def abstract_state(
  params: Trained, optimizer: optax.GradientTransformation, mesh: jax.sharding.Mesh
) -> TrainState:
  """Returns the state as ShapeDtypeStructs with shardings: what a checkpoint is restored into.

  Args:
    params: arrays or ShapeDtypeStructs (`abstract_decoder`, `abstract_adapters`).
    optimizer: its moments mirror the parameters and are sharded like them.
    mesh: the mesh.
  """
  fresh_state = functools.partial(_fresh_state, optimizer=optimizer)
  shapes = jax.eval_shape(fresh_state, params)

  def sharded(leaf: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  return jax.tree.map(sharded, shapes, parameter_shardings(shapes, mesh))


def init_state(
  params: Trained, optimizer: optax.GradientTransformation, mesh: jax.sharding.Mesh
) -> TrainState:
  """Returns the state of step 0 on the mesh; `params` stay valid (updates donate the state)."""
  abstract = abstract_state(params, optimizer, mesh)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  fresh_state = functools.partial(_fresh_state, optimizer=optimizer)
  # The moments are made where they belong: nowhere does the whole state lie on one device.
  init = jax.jit(fresh_state, out_shardings=shardings)
  return init(jax.device_put(params, shardings.params))


def search_params(
  state: TrainState, mesh: jax.sharding.Mesh, compute_dtype: str, base: Decoder | None = None
) -> Decoder:
  """Returns the parameters as the search reads them.

  They are in the compute dtype, whole over fsdp and split over tensor. One jitted resharding makes
  them; it compiles once per mesh and dtype.

  Args:
    state: of the learner.
    mesh: the whole mesh.
    compute_dtype: of what is returned.
    base: the frozen parameters, where the state has adapters; these are merged.
  """
  return search_form(policy_of(state.params, base), mesh=mesh, dtype=compute_dtype)


@functools.partial(jax.jit, static_argnames=('mesh', 'dtype'))
def search_form(policy: Policy, *, mesh: jax.sharding.Mesh, dtype: str) -> Decoder:
  """Returns `search_params` of a state with this policy."""
  if isinstance(policy, Adapted):
    cast = merge(policy, dtype)
  else:
    cast = jax.tree.map(lambda leaf: _copy(leaf, dtype), policy)
  shardings = parameter_shardings(cast, mesh, search=True)
  return jax.lax.with_sharding_constraint(cast, shardings)


def _fresh_state(params: Trained, optimizer: optax.GradientTransformation) -> TrainState:
  params = jax.tree.map(lambda leaf: _copy(leaf, jnp.float32), params)
  opt_state = optimizer.init(params)
  return TrainState(params, opt_state, jnp.zeros((), jnp.int32))


def _copy(leaf: jax.Array, dtype: str | jnp.dtype) -> jax.Array:
  # A real copy: jit may hand an unchanged argument through, and donation would delete it.
  return jnp.array(leaf, dtype, copy=True)
