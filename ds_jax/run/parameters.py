"""The parameters of a run: made new, out of its checkpoints, and as Hugging Face folders."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import jax

from ds_jax.checks import InputError, check_choice
from ds_jax.config import Config, context_length
from ds_jax.data.prompts import load_tokenizer, save_tokenizer
from ds_jax.interfaces import Progress, Tokenizer
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import Decoder, abstract_decoder, init_decoder
from ds_jax.model.huggingface.config import read_config
from ds_jax.model.huggingface.load import load_decoder
from ds_jax.model.huggingface.save import check_output, save_decoder
from ds_jax.run.checkpoint import Checkpointer
from ds_jax.run.engines import Engines
from ds_jax.run.session import Session
from ds_jax.run.workdir import Workdir, workdir_config
from ds_jax.sharding import local_view, make_mesh, parameter_shardings
from ds_jax.train.state import search_form


def init_model(session: Session, *, tokenizer: str, output: str) -> dict[str, Any]:
  """Writes a randomly initialised decoder of config.model's shape as a Hugging Face folder.

  Args:
    session: its `config.model` gives the shape, `config.seed` the numbers.
    tokenizer: a folder with a tokenizer; its files are copied.
    output: the folder to write; it must not exist, or be empty.
  """
  folder = Path(output).expanduser()
  check_output(folder, {'the folder of the tokenizer': Path(tokenizer).expanduser()})
  config, source, loaded = session.config, tokenizer, load_tokenizer(tokenizer)
  decoder = init_decoder(new_decoder_config(config, loaded), jax.random.key(config.seed))
  save_decoder(
    decoder,
    folder,
    stop_ids=loaded.stop_ids,
    pad_id=loaded.pad_id,
    add_files=lambda folder: save_tokenizer(source, str(folder)),
  )
  count = decoder.config.num_parameters()
  session.progress.note(f'Wrote {folder}: {count:,} parameters, {loaded.num_ids:,} token ids.')
  return {'status': 'done', 'output': str(folder), 'num_parameters': count}


def new_decoder_config(config: Config, tokenizer: Tokenizer) -> DecoderConfig:
  """The shape of a new decoder; embedding rows are the tokenizer's ids rounded up to 16."""
  model = config.model
  return DecoderConfig(
    vocab_size=-(-tokenizer.num_ids // 16) * 16,
    num_ids=tokenizer.num_ids,
    num_layers=model.num_layers,
    width=model.width,
    mlp_width=model.mlp_width,
    num_heads=model.num_heads,
    num_kv_heads=model.num_kv_heads,
    head_width=model.head_width,
    rope_theta=model.rope_theta,
    max_positions=max(2048, context_length(config)),
    tie_embeddings=model.tie_embeddings,
    **model.formats | {'compute_dtype': 'float32'},
  )


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


def initial_params(engines: Engines) -> Decoder:
  """The parameters that a run starts from, in float32 and in the training form, on the mesh."""
  session = engines.session
  return load_decoder(
    session.model_folder,
    num_ids=engines.tokenizer.num_ids,
    mesh=engines.mesh,
    **session.config.model.formats,
  )


def trained_params(engines: Engines) -> tuple[Decoder, str]:
  """Parameters for search: the newest checkpoint of the workdir, else the initial model.

  Returns:
    The parameters on the devices on which this process searches, and where they come from.
  """
  session, mesh = engines.session, engines.mesh
  model, workdir = session.config.model, session.workdir
  restored = restore_params(workdir, engines.decoder_config, mesh, session.progress)
  if restored is not None:
    params, step = restored
    params = search_form(params, mesh=mesh, dtype=model.compute_dtype)
    source = f'{workdir.checkpoints} (step {step})'
  else:
    source = str(session.model_folder)
    params = load_decoder(
      source,
      num_ids=engines.tokenizer.num_ids,
      mesh=mesh,
      dtype=model.compute_dtype,
      for_search=True,
      **model.formats,
    )
  return local_view(params, mesh, engines.search_mesh), source


def export(
  session: Session, *, checkpoint: str, output: str, dtype: str | None = None
) -> dict[str, Any]:
  """Writes the newest parameters of a run as a Hugging Face folder.

  Args:
    session: whose progress hears of it; the config is the run's own.
    checkpoint: the run's workdir.
    output: the folder to write; it must not exist, or be empty.
    dtype: of the tensors, 'float32' (the default, every bit) or 'bfloat16'.
  """
  dtype, workdir, folder = dtype or 'float32', Workdir(Path(checkpoint)), Path(output).expanduser()
  check_choice('--dtype', dtype, ('float32', 'bfloat16'))
  run = dataclasses.replace(session, config=workdir_config(workdir), workdir=workdir)
  source = run.model_folder
  run_folders = {f'the {path.name} of the run': path for path in workdir.folders}
  check_output(folder, run_folders | {'the model of the run': source})
  tokenizer = load_tokenizer(source)
  decoder_config = read_config(source, tokenizer.num_ids)
  restored = restore_params(workdir, decoder_config, make_mesh(fsdp=-1), session.progress)
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
    add_files=lambda path: save_tokenizer(source, path),
  )
  count = decoder_config.num_parameters()
  session.progress.note(f'Wrote {folder}: {count:,} parameters of step {step} in {dtype}.')
  return {
    'status': 'done',
    'output': str(folder),
    'step': step,
    'dtype': dtype,
    'num_parameters': count,
    'files': files,
  }
