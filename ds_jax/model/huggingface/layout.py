"""Where each of our parameters lies in a Hugging Face checkpoint, and in which layout.

The file has one tensor per layer and kernels as [out, in]; ours are stacked over layers, [in, out],
with heads apart. One table says both, and reading, writing and checking follow from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ds_jax.sharding import path_name


class Place(NamedTuple):
  """A parameter's place in the file."""

  name: str  # {i} is the layer
  axes: tuple[tuple[int, ...], ...]  # our axes (L left out) that each axis of the file merges


MODEL_PREFIX = 'model.'  # of all but the head; a base model is stored without it

_LAYER = 'model.layers.{i}.'
_HEADS_IN = ((1, 2), (0,))  # ours [M, H|C, D], file [H*D, M]
_HEADS_OUT = ((2,), (0, 1))  # ours [H, D, M], file [M, H*D]
_TRANSPOSED = ((1,), (0,))
_MERGED = ((0, 1),)  # ours [H|C, D], file [H*D]
_ALIKE = ((0,),)

PLACES: Mapping[str, Place] = {
  'embedding': Place('model.embed_tokens.weight', ((0,), (1,))),
  'final_scale': Place('model.norm.weight', _ALIKE),
  'head': Place('lm_head.weight', _TRANSPOSED),
  'layers/attention_scale': Place(_LAYER + 'input_layernorm.weight', _ALIKE),
  'layers/query_kernel': Place(_LAYER + 'self_attn.q_proj.weight', _HEADS_IN),
  'layers/query_bias': Place(_LAYER + 'self_attn.q_proj.bias', _MERGED),
  'layers/query_scale': Place(_LAYER + 'self_attn.q_norm.weight', _ALIKE),
  'layers/key_kernel': Place(_LAYER + 'self_attn.k_proj.weight', _HEADS_IN),
  'layers/key_bias': Place(_LAYER + 'self_attn.k_proj.bias', _MERGED),
  'layers/key_scale': Place(_LAYER + 'self_attn.k_norm.weight', _ALIKE),
  'layers/value_kernel': Place(_LAYER + 'self_attn.v_proj.weight', _HEADS_IN),
  'layers/value_bias': Place(_LAYER + 'self_attn.v_proj.bias', _MERGED),
  'layers/output_kernel': Place(_LAYER + 'self_attn.o_proj.weight', _HEADS_OUT),
  'layers/mlp_scale': Place(_LAYER + 'post_attention_layernorm.weight', _ALIKE),
  'layers/gate_kernel': Place(_LAYER + 'mlp.gate_proj.weight', _TRANSPOSED),
  'layers/up_kernel': Place(_LAYER + 'mlp.up_proj.weight', _TRANSPOSED),
  'layers/down_kernel': Place(_LAYER + 'mlp.down_proj.weight', _TRANSPOSED),
  'layers/attention_output_scale': Place(_LAYER + 'post_attention_layernorm.weight', _ALIKE),
  'layers/mlp_output_scale': Place(_LAYER + 'post_feedforward_layernorm.weight', _ALIKE),
}
# Families that have another name for a parameter.
_PLACES_OF: Mapping[str, Mapping[str, Place]] = {
  'gemma3_text': {
    'layers/mlp_scale': Place(_LAYER + 'pre_feedforward_layernorm.weight', _ALIKE),
  },
}

# Of a model of images and text: how the names of its decoder's tensors begin in files of older and
# newer versions of transformers, and how those of a decoder alone do.
_WRAPPED = {
  'language_model.model.': MODEL_PREFIX,
  'language_model.lm_head.': 'lm_head.',
  'model.language_model.': MODEL_PREFIX,
}
# Of the parts that see images.
_OF_IMAGES = ('vision_tower.', 'multi_modal_projector.')

# Numbers of the file that are in memory at a time beside the parameters (few: transposing a block
# is fast while it fits the cache).
_BLOCK = 2**20


class Entry(NamedTuple):
  """One tensor of the file."""

  name: str
  shape: tuple[int, ...]


class Parameter(NamedTuple):
  """One of our parameters, and the tensors of the file that make it up, by layer if stacked."""

  name: str
  leaf: Any  # an array, or its ShapeDtypeStruct
  entries: list[Entry]

  @property
  def shape(self) -> tuple[int, ...]:
    return tuple(self.leaf.shape)


def is_stacked(name: str) -> bool:
  return name.startswith('layers/')


def entries(name: str, shape: Sequence[int], family: str = '') -> list[Entry]:
  """Tensors of the file that make up our parameter `name` of `shape`, by layer if stacked.

  Kernels and biases have the same names in all families.
  """
  place, count = (PLACES | _PLACES_OF.get(family, {}))[name], 1
  if is_stacked(name):
    count, *shape = shape
  merged = tuple(math.prod(shape[axis] for axis in group) for group in place.axes)
  return [Entry(place.name.format(i=i), merged) for i in range(count)]


def all_parameters(decoder: Any) -> Iterator[Parameter]:
  """Every parameter of a decoder, abstract or not, in the order of its leaves."""
  for path, leaf in jax.tree_util.tree_leaves_with_path(decoder):
    name = path_name(path)
    yield Parameter(name, leaf, entries(name, leaf.shape, decoder.config.family))


def is_of_images(name: str) -> bool:
  """Whether a tensor of a model of images and text belongs to a part that sees images."""
  return name.removeprefix(MODEL_PREFIX).startswith(_OF_IMAGES)


def unwrapped(name: str) -> str:
  """The name that a tensor of a model's decoder has where that is saved alone."""
  for wrapped, alone in _WRAPPED.items():
    if name.startswith(wrapped):
      return alone + name.removeprefix(wrapped)
  return name


def to_file(name: str, x: np.ndarray, entry: Entry) -> np.ndarray:
  """One layer's parameter (or an unstacked one) in the file's layout."""
  order = [axis for group in PLACES[name].axes for axis in group]
  return np.ascontiguousarray(x.transpose(order).reshape(entry.shape))


def read_part(
  name: str, tensor: Any, shape: Sequence[int], *, part: Sequence[slice], out: np.ndarray
) -> None:
  """Fills `out` with a part of one layer's parameter (or of an unstacked one).

  Args:
    name: ours.
    tensor: the file's, sliceable; no more than a block of it is read at a time.
    shape: of the whole parameter without L.
    part: for each of our axes the range of `out` in it. Axes that the file merges into another
      are whole.
    out: of the shape of `part`; numbers are converted to its dtype.
  """
  groups = PLACES[name].axes
  if any(out.shape[axis] != shape[axis] for group in groups for axis in group[1:]):
    raise ValueError(
      f'{name}: an axis that the file merges into another is split; change '
      'PARAMETER_RULES or read it whole.'
    )
  target = out.transpose([axis for group in groups for axis in group])
  # An axis of the file is ours group[0], each index of which spans the axes merged into it.
  spans = [math.prod(shape[axis] for axis in group[1:]) for group in groups]
  ranges = []
  for group, span in zip(groups, spans, strict=True):
    ours = part[group[0]]
    ranges.append(slice(ours.start * span, ours.stop * span))
  rows = max(1, _BLOCK // max(1, target[:1].size))
  for start in range(0, len(target), rows):
    block = target[start : start + rows]
    first = ranges[0].start + start * spans[0]
    rows_of_file = slice(first, first + len(block) * spans[0])
    block[...] = tensor[(rows_of_file, *ranges[1:])].reshape(block.shape)
