"""Rows of problems through packages that are extras: Hugging Face `datasets`, `reasoning-gym`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ds_jax.checks import InputError, first_line, suggest
from ds_jax.data.files import Row


def hf_rows(name: str, split: str) -> Iterator[Row]:
  """Rows of a data set on the Hugging Face hub, or in a folder that `datasets` can read.

  Args:
    name: 'OWNER/NAME' or a folder, with ':SUBSET' behind it where the data set has several.
    split: e.g. 'train'.

  Raises:
    InputError: if `datasets` is not installed, or there is no such data set, subset or split.
  """
  try:
    import datasets
  except ImportError as e:
    raise InputError(
      f"The source hf:{name} needs `datasets`: pip install 'ds_jax[hf]', or "
      'download the file and use file:PATH.'
    ) from e
  path, _, subset = name.partition(':')
  try:
    rows = datasets.load_dataset(path, subset or None, split=split)
  except Exception as e:  # of many kinds: connection, missing files, unknown subsets
    raise InputError(
      f'Cannot load split {split!r} of hf:{name}: {first_line(e)} Expected '
      'hf:OWNER/NAME or hf:OWNER/NAME:SUBSET; data.train_split and data.eval_split '
      'name the splits.'
    ) from e
  return enumerate(rows, start=1)


def gym_rows(name: str, count: int, seed: int) -> Iterator[Row]:
  """Yields generated rows of reasoning-gym; the answer is the whole entry as JSON.

  The verifier `gym:NAME` reads it: the gym's scorer needs the entry's metadata.

  Raises:
    InputError: if `reasoning-gym` is not installed, has no such task, or `count` is 0.
  """
  try:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS
  except ImportError as e:
    raise InputError(
      f"The source gym:{name} needs `reasoning-gym`: pip install 'ds_jax[gym]'."
    ) from e
  if name not in DATASETS:
    raise InputError(f'reasoning-gym has no task {name!r}.{suggest(name, DATASETS)}')
  if count < 1:
    raise InputError(
      f'gym:{name} generates as many problems as asked for; set data.max_problems, e.g. 1000.'
    )
  entries = reasoning_gym.create_dataset(name, size=count, seed=seed)
  for number, entry in enumerate(entries, start=1):
    row = {
      'id': f'{name}/{seed}/{number - 1}',
      'question': entry['question'],
      'answer': json.dumps(entry, sort_keys=True, default=_plain),
    }
    yield number, row


def _plain(value: Any) -> Any:
  """What JSON has no form for: numbers of numpy as numbers, the rest as text."""
  return value.item() if hasattr(value, 'item') else str(value)
