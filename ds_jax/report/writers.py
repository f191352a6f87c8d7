"""Where metrics go besides metrics.jsonl: TensorBoard, Weights & Biases, and whatever a user names.

A writer is opened with the lines that metrics.jsonl holds, and is given each further one:

  def my_writer(workdir, config, rows):  # log.writers=jsonl,python:my_module.my_writer
    return MyWriter(workdir, config, rows)

  workdir  pathlib.Path of the run's folder, where a writer may keep what it needs to go on
  config   the settings of the run, as nested dicts
  rows     the lines so far, as dicts (see metrics.py); what a writer was once given and is not here
           has been undone: the run went back to an earlier checkpoint

What it returns has `write(row)` and `close()`. Each writer has a thread of its own: what it does
neither ends nor delays the run.

Of clu.metric_writers, which other JAX projects write metrics with, nothing is used: it cannot be
imported without TensorFlow (0.0.12), and its writers know of no line that is undone.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ds_jax.checks import first_line, import_function
from ds_jax.report.text import visible

TENSORBOARD_FOLDER = 'tensorboard'
# Lines that a writer may be behind before it is given up, and seconds that it may take to close.
MOST_BEHIND = 10_000
SECONDS_TO_CLOSE = 20.0

Row = Mapping[str, Any]


class Writer(Protocol):
  """Somewhere that metrics go."""

  def write(self, row: Row) -> None:
    """Takes in a line of metrics.jsonl."""
    ...

  def close(self) -> None:
    """Ends writing."""
    ...


OpenWriter = Callable[[Sequence[Row]], Writer]  # given the lines so far


def openers(
  names: Sequence[str], folder: str | Path, config: Mapping[str, Any], note: Callable[[str], None]
) -> dict[str, OpenWriter]:
  """Returns what opens each writer, by its name. Nothing is written yet.

  Args:
    names: those of `log.writers`; 'jsonl', which is the record itself, is left out.
    folder: the workdir.
    config: the settings of the run, as nested dicts.
    note: is told where a writer writes to.

  Raises:
    InputError: if a package that a writer needs is not installed, or a user's function cannot be
      imported.
  """
  folder, opened = Path(folder), {}
  for name in names:
    if name == 'tensorboard':
      opened[name] = lambda rows: TensorBoard(folder, rows)
    elif name == 'wandb':
      opened[name] = _wandb_opener(folder, config, note)
    elif name != 'jsonl':
      opened[name] = _user_opener(name, folder, config)
  return opened


def _wandb_opener(
  folder: Path, config: Mapping[str, Any], note: Callable[[str], None]
) -> OpenWriter:
  from ds_jax.report.wandb_writer import WandbWriter, imported_wandb

  imported_wandb()
  return lambda rows: WandbWriter(folder, config, rows, note=note)


def _user_opener(name: str, folder: Path, config: Mapping[str, Any]) -> OpenWriter:
  function = import_function('log.writers', name, '(workdir, config, rows)')
  return lambda rows: function(folder, dict(config), [dict(row) for row in rows])


class Mirror:
  """A writer in a thread of its own, which follows metrics.jsonl.

  If it fails, falls behind for good, or does not close, that is said once, and it is left alone.
  """

  def __init__(
    self, name: str, open_writer: OpenWriter, rows: Sequence[Row], note: Callable[[str], None]
  ):
    """Begins to open it.

    Args:
      name: of the writer, in `log.writers`.
      open_writer: opens it; called in the thread, as is all that it returns.
      rows: the lines so far.
      note: is told if it fails.
    """
    self._name, self._note = name, note
    self._is_given_up = threading.Event()
    self._waiting: queue.Queue[Row | None] = queue.Queue(MOST_BEHIND)  # None: there is no more
    self._thread = threading.Thread(
      target=self._follow, args=(open_writer, rows), name=f'metrics for {name}', daemon=True
    )
    self._thread.start()

  def write(self, row: Row) -> None:
    """Passes on a line."""
    self._put(row)

  def close(self) -> None:
    """Waits until all is written, though not for ever."""
    self._put(None)
    if self._is_given_up.is_set():
      return
    self._thread.join(SECONDS_TO_CLOSE)
    if self._thread.is_alive():
      self._give_up(f'was not done within {SECONDS_TO_CLOSE:.0f} s of the end')

  def _put(self, row: Row | None) -> None:
    if self._is_given_up.is_set():
      return
    try:
      self._waiting.put_nowait(row)
    except queue.Full:
      self._give_up(f'is {MOST_BEHIND:,} lines behind')

  def _follow(self, open_writer: OpenWriter, rows: Sequence[Row]) -> None:
    try:
      with contextlib.closing(open_writer(rows)) as writer:
        while (row := self._waiting.get()) is not None:
          writer.write(row)
    except (Exception, SystemExit) as error:
      self._give_up(f'failed with {type(error).__name__}: {first_line(error)}')

  def _give_up(self, why: str) -> None:
    if self._is_given_up.is_set():
      return
    self._is_given_up.set()
    self._note(
      f'log.writers: {self._name} {visible(without_secrets(why))}. It gets no more metrics from '
      'this start; the run goes on, and metrics.jsonl has them all.'
    )


class TensorBoard:
  """Event files in WORKDIR/tensorboard, written anew from the lines that the log holds."""

  def __init__(self, folder: Path, rows: Sequence[Row]):
    from tensorboardX import SummaryWriter

    folder = folder / TENSORBOARD_FOLDER
    for old in folder.glob('events.out.tfevents.*'):  # these cannot be cut
      old.unlink()
    self._events = SummaryWriter(str(folder), flush_secs=5)
    for row in rows:
      self.write(row)

  def write(self, row: Row) -> None:
    """Adds the numbers of one line, at the time when the line was written."""
    for tag, value in sorted(numbers_of(row).items()):
      self._events.add_scalar(tag, value, row['step'], walltime=row.get('time/unix'))

  def close(self) -> None:
    self._events.close()


def numbers_of(row: Row) -> dict[str, float]:
  """The numbers of a line by names that are different in every kind of line.

  Such are 'search/reward', 'train/round' and 'time/train/step'.
  """
  numbers = {}
  for name, value in row.items():
    if isinstance(value, int | float) and name not in ('step', 'time/unix'):
      numbers[_tag(row['kind'], name)] = value
  return numbers


def _tag(kind: str, name: str) -> str:
  if name.startswith('time/'):
    return f'time/{kind}/{name.removeprefix("time/")}'
  return name if '/' in name else f'{kind}/{name}'


def without_secrets(text: str) -> str:
  """The text without the values of environment variables that hold keys, tokens or passwords."""
  for name, value in os.environ.items():
    if len(value) >= 8 and re.search(r'(KEY|TOKEN|SECRET|PASSWORD)$', name):
      text = text.replace(value, f'${name}')
  return text
