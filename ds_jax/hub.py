"""A model's files on this machine: in a folder, or downloaded from the hub.

publishing.py of the run has the way back.
"""

from __future__ import annotations

import functools
import os
import pathlib
import re

from ds_jax.checks import InputError, first_line

# Weights in safetensors, configs, tokenizer and chat template; not pickled weights.
MODEL_FILES = (
  '*.json',
  '*.safetensors',
  '*.jinja',
  'tokenizer.model',
  'merges.txt',
  'vocab.txt',
)

MODEL_CARD = 'README.md'

_HUB_NAME = re.compile(r'[\w-][\w.-]*/[\w.-]+')

# Some models have their original weights once more, in a sub-folder or as consolidated files. Only
# templates are taken from sub-folders.
_DUPLICATES = ('*/*.safetensors', '*/*.json', 'consolidated*')


def is_hub_name(name: str) -> bool:
  """Whether this is the name of a model on the hub, and no path.

  runs/mine, with a folder runs, is a path with a typo, not a model on the hub.
  """
  path = pathlib.Path(name)
  is_path = path.is_dir() or path.parent.is_dir()
  return not is_path and _HUB_NAME.fullmatch(name) is not None


def local_folder(
  name: str | os.PathLike[str], files: tuple[str, ...] = MODEL_FILES
) -> pathlib.Path:
  """Returns the folder called `name`, or downloads (once) the model of that name from the hub.

  Args:
    name: a path, or OWNER/MODEL.
    files: names or patterns of the files to download.

  Returns:
    A folder with the model's files; or `name` as a path that may not exist, where it is neither a
    folder nor a name on the hub.

  Raises:
    InputError: it is a name on the hub, but the model cannot be fetched.
  """
  if is_hub_name(str(name)):
    return _snapshot(str(name), files)
  return pathlib.Path(name).expanduser()


def card_file(name: str, *, may_download: bool) -> pathlib.Path | None:
  """The model card of the model called `name`; None: it has none, or none that can be had.

  Args:
    name: a path, or OWNER/MODEL.
    may_download: else a card on the hub counts if it is on this machine.
  """
  if not is_hub_name(name):
    path = pathlib.Path(name).expanduser() / MODEL_CARD
    return path if path.is_file() else None
  import huggingface_hub

  try:
    path = huggingface_hub.hf_hub_download(name, MODEL_CARD, local_files_only=not may_download)
  except (OSError, ValueError):  # the hub's errors are of these kinds
    return None
  return pathlib.Path(path)


@functools.cache  # one process sees one version, whatever is uploaded meanwhile
def _snapshot(name: str, files: tuple[str, ...]) -> pathlib.Path:
  import huggingface_hub

  try:
    folder = huggingface_hub.snapshot_download(
      name, allow_patterns=files, ignore_patterns=_DUPLICATES
    )
  except (OSError, ValueError) as e:  # the hub's errors are of these kinds
    raise InputError(
      f'{name!r} is neither a folder here nor a model that can be fetched from the '
      f'Hugging Face hub: {first_line(e)}'
    ) from e
  return pathlib.Path(folder)
