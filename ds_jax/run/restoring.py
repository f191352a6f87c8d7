"""The parameters in a run's checkpoints: of the newest, of a training step, or the best."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax

from ds_jax.checks import InputError
from ds_jax.interfaces import Progress
from ds_jax.model.config import DecoderConfig
from ds_jax.model.lora import Lora
from ds_jax.run.adapters import abstract_params
from ds_jax.run.checkpoint import Checkpointer, DamagedError, Saved
from ds_jax.run.workdir import Workdir
from ds_jax.sharding import parameter_shardings
from ds_jax.train.state import Trained

BEST = 'best'
PASS_AT_1 = 'evaluate/pass_at_1'  # over all problems


class Restored(NamedTuple):
  """What a checkpoint has of the parameters."""

  params: Trained  # float32, in the training form
  step: int  # training steps done
  base_digest: str  # of the frozen weights that adapters belong to; '': there are none


def restore_params(
  workdir: Workdir,
  decoder_config: DecoderConfig,
  mesh: jax.sharding.Mesh,
  *,
  progress: Progress,
  step: str = '',
  metric: str = PASS_AT_1,
  lora: Lora | None = None,
) -> Restored | None:
  """Parameters of a checkpoint, and its step; None: there is none.

  The optimizer's state stays on disk, and the run that writes there is not disturbed.

  Args:
    workdir: of the run.
    decoder_config: of its model.
    mesh: where the parameters go.
    progress: hears of damaged checkpoints.
    step: digits, as training steps are counted in metrics.jsonl, or BEST; '': the newest checkpoint
      that is whole.
    metric: of evaluations, by which one is the best.
    lora: what the run adapts; None: it trains everything.

  Raises:
    InputError: if a step is named and no checkpoint of it can be read, or if the checkpoint is of
      another model.
  """
  abstract = abstract_params(decoder_config, lora)
  abstract = jax.tree.map(
    lambda leaf, target: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=target),
    abstract,
    parameter_shardings(abstract, mesh),
  )
  with _opened(workdir, metric, progress) as checkpointer:
    if checkpointer is None or checkpointer.latest() is None:
      if step:
        raise InputError(f'--step={step}: {workdir.checkpoints} holds no checkpoint.')
      return None
    if not step:
      return _restore(checkpointer, abstract)
    saved = checkpointer.saved()
    numbers = numbers_of(saved, step, metric)
    try:
      return _restore(checkpointer, abstract, numbers)
    except DamagedError as e:
      others = [entry for entry in saved if entry.number not in numbers]
      folders = ', '.join(str(workdir.checkpoints / str(number)) for number in numbers)
      raise InputError(
        f'--step={step}: {folders} is damaged; bring it back from a copy, or name another step. '
        f'{list_steps(others, metric)}'
      ) from e


def _restore(
  checkpointer: Checkpointer, abstract: Trained, numbers: Sequence[int] | None = None
) -> Restored:
  """Reads the newest whole checkpoint, or the newest of these numbers."""
  params, host = checkpointer.restore(abstract, numbers, part='params')
  return Restored(params, host['step'], host.get('base_digest', ''))


def step_of(workdir: Workdir, step: str, *, progress: Progress, metric: str = PASS_AT_1) -> int:
  """Training steps behind the parameters that a step names; nothing of them is read.

  Args:
    workdir: of the run.
    step: as for `restore_params`; '': of the newest checkpoint.
    progress: hears of checkpoints that cannot be read.
    metric: of evaluations, by which one is the best.

  Raises:
    InputError: if there is no such checkpoint.
  """
  with _opened(workdir, metric, progress) as checkpointer:
    saved = checkpointer.saved() if checkpointer is not None else []
  if not saved:
    raise InputError(f'{workdir.checkpoints} holds no checkpoint.')
  numbers = numbers_of(saved, step, metric) if step else [saved[-1].number]
  return next(entry.step for entry in saved if entry.number in numbers)


def numbers_of(saved: Sequence[Saved], step: str, metric: str = PASS_AT_1) -> list[int]:
  """The numbers of the checkpoints of a training step: several, where it was saved again.

  Args:
    saved: all checkpoints.
    step: digits, or BEST: the step of the highest score, the later of equal ones.
    metric: what the score is.

  Raises:
    InputError: lists what there is, if that is not among it.
  """
  if step == BEST:
    scored = [entry for entry in saved if entry.score is not None]
    if not scored:
      raise InputError(
        f'--step={BEST}: no checkpoint was saved with an evaluation that has {metric}, so none is '
        f'the best. {list_steps(saved, metric)} (evaluate.every_steps with checkpoint.keep_best '
        'keeps some; checkpoint.best_by says which metric it is.)'
      )
    wanted = max(scored, key=lambda entry: (entry.score, entry.step)).step
  else:
    wanted = int(step)
  numbers = [entry.number for entry in saved if entry.step == wanted]
  if not numbers:
    raise InputError(
      f'--step={step}: there is no checkpoint of that step. {list_steps(saved, metric)}'
    )
  return numbers


def list_steps(saved: Sequence[Saved], metric: str = PASS_AT_1) -> str:
  """'There are steps 0 (pass@1 0.118), 180.'; what the score is, is named."""
  scores: dict[int, float | None] = {}
  for entry in saved:
    scores[entry.step] = scores.get(entry.step) if entry.score is None else entry.score
  if not scores:
    return 'There is none that can be read.'
  texts, name = [], 'pass@1' if metric == PASS_AT_1 else metric
  for step, score in sorted(scores.items()):
    texts.append(f'{step}' if score is None else f'{step} ({name} {score:.3f})')
  return f'There are steps {", ".join(texts)}.'


@contextlib.contextmanager
def _opened(workdir: Workdir, metric: str, progress: Progress) -> Iterator[Checkpointer | None]:
  """The checkpoints of a run, scored by a metric and only to be read; None: there are none."""
  if not workdir.checkpoints.exists():
    yield None
    return
  opened = Checkpointer(workdir.checkpoints, keep=None, note=progress.note, metric=metric)
  with contextlib.closing(opened) as checkpointer:
    yield checkpointer
