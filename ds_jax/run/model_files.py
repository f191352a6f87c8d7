"""What a run keeps of its model: tokenizer, chat templates and config.json, but not the weights.

Checkpoints have the weights. So a run can be opened where its model is not: in another folder, on
another machine, from a copy. The run's own files count, whatever becomes of the model's folder.
"""

from __future__ import annotations

import hashlib
import json
import pathlib

from ds_jax.checks import InputError
from ds_jax.config.places import has_moved, is_same_place
from ds_jax.run.durable import write_atomically, write_json

# Written last: the files are whole once it is there.
MANIFEST = 'manifest.json'
# Whatever a tokenizer may be made of; a vocabulary that only one class knows is among them.
_PATTERNS = ('*.json', '*.jinja', '*.model', '*.txt', 'additional_chat_templates/*.jinja')
_OF_WEIGHTS = '.index.json'  # ends the name of a list of files of tensors
_MAX_BYTES = 2**27  # a larger file is no tokenizer's


def is_whole(folder: pathlib.Path) -> bool:
  """Whether a run keeps its model's files here: all of them were written."""
  return (folder / MANIFEST).is_file()


def keep(source: pathlib.Path, folder: pathlib.Path, *, path: str) -> None:
  """Copies the files of a model's folder, file by file; a kill leaves no manifest.

  Args:
    source: the model's folder.
    folder: where the run keeps them.
    path: the model as the config names it.
  """
  forget(folder)
  digests = {}
  for name in _names(source):
    content = (source / name).read_bytes()
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / name, content)
    digests[name] = _digest(content)
  write_json(folder / MANIFEST, {'path': path, 'files': digests})


def forget(folder: pathlib.Path) -> None:
  """From now on the files here do not count."""
  (folder / MANIFEST).unlink(missing_ok=True)


def kept_path(folder: pathlib.Path) -> str:
  """The model that the files are of, as the run's config named it."""
  return _manifest(folder)['path']


def is_of(folder: pathlib.Path, path: str) -> bool:
  """Whether the files are of the model that a config calls `path`, which may have moved."""
  before = kept_path(folder)
  return is_same_place(before, path) or has_moved(before, path)


def check_kept(folder: pathlib.Path) -> None:
  """Raises InputError, which names them, if files are not those that the run kept."""
  names = _differing(_manifest(folder)['files'], folder)
  if names:
    raise InputError(
      f'{folder} is not what the run kept of its model: {", ".join(names)} changed or missing; '
      'copy the run again, or name the model with --model=FOLDER (export, evaluate, search).'
    )


def changed_since(folder: pathlib.Path, source: pathlib.Path) -> list[str]:
  """Names of the files that differ in the model's folder from those that the run kept."""
  files = _manifest(folder)['files']
  new = set(_names(source)) - files.keys()
  return sorted({*_differing(files, source), *new})


def _names(source: pathlib.Path) -> list[str]:
  """Files to keep, relative to the folder."""
  names = set()
  for pattern in _PATTERNS:
    for path in source.glob(pattern):
      is_wanted = path.name != MANIFEST and not path.name.endswith(_OF_WEIGHTS)
      if is_wanted and path.is_file() and path.stat().st_size <= _MAX_BYTES:
        names.add(str(path.relative_to(source)))
  return sorted(names)


def _differing(digests: dict[str, str], folder: pathlib.Path) -> list[str]:
  names = []
  for name, digest in digests.items():
    path = folder / name
    if not path.is_file() or _digest(path.read_bytes()) != digest:
      names.append(name)
  return names


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()


def _manifest(folder: pathlib.Path) -> dict:
  path = folder / MANIFEST
  try:
    manifest = json.loads(path.read_text())
    return {'path': str(manifest['path']), 'files': dict(manifest['files'])}
  except (ValueError, KeyError, TypeError) as e:
    raise InputError(
      f'{path} is damaged ({type(e).__name__}: {e}); copy the run again, or remove {folder}: '
      '`ds-jax train` writes it anew from the model.'
    ) from e
