"""What the file system of a folder can do: tried before any work, told with its remedy."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

# How to let a mounted bucket rename folders.
RENAME_REMEDY = (
  'A bucket needs a hierarchical namespace, or gcsfuse --rename-dir-limit=200000 (on GKE the mount '
  'option rename-dir-limit=200000)'
)
_REMEDIES = {
  errno.EROFS: 'It is mounted read-only; choose another place, or mount it for writing',
  errno.EACCES: 'Choose another place, or let this user write there',
  errno.EPERM: 'Choose another place, or let this user write there',
  errno.ENOSPC: 'The disk is full; free some space, or choose another place',
  errno.EDQUOT: 'The quota is used up; free some space, or choose another place',
}
# What flock raises where a file system knows no locks, such as Lustre mounted without `flock`.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
_TRIAL = '.ds_jax_trial.'  # prefix of the folder in which things are tried


class CannotWrite(RuntimeError):
  """A file system refuses what a run has to do there; what was written before is untouched."""


@contextlib.contextmanager
def told(folder: pathlib.Path, deed: str) -> Iterator[None]:
  """Turns the system's errors into CannotWrite with the place, the reason and the remedy.

  Args:
    folder: where.
    deed: what is tried, e.g. 'make folders'.
  """
  try:
    yield
  except OSError as e:
    if e.errno is None:
      raise
    remedy = _REMEDIES.get(e.errno, 'Choose a place whose file system can')
    raise CannotWrite(
      f'Cannot {deed} in {folder}: [Errno {e.errno}] {e.strerror}. {remedy}.'
    ) from e


def with_remedy(error: OSError) -> str:
  """The system's error in words, and what helps against it if that is known."""
  remedy = _REMEDIES.get(error.errno)
  return f'{error}. {remedy}.' if remedy else str(error)


def refusal(error: CannotWrite | OSError) -> CannotWrite:
  """What the system refused, with what helps against it; an error without a number is raised."""
  if isinstance(error, CannotWrite):
    return error
  if error.errno is None:
    raise error
  return CannotWrite(with_remedy(error))


def is_writable(folder: pathlib.Path) -> bool:
  """Whether files can be made in a folder, or the folder itself where it is missing."""
  for path in (folder, *folder.absolute().parents):
    if path.exists():
      return path.is_dir() and os.access(path, os.W_OK)
  return False


def missing_folders(folder: pathlib.Path) -> list[pathlib.Path]:
  """The folder and those above it that are not there, the deepest first."""
  return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folders: Iterable[pathlib.Path]) -> None:
  """Removes folders that are empty; others are somebody's by now."""
  for folder in folders:
    with contextlib.suppress(OSError):
      folder.rmdir()


def hold(file: IO) -> bool:
  """Locks an open file for this process; False where the file system knows no locks.

  Raises:
    BlockingIOError: if another process holds it.
  """
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as e:
    if e.errno not in _NO_LOCKS:
      raise
    return False
  return True


def no_locks(place: pathlib.Path) -> str:
  """What a person is told where `hold` cannot hold."""
  return (
    f'The file system of {place} knows no locks: see to it that no other command works there '
    'meanwhile.'
  )


def probe(folder: pathlib.Path) -> str:
  """Makes, writes, renames and removes files and folders; leaves nothing behind.

  Args:
    folder: where; it is made for the time of the trial where it is missing.

  Returns:
    Why folders that hold something cannot be renamed; '': they can.

  Raises:
    CannotWrite: for anything else that cannot be done.
  """
  missing = missing_folders(folder)
  try:
    with told(folder, 'make folders'):
      folder.mkdir(parents=True, exist_ok=True)
      for left in folder.glob(f'{_TRIAL}*'):  # by a trial that was killed
        shutil.rmtree(left, ignore_errors=True)
      trial = pathlib.Path(tempfile.mkdtemp(prefix=_TRIAL, dir=folder))
    try:
      refusal = _try_all(folder, trial)
      with told(folder, 'remove files and folders'):
        shutil.rmtree(trial)
    finally:
      shutil.rmtree(trial, ignore_errors=True)
  finally:
    remove_empty(missing)
  return refusal


def _try_all(folder: pathlib.Path, trial: pathlib.Path) -> str:
  """What `probe` does in its own folder; returns why that cannot be renamed."""
  full = trial / 'full'
  with told(folder, 'make folders'):
    full.mkdir()
  with told(folder, 'write files'), (full / 'file').open('wb') as file:
    file.write(bytes(4096))
    file.flush()
    os.fsync(file.fileno())
  with told(folder, 'rename files'):
    (full / 'other').touch()
    os.replace(full / 'other', full / 'file')
  try:
    os.rename(full, trial / 'renamed')
  except OSError as e:
    return f'[Errno {e.errno}] {e.strerror}'
  return ''
