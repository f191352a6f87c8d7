"""What a run has learnt as a folder for other programs: a whole model, or its adapters alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax

from ds_jax.checks import InputError, check_choice
from ds_jax.config import best_metric
from ds_jax.data.prompts import save_tokenizer
from ds_jax.model.huggingface.peft import save_adapters
from ds_jax.model.huggingface.save import check_output, save_decoder
from ds_jax.model.lora import Adapted, merge, num_trained
from ds_jax.run.adapters import lora_of
from ds_jax.run.opening import OpenedModel, open_model
from ds_jax.run.parameters import restored_policy
from ds_jax.run.restoring import restore_params
from ds_jax.run.session import Session
from ds_jax.run.workdir import Workdir, workdir_config
from ds_jax.sharding import make_mesh
from ds_jax.train.state import Policy


def export(
  session: Session,
  *,
  checkpoint: str,
  output: str,
  dtype: str | None = None,
  adapter: bool = False,
) -> dict[str, Any]:
  """Writes parameters of a run as a Hugging Face folder.

  Args:
    session: whose progress hears of it; its `step` says which parameters, the newest or another
      step's, and its `model` where the model's files are, if not in the run. The config is the
      run's own.
    checkpoint: the run's workdir.
    output: the folder to write; it must not exist, or be empty.
    dtype: of the tensors, 'float32' (the default, every bit) or 'bfloat16'.
    adapter: the adapters alone, as a folder for peft, and not merged with the model.

  Raises:
    InputError: if nothing can be written there, or the run has no such parameters.
  """
  dtype, workdir, folder = dtype or 'float32', Workdir(Path(checkpoint)), Path(output).expanduser()
  check_choice('--dtype', dtype, ('float32', 'bfloat16'))
  run = dataclasses.replace(session, config=workdir_config(workdir), workdir=workdir)
  lora = lora_of(run.config.train)
  if adapter and lora is None:
    raise InputError(
      f'--adapter: {workdir.root} trains all parameters (train.lora_rank = 0) and has no adapters; '
      'leave the flag out.'
    )
  run_folders = {f'the {path.name} of the run': path for path in workdir.folders}
  check_output(folder, run_folders)
  model = open_model(run)
  check_output(folder, {'the model of the run': model.folder})
  mesh = make_mesh(fsdp=-1)
  restored = restore_params(
    workdir,
    model.decoder_config,
    mesh,
    progress=session.progress,
    step=session.step,
    metric=best_metric(run.config),
    lora=lora,
  )
  if restored is None:
    raise InputError(
      f'{workdir.checkpoints} holds no checkpoint; `ds-jax train` writes them. '
      f'The initial model is {run.config.model.path or workdir.warmstart}.'
    )
  policy = restored_policy(run, restored, model.tokenizer.num_ids, mesh=mesh)
  if adapter:
    count, files = _export_adapters(run, policy, folder, model, dtype=dtype)
  else:
    count, files = _export_decoder(policy, folder, model, dtype=dtype)
  session.progress.note(f'Wrote {folder}: {count:,} parameters of step {restored.step} in {dtype}.')
  return {
    'status': 'done',
    'output': str(folder),
    'step': restored.step,
    'dtype': dtype,
    'num_parameters': count,
    'files': files,
  }


def _export_decoder(
  policy: Policy, folder: Path, model: OpenedModel, *, dtype: str
) -> tuple[int, list[str]]:
  """Writes all parameters; adapters are merged. Returns how many, and the names of the files."""
  if isinstance(policy, Adapted):
    policy = jax.jit(merge, static_argnames='dtype')(policy, dtype='float32')
  files = save_decoder(
    policy,
    folder,
    stop_ids=model.tokenizer.stop_ids,
    pad_id=model.tokenizer.pad_id,
    dtype=dtype,
    original=model.folder,
    add_files=lambda path: save_tokenizer(model.folder, path),
  )
  return model.decoder_config.num_parameters(), files


def _export_adapters(
  run: Session, policy: Adapted, folder: Path, model: OpenedModel, *, dtype: str
) -> tuple[int, list[str]]:
  """Writes the adapters alone. Returns how many numbers they have, and the names of the files."""
  files = save_adapters(
    policy.adapters,
    folder,
    model=run.model or run.config.model.path or str(run.workdir.warmstart.resolve()),
    dtype=dtype,
    add_files=lambda path: save_tokenizer(model.folder, path),
  )
  return num_trained(policy.adapters), files
