"""Metrics for Weights & Biases: one run there for a workdir, however often that is started.

Its id is kept in WORKDIR/wandb/run_id. Line i of metrics.jsonl is W&B's step i, so what a run there
holds tells which lines it lacks: these are sent when the next start opens it, also those of starts
without a network. Charts are drawn over `step`, the training step.

A run that went back to an earlier checkpoint has undone lines. Offline files are written anew,
as TensorBoard's are; a run on a server is rewound to the last line that counts.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ds_jax.checks import InputError, first_line
from ds_jax.report.writers import Row, numbers_of, without_secrets

FOLDER = 'wandb'  # in the workdir; W&B names it so
# A host that is to be taken away gives its processes half a minute. What is not sent by then is on
# disk, for `wandb sync`, and the next start sends it, too.
_SECONDS_TO_OPEN = 30.0
_SECONDS_TO_UPLOAD = 15.0


def imported_wandb() -> ModuleType:
  """The package; an InputError says how to install it. A folder `wandb` nearby is none."""
  try:
    import wandb
  except ImportError as e:
    raise InputError(_MISSING) from e
  if not hasattr(wandb, 'init'):
    raise InputError(_MISSING)
  return wandb


_MISSING = (
  "log.writers: wandb needs the package of that name: pip install 'ds_jax[wandb]', or leave it out "
  'of log.writers.'
)


class WandbWriter:
  """A writer, see writers.py. W&B's own settings (WANDB_PROJECT, WANDB_MODE, …) are obeyed."""

  def __init__(
    self,
    folder: Path,
    config: Mapping[str, Any],
    rows: Sequence[Row],
    *,
    note: Callable[[str], None],
  ):
    """Opens the workdir's run, and sends what it lacks.

    Args:
      folder: the workdir.
      config: given to W&B.
      rows: the lines so far.
      note: is told where the run can be seen, and what W&B could not do.
    """
    self._wandb, self._folder, self._config = imported_wandb(), folder.absolute(), dict(config)
    self._note = note
    self._id = _kept_id(self._folder / FOLDER / 'run_id')
    self._num_rows = 0  # of the log that this has seen
    self._run = self._open(len(rows))
    self._run.define_metric('*', step_metric='step')
    for row in rows:
      self.write(row)
    self._tell()

  def write(self, row: Row) -> None:
    """Sends a line that the run there does not hold yet."""
    index, self._num_rows = self._num_rows, self._num_rows + 1
    if index < self._run.starting_step:
      return
    values = numbers_of(row) | {'step': row['step']}
    if 'time/unix' in row:
      values['_timestamp'] = row['time/unix']
    self._run.log(values, step=index, commit=True)

  def close(self) -> None:
    self._run.finish()

  def _open(self, num_rows: int) -> Any:
    """The workdir's run with `num_rows` lines at most; on disk alone where there is no way to W&B.

    A rewind that a server refuses leaves the undone lines there, and those that are written again
    in their place, which are equal but for times, are not sent.
    """
    try:
      run = self._init(resume='allow')
    except self._wandb.Error as e:
      self._say(f'is written to disk alone: {first_line(e)}')
      self._wandb.teardown()  # else the id stays in use
      return self._init(mode='offline')
    if run.offline or run.starting_step <= num_rows:
      return run
    run.finish()
    try:
      return self._init(resume_from=f'{self._id}?_step={max(num_rows - 1, 0)}')
    except self._wandb.Error as e:
      self._say(f'could not be cut back to line {num_rows}: {first_line(e)}')
      return self._init(resume='allow')

  def _init(self, **how: Any) -> Any:
    # Nobody may be asked for a key: that would wait for an answer.
    self._wandb.setup(self._wandb.Settings(silent=True))
    return self._wandb.init(
      id=self._id,
      dir=self._folder,
      config=self._config,
      allow_val_change=True,  # settings of what is still to come may be others now
      reinit='create_new',  # the process may have runs of its own
      project=os.environ.get('WANDB_PROJECT', 'ds_jax'),
      name=os.environ.get('WANDB_NAME', self._folder.name),
      settings=self._wandb.Settings(
        console='off',  # the terminal is the run's
        silent=True,
        init_timeout=float(os.environ.get('WANDB_INIT_TIMEOUT', _SECONDS_TO_OPEN)),
        finish_timeout=_SECONDS_TO_UPLOAD,
      ),
      **how,
    )

  def _tell(self) -> None:
    """Says where the run is. Offline files of earlier starts go: the new one has all lines."""
    if not self._run.offline:
      if self._run.url:  # it has none with WANDB_MODE=disabled
        self._note(f'Weights & Biases: {self._run.url}')
      return
    present = Path(self._run.settings.sync_dir)
    for old in (self._folder / FOLDER).glob(f'offline-run-*-{self._id}'):
      if old.name != present.name:
        shutil.rmtree(old)
    self._note(f'Weights & Biases, offline: `wandb sync {present}` sends it.')

  def _say(self, what: str) -> None:
    self._note(f'log.writers: wandb {without_secrets(what)}')


def _kept_id(path: Path) -> str:
  """The id of the workdir's run, which is made once."""
  name = path.read_text().strip() if path.exists() else ''  # '' where a kill came before the text
  if name:
    return name
  name = os.environ.get('WANDB_RUN_ID') or uuid.uuid4().hex[:12]
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(f'{name}\n')
  return name
