"""Checkpoints: one orbax folder that holds everything the next step depends on.

A checkpoint is a flat set of named arrays plus one JSON object of the host's (round, step, hard
set, replay buffer, counters, lengths of log files, configuration). A checksum per array, equal on
every mesh, tells a damaged checkpoint from a good one.

Orbax's interface v1 writes and reads one checkpoint; which of them there are, and which go, is
decided here. Its own `training.Checkpointer` makes the folder that it is only to read in, raises
the error of a failed save again at the next one, and leaves the half-written folder behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import gc
import heapq
import itertools
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils

from ds_jax.checks import InputError, NotFinite, first_line
from ds_jax.run.disk import CannotWrite
from ds_jax.run.leaves import Examined, examine, named_leaves

_STATE, _HOST = 'state', 'host'
# Orbax's files about a checkpoint. Its earlier versions wrote the first alone.
_METADATA, _COMMITTED = '_CHECKPOINT_METADATA', 'commit_success.txt'
_UNNAMED = '.orbax-checkpoint-tmp'  # its suffix of a folder that gets its name when it is whole
_OLD_SCORE = 'metrics/metrics'  # where earlier versions left the score alone
_PARAMS = 'params.'  # prefix of the parameters' names
_DAMAGED = 'damaged.'  # prefix of a checkpoint set aside; orbax ignores such names
_LAST_WRITES = 5.0  # seconds that writers of a failed save are waited for
_MIN_ATTEMPTS = 3  # at a save that they spoil, however long each takes


class SaveError(CannotWrite):
  """A checkpoint could not be written; earlier ones are untouched."""


class DamagedError(InputError):
  """None of the checkpoints that may be read is whole."""


@dataclasses.dataclass(frozen=True)
class Saved:
  """A checkpoint as its folder tells of it, without its arrays."""

  number: int  # name of its folder: saves are counted
  step: int  # training steps done by then, as in metrics.jsonl
  score: float | None  # of the evaluation that it was saved with; None: with none


class Checkpointer:
  """Saves and restores the state of a run.

  Orbax writes beside and renames, so a kill at any moment leaves the earlier checkpoints as they
  were and no half-written one in their place. Where folders cannot be renamed it writes in the
  place, and a checkpoint counts once its metadata say when it was committed. `begin_save` goes on
  while the files are written, `wait` returns once the checkpoint is committed, and `save` is both.
  """

  def __init__(
    self,
    folder: str | Path,
    keep: int | None,
    note: Callable[[str], None] = print,
    keep_best: int = 0,
    *,
    metric: str = '',
    renames_folders: bool = True,
  ):
    """Opens (and makes) the folder.

    Args:
      folder: where checkpoints live, one sub-folder per step.
      keep: newest checkpoints kept, >= 1; an older one goes only after a newer is committed. None:
        only to be read, by a process beside the one that writes; nothing in it is touched.
      note: told in one line when a checkpoint is passed over.
      keep_best: checkpoints of the highest score kept besides.
      metric: of the evaluation that a checkpoint was saved with, which is its score, whatever was
        the score when it was saved; '': that one.
      renames_folders: whether the file system does. All processes must say the same.
    """
    if keep is not None and keep < 1:
      raise InputError(f'Expected checkpoint.keep >= 1, got {keep}.')
    self._folder = Path(folder).absolute()
    self._keep, self._keep_best = keep, keep_best
    self._metric, self._renames_folders = metric, renames_folders
    self._note = note
    self._writer = ThreadPoolExecutor(1, 'ds_jax: checkpoint')
    self._pending: tuple[int, Future] | None = None  # step that is being written
    self._hushed = contextlib.ExitStack()  # while it is
    self._damaged: set[int] = set()
    self._scores: dict[int, float] = {}
    if keep is not None:
      self._folder.mkdir(parents=True, exist_ok=True)
      self._remove_uncommitted()
    if keep_best:
      self._scores = {x.number: x.score for x in self.saved() if x.score is not None}

  def save(
    self, step: int, state: Any, host: Mapping[str, Any], score: float | None = None
  ) -> None:
    """Writes a checkpoint and waits until it is committed; see `begin_save`."""
    self.begin_save(step, state, host, score)
    self.wait()

  def begin_save(
    self, step: int, state: Any, host: Mapping[str, Any], score: float | None = None
  ) -> None:
    """Copies the state and returns; the files are written meanwhile, until `wait`.

    State and host may change at once, and be donated. An earlier save is waited for first.

    Args:
      step: larger than that of every earlier checkpoint.
      state: pytree of arrays.
      host: JSON-able.
      score: by which `keep_best` is decided; None: not a candidate.

    Raises:
      SaveError: the disk is full, or it, or the save before, could not be written for another
        reason.
      NotFinite: parameters are not finite.
    """
    self.wait()
    self._set_damaged_aside()
    latest = self.latest()
    if latest is not None and step <= latest:
      raise SaveError(
        f'Expected a step after {latest}, the newest checkpoint in {self._folder}, '
        f'got {step}; remove the later checkpoints to go back.'
      )
    named = named_leaves(state)
    examined = jax.device_get(examine(named))
    broken = _not_finite(examined)
    if broken:
      newest = f'Checkpoint {latest} in {self._folder} is the newest' if latest else 'There is none'
      raise NotFinite(
        f'{", ".join(broken)} of the state to be saved as checkpoint {step} hold numbers that are '
        f'not finite; it is not saved. {newest}. Start again with a lower train.learning_rate.'
      )
    sums = {name: int(leaf.checksum) for name, leaf in examined.items()}
    about = {'host': dict(host), 'checksums': sums, 'score': score}
    self._hushed.enter_context(_quiet())
    try:
      about = json.loads(json.dumps(about))  # as it is now: it is written later
      response = self._start(step, {_STATE: named, _HOST: about})
    except Exception as error:  # orbax and tensorstore raise many kinds
      raise self._failed(step, error) from error
    self._pending = step, self._writer.submit(self._finish, response, step, score)

  def wait(self) -> None:
    """Returns once the save under way, if any, is committed.

    Raises:
      SaveError: it could not be written; earlier checkpoints are untouched.
    """
    if self._pending is None:
      return
    (step, written), self._pending = self._pending, None
    try:
      written.result()
    except Exception as error:
      raise self._failed(step, error) from error
    self._hushed.close()

  def latest(self) -> int | None:
    """Step of the newest committed checkpoint that is not known to be damaged; None: none."""
    return max(self._steps(), default=None)

  def saved(self) -> list[Saved]:
    """What checkpoints there are, the oldest first; one that cannot say what it is, is noted."""
    readable = []
    for number in sorted(self._steps()):
      try:
        readable.append(self._describe(number))
      except Exception as error:  # whatever a damaged file provokes
        self._note_damaged(number, error)
    return readable

  def restore(
    self, abstract_state: Any, steps: Collection[int] | None = None, part: str = ''
  ) -> tuple[Any, dict[str, Any]]:
    """Reads a checkpoint onto the mesh that `abstract_state` names, whatever mesh wrote it.

    Args:
      abstract_state: pytree of ShapeDtypeStructs with shardings.
      steps: which may be read: of them the newest that is whole. None: of all. Damaged ones are
        noted and passed over.
      part: the attribute of the saved state that `abstract_state` is, e.g. 'params'; nothing else
        is read. '': the state itself.

    Returns:
      The state and the host's JSON object.

    Raises:
      InputError: no checkpoint, none that can be read, or one of another model.
    """
    present = self._steps()
    wanted = sorted(present if steps is None else steps)
    if not wanted or not set(wanted) <= set(present):
      of_steps = f' of step {", ".join(map(str, wanted))}' if wanted else ''
      raise InputError(
        f'Expected a checkpoint{of_steps} in {self._folder}, found steps {sorted(present)}.'
      )
    for candidate in reversed(wanted):
      try:
        return self._read(candidate, abstract_state, part)
      except InputError:
        raise
      except Exception as error:  # whatever a damaged file provokes
        self._note_damaged(candidate, error)
      _collect_abandoned()
    raise DamagedError(
      f'No checkpoint in {self._folder} can be read (tried steps '
      f'{wanted}); start in a new workdir or restore the files.'
    )

  def close(self) -> None:
    """Waits for the save under way; SaveError if it cannot be written."""
    try:
      self.wait()
    finally:
      self._writer.shutdown()

  def _start(self, step: int, items: Mapping[str, Any]) -> Any:
    """Starts orbax's save; again, where writers of a failed save spoil its new folder."""
    give_up = time.monotonic() + _LAST_WRITES
    for attempt in itertools.count(1):
      self._remove_half_written(step)
      try:
        with _orbax(self._renames_folders) as ocp:
          return ocp.save_checkpointables_async(self._folder / str(step), items)
      except OSError as error:
        is_spoilt = error.errno == errno.ENOTEMPTY and jax.process_count() == 1
        # On a busy machine a single attempt may take all of that time.
        is_hopeless = time.monotonic() > give_up and attempt >= _MIN_ATTEMPTS
        if not is_spoilt or is_hopeless:
          raise

  def _finish(self, response: Any, step: int, score: float | None) -> None:
    """Waits for the commit, then removes the checkpoints that are not kept any longer."""
    response.result()
    if score is not None:
      self._scores[step] = score
    steps = self._steps()
    kept = heapq.nlargest(self._keep, steps)
    scored = [(self._scores[step], step) for step in steps if step in self._scores]
    kept += [step for _, step in heapq.nlargest(self._keep_best, scored)]
    if jax.process_index() == 0:
      for step in set(steps).difference(kept):
        self._remove(step)

  def _remove(self, step: int) -> None:
    """Removes a checkpoint; one that is half removed does not count."""
    folder = self._folder / str(step)
    if self._renames_folders:
      folder = folder.rename(folder.with_name(f'{step}{_UNNAMED}'))
    shutil.rmtree(folder, ignore_errors=True)

  def _failed(self, step: int, error: Exception) -> SaveError:
    """Removes what a failed save left, which holds the space that is short; what to say of it."""
    message = _save_message(error, step, self._folder)
    self._remove_half_written(step)
    self._hushed.close()
    latest = self.latest()
    kept = 'there is no earlier one' if latest is None else f'checkpoint {latest} is still good'
    return SaveError(f'{message} {kept[0].upper()}{kept[1:]}.')

  def _remove_half_written(self, step: int) -> None:
    """Removes what a failed save of `step` left; writers that outlive it may still add files."""
    if jax.process_index():
      return
    give_up = time.monotonic() + _LAST_WRITES
    while (left := self._half_written(step)) and time.monotonic() < give_up:
      for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
      time.sleep(0.1)  # it is gone when it stays away this long

  def _half_written(self, step: int | str) -> list[Path]:
    """Folders of a save that has not been committed; '*': of all."""
    left = list(self._folder.glob(f'{step}{_UNNAMED}*'))
    if not self._renames_folders:
      left += [f for f in self._folder.glob(str(step)) if f.name.isdigit() and _is_half_written(f)]
    return left

  def _remove_uncommitted(self) -> None:
    """Removes what a killed process left half-written, before any process looks for steps."""
    if jax.process_index() == 0:
      for folder in self._half_written('*'):
        shutil.rmtree(folder)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices('ds_jax: half-written checkpoints are removed')

  def _steps(self) -> list[int]:
    steps = []
    for folder in self._folder.glob('[0-9]*'):
      is_named = folder.name.isdigit() and int(folder.name) not in self._damaged
      if is_named and not _is_half_written(folder):
        steps.append(int(folder.name))
    return steps

  def _set_damaged_aside(self) -> None:
    """Renames damaged checkpoints, so that their steps can be written again."""
    if jax.process_index() == 0:
      for step in sorted(self._damaged):
        aside = self._folder / f'{_DAMAGED}{step}'
        shutil.rmtree(aside, ignore_errors=True)
        shutil.move(self._folder / str(step), aside)  # by copies where folders cannot be renamed
    self._damaged.clear()

  def _note_damaged(self, step: int, error: Exception) -> None:
    self._damaged.add(step)
    self._note(f'checkpoint {step} is damaged and passed over: {_reason(error)}')

  def _read_host(self, step: int) -> dict[str, Any]:
    """The JSON object that `begin_save` wrote."""
    with _orbax() as ocp:
      return ocp.load_checkpointables(self._folder / str(step), {_HOST: None})[_HOST]

  def _describe(self, number: int) -> Saved:
    stored = self._read_host(number)
    score = stored.get('score')
    old_score = self._folder / str(number) / _OLD_SCORE
    if score is None and old_score.exists():
      score = json.loads(old_score.read_text())['score']
    evaluations = list(stored['host'].get('evaluations', {}).values())
    if score is not None and evaluations and self._metric:
      score = evaluations[-1].get(self._metric)
    return Saved(number, int(stored['host']['step']), score)

  def _read(self, step: int, abstract_state: Any, part: str) -> tuple[Any, dict[str, Any]]:
    prefix = f'{part}.' if part else ''
    named = {prefix + name: leaf for name, leaf in named_leaves(abstract_state).items()}
    host = self._read_host(step)
    with _orbax() as ocp:
      stored = dict(ocp.metadata(self._folder / str(step), _STATE).metadata)
      if stored.keys() != host['checksums'].keys():
        raise ValueError('its list of arrays is incomplete')
      _check_same_arrays(step, {n: x for n, x in stored.items() if n.startswith(prefix)}, named)
      arrays = ocp.load(self._folder / str(step), named, checkpointable_name=_STATE)
    examined = jax.device_get(examine(arrays))
    wrong = []
    for name in sorted(named):
      if int(examined[name].checksum) != host['checksums'][name]:
        wrong.append(name)
    if wrong:
      raise ValueError(f'checksum of {wrong[0]} (and {len(wrong) - 1} more) does not agree')
    broken = _not_finite(examined)
    if broken:
      raise NotFinite(
        f'Checkpoint {step} in {self._folder} holds {", ".join(broken)} with numbers that are not '
        'finite: training had failed by then. Remove that checkpoint to use the one before it, '
        'or start again with a lower train.learning_rate.'
      )
    leaves = [arrays[name] for name in named]
    return jax.tree.unflatten(jax.tree.structure(abstract_state), leaves), host['host']


@contextlib.contextmanager
def _orbax(renames_folders: bool = True) -> Iterator[Any]:
  """Orbax's interface with what we ask of it, and without its words."""
  from orbax.checkpoint import v1 as ocp

  context = ocp.Context()
  context.checkpointables.registry = ocp.handlers.local_registry()
  # Where it may choose, it writes an object of strings alone as an array each.
  context.checkpointables.registry.add(ocp.handlers.JsonHandler, checkpointable_name=_HOST)
  context.pytree.loading.partial_load = True
  context.asynchronous.create_directories_asynchronously = False  # its errors come at once
  if not renames_folders:
    context.atomicity.mode = ocp.options.AtomicityMode.COMMIT_FILE
  with _quiet(), context:
    yield ocp


def _is_half_written(folder: Path) -> bool:
  """Whether a folder lacks what orbax writes when it commits; damage is another matter."""
  if (folder / _COMMITTED).exists():
    return False
  try:
    fields = json.loads((folder / _METADATA).read_text())
    return fields['commit_timestamp_nsecs'] is None
  except FileNotFoundError:
    return True
  except (OSError, ValueError, KeyError, TypeError):
    return False


def _not_finite(examined: Mapping[str, Examined]) -> list[str]:
  """Names of the parameters with NaN or infinite numbers."""
  names = []
  for name, leaf in sorted(examined.items()):
    if name.startswith(_PARAMS) and not leaf.is_finite:
      names.append(name.removeprefix(_PARAMS))
  return names


def _check_same_arrays(step: int, stored: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
  """Raises InputError if the checkpoint is whole but of another model or optimizer."""
  describe = lambda leaf: f'{jnp.dtype(leaf.dtype).name}{list(leaf.shape)}'
  theirs = {name: describe(leaf) for name, leaf in stored.items()}
  ours = {name: describe(leaf) for name, leaf in expected.items()}
  for name in sorted(theirs.keys() | ours.keys()):
    if theirs.get(name) != ours.get(name):
      raise InputError(
        f'Checkpoint {step} holds {name} as {theirs.get(name, "nothing")}, this run needs '
        f'{ours.get(name, "nothing")}; use the configuration that wrote it, or a new workdir.'
      )


def _save_message(error: Exception, step: int, folder: Path) -> str:
  if _is_disk_full(error):
    return (
      f'The disk is full (or a quota or file-size limit is reached): checkpoint {step} could '
      f'not be written to {folder}; free some space and run the same command again.'
    )
  return f'Checkpoint {step} could not be written to {folder}: {_reason(error)}.'


def _reason(error: BaseException) -> str:
  # Orbax names the handler that failed; what it met is the cause.
  return first_line(error.__cause__ or error, 200).rstrip('.')


def _is_disk_full(error: BaseException | None) -> bool:
  """Whether an error, or one that caused it, says that space or quota is used up."""
  texts = ('no space left', 'disk quota', 'file too large', 'resource_exhausted')
  while error is not None:
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if getattr(error, 'errno', None) in codes or any(t in str(error).lower() for t in texts):
      return True
    error = error.__cause__ or error.__context__
  return False


def _collect_abandoned() -> None:
  """Collects what a failed read left in event loops, which complains as it goes."""
  with _quiet():
    gc.collect()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps what orbax logs, and tracebacks of reads that it abandons, off the terminal.

  What goes wrong reaches us as an exception and is reported once, in words.
  """
  loggers = [logging.getLogger(name) for name in ('absl', 'asyncio')]
  levels = [logger.level for logger in loggers]
  _other_hooks.append(sys.unraisablehook)
  for logger in loggers:
    logger.setLevel(logging.CRITICAL)
  sys.unraisablehook = _forward
  try:
    yield
  finally:
    sys.unraisablehook = _other_hooks.pop()
    for logger, level in zip(loggers, levels, strict=True):
      logger.setLevel(level)


_other_hooks: list[Callable[[Any], object]] = []


# Not a closure: orbax's threads may call it while the hook is set back, and Python 3.12.1 crashed
# when its closure was gone.
def _forward(unraisable: Any) -> None:
  # The other reads of a damaged checkpoint end after their event loop has been closed.
  is_expected = 'Event loop is closed' in str(unraisable.exc_value) or asyncio.iscoroutine(
    unraisable.object
  )
  if not is_expected and _other_hooks:
    _other_hooks[0](unraisable)  # the outermost: these contexts may be nested
