"""Compiled programs: kept on the local disk, and brought from and to a store where that is remote.

A persistent cache that is read and written through a mounted bucket costs minutes: jax looks for
every program by itself, one after the other. So jax gets a local folder, which is filled from the
store at the start. Process 0 brings new programs back while the command runs and at its end.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ds_jax.run.disk import is_writable

if TYPE_CHECKING:
  from etils import epath

_VARIABLE = 'JAX_COMPILATION_CACHE_DIR'
# jax's names. Where it limits the size of its folder, each program needs a note of its last use.
_PROGRAM, _LAST_USE = '-cache', '-atime'
_PUSH_SECONDS = 60.0
_SETTLED_SECONDS = 5.0  # jax does not write a program in one go
_THREADS = 16  # a bucket answers slowly, but many at once
_URL = re.compile(r'\w+://')

# File systems over a network, besides those of FUSE.
_REMOTE = frozenset({'nfs', 'nfs4', 'cifs', 'smb3', 'ceph', 'lustre', 'gpfs', 'beegfs'})
_LOCAL_FUSE = frozenset({'fuse.fuse-overlayfs'})  # of containers


@dataclasses.dataclass(frozen=True)
class Programs:
  """Where jax keeps compiled programs, and where they come from and go to."""

  folder: str  # jax's; '': jax keeps none
  store: str = ''  # '': the folder is their only place
  is_read_only: bool = False  # the store

  def tell_jax(self) -> None:
    """Sets jax's variables, which it reads as it is imported."""
    if self.folder:
      os.environ[_VARIABLE] = self.folder
      os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '1')
    if self.store:
      # XLA's own caches lie in jax's folder, and its path is then part of a program's key: another
      # machine, with another home, would find nothing (jax 0.10).
      os.environ.setdefault('JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES', 'none')

  def tell_loaded_jax(self) -> None:
    """Has jax, which is imported already, keep programs here, unless it keeps them elsewhere."""
    import jax

    if self.folder and not jax.config.jax_compilation_cache_dir:
      jax.config.update('jax_compilation_cache_dir', self.folder)
    if self.store:
      jax.config.update('jax_persistent_cache_enable_xla_caches', 'none')  # see above

  @contextlib.contextmanager
  def brought(self, note: Callable[[str], None], *, writes: bool) -> Iterator[None]:
    """Fills the local folder; new programs go to the store now and then, and at the end.

    A store that cannot be read or written is noted, and the command goes on without it.

    Args:
      note: hears what was brought, and what went wrong.
      writes: whether this process brings programs back: one of a team does.
    """
    if not self.store:
      yield
      return
    start = time.monotonic()
    count = self._copy(self.store, self.folder, note)
    if count:
      seconds = time.monotonic() - start
      note(f'Brought {count} compiled programs from {self.store} in {seconds:.1f} s.')
    if not writes or self.is_read_only:
      yield
      return
    ended = threading.Event()
    pusher = threading.Thread(target=self._push_until, args=(ended, note), daemon=True)
    pusher.start()
    try:
      yield
    finally:
      ended.set()
      pusher.join()

  def _push_until(self, ended: threading.Event, note: Callable[[str], None]) -> None:
    """Brings programs back: those that are whole every minute, and the others when it ends."""
    while not ended.wait(_PUSH_SECONDS):
      self._copy(self.folder, self.store, note, settled_for=_SETTLED_SECONDS)
    self._copy(self.folder, self.store, note)

  def _copy(
    self, source: str, target: str, note: Callable[[str], None], *, settled_for: float = 0.0
  ) -> int:
    """Copies what `target` lacks; returns how many programs that were."""
    from etils import epath

    try:
      return _copy_missing(epath.Path(source), epath.Path(target), settled_for)
    except (OSError, ImportError) as e:
      note(f'Compiled programs could not be copied from {source} to {target}: {e}')
      return 0


def programs_of(workdir: str) -> Programs:
  """The place of a command's compiled programs: JAX_COMPILATION_CACHE_DIR, else in its workdir.

  Args:
    workdir: folder of the run; '': the command has none.
  """
  wanted = os.environ.get(_VARIABLE, '')
  if not wanted and workdir:
    wanted = str(pathlib.Path(workdir).absolute() / 'jax_cache')
  if not wanted:
    return Programs('')
  local = str(_local_folder(wanted))
  is_url = _URL.match(wanted) is not None
  if not is_url and not is_writable(pathlib.Path(wanted)):
    return Programs(local, store=wanted, is_read_only=True)
  if is_remote(wanted) and not is_remote(local):
    return Programs(local, store=wanted)
  return Programs(wanted)


def is_remote(path: str, mounts: str | None = None) -> bool:
  """Whether a path is a URL, or lies on a file system that is mounted over a network.

  Args:
    path: of a folder, which need not exist.
    mounts: text as of /proc/self/mountinfo; None: that of this process, where there is one.
  """
  if _URL.match(path):
    return True
  if mounts is None:
    try:
      mounts = pathlib.Path('/proc/self/mountinfo').read_text()
    except OSError:
      return False  # not Linux
  folder, best, kind = pathlib.Path(path).resolve(), -1, ''
  for line in mounts.splitlines():
    fields, _, file_system = line.partition(' - ')
    point = pathlib.Path(_unescaped(fields.split()[4]))
    # Of equal mount points the last one hides the others.
    if folder.is_relative_to(point) and len(point.parts) >= best:
      best, kind = len(point.parts), file_system.split()[0]
  is_fuse = kind == 'fuse' or kind.startswith('fuse.')
  return kind in _REMOTE or (is_fuse and kind not in _LOCAL_FUSE)


def _unescaped(path: str) -> str:
  r"""A mount point as it is: spaces and the like are written \040."""
  return re.sub(r'\\([0-7]{3})', lambda match: chr(int(match[1], 8)), path)


def _local_folder(store: str) -> pathlib.Path:
  """A folder of this machine for the programs of a store."""
  root = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  digest = hashlib.sha256(store.encode()).hexdigest()[:12]
  return pathlib.Path(root) / 'ds_jax' / 'programs' / digest


def _copy_missing(source: epath.Path, target: epath.Path, settled_for: float) -> int:
  """Copies the programs that `target` lacks and that have not changed for some seconds."""
  if not source.exists():
    return 0
  present = {path.name for path in target.glob(f'*{_PROGRAM}')} if target.exists() else set()
  settled = time.time() - settled_for
  missing = []
  for path in source.glob(f'*{_PROGRAM}'):
    if path.name not in present and (not settled_for or path.stat().mtime <= settled):
      missing.append(path)
  if missing:
    target.mkdir(parents=True, exist_ok=True)
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
    list(threads.map(lambda path: _copy_one(path, target), missing))
  return len(missing)


def _copy_one(path: epath.Path, target: epath.Path) -> None:
  """Copies one program such that readers never see half of it."""
  last_use = target / (path.name.removesuffix(_PROGRAM) + _LAST_USE)
  last_use.write_bytes(time.time_ns().to_bytes(8, 'little'))
  partial = target / f'{path.name}.partial-{os.getpid()}-{time.monotonic_ns()}'
  try:
    partial.write_bytes(path.read_bytes())
    partial.replace(target / path.name)
  finally:
    if partial.exists():
      partial.unlink()
