"""A model's folder on this machine: the folder itself, or the snapshot of a model on the hub."""

from __future__ import annotations

import functools
import os
import pathlib
import re

from ds_jax.checks import InputError

_HUB_NAME = re.compile(r'[\w-][\w.-]*/[\w.-]+')

# Weights in safetensors, configs, tokenizer and chat template; not pickled weights, not the
# consolidated originals that some models have in a sub-folder.
_WANTED = ('*.json', '*.safetensors', '*.jinja', 'tokenizer.model', 'merges.txt', 'vocab.txt')
_UNWANTED = ('*/*', 'consolidated*')


def local_folder(name: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the folder called `name`, or downloads (once) the model of that name from the hub.

  Raises:
    InputError: it is neither a folder nor a model that can be fetched.
  """
  path = pathlib.Path(name).expanduser()
  # runs/mine, with a folder runs, is a path with a typo, not a model on the hub.
  if path.is_dir() or not _HUB_NAME.fullmatch(str(name)) or path.parent.is_dir():
    return path
  return _snapshot(str(name))


@functools.cache  # one process sees one version, whatever is uploaded meanwhile
def _snapshot(name: str) -> pathlib.Path:
  import huggingface_hub

  try:
    return pathlib.Path(
      huggingface_hub.snapshot_download(name, allow_patterns=_WANTED, ignore_patterns=_UNWANTED)
    )
  except (OSError, ValueError) as e:  # the hub's errors are of these kinds
    reason = (str(e).strip() or type(e).__name__).splitlines()[0]
    raise InputError(
      f'{name!r} is neither a folder here nor a model that can be fetched from the '
      f'Hugging Face hub: {reason}'
    ) from e
