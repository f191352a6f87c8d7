"""Whether the tensors of a folder are those that its config asks for."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ds_jax.checks import InputError
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import Decoder
from ds_jax.model.huggingface import layout
from ds_jax.model.huggingface.tensors import Stored, open_tensor

# Faults of tensors that are told at most.
_MAX_FAULTS = 20

# Rows of two tensors that are compared at a time.
_ROWS_COMPARED = 1024

_EMBEDDING = layout.PLACES['embedding'].name
_HEAD = layout.PLACES['head'].name


def match_tensors(
  stored: Mapping[str, Stored], abstract: Decoder, folder: pathlib.Path
) -> dict[str, Stored]:
  """Returns the tensors of a folder by the names that `layout` gives them.

  Args:
    stored: those of the folder's files, by their names there.
    abstract: the decoder of the folder's config.
    folder: for messages.

  Raises:
    InputError: tensors are missing, unknown, mis-shaped or no floats (all listed together), or a
      tied head is not the embedding.
  """
  named = _named_as_expected(stored, abstract.config, folder)
  _check_tensors(abstract, named, folder)
  _check_tied(abstract.config, named, folder)
  return named


def tensors_of_decoder(
  stored: Mapping[str, Stored], note: Callable[[str], Any]
) -> dict[str, Stored]:
  """The tensors of the decoder within a model of images and text, named as if saved alone.

  Args:
    stored: those of the folder's files, by their names there.
    note: hears how many tensors are passed over.
  """
  of_decoder, passed_over = {}, []
  for name, tensor in stored.items():
    if layout.is_of_images(name):
      passed_over.append(name)
    else:
      of_decoder[layout.unwrapped(name)] = tensor
  if passed_over:
    note(
      f'Of this model of images and text the language model is read; {len(passed_over)} tensors '
      f'like {passed_over[0]} are passed over.'
    )
  return of_decoder


def shown(faults: Sequence[str]) -> str:
  """The faults, or the first of many."""
  text = '; '.join(faults[:_MAX_FAULTS])
  if len(faults) > _MAX_FAULTS:
    text += f'; and {len(faults) - _MAX_FAULTS} more'
  return text


def _named_as_expected(
  stored: Mapping[str, Stored], config: DecoderConfig, folder: pathlib.Path
) -> dict[str, Stored]:
  """The tensors of a folder under the names of a causal language model, as transformers reads them.

  A base model's names lack the prefix of the model. Of a tied head and embedding either may be
  stored alone.

  Raises:
    InputError: the names have another prefix.
  """
  base_name = _EMBEDDING.removeprefix(layout.MODEL_PREFIX)
  named = dict(stored)
  if base_name in stored:
    named = {name if name == _HEAD else layout.MODEL_PREFIX + name: x for name, x in stored.items()}
  if config.tie_embeddings and _HEAD in named and _EMBEDDING not in named:
    named[_EMBEDDING] = named.pop(_HEAD)
  if _EMBEDDING in named:
    return named
  for name in stored:
    if name.endswith('.' + base_name):
      raise InputError(
        f'Tensors in {folder} are named like {name}, expected {_EMBEDDING}: they were saved from '
        'within another model or wrapper (torch.compile, DataParallel, peft, a model of images). '
        'Rename them, or save the language model alone with save_pretrained of transformers.'
      )
  return named


def _check_tied(config: DecoderConfig, stored: Mapping[str, Stored], folder: pathlib.Path) -> None:
  """Raises InputError if a stored head that is to be the embedding differs from it."""
  if not config.tie_embeddings or _HEAD not in stored:
    return
  if not _are_equal(stored[_EMBEDDING], stored[_HEAD]):
    raise InputError(
      f'{folder}: tie_word_embeddings is true in config.json, but {_HEAD} is not {_EMBEDDING}. '
      'Versions of transformers read this differently: set it to false if the head was trained '
      f'apart, or remove {_HEAD}.'
    )


def _are_equal(a: Stored, b: Stored) -> bool:
  """Whether two tensors have the same numbers; NaN equals NaN."""
  if a.shape != b.shape or not (a.is_float and b.is_float):
    return False
  with open_tensor(a) as left, open_tensor(b) as right:
    for start in range(0, a.shape[0], _ROWS_COMPARED):
      rows = slice(start, min(start + _ROWS_COMPARED, a.shape[0]))
      if not np.array_equal(left[rows], right[rows], equal_nan=True):
        return False
  return True


def _check_tensors(abstract: Decoder, stored: Mapping[str, Stored], folder: pathlib.Path) -> None:
  """Raises InputError with all faults of a folder's tensors."""
  expected: dict[str, tuple[int, ...]] = {}
  for parameter in layout.all_parameters(abstract):
    expected.update((entry.name, entry.shape) for entry in parameter.entries)
  unknown = set(stored) - set(expected)
  if abstract.config.tie_embeddings:
    unknown.discard(_HEAD)  # some writers store the tied head as well
  # Early Llama conversions store the frequencies, which follow from the config.
  unknown = {name for name in unknown if not name.endswith('rotary_emb.inv_freq')}

  common = [name for name in expected if name in stored]
  missing = [name for name in expected if name not in stored]
  faults = [f'missing {n} {expected[n]}' for n in missing]
  faults += [f'unknown {n} {stored[n].shape}' for n in sorted(unknown)]
  for n in common:
    if stored[n].shape != expected[n]:
      faults.append(f'{n}: expected {expected[n]}, got {stored[n].shape}')
  for n in common:
    if not stored[n].is_float:
      faults.append(f'{n}: expected floats, got {stored[n].dtype}')
  if not faults:
    return
  message = f'Tensors in {folder} do not fit its config.json: {shown(faults)}.'
  if missing == [_HEAD]:
    message += ' If the head is the embedding, set tie_word_embeddings to true in config.json.'
  elif not all(x.is_float for x in stored.values()):
    message += ' The weights look quantised: take the model in bfloat16, or dequantise it.'
  raise InputError(message)
