"""`ds_jax.open_session`: from a config file, or the folder of a run, to a session that is open."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from ds_jax.api.opened import Opened, step_name, with_short_errors
from ds_jax.api.session import OpenSession
from ds_jax.checks import InputError
from ds_jax.config import Config, config_from
from ds_jax.config.load import file_fields, with_overrides
from ds_jax.config.places import FOLDER, MODEL
from ds_jax.interfaces import Progress
from ds_jax.report.progress import make_progress
from ds_jax.run.cluster import cluster_from
from ds_jax.run.program_cache import programs_of
from ds_jax.run.session import Session
from ds_jax.run.stopping import StopRequest
from ds_jax.run.workdir import Workdir, workdir_config


@with_short_errors
def open_session(
  config: str | os.PathLike[str] | Config | Mapping[str, Any] | None = None,
  workdir: str | os.PathLike[str] = '',
  *,
  step: int | str = '',
  model_folder: str | os.PathLike[str] = '',
  progress: Progress | None = None,
  **overrides: Any,
) -> OpenSession:
  """Opens a run: `ds_jax.open_session('configs/quickstart.py', 'runs/quickstart', seed=1)`.

  Settings and folders are checked as the command line checks them; nothing is loaded or written
  before a method needs it.

  Args:
    config: a file of settings, or a Config, or a mapping of its fields; None: those of the run in
      `workdir`.
    workdir: the folder of the run; it need not exist.
    step: which checkpoint `search`, `evaluate` and `export` read: its training step, or 'best', the
      one of the highest pass@1; '': the newest.
    model_folder: tokenizer and config.json, if not those that the run keeps; as --model.
    progress: hears where the work stands; None: a bar on a terminal, a line in a notebook, else
      lines.
    **overrides: settings that are to be others. A section takes a dict of the fields that change:
      `seed=1, search={'width': 8}`, or `**{'search.width': 8}`.

  Returns:
    The open session; use it as a context manager, or close it.

  Raises:
    InputError: for a setting, a file or a folder that will not do. Misspelt settings are named with
      their neighbours.
  """
  if jax.distributed.is_initialized() or cluster_from({}) is not None:
    raise InputError(
      'A session works in one process, and this one is of a job of several; start the '
      'command ds-jax in each of them.'
    )
  if not workdir:
    raise InputError(
      "Missing workdir, the folder of the run: ds_jax.open_session('configs/quickstart.py', "
      "'runs/quickstart')."
    )
  folder = Workdir(pathlib.Path(FOLDER.read('workdir', os.fspath(workdir))))
  progress = progress or make_progress()
  fields = _fields(config, folder, progress)
  stop, model = StopRequest(), os.fspath(model_folder)
  session = Session(
    config_from(with_overrides(fields, overrides)),
    folder,
    progress,
    should_stop=stop,
    step=step_name(step),
    model=MODEL.read('model_folder', model) if model else '',
  )
  programs = programs_of(os.fspath(folder.root))
  programs.tell_loaded_jax()
  return OpenSession(Opened(session, stop, programs))


def _fields(
  config: str | os.PathLike[str] | Config | Mapping[str, Any] | None,
  workdir: Workdir,
  progress: Progress,
) -> Mapping[str, Any]:
  """The fields of the settings that `config` names."""
  if config is None:
    return dataclasses.asdict(workdir_config(workdir, progress.note))
  if isinstance(config, Config):
    return dataclasses.asdict(config)
  if isinstance(config, str | os.PathLike):
    return file_fields(os.path.expanduser(config))
  return config
