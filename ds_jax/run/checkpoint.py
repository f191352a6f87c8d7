"""Checkpoints: one orbax folder that holds everything the next step depends on.

A checkpoint is a flat set of named arrays plus one JSON object of the host's (round, step, hard
set, replay buffer, counters, lengths of log files, configuration). A checksum per array, equal on
every mesh, tells a damaged checkpoint from a good one.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import gc
import itertools
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
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
    renames_folders: bool = True,
  ):
    """Opens (and makes) the folder.

    Args:
      folder: where checkpoints live, one sub-folder per step.
      keep: newest checkpoints kept, >= 1; an older one goes only after a newer is committed. None:
        only to be read, by a process beside the one that writes; nothing in it is touched.
      note: told in one line when a checkpoint is passed over.
      keep_best: checkpoints of the highest score kept besides.
      renames_folders: whether the file system does. All processes must say the same.
    """
    if keep is not None and keep < 1:
      raise InputError(f'Expected checkpoint.keep >= 1, got {keep}.')
    self._folder = Path(folder).absolute()
    self._keep, self._keep_best = keep, keep_best
    self._renames_folders = renames_folders
    self._note = note
    self._pending: int | None = None  # step that is being written
    self._hushed = contextlib.ExitStack()  # while it is
    self._damaged: set[int] = set()
    self._manager = None
    if keep is not None and not renames_folders:
      self._remove_uncommitted()
    self._open()

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

    The state may be donated and changed at once. An earlier save is waited for first.

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
    import orbax.checkpoint as ocp

    items = ocp.args.Composite(
      **{
        _STATE: ocp.args.StandardSave(named),
        _HOST: ocp.args.JsonSave({'host': dict(host), 'checksums': sums, 'score': score}),
      }
    )
    metrics = None if score is None else {'score': float(score)}
    self._pending = step
    self._hushed.enter_context(_quiet())
    try:
      self._start(step, items, metrics)
      return
    except Exception as error:  # orbax and tensorstore raise many kinds
      message = _save_message(error, step, self._folder)
    self._give_up(message)

  def wait(self) -> None:
    """Returns once the save under way, if any, is committed.

    Raises:
      SaveError: it could not be written; earlier checkpoints are untouched.
    """
    if self._pending is None:
      return
    try:
      self._manager.wait_until_finished()
      self._manager.check_for_errors()
      self._pending = None
      self._hushed.close()
      return
    except Exception as error:
      message = _save_message(error, self._pending, self._folder)
    # Outside the except clause: the error's frames hold what _recover lets go.
    self._give_up(message)

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
    self.wait()
    with _quiet():
      self._manager.close()

  def _open(self) -> None:
    import orbax.checkpoint as ocp

    if self._keep is None:
      # Said in full: orbax warns of each option that it has to change for a reader.
      options = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
    else:
      options = ocp.CheckpointManagerOptions(
        preservation_policy=_kept(self._keep, self._keep_best),
        create=True,
        best_fn=_score if self._keep_best else None,  # makes orbax read the scores that it finds
        cleanup_tmp_directories=True,
        atomicity_options=None if self._renames_folders else _in_place(),
      )
    handlers = {_STATE: ocp.StandardCheckpointHandler(), _HOST: ocp.JsonCheckpointHandler()}
    with _quiet():
      self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

  def _start(self, step: int, items: Any, metrics: dict[str, float] | None) -> None:
    """Starts orbax's save; again, where writers of a failed save spoil its new folder."""
    give_up = time.monotonic() + _LAST_WRITES
    self._remove_half_written(step)
    for attempt in itertools.count(1):
      try:
        self._manager.save(step, args=items, metrics=metrics)
        return
      except OSError as error:
        is_spoilt = error.errno == errno.ENOTEMPTY and jax.process_count() == 1
        # On a busy machine a single attempt may take all of that time.
        is_hopeless = time.monotonic() > give_up and attempt >= _MIN_ATTEMPTS
        if not is_spoilt or is_hopeless:
          raise
      self._recover(step)  # this manager would repeat its error

  def _give_up(self, message: str) -> None:
    """Tidies up after a save that failed, and says so."""
    step, self._pending = self._pending, None
    logging.getLogger('asyncio').addFilter(_is_news)
    self._recover(step)
    self._hushed.close()
    latest = self.latest()
    kept = 'there is no earlier one' if latest is None else f'checkpoint {latest} is still good'
    raise SaveError(f'{message} {kept[0].upper()}{kept[1:]}.')

  def _recover(self, step: int) -> None:
    """After a failed save: removes the half-written folder, which holds the space that is short."""
    with _quiet(), contextlib.suppress(Exception):  # closing repeats the error being reported
      self._manager.close()
    _collect_abandoned()
    self._remove_half_written(step)
    self._open()

  def _remove_half_written(self, step: int) -> None:
    """Removes what a failed save of `step` left; writers that outlive it may still add files."""
    if jax.process_index():
      return
    give_up = time.monotonic() + _LAST_WRITES
    while (left := self._half_written(step)) and time.monotonic() < give_up:
      for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
      time.sleep(0.1)  # it is gone when it stays away this long

  def _half_written(self, step: int) -> list[Path]:
    """Folders of a save that has not been committed."""
    left = list(self._folder.glob(f'{step}.orbax-checkpoint-tmp*'))
    if not self._renames_folders:
      left += [folder for folder in self._folder.glob(str(step)) if _is_half_written(folder)]
    return left

  def _remove_uncommitted(self) -> None:
    """Removes what a killed process left half-written, before any process looks for steps."""
    if jax.process_index() == 0:
      for folder in self._folder.glob('[0-9]*'):
        if _is_half_written(folder):
          shutil.rmtree(folder)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices('ds_jax: half-written checkpoints are removed')

  def _steps(self) -> list[int]:
    steps = []
    for step in self._manager.all_steps():
      if step not in self._damaged and not _is_half_written(self._folder / str(step)):
        steps.append(step)
    return steps

  def _set_damaged_aside(self) -> None:
    """Renames damaged checkpoints, so that their steps can be written again."""
    if not self._damaged:
      return
    if jax.process_index() == 0:
      for step in sorted(self._damaged):
        aside = self._folder / f'{_DAMAGED}{step}'
        shutil.rmtree(aside, ignore_errors=True)
        shutil.move(self._folder / str(step), aside)  # by copies where folders cannot be renamed
    self._damaged.clear()
    with _quiet():
      self._manager.reload()

  def _note_damaged(self, step: int, error: Exception) -> None:
    self._damaged.add(step)
    self._note(f'checkpoint {step} is damaged and passed over: {_reason(error)}')

  def _read_host(self, step: int) -> dict[str, Any]:
    """The JSON object that `begin_save` wrote."""
    import orbax.checkpoint as ocp

    only_host = ocp.args.Composite(**{_HOST: ocp.args.JsonRestore()})
    with _quiet():
      return self._manager.restore(step, args=only_host)[_HOST]

  def _describe(self, number: int) -> Saved:
    stored = self._read_host(number)
    score = stored.get('score')
    if score is None:  # of a run of before, orbax may have it
      metrics = self._manager.metrics(number)
      score = _score(metrics) if metrics else None
    return Saved(number, int(stored['host']['step']), score)

  def _read(self, step: int, abstract_state: Any, part: str) -> tuple[Any, dict[str, Any]]:
    import orbax.checkpoint as ocp

    prefix = f'{part}.' if part else ''
    named = {prefix + name: leaf for name, leaf in named_leaves(abstract_state).items()}
    host = self._read_host(step)
    with _quiet():
      stored = dict(self._manager.item_metadata(step)[_STATE])
      if stored.keys() != host['checksums'].keys():
        raise ValueError('its list of arrays is incomplete')
      _check_same_arrays(step, {n: x for n, x in stored.items() if n.startswith(prefix)}, named)
      arrays = ocp.PyTreeCheckpointer().restore(
        self._folder / str(step) / _STATE,
        args=ocp.args.PyTreeRestore(
          named, ocp.checkpoint_utils.construct_restore_args(named), partial_restore=True
        ),
      )
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


def _kept(newest: int, best: int) -> Any:
  """Which checkpoints stay when a newer one is committed."""
  from orbax.checkpoint import checkpoint_managers as managers

  policies = [managers.LatestN(n=newest)]
  if best:
    policies.append(
      managers.BestN(n=best, get_metric_fn=_score, keep_checkpoints_without_metrics=False)
    )
  return managers.AnyPreservationPolicy(policies=policies)


def _in_place() -> Any:
  """Orbax's way to write where folders cannot be renamed; those that were renamed count as well."""
  from orbax.checkpoint.options import AtomicityMode, AtomicityOptions

  return AtomicityOptions(mode=AtomicityMode.COMMIT_FILE, allow_legacy_atomic_rename=True)


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


def _score(metrics: Mapping[str, float]) -> float:
  return metrics['score']


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


def _reason(error: Exception) -> str:
  return first_line(error, 200).rstrip('.')


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
  """Collects what a failed read or write left in event loops, which complains as it goes."""
  with _quiet():
    gc.collect()


def _is_news(record: logging.LogRecord) -> bool:
  """Whether a record is not of a future that a failed save left, which may come at the exit."""
  return 'exception was never retrieved' not in record.getMessage()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps option tables and tracebacks of orbax's threads off the terminal.

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
  # The other writes of a failed save end after their event loop has been closed.
  is_expected = 'Event loop is closed' in str(unraisable.exc_value) or asyncio.iscoroutine(
    unraisable.object
  )
  if not is_expected and _other_hooks:
    _other_hooks[0](unraisable)  # the outermost: these contexts may be nested
