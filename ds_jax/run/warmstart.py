"""The warm start: a tiny decoder trained on worked solutions, saved as a Hugging Face folder."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ds_jax.checks import InputError
from ds_jax.config import Config, check_training, context_length
from ds_jax.data import prompts as prompts_lib
from ds_jax.data.countdown_tokenizer import write_countdown_tokenizer
from ds_jax.data.sources import load_problems
from ds_jax.interfaces import Progress, Tokenizer
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import abstract_decoder, init_decoder
from ds_jax.model.huggingface.save import save_decoder
from ds_jax.run.checkpoint import Checkpointer
from ds_jax.run.session import open_mesh
from ds_jax.run.workdir import Stopped, Workdir, check_config, claim
from ds_jax.train.optimizer import make_warmstart_optimizer
from ds_jax.train.sft import imitation_loss, sft_update
from ds_jax.train.state import TrainState, abstract_state, init_state
from ds_jax.train.step import make_learner

Pairs = Sequence[tuple[np.ndarray, np.ndarray]]  # (prompt [P], response [S]) int32

LOG_STEPS = 20  # steps between updates of the progress bar


def warmstart(
  config: Config, workdir: Workdir, progress: Progress, should_stop: Callable[[], bool]
) -> dict[str, Any]:
  """Trains a new decoder on the warm-start split; writes WORKDIR/warmstart.

  A workdir that has one already is left alone; a stopped warm start goes on where it was.

  Raises:
    Stopped: after saving, if asked to stop.
  """
  check_training(config)
  check_config(workdir, config)
  if workdir.warmstart.exists():
    progress.note(f'{workdir.warmstart} exists already; nothing to do.')
    return {'status': 'finished', 'output': str(workdir.warmstart)}
  start, folder = time.monotonic(), workdir.root / 'tokenizer'
  write_countdown_tokenizer(folder, config.data.countdown.max_value)
  tokenizer = prompts_lib.load_tokenizer(folder)
  pairs = worked_solutions(config, workdir, tokenizer, progress)
  claim(workdir, config)
  state, loss = imitate(
    config, workdir, new_decoder_config(config, tokenizer), pairs, progress, should_stop
  )
  save_decoder(
    jax.device_get(state.params),
    workdir.warmstart,
    stop_ids=tokenizer.stop_ids,
    pad_id=tokenizer.pad_id,
    add_files=lambda path: prompts_lib.save_tokenizer(folder, path),
  )
  shutil.rmtree(_checkpoints(workdir), ignore_errors=True)
  progress.note(f'Wrote {workdir.warmstart}: loss {loss:.4f}.')
  return {
    'status': 'done',
    'output': str(workdir.warmstart),
    'warmstart/loss': loss,
    'time/warmstart': time.monotonic() - start,
  }


def new_decoder_config(config: Config, tokenizer: Tokenizer) -> DecoderConfig:
  """The shape of a new decoder; embedding rows are the tokenizer's ids rounded up to 16."""
  m = config.model
  return DecoderConfig(
    vocab_size=-(-tokenizer.num_ids // 16) * 16,
    num_ids=tokenizer.num_ids,
    num_layers=m.num_layers,
    width=m.width,
    mlp_width=m.mlp_width,
    num_heads=m.num_heads,
    num_kv_heads=m.num_kv_heads,
    head_width=m.head_width,
    rope_theta=m.rope_theta,
    max_positions=max(2048, context_length(config)),
    tie_embeddings=m.tie_embeddings,
    **m.formats | {'compute_dtype': 'float32'},
  )


def worked_solutions(
  config: Config, workdir: Workdir, tokenizer: Tokenizer, progress: Progress
) -> Pairs:
  """Token pairs of the warm-start split; InputError if it has no worked solutions."""
  data_dir = config.data.data_dir or str(workdir.data)
  problems = load_problems(config.data, 'warmstart', data_dir, progress).problems
  prepared = prompts_lib.prepare_prompts(problems, tokenizer, config.data)
  pairs = [
    (tokens, tokenizer.encode_response(problem.solution))
    for problem, tokens in prepared.prompts
    if problem.solution is not None
  ]
  if not pairs:
    raise InputError(
      'The warm-start split has no worked solutions; set data.source=countdown, or '
      'start from a model with --config.model.path=DIR.'
    )
  return pairs


def imitate(
  config: Config,
  workdir: Workdir,
  decoder_config: DecoderConfig,
  pairs: Pairs,
  progress: Progress,
  should_stop: Callable[[], bool],
) -> tuple[TrainState, float]:
  """Supervised updates on batches of worked solutions, from a checkpoint if there is one.

  Returns:
    The state, and the mean loss of the last steps.
  """
  settings, mesh = config.warmstart, open_mesh(config)
  optimizer = make_warmstart_optimizer(settings)
  learner = make_learner(
    optimizer, mesh, micro_rows=num_rows(config, pairs), loss_fn=imitation_loss
  )
  checkpoints = Checkpointer(_checkpoints(workdir), keep=1, note=progress.note)
  with contextlib.closing(checkpoints):
    if checkpoints.latest() is None:
      decoder = init_decoder(decoder_config, jax.random.key(config.seed))
      state, first = init_state(decoder, optimizer, mesh), 0
    else:
      abstract = abstract_state(abstract_decoder(decoder_config), optimizer, mesh)
      state, host = checkpoints.restore(abstract)
      first = host['step']
      progress.note(f'Continuing the warm start at step {first}.')
    started, losses = time.monotonic(), []
    progress.note('Compiling the update; the first seconds of this phase go into it.')
    progress.start('warm start', settings.num_steps)
    for step in range(first, settings.num_steps):
      if should_stop():
        progress.finish()
        if step > first:
          checkpoints.save(step, state, {'step': step})
        raise Stopped
      batch = [pairs[i] for i in batch_indices(len(pairs), settings.batch_size, config.seed, step)]
      state, figures = sft_update(learner, state, batch, config.train.row_length)
      losses = [*losses[-99:], figures['sft/loss']]
      if (step + 1) % LOG_STEPS == 0:
        rate = (step + 1 - first) * settings.batch_size / (time.monotonic() - started)
        progress.update(
          step + 1,
          loss=round(float(np.mean(losses[-LOG_STEPS:])), 4),
          **{'solutions/s': round(rate)},
        )
    progress.finish()
  return state, float(np.mean(losses)) if losses else 0.0


def batch_indices(count: int, batch_size: int, seed: int, step: int) -> np.ndarray:
  """Indices `[batch_size]` of a step: shuffled epochs, the incomplete batch of each left out.

  A function of its arguments alone, so that a stopped warm start goes on with the same batches.
  """
  size = min(batch_size, count)
  per_epoch = count // size
  epoch, place = divmod(step, per_epoch)
  order = np.random.default_rng([seed, 1, epoch]).permutation(count)
  return order[place * size : (place + 1) * size]


def num_rows(config: Config, pairs: Pairs) -> int:
  """Rows per pass that hold a batch of the longest solutions: every update takes one pass."""
  per_row = config.train.row_length // max(len(p) + len(r) for p, r in pairs)
  shards = max(1, jax.device_count() // abs(config.mesh.tensor))
  rows = -(-config.warmstart.batch_size // max(per_row, 1))
  return -(-rows // shards) * shards


def _checkpoints(workdir: Workdir) -> pathlib.Path:
  return workdir.root / 'warmstart_checkpoints'
