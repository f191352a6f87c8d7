"""What a run has learnt as a folder for other programs: a whole model, or its adapters alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax

from ds_jax.checks import InputError, check_choice
from ds_jax.data.prompts import save_tokenizer
from ds_jax.model.huggingface.peft import save_adapters
from ds_jax.model.huggingface.save import check_output, save_decoder
from ds_jax.model.lora import Adapted, merge, num_trained
from ds_jax.run.model_card import Exported, save_card
from ds_jax.run.opening import OpenedModel, open_model
from ds_jax.run.parameters import restore_for, restored_policy
from ds_jax.run.session import Session, of_run
from ds_jax.run.workdir import Workdir
from ds_jax.sharding import make_mesh
from ds_jax.train.state import Policy


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Target:
  """What is written, and where."""

  folder: Path
  dtype: str  # of the tensors
  adapter: bool  # the adapters alone, and not merged with the model
  may_download: bool  # the card of a base model on the hub


def export(
  session: Session,
  *,
  checkpoint: str,
  output: str,
  dtype: str | None = None,
  adapter: bool = False,
  may_download: bool = False,
) -> dict[str, Any]:
  """Writes parameters of a run as a Hugging Face folder with a model card.

  Args:
    session: whose progress hears of it; its `step` says which parameters, the newest or another
      step's, and its `model` where the model's files are, if not in the run. The config is the
      run's own.
    checkpoint: the run's workdir.
    output: the folder to write; it must not exist, or be empty.
    dtype: of the tensors, 'float32' (the default, every bit) or 'bfloat16'.
    adapter: the adapters alone, as a folder for peft, and not merged with the model.
    may_download: whether the card of a base model on the hub, which may say its licence, is
      fetched where it is not on this machine.

  Raises:
    InputError: if nothing can be written there, or the run has no such parameters.
  """
  dtype, workdir = dtype or 'float32', Workdir(Path(checkpoint))
  target = _Target(
    folder=Path(output).expanduser(), dtype=dtype, adapter=adapter, may_download=may_download
  )
  check_choice('--dtype', dtype, ('float32', 'bfloat16'))
  run = of_run(session, workdir)
  if adapter and not run.config.train.lora_rank:
    raise InputError(
      f'--adapter: {workdir.root} trains all parameters (train.lora_rank = 0) and has no adapters; '
      'leave the flag out.'
    )
  run_folders = {f'the {path.name} of the run': path for path in workdir.folders}
  check_output(target.folder, run_folders)
  model = open_model(run)
  check_output(target.folder, {'the model of the run': model.folder})
  mesh = make_mesh(fsdp=-1)
  restored = restore_for(run, model.decoder_config, mesh)
  if restored is None:
    raise InputError(
      f'{workdir.checkpoints} holds no checkpoint; `ds-jax train` writes them. '
      f'The initial model is {run.config.model.path or workdir.warmstart}.'
    )
  policy = restored_policy(run, restored, model.tokenizer.num_ids, mesh=mesh)
  if adapter:
    count, files = _export_adapters(run, policy, target, model, step=restored.step)
  else:
    count, files = _export_decoder(run, policy, target, model, step=restored.step)
  session.progress.note(
    f'Wrote {target.folder}: {count:,} parameters of step {restored.step} in {dtype}.'
  )
  return {
    'status': 'done',
    'output': str(target.folder),
    'step': restored.step,
    'dtype': dtype,
    'num_parameters': count,
    'files': files,
  }


def _export_decoder(
  run: Session, policy: Policy, target: _Target, model: OpenedModel, *, step: int
) -> tuple[int, list[str]]:
  """Writes all parameters; adapters are merged. Returns how many, and the names of the files."""
  if isinstance(policy, Adapted):
    policy = jax.jit(merge, static_argnames='dtype')(policy, dtype='float32')
  count = model.decoder_config.num_parameters()
  files = save_decoder(
    policy,
    target.folder,
    stop_ids=model.tokenizer.stop_ids,
    pad_id=model.tokenizer.pad_id,
    dtype=target.dtype,
    original=model.folder,
    add_files=lambda path: _add_files(run, target, model, step=step, size=count),
  )
  return count, files


def _export_adapters(
  run: Session, policy: Adapted, target: _Target, model: OpenedModel, *, step: int
) -> tuple[int, list[str]]:
  """Writes the adapters alone. Returns how many numbers they have, and the names of the files."""
  count = num_trained(policy.adapters)
  files = save_adapters(
    policy.adapters,
    target.folder,
    model=run.model or run.config.model.path or str(run.workdir.warmstart.resolve()),
    dtype=target.dtype,
    add_files=lambda path: _add_files(run, target, model, step=step, size=count),
  )
  return count, files


def _add_files(run: Session, target: _Target, model: OpenedModel, *, step: int, size: int) -> None:
  """Adds to a folder what is neither tensors nor their config: tokenizer and model card."""
  save_tokenizer(model.folder, target.folder)
  exported = Exported.of(run.config, step=step, dtype=target.dtype, adapter=target.adapter)
  save_card(run, target.folder, exported, size=size, may_download=target.may_download)
