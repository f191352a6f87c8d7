"""Fields and flags that name a place: a file, a folder, a bucket, a model.

They are read once, at the door: `~` is expanded, a relative path starts here, links are followed.
What is checked is then what is read and written, whatever happens to a link meanwhile, and a run
that is continued from another folder knows its places.
"""

from __future__ import annotations

import dataclasses
import operator
import os
import pathlib
from collections.abc import Callable

from ds_jax.checks import InputError
from ds_jax.config.annotations import Place
from ds_jax.config.mixtures import joined, parse_sources
from ds_jax.hub import is_hub_name

_TFDS_FILE = 'dataset_info.json'  # in the folder of a data set


def resolved(name: str, text: str) -> str:
  """The absolute path of a file or folder on this machine.

  Args:
    name: what an error calls the field.
    text: as a person writes it.

  Raises:
    InputError: if it is a URL, the home of a user who does not exist, or leads over a broken link
      or through a file.
  """
  if '://' in text:
    raise InputError(
      f'Expected {name} to be a path on this machine, got {text!r}; mount the bucket '
      '(launch/setup_tpu_vm.sh does) or copy what it holds.'
    )
  path = os.path.expanduser(text)
  if path.startswith('~') and not os.path.lexists(path):
    raise InputError(
      f'{name}: no home of {path.split("/")[0]!r} is known; write ./{path} for a name that begins '
      'with ~.'
    )
  path = os.path.abspath(path)
  _check_way(name, path)
  return os.path.realpath(path)


def _check_way(name: str, path: str) -> None:
  """Raises InputError if a part of an absolute path is a broken link, or a file with more behind.

  A folder made behind a broken link would lie where nobody looks for it: under the mount point of
  a disk that is not there, for instance.
  """
  way = path
  while not os.path.lexists(way):
    way = os.path.dirname(way)
  if not os.path.exists(way):
    raise InputError(
      f'{name}: {way} is a link to {os.readlink(way)}, which does not exist; make that, or remove '
      'the link.'
    )
  if way != path and not os.path.isdir(way):
    raise InputError(f'{name}: {way} is a file, so there can be no {path}.')


def _file(name: str, text: str) -> str:
  """As `resolved`, but a link to a file keeps its name: in caches it alone tells what a file is."""
  resolved(name, text)
  path = os.path.abspath(os.path.expanduser(text))
  return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _folder(name: str, text: str) -> str:
  path = resolved(name, text)
  if os.path.exists(path) and not os.path.isdir(path):
    raise InputError(f'Expected {name} to be a folder; {path} is a file.')
  return path


def _bucket_or_folder(name: str, text: str) -> str:
  return text if '://' in text else _folder(name, text)


def _model(name: str, text: str) -> str:
  return text if is_hub_name(text) else resolved(name, text)


def _sources(name: str, text: str) -> str:
  """One source of problems, or several with weights (mixtures.py)."""
  return _with_each(text, lambda source: _source(name, source))


def _source(name: str, text: str) -> str:
  """A source of problems: 'file:PATH', and the others where what they name is a folder here."""
  kind, colon, path = text.partition(':')
  if kind == 'file' and path:
    return kind + colon + _file(name, path)
  if kind == 'tfds' and os.path.exists(os.path.join(os.path.expanduser(path), _TFDS_FILE)):
    return kind + colon + resolved(name, path)
  folder, *subset = path.split(':')
  if kind == 'hf' and os.path.isdir(os.path.expanduser(folder)):
    return ':'.join([kind, resolved(name, folder), *subset])
  return text


# The places of a field. A pattern of files is read as the path that it looks like.
FILE = Place('a file', _file)
FOLDER = Place('a folder', _folder)
BUCKET_OR_FOLDER = Place('a folder, or gs://…', _bucket_or_folder)
MODEL = Place('a folder of a model, or its name on the hub', _model)
SOURCE = Place('a source of problems', _sources)


def is_same_place(before: str, now: str) -> bool:
  """Whether two texts of a field name one place, or the same sources with the same weights.

  A relative path, which older runs kept, is the absolute one that ends in it: nobody knows any
  more from where it started.
  """
  if before == now:
    return True
  pairs = _pairs(before, now)
  return bool(pairs) and all(_is_same_place(*pair) for pair in pairs)


def _is_same_place(before: str, now: str) -> bool:
  if before == now:
    return True
  (kind, before), (kind_now, now) = _split(before), _split(now)
  if kind != kind_now or not os.path.isabs(now) or '://' in before or not before:
    return False
  before = os.path.expanduser(before)
  if os.path.realpath(before) == os.path.realpath(now):
    return True
  if os.path.isabs(before):
    return False
  named = [part for part in os.path.normpath(before).split(os.sep) if part != '..']
  return now.split(os.sep)[-len(named) :] == named


def has_moved(before: str, now: str) -> bool:
  """Whether `now` may be where `before` was: that is gone, and this has its name.

  Of several sources one at least has moved, and the others are the same.
  """
  pairs = _pairs(before, now)
  have_moved = [_has_moved(*pair) for pair in pairs]
  are_same = [_is_same_place(*pair) for pair in pairs]
  return any(have_moved) and all(map(operator.or_, have_moved, are_same))


def _has_moved(before: str, now: str) -> bool:
  (kind, before), (kind_now, now) = _split(before), _split(now)
  if kind != kind_now or not (os.path.isabs(before) and os.path.isabs(now)):
    return False
  is_alike = os.path.basename(before) == os.path.basename(now)
  return is_alike and not os.path.exists(before) and os.path.exists(now)


def found_near(text: str, folder: str, *, is_source: bool) -> str:
  """Where a place of a run, or each of its sources, is now, if not where the run's config says.

  A relative path, as older runs kept it, is looked for from the run's folder upwards. So are the
  last parts of one that is gone, two or more: a run may have been moved along with its model.

  Args:
    text: of the field.
    folder: the run's, absolute.
    is_source: the field names a source of problems: a bare name is none of a folder.

  Returns:
    The place; `text` itself if it is there, is nowhere, or names none.
  """
  return _with_each(text, lambda place: _found_near(place, folder, is_source))


def _found_near(text: str, folder: str, is_source: bool) -> str:
  kind, path = _split(text)
  if is_source and not kind:
    return text
  path = os.path.expanduser(path)
  if not path or '://' in path or (os.path.isabs(path) and os.path.exists(path)):
    return text
  parts = os.path.normpath(path).strip(os.sep).split(os.sep)
  tails = [path]
  if os.path.isabs(path):
    tails = [os.path.join(*parts[start:]) for start in range(1, len(parts) - 1)]
  for tail in tails:
    for above in (pathlib.Path(folder), *pathlib.Path(folder).parents):
      if (above / tail).exists():
        return f'{kind}{above / tail}'
  return text


def without_folders(text: str, *, is_source: bool) -> str:
  """A place as others may read it: names, without the folders of this machine above them.

  Args:
    text: of the field, absolute.
    is_source: the field names a source of problems: only what follows its kind is a path.
  """
  return _with_each(text, lambda place: _without_folders(place, is_source))


def _without_folders(text: str, is_source: bool) -> str:
  kind, path = _split(text)
  is_path = os.path.isabs(path) or '://' in path
  if not is_path or (is_source and not kind):
    return text
  return kind + path.rstrip('/').rsplit('/', 1)[-1]


def _with_each(text: str, change: Callable[[str], str]) -> str:
  """The text with each source of it changed; a text that is no mixture as a whole."""
  if ':' not in text:
    return change(text)
  parts = parse_sources(text)
  if len(parts) == 1:
    return change(parts[0].source)
  return joined([dataclasses.replace(part, source=change(part.source)) for part in parts])


def _pairs(before: str, now: str) -> list[tuple[str, str]]:
  """The places of two texts side by side; none if they differ in number or weights."""
  if ':' not in before or ':' not in now:
    return [(before, now)]
  parts, parts_now = parse_sources(before), parse_sources(now)
  if [part.weight for part in parts] != [part.weight for part in parts_now]:
    return []
  return [(part.source, other.source) for part, other in zip(parts, parts_now, strict=True)]


def _split(text: str) -> tuple[str, str]:
  """('file:', PATH) of a source, ('', PATH) of anything else."""
  for kind in ('file:', 'tfds:', 'hf:'):
    if text.startswith(kind):
      return kind, text.removeprefix(kind)
  return '', text
