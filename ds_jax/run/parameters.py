"""What a run has learned, out of its checkpoints: parameters, or a Hugging Face folder."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import jax

from ds_jax.checks import InputError, check_choice
from ds_jax.data import prompts as prompts_lib
from ds_jax.interfaces import Progress
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import Decoder, abstract_decoder
from ds_jax.model.huggingface.config import read_config
from ds_jax.model.huggingface.save import save_decoder
from ds_jax.run.checkpoint import Checkpointer
from ds_jax.run.session import model_folder
from ds_jax.run.workdir import Workdir, workdir_config
from ds_jax.sharding import make_mesh, parameter_shardings


def restore_params(
  workdir: Workdir, decoder_config: DecoderConfig, mesh: jax.sharding.Mesh, progress: Progress
) -> tuple[Decoder, int] | None:
  """Parameters (float32, in the training form) and step of the newest checkpoint; None: no such.

  The optimizer's state stays on disk, and the run that writes there is not disturbed.
  """
  if not workdir.checkpoints.exists():
    return None
  opened = Checkpointer(workdir.checkpoints, keep=None, note=progress.note)
  with contextlib.closing(opened) as checkpointer:
    if checkpointer.latest() is None:
      return None
    abstract = abstract_decoder(decoder_config)
    abstract = jax.tree.map(
      lambda leaf, target: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=target),
      abstract,
      parameter_shardings(abstract, mesh),
    )
    params, host = checkpointer.restore(abstract, part='params')
    return params, host['step']


def export(checkpoint: str, output: str, dtype: str | None, progress: Progress) -> dict[str, Any]:
  """Writes the newest parameters of a run as a Hugging Face folder.

  Args:
    checkpoint: the run's workdir.
    output: the folder to write; it must not exist, or be empty.
    dtype: of the tensors, 'float32' (the default, every bit) or 'bfloat16'.
  """
  dtype, workdir, folder = dtype or 'float32', Workdir(Path(checkpoint)), Path(output)
  check_choice('--dtype', dtype, ('float32', 'bfloat16'))
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise InputError(f'{folder} exists already; choose another --output, or remove it.')
  config = workdir_config(workdir)
  source = model_folder(config, workdir)
  tokenizer = prompts_lib.load_tokenizer(source)
  decoder_config = read_config(source, tokenizer.num_ids)
  restored = restore_params(workdir, decoder_config, make_mesh(fsdp=-1), progress)
  if restored is None:
    raise InputError(
      f'{workdir.checkpoints} holds no checkpoint; `ds-jax train` writes them. '
      f'The initial model is {source}.'
    )
  params, step = restored
  files = save_decoder(
    params,
    folder,
    stop_ids=tokenizer.stop_ids,
    pad_id=tokenizer.pad_id,
    dtype=dtype,
    original=source,
    add_files=lambda path: prompts_lib.save_tokenizer(source, path),
  )
  count = decoder_config.num_parameters()
  progress.note(f'Wrote {folder}: {count:,} parameters of step {step} in {dtype}.')
  return {
    'status': 'done',
    'output': str(folder),
    'step': step,
    'dtype': dtype,
    'num_parameters': count,
    'files': files,
  }
