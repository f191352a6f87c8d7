"""Supervised training of a new decoder on worked solutions, gone on with where it was stopped."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import jax
import numpy as np

from ds_jax.config import Config
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import abstract_decoder, init_decoder
from ds_jax.run.checkpoint import Checkpointer
from ds_jax.run.mesh import open_mesh
from ds_jax.run.session import Session
from ds_jax.run.stopping import Stopped
from ds_jax.train.optimizer import make_warmstart_optimizer
from ds_jax.train.sft import Pair, imitation_loss, sft_update
from ds_jax.train.state import TrainState, abstract_state, init_state
from ds_jax.train.step import make_learner

LOG_STEPS = 20  # steps between updates of the progress bar


def imitate(
  session: Session, decoder_config: DecoderConfig, pairs: Sequence[Pair]
) -> tuple[TrainState, float]:
  """Supervised updates on batches of worked solutions, from a checkpoint if there is one.

  Args:
    session: its `config.warmstart` says how many, on how large batches.
    decoder_config: of the new decoder.
    pairs: the worked solutions.

  Returns:
    The state, and the mean loss of the last steps.
  """
  config, progress = session.config, session.progress
  settings, mesh = config.warmstart, open_mesh(config)
  optimizer = make_warmstart_optimizer(settings)
  learner = make_learner(
    optimizer, mesh, micro_rows=num_rows(config, pairs), loss_fn=imitation_loss
  )
  checkpoints = Checkpointer(
    session.workdir.warmstart_checkpoints,
    keep=1,
    note=progress.note,
    renames_folders=session.workdir.renames_folders,
  )
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
      if session.should_stop():
        progress.finish()
        if step > first:
          checkpoints.save(step, state, {'step': step})
        raise Stopped
      batch = [pairs[i] for i in batch_indices(len(pairs), settings.batch_size, config.seed, step)]
      state, figures = sft_update(learner, state, batch, config.train.row_length)
      losses = [*losses[-99:], figures['sft/loss']]
      if (step + 1) % LOG_STEPS == 0:
        rate = (step + 1 - first) * settings.batch_size / (time.monotonic() - started)
        loss = round(float(np.mean(losses[-LOG_STEPS:])), 4)
        progress.update(step + 1, loss=loss, **{'solutions/s': round(rate)})
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


def num_rows(config: Config, pairs: Sequence[Pair]) -> int:
  """Rows per pass that hold a batch of the longest solutions: every update takes one pass."""
  per_row = config.train.row_length // max(len(p) + len(r) for p, r in pairs)
  shards = max(1, jax.device_count() // abs(config.mesh.tensor))
  rows = -(-config.warmstart.batch_size // max(per_row, 1))
  return -(-rows // shards) * shards
