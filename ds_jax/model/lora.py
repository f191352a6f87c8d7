"""LoRA (arXiv:2106.09685): kernels of layers stay as they are, and a low-rank change is trained.

  W' = W + scale * A B,  scale = alpha / rank

The learner multiplies by W' in the compute dtype, rounded as in the search's copy, and not by A and
B one after the other: so what the sampler and the learner score agrees.

qwix (0.1.8) adds (x A) B to x W instead, gives A and B the dtype of W, and works on modules: it
puts attributes on each, which a scan over our stacked layers takes for arrays and fails at, and
inside the scan weights are slices that no module owns. Hence this file.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.checks import InputError
from ds_jax.sharding import path_name

if TYPE_CHECKING:
  from ds_jax.model.decoder import Decoder

_LAYERS = 'layers/'  # prefix of the paths of what can be adapted


@dataclasses.dataclass(frozen=True)
class Lora:
  """Which kernels are adapted, and how much an adapter counts."""

  rank: int
  alpha: float
  targets: str  # regular expression over the parameters' paths

  @property
  def scale(self) -> float:
    return self.alpha / self.rank


@functools.partial(
  jax.tree_util.register_dataclass, data_fields=['lora_a', 'lora_b'], meta_fields=['scale']
)
@dataclasses.dataclass(frozen=True)
class Adapter:
  """The change of one kernel, scale * lora_a lora_b; stacked over layers as the kernel is."""

  lora_a: jax.Array  # [L, inputs of the kernel, rank] float32
  lora_b: jax.Array  # [L, rank, outputs of the kernel] float32
  scale: float


class LayerAdapters(NamedTuple):
  """Adapters by the name of their kernel in `decoder.Layers`; None: it has none."""

  query_kernel: Adapter | None = None
  key_kernel: Adapter | None = None
  value_kernel: Adapter | None = None
  output_kernel: Adapter | None = None
  gate_kernel: Adapter | None = None
  up_kernel: Adapter | None = None
  down_kernel: Adapter | None = None


class Adapters(NamedTuple):
  """What is trained of a decoder; the field is named as in `decoder.Decoder`."""

  layers: LayerAdapters = LayerAdapters()


class Adapted(NamedTuple):
  """A policy: frozen parameters, in the compute dtype, and their adapters."""

  base: Decoder
  adapters: Adapters


NO_ADAPTERS = Adapters()


def adapted_kernels(decoder: Decoder, targets: str) -> list[str]:
  """Names of the kernels whose path, e.g. 'layers/query_kernel', a pattern finds.

  Args:
    decoder: arrays or what describes them.
    targets: a regular expression.

  Raises:
    InputError: if it finds none, or a parameter that can have no adapter.
  """
  paths = list(_parameters(decoder))
  possible = [_LAYERS + name for name in LayerAdapters._fields if _LAYERS + name in paths]
  matching = [path for path in paths if re.search(targets, path)]
  impossible = [path for path in matching if path not in possible]
  if impossible or not matching:
    raise InputError(
      f'train.lora_targets = {targets!r} finds {", ".join(impossible) or "no parameter"}; expected '
      f'some of {", ".join(possible)}, which can have adapters.'
    )
  return [path.removeprefix(_LAYERS) for path in possible if path in matching]


def init_adapters(decoder: Decoder, lora: Lora, key: jax.Array) -> Adapters:
  """Returns adapters that change nothing yet: A uniform within 1 / sqrt(inputs), as peft's, B 0.

  The numbers of an adapter depend on the key and its kernel, not on the others that there are.

  Args:
    decoder: arrays or what describes them.
    lora: which kernels, and the rank.
    key: of the run.
  """
  adapters, parameters = {}, _parameters(decoder)
  for name in adapted_kernels(decoder, lora.targets):
    shape = parameters[_LAYERS + name].shape
    num_layers, inputs, outputs = shape[0], shape[1:-1], shape[-1:]
    if name in ('query_kernel', 'key_kernel', 'value_kernel'):
      inputs, outputs = shape[1:2], shape[2:]  # [L, M, H|C, D]
    bound = math.prod(inputs) ** -0.5
    kernel_key = jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))
    lora_a = jax.random.uniform(
      kernel_key, (num_layers, *inputs, lora.rank), minval=-bound, maxval=bound
    )
    lora_b = jnp.zeros((num_layers, lora.rank, *outputs))
    adapters[name] = Adapter(lora_a, lora_b, lora.scale)
  return Adapters(LayerAdapters(**adapters))


def abstract_adapters(decoder: Decoder, lora: Lora) -> Adapters:
  """Returns adapters with ShapeDtypeStructs; nothing is allocated."""
  return jax.eval_shape(lambda: init_adapters(decoder, lora, jax.random.key(0)))


def merge_kernel(kernel: jax.Array, adapter: Adapter, dtype: Any) -> jax.Array:
  """W + scale * A B of one layer, summed in float32 and rounded once, to `dtype`.

  Args:
    kernel: `[inputs, outputs]`, each of one or more axes.
    adapter: of the kernel, without L.
    dtype: of what is returned.
  """
  a, b = _matrices(adapter)
  # On TPUs the product would be of bfloat16 numbers otherwise.
  change = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST).reshape(kernel.shape)
  return (kernel.astype(jnp.float32) + adapter.scale * change).astype(dtype)


def merge(policy: Adapted, dtype: Any) -> Decoder:
  """Returns the decoder whose kernels are the merged ones, all parameters in `dtype`.

  It goes layer by layer, as the learner does: the numbers are the learner's, and no more than one
  layer of a kernel is in float32 at a time.
  """
  adapters = policy.adapters.layers._asdict()

  def merged(path: Any, leaf: jax.Array) -> jax.Array:
    adapter = adapters.get(path_name(path).removeprefix(_LAYERS))
    if adapter is None:
      return leaf.astype(dtype)
    return jax.lax.map(lambda layer: merge_kernel(*layer, dtype), (leaf, adapter))

  return jax.tree_util.tree_map_with_path(merged, policy.base)


@jax.custom_vjp
def project_adapted(x: jax.Array, kernel: jax.Array, adapter: Adapter) -> jax.Array:
  """Multiplies x `[..., inputs]` by the merged kernel, in x's dtype; returns `[..., outputs]`.

  Its gradients are those of A and B alone, with dy the gradient of the result:
    dA = scale * x^T (dy B^T),  dB = scale * (x A)^T dy.
  The gradient of the kernel, x^T dy, from which they also follow, takes as many products as the
  forward pass; it is not formed. Rounding passes gradients through, as every cast does.
  """
  rows, merged = _as_matrices(x, kernel, adapter)
  return (rows @ merged).reshape(*_batch_shape(x, adapter), *adapter.lora_b.shape[1:])


def _project_forward(x: jax.Array, kernel: jax.Array, adapter: Adapter):
  return project_adapted(x, kernel, adapter), (x, kernel, adapter)


def _project_backward(saved, gradient):
  x, kernel, adapter = saved
  rows, merged = _as_matrices(x, kernel, adapter)
  a, b = (matrix.astype(x.dtype) for matrix in _matrices(adapter))
  dy = gradient.reshape(-1, merged.shape[1])
  dx = (dy @ merged.T).reshape(x.shape)
  product = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
  da = adapter.scale * product(rows.T, dy @ b.T)
  db = adapter.scale * product((rows @ a).T, dy)
  of_adapter = dataclasses.replace(
    adapter,
    lora_a=da.reshape(adapter.lora_a.shape),
    lora_b=db.reshape(adapter.lora_b.shape),
  )
  return dx, None, of_adapter  # None: the kernel is frozen


project_adapted.defvjp(_project_forward, _project_backward)


def _matrices(adapter: Adapter) -> tuple[jax.Array, jax.Array]:
  """A `[inputs, rank]` and B `[rank, outputs]` of one layer."""
  rank = adapter.lora_a.shape[-1]
  return adapter.lora_a.reshape(-1, rank), adapter.lora_b.reshape(rank, -1)


def _as_matrices(x: jax.Array, kernel: jax.Array, adapter: Adapter) -> tuple[jax.Array, jax.Array]:
  """x `[rows, inputs]` and the merged kernel `[inputs, outputs]`, in x's dtype."""
  num_inputs = math.prod(adapter.lora_a.shape[:-1])
  merged = merge_kernel(kernel, adapter, x.dtype)
  return x.reshape(-1, num_inputs), merged.reshape(num_inputs, -1)


def _batch_shape(x: jax.Array, adapter: Adapter) -> tuple[int, ...]:
  return x.shape[: x.ndim - (adapter.lora_a.ndim - 1)]


def each_adapter(adapters: Adapters) -> Iterator[tuple[str, Adapter]]:
  """Yields the path of each adapted kernel, e.g. 'layers/query_kernel', and its adapter."""
  for name, adapter in adapters.layers._asdict().items():
    if adapter is not None:
      yield _LAYERS + name, adapter


def num_trained(adapters: Adapters) -> int:
  """Returns how many numbers are trained; of arrays or of what describes them."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(adapters))


class Change(NamedTuple):
  """How far a policy has moved from its frozen weights."""

  norm: jax.Array  # [] float32, Frobenius norm of all scale * A B
  moved_share: jax.Array  # [] float32, of adapted weights: another number after rounding


@jax.jit
def measure_change(policy: Adapted) -> Change:
  """Measures the change that the adapters make, in the dtype of the frozen weights."""
  kernels = _parameters(policy.base)

  def of_layer(layer: tuple[jax.Array, Adapter]) -> tuple[jax.Array, jax.Array]:
    kernel, adapter = layer
    a, b = _matrices(adapter)
    # |A B|^2 = tr(B^T A^T A B) = <A^T A, B B^T>, of matrices [rank, rank].
    squares = adapter.scale**2 * jnp.sum((a.T @ a) * (b @ b.T))
    has_moved = merge_kernel(kernel, adapter, kernel.dtype) != kernel
    return squares, jnp.mean(has_moved, dtype=jnp.float32)

  squares, num_moved, count = jnp.zeros(()), jnp.zeros(()), 0
  for path, adapter in each_adapter(policy.adapters):
    of_layers = jax.lax.map(of_layer, (kernels[path], adapter))
    squares += jnp.sum(of_layers[0])
    num_moved += jnp.mean(of_layers[1]) * kernels[path].size
    count += kernels[path].size
  return Change(jnp.sqrt(jnp.maximum(squares, 0)), num_moved / count)


def _parameters(decoder: Decoder) -> dict[str, Any]:
  """Parameters by path, arrays or what describes them."""
  leaves = jax.tree_util.tree_leaves_with_path(decoder)
  return {path_name(path): leaf for path, leaf in leaves}
