"""The decoder: one set of parameters, one layer function, used for training and for decoding.

Flax NNX serves as a pytree of parameters and nothing else; every transform is jax's. Layer
parameters are stacked on a leading layer axis and the layers run under `jax.lax.scan`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ds_jax.checks import check_rank, check_shape
from ds_jax.model import rope
from ds_jax.model.attention.partial import MASKED
from ds_jax.model.attention.training import (
  RESIDUALS,
  attend,
  choose_block_attention,
  find_seen_blocks,
)
from ds_jax.model.config import DecoderConfig
from ds_jax.model.lora import NO_ADAPTERS, Adapter, Adapters, LayerAdapters, project_adapted

# Logits formed at once are bounded to this many numbers (256 MiB of float32).
MAX_LOGITS = 2**26

# Decoders with at most this many layers are unrolled.
MAX_UNROLLED = 4

# By their names in transformers.
ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
  'silu': jax.nn.silu,
  'gelu_pytorch_tanh': functools.partial(jax.nn.gelu, approximate=True),
}

# Instead of a window, of layers that see all positions before them.
_UNLIMITED = np.iinfo(np.int32).max

# What the backward pass finds of a layer, its input aside; `config.remat` chooses ('none': all).
_KEEP_ATTENTION = jax.checkpoint_policies.save_only_these_names(RESIDUALS)
REMAT_POLICIES = {
  'full': jax.checkpoint_policies.nothing_saveable,
  'attention': _KEEP_ATTENTION,
  'dots': jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable, _KEEP_ATTENTION
  ),
}


class Layers(nnx.Module):
  """Parameters of all layers, stacked: every array starts with L; what a family lacks is None."""

  def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
    c, family = config, config.of_family

    def normal(*shape: int, num_inputs: int = 1) -> nnx.Param:
      fan_in = math.prod(shape[:num_inputs])
      return nnx.Param(_normal(rngs, c.num_layers, *shape, fan_in=fan_in))

    def zeros(*shape: int) -> nnx.Param:
      return nnx.Param(jnp.zeros((c.num_layers, *shape)))

    def scale(width: int) -> nnx.Param:
      return nnx.Param(jnp.full((c.num_layers, width), 1 - family.norm_offset, jnp.float32))

    self.attention_scale = scale(c.width)
    self.query_kernel = normal(c.width, c.num_heads, c.head_width)
    self.query_bias = zeros(c.num_heads, c.head_width) if family.has_qkv_bias else None
    self.key_kernel = normal(c.width, c.num_kv_heads, c.head_width)
    self.key_bias = zeros(c.num_kv_heads, c.head_width) if family.has_qkv_bias else None
    self.value_kernel = normal(c.width, c.num_kv_heads, c.head_width)
    self.value_bias = zeros(c.num_kv_heads, c.head_width) if family.has_qkv_bias else None
    self.output_kernel = normal(c.num_heads, c.head_width, c.width, num_inputs=2)
    self.query_scale = scale(c.head_width) if family.has_qk_norm else None
    self.key_scale = scale(c.head_width) if family.has_qk_norm else None
    self.attention_output_scale = scale(c.width) if family.has_output_norms else None
    self.mlp_scale = scale(c.width)
    self.gate_kernel = normal(c.width, c.mlp_width)
    self.up_kernel = normal(c.width, c.mlp_width)
    self.down_kernel = normal(c.mlp_width, c.width)
    self.mlp_output_scale = scale(c.width) if family.has_output_norms else None


class Decoder(nnx.Module):
  """Parameters of a decoder; an ordinary pytree argument of the functions below.

  A tied head is not an attribute: a parameter shared by two attributes would become two leaves
  and come untied after one optimizer step.
  """

  def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
    self.config = config
    embedding = _normal(rngs, config.vocab_size, config.width, fan_in=config.width)
    self.embedding = nnx.Param(embedding)  # [V, M]
    self.layers = Layers(config, rngs=rngs)
    final_scale = jnp.full((config.width,), 1 - config.of_family.norm_offset, jnp.float32)
    self.final_scale = nnx.Param(final_scale)  # [M]
    if config.tie_embeddings:
      self.head = None
    else:
      head = _normal(rngs, config.width, config.vocab_size, fan_in=config.width)
      self.head = nnx.Param(head)  # [M, V]


def _normal(rngs: nnx.Rngs, *shape: int, fan_in: int) -> jax.Array:
  return fan_in**-0.5 * jax.random.normal(rngs.params(), shape)


def init_decoder(config: DecoderConfig, key: jax.Array) -> Decoder:
  """Returns a randomly initialised decoder in float32 (normal, variance 1 / fan-in)."""
  return jax.jit(lambda key: Decoder(config, rngs=nnx.Rngs(key)))(key)


def abstract_decoder(config: DecoderConfig) -> Decoder:
  """Returns the decoder with ShapeDtypeStructs for parameters; nothing is allocated."""
  return jax.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0)))


def parameters_read(decoder: Decoder) -> list[Any]:
  """The parameters that a decode step reads whole, or what describes them.

  Of an embedding that is not the head only a few rows are read; it is left out.
  """
  left_out = [] if decoder.head is None else jax.tree.leaves(decoder.embedding)
  return [x for x in jax.tree.leaves(decoder) if not any(x is y for y in left_out)]


class LayerKind(NamedTuple):
  """What tells the layers of a decoder apart, their parameters aside."""

  rotation: rope.Rotation
  # [] int32: a query sees the keys that are fewer positions before it than this; None: no layer
  # of the decoder has a limit
  window: jax.Array | None = None


def layer_kind(config: DecoderConfig, index: jax.Array | None = None) -> LayerKind:
  """Returns the kind of one layer.

  Args:
    config: the decoder's.
    index: `[]` int32, of the layer; not read where all are alike.
  """
  rotation = rope.frequencies(config.head_width, config.rope_theta, config.rope_scaling)
  if not config.has_local_layers:
    return LayerKind(rotation)
  local = rope.frequencies(config.head_width, config.local_rope_theta, None)
  is_local = jnp.asarray(config.is_local)[index]
  rotation = jax.tree.map(functools.partial(jnp.where, is_local), local, rotation)
  return LayerKind(rotation, jnp.where(is_local, config.window, _UNLIMITED))


# attend_fn(q [..., H, D], k [..., C, D], v [..., C, D]) -> [..., H, D], in the layer's layout.
AttendFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def apply_layer(
  layer: Layers,
  config: DecoderConfig,
  x: jax.Array,
  *,
  positions: jax.Array,
  rotation: rope.Rotation,
  attend_fn: AttendFn,
  adapters: LayerAdapters = NO_ADAPTERS.layers,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  """One decoder layer.

  Args:
    layer: parameters of one layer (the scan has taken L off).
    config: the decoder's.
    x: `[..., M]` residual stream, compute dtype.
    positions: `[...]` int32, for the rotation.
    rotation: of this layer's queries and keys.
    attend_fn: how queries find keys; the only thing in which training and decoding differ.
    adapters: of the layer's kernels, where the learner trains these; the search has them merged.

  Returns:
    The residual stream, and this call's keys (rotated) and values `[..., C, D]`.
  """
  dtype = x.dtype
  p = jax.tree.map(lambda a: a.astype(dtype), layer)

  family = config.of_family
  norm = functools.partial(rms_norm, epsilon=config.norm_epsilon, offset=family.norm_offset)

  # x + attention(norm(x)); some families normalise what is added
  h = norm(x, layer.attention_scale[...])
  q = project(h, p.query_kernel[...], adapter=adapters.query_kernel)
  k = project(h, p.key_kernel[...], adapter=adapters.key_kernel)
  v = project(h, p.value_kernel[...], adapter=adapters.value_kernel)
  if family.has_qkv_bias:
    q, k, v = q + p.query_bias[...], k + p.key_bias[...], v + p.value_bias[...]
  if family.has_qk_norm:
    q = norm(q, layer.query_scale[...])
    k = norm(k, layer.key_scale[...])
  stretched = rotation._replace(magnitude=rotation.magnitude * config.query_stretch)
  q, k = rope.rotate(q, positions, stretched), rope.rotate(k, positions, rotation)
  mixed = attend_fn(q, k, v).astype(dtype)
  added = project(mixed, p.output_kernel[...], num_inputs=2, adapter=adapters.output_kernel)
  if family.has_output_norms:
    added = norm(added, layer.attention_output_scale[...])
  x = x + added

  # x + down(activation(gate(norm(x))) * up(norm(x)))
  h = norm(x, layer.mlp_scale[...])
  gate = ACTIVATIONS[family.activation](
    project(h, p.gate_kernel[...], adapter=adapters.gate_kernel)
  )
  gated = gate * project(h, p.up_kernel[...], adapter=adapters.up_kernel)
  added = project(gated, p.down_kernel[...], adapter=adapters.down_kernel)
  if family.has_output_norms:
    added = norm(added, layer.mlp_output_scale[...])
  return x + added, (k, v)


def project(
  x: jax.Array, kernel: jax.Array, *, num_inputs: int = 1, adapter: Adapter | None = None
) -> jax.Array:
  """Contracts the last `num_inputs` axes of x with the first of the kernel, as one matrix product.

  On CPU the gradient of the same product over three axes takes 1.6 times as long. With an adapter
  the kernel is frozen, and the product that of both merged.
  """
  if adapter is not None:
    return project_adapted(x, kernel, adapter)
  inputs, outputs = kernel.shape[:num_inputs], kernel.shape[num_inputs:]
  size = math.prod(inputs)
  out = x.reshape(-1, size) @ kernel.reshape(size, -1)
  return out.reshape(*x.shape[: x.ndim - num_inputs], *outputs)


def scan_layers(
  body: Callable, x: jax.Array, xs: tuple[Any, ...], *, num_layers: int
) -> tuple[jax.Array, Any]:
  """`jax.lax.scan` over stacked layers; a few layers are written out.

  XLA compiles one body for many layers, but on CPU products inside a loop run at half speed.
  Layers that lie apart (`split_layers`) are written out, too.

  Args:
    body: `(x, a layer's entry of each of xs) -> (x, output)`.
    x: `[..., M]` residual stream.
    xs: layers, stacked or as a list, and arrays that begin with L.
    num_layers: L.

  Returns:
    The residual stream after the last layer, and the stacked outputs.
  """
  layers, *others = xs
  if not isinstance(layers, list):
    return jax.lax.scan(body, x, xs, unroll=num_layers if num_layers <= MAX_UNROLLED else 1)
  outputs = []
  for entries in zip(layers, *others, strict=True):
    x, output = body(x, entries)
    outputs.append(output)
  return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


def split_layers(decoder: Decoder) -> list[Layers]:
  """The parameters of the layers, layer by layer.

  A GPU's loop over stacked layers would copy each before it is multiplied.
  """
  take = lambda i: jax.tree.map(lambda leaf: leaf[i], decoder.layers)
  return [take(i) for i in range(decoder.config.num_layers)]


def rms_norm(x: jax.Array, scale: jax.Array, epsilon: float, *, offset: float = 0.0) -> jax.Array:
  """x / rms(x) * (offset + scale) over the last axis, in float32, returned in x's dtype."""
  x32 = x.astype(jnp.float32)
  normal = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, -1, keepdims=True) + epsilon)
  scale = scale.astype(jnp.float32)
  return (normal * (offset + scale if offset else scale)).astype(x.dtype)


def embed(decoder: Decoder, tokens: jax.Array) -> jax.Array:
  """`[...]` int32 -> `[..., M]` in the compute dtype.

  Where embeddings are scaled, the scale is rounded to their dtype first, as transformers does: in
  bfloat16 55.4256 is 55.5, and models are trained with that.
  """
  config = decoder.config
  embedded = decoder.embedding[...][tokens].astype(config.compute_dtype)
  if not config.of_family.scales_embedding:
    return embedded
  # The columns of the table, of which a device may hold a part only, are not M.
  return embedded * jnp.float32(config.width**0.5).astype(config.compute_dtype)


def head_table(decoder: Decoder) -> jax.Array:
  """`[M, V]`, or `[V, M]` where the embedding is the head."""
  return (decoder.embedding if decoder.head is None else decoder.head)[...]


def compute_logits(
  decoder: Decoder, hidden: jax.Array, table: jax.Array | None = None
) -> jax.Array:
  """`[..., M]` final hidden states -> `[..., V]` float32; ids the tokenizer lacks are masked.

  Args:
    decoder: the parameters.
    hidden: before the final norm.
    table: of `head_table`, where the decoder itself holds a part of it only.
  """
  config = decoder.config
  hidden = rms_norm(
    hidden, decoder.final_scale[...], config.norm_epsilon, offset=config.of_family.norm_offset
  )
  table = head_table(decoder) if table is None else table
  spec = '...m,vm->...v' if decoder.head is None else '...m,mv->...v'
  logits = jnp.einsum(spec, hidden, table.astype(hidden.dtype), preferred_element_type=jnp.float32)
  if config.num_ids == config.vocab_size:
    return logits
  return jnp.where(jnp.arange(config.vocab_size) < config.num_ids, logits, MASKED)


class Parts(NamedTuple):
  """How a computation gets the whole of what it needs next.

  By default every device holds all; model/sharded.py gathers what is split over fsdp.
  """

  embed: Callable[[Decoder, jax.Array], jax.Array] = embed
  layer: Callable[[Layers], Layers] = lambda layer: layer
  adapters: Callable[[LayerAdapters], LayerAdapters] = lambda adapters: adapters
  head_table: Callable[[Decoder], jax.Array] = head_table
  heads_are_whole: bool = True  # on every device
  device_kind: str = ''  # that is compiled for; '': not known


WHOLE = Parts()


class Rows(NamedTuple):
  """Packed rows in the training form: all positions of all rows at once.

  Query i sees key j iff j <= i < key_end[j] (model/attention/training.py).
  """

  tokens: jax.Array  # [R, S] int32
  positions: jax.Array  # [R, S] int32, for the rotation
  key_end: jax.Array  # [R, S] int32
  # [R, S] int32; targets[r, i] is scored by what position i sees; None: nothing is scored.
  targets: jax.Array | None = None
  # [R, S] int32; if given, targets[r, i] is scored by what position predecessor[r, i] sees: in a
  # tree, one position has several successors.
  predecessor: jax.Array | None = None
  # [R, S] float32 > 0, that of the sampler of each target; None: one for all
  temperature: jax.Array | None = None


def forward(
  decoder: Decoder, rows: Rows, parts: Parts = WHOLE, *, adapters: Adapters = NO_ADAPTERS
) -> jax.Array:
  """Hidden states `[R, S, M]` before the final norm, in the compute dtype.

  Args:
    decoder: the parameters.
    rows: what is forwarded.
    parts: how the parameters are had whole.
    adapters: of the parameters.

  Raises:
    ValueError: if the arrays of the rows do not belong together.
  """
  check_rank('tokens', rows.tokens, 2)
  check_shape('positions', rows.positions, rows.tokens.shape)
  check_shape('key_end', rows.key_end, rows.tokens.shape)
  config = decoder.config
  # Here, not in every layer: it looks at all rows.
  seen_blocks = find_seen_blocks(rows.key_end)
  seen_in_window = None
  if config.has_local_layers:
    seen_in_window = find_seen_blocks(rows.key_end, positions=rows.positions, window=config.window)
  blocks = choose_block_attention(
    config.attention_kernel,
    heads_are_whole=parts.heads_are_whole,
    device_kind=parts.device_kind,
  )

  def body(x, xs):
    layer, adapters, *index = xs
    layer, kind = parts.layer(layer), layer_kind(config, *index)
    seen = seen_blocks
    if kind.window is not None:
      seen = jnp.where(kind.window == config.window, seen_in_window, seen_blocks)
    x, _ = apply_layer(
      layer,
      config,
      x,
      positions=rows.positions,
      rotation=kind.rotation,
      attend_fn=functools.partial(
        attend,
        key_end=rows.key_end,
        positions=rows.positions,
        window=kind.window,
        seen_blocks=seen,
        blocks=blocks,
      ),
      adapters=parts.adapters(adapters),
    )
    return x, None

  if config.remat != 'none':
    # Inside a loop nothing can be merged with the forward pass; layers written out could be.
    body = jax.checkpoint(
      body, policy=REMAT_POLICIES[config.remat], prevent_cse=config.num_layers <= MAX_UNROLLED
    )
  x = parts.embed(decoder, rows.tokens)
  xs = (decoder.layers, adapters.layers)
  if config.has_local_layers:
    xs += (jnp.arange(config.num_layers),)
  return scan_layers(body, x, xs, num_layers=config.num_layers)[0]


def sequence_logprobs(
  decoder: Decoder,
  rows: Rows,
  *,
  temperature: float = 1.0,
  parts: Parts = WHOLE,
  adapters: Adapters = NO_ADAPTERS,
) -> tuple[jax.Array, jax.Array]:
  """Log-probs of the rows' targets and entropies, under the full softmax.

  Args:
    decoder: the parameters.
    rows: with targets.
    temperature: that of the sampler; logits are divided by it, as the sampler does. Rows that have
      temperatures do not read it.
    parts: how the parameters are had whole.
    adapters: of the parameters.

  Returns:
    Log-probs and entropies (nats), `[R, S]` float32. `[R, S, V]` never exists in full: positions
    go through the head in chunks, recomputed in the backward pass.
  """
  check_shape('targets', rows.targets, rows.tokens.shape)
  hidden = forward(decoder, rows, parts, adapters=adapters)
  if rows.predecessor is not None:
    hidden = jnp.take_along_axis(hidden, rows.predecessor[..., None], axis=1)
  table = parts.head_table(decoder)

  def score(x: tuple[jax.Array, jax.Array, jax.Array | None]) -> tuple[jax.Array, jax.Array]:
    hidden, targets, of_targets = x
    divisor = temperature if of_targets is None else of_targets
    return score_targets(compute_logits(decoder, hidden, table), targets, divisor)

  num_rows, num_positions = rows.tokens.shape
  chunk = max(1, min(num_positions, MAX_LOGITS // (num_rows * decoder.config.vocab_size)))
  if chunk >= num_positions:
    return score((hidden, rows.targets, rows.temperature))

  def cut(x: jax.Array, fill: float = 0) -> jax.Array:  # [R, S, ...] -> [chunks, R, chunk, ...]
    padding = ((0, 0), (0, -num_positions % chunk)) + ((0, 0),) * (x.ndim - 2)
    padded = jnp.pad(x, padding, constant_values=fill)
    chunks = padded.reshape(num_rows, -1, chunk, *x.shape[2:])
    return jnp.moveaxis(chunks, 1, 0)

  def join(x: jax.Array) -> jax.Array:  # [chunks, R, chunk] -> [R, S]
    return jnp.moveaxis(x, 0, 1).reshape(num_rows, -1)[:, :num_positions]

  temperatures = None
  if rows.temperature is not None:
    temperatures = cut(rows.temperature, fill=1)  # 0 would make the gradient of padding nan
  chunks = (cut(hidden), cut(rows.targets), temperatures)
  logprobs, entropies = jax.lax.map(jax.checkpoint(score), chunks)
  return join(logprobs), join(entropies)


def for_logits(temperature: jax.Array | float) -> jax.Array | float:
  """Temperatures `[...]` of positions in the shape that divides their logits; one stays one."""
  return temperature[..., None] if jnp.ndim(temperature) else temperature


def score_targets(
  logits: jax.Array, targets: jax.Array, temperature: jax.Array | float = 1.0
) -> tuple[jax.Array, jax.Array]:
  """Log-probs of targets and the exact entropies of their distributions, in nats.

  The sampler and the learner both score through here, so that the importance ratio of a fresh
  sample is 1 up to float noise. Top-p and top-k do not enter: a ratio of probabilities that are
  renormalised over different sets would be biased.

  Args:
    logits: `[..., V]` float32.
    targets: `[...]` int32.
    temperature: `[]` > 0, divides the logits; or of each target, as many axes as these have.

  Returns:
    Two arrays `[...]` float32.
  """
  logits = logits / for_logits(temperature)
  # log softmax(z)_i = z_i - log sum_j exp(z_j), with z = logits - max.
  shifted = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
  weights = jnp.exp(shifted)
  total = weights.sum(-1)
  log_total = jnp.log(total)
  target = jnp.take_along_axis(shifted, targets[..., None], axis=-1)[..., 0]
  logprob = target - log_total
  # Entropy = -sum_i p_i log p_i = log sum_j exp(z_j) - sum_i p_i z_i.
  return logprob, log_total - jnp.sum(weights * shifted, -1) / total
