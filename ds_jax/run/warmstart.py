"""The warm start: a tiny decoder trained on worked solutions, saved as a Hugging Face folder."""

from __future__ import annotations

import shutil
import time
from typing import Any

import jax

from ds_jax.checks import InputError
from ds_jax.config import Config, check_training
from ds_jax.config.mixtures import parse_sources
from ds_jax.data.embedded import TASKS, Task
from ds_jax.data.prompts import load_tokenizer, save_tokenizer
from ds_jax.data.word_tokenizer import write_word_tokenizer
from ds_jax.model.huggingface.save import check_free, is_whole, remove_half_written, save_decoder
from ds_jax.run.imitation import imitate
from ds_jax.run.parameters import new_decoder_config
from ds_jax.run.prompts import check_room, load_prompts
from ds_jax.run.session import Session, probed
from ds_jax.run.workdir import check_config, claim
from ds_jax.train.sft import worked_solutions


def warmstart(session: Session) -> dict[str, Any]:
  """Trains a new decoder on the warm-start split; writes WORKDIR/warmstart.

  A workdir that has one already is left alone; a stopped warm start goes on where it was.

  Raises:
    InputError: if the split has no worked solutions.
    CannotWrite: before any work, if the workdir cannot be written; SaveError, if a checkpoint.
    Stopped: after saving, if asked to stop.
  """
  config, workdir, progress = session.config, session.workdir, session.progress
  check_training(config)
  check_config(workdir, config)
  if is_whole(workdir.warmstart):
    progress.note(f'{workdir.warmstart} exists already; nothing to do.')
    return {'status': 'finished', 'output': str(workdir.warmstart)}
  session = probed(session)
  remove_half_written(workdir.warmstart)
  check_free(workdir.warmstart)
  start, folder = time.monotonic(), workdir.root / 'tokenizer'
  write_word_tokenizer(folder, _task(config).words(config.data))
  tokenizer = load_tokenizer(folder, config.data)
  prompts = load_prompts(session, tokenizer, 'warmstart')
  check_room(config, tokenizer, prompts)
  pairs = list(worked_solutions(prompts, tokenizer.encode_response).values())
  if not pairs:
    raise InputError(
      'The warm-start split has no worked solutions; set data.source=countdown or chain, or '
      'start from a model with --config.model.path=DIR.'
    )
  claim(workdir, config)
  state, loss = imitate(session, new_decoder_config(config, tokenizer), pairs)
  save_decoder(
    jax.device_get(state.params),
    workdir.warmstart,
    stop_ids=tokenizer.stop_ids,
    pad_id=tokenizer.pad_id,
    add_files=lambda path: save_tokenizer(folder, path),
  )
  shutil.rmtree(workdir.warmstart_checkpoints, ignore_errors=True)
  progress.note(f'Wrote {workdir.warmstart}: loss {loss:.4f}.')
  return {
    'status': 'done',
    'output': str(workdir.warmstart),
    'warmstart/loss': loss,
    'time/warmstart': time.monotonic() - start,
  }


def _task(config: Config) -> Task:
  """The embedded task among the sources of problems; Countdown's words where there is none."""
  for part in parse_sources(config.data.source):
    if part.source in TASKS:
      return TASKS[part.source]
  return TASKS['countdown']
