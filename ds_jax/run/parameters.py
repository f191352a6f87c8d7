"""The parameters of a run: made new, of its model, and out of its checkpoints."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax

from ds_jax.checks import InputError
from ds_jax.config import Config, best_metric, context_length
from ds_jax.data.prompts import load_tokenizer, save_tokenizer
from ds_jax.interfaces import Tokenizer
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import Decoder, init_decoder
from ds_jax.model.huggingface.load import load_decoder
from ds_jax.model.huggingface.save import check_output, save_decoder
from ds_jax.run.adapters import check_base, lora_of
from ds_jax.run.engines import Engines
from ds_jax.run.opening import shape_difference, source_folder
from ds_jax.run.restoring import Restored, restore_params
from ds_jax.run.session import Session
from ds_jax.sharding import local_view
from ds_jax.train.state import Policy, policy_of, search_form


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


def initial_params(engines: Engines) -> Decoder:
  """The parameters that a run starts from, in the training form, on the mesh.

  They are in float32; if the run trains adapters, frozen and in the compute dtype.

  Raises:
    InputError: if they cannot be loaded, or are of another model than the run has begun with.
  """
  session = engines.session
  folder = source_folder(session)
  decoder = _load_training_form(session, folder, engines.tokenizer.num_ids, mesh=engines.mesh)
  _check_is_the_runs(engines, decoder.config, folder)
  return decoder


def _load_training_form(
  session: Session, folder: Path, num_ids: int, *, mesh: jax.sharding.Mesh
) -> Decoder:
  model = session.config.model
  return load_decoder(
    folder,
    num_ids=num_ids,
    mesh=mesh,
    dtype=model.compute_dtype if session.config.train.lora_rank else 'float32',
    note=session.progress.note,
    **model.formats,
  )


def restored_policy(
  session: Session, restored: Restored, num_ids: int, *, mesh: jax.sharding.Mesh
) -> Policy:
  """What a checkpoint has, with the frozen weights where it has adapters of some.

  Args:
    session: of the run.
    restored: out of its checkpoint.
    num_ids: ids of the tokenizer.
    mesh: where the parameters are.

  Raises:
    InputError: if the model cannot be read, or has other weights than were trained on.
  """
  if not session.config.train.lora_rank:
    return restored.params
  folder = source_folder(session)
  base = _load_training_form(session, folder, num_ids, mesh=mesh)
  check_base(base, restored.base_digest, folder)
  return policy_of(restored.params, base)


@dataclasses.dataclass(frozen=True)
class ChosenParams:
  """Parameters for search, on the devices on which this process searches."""

  params: Decoder
  source: str  # where they come from: what results say they are of
  step: int | None  # training steps that they have behind them; None: they are the initial model's

  @property
  def summary(self) -> dict[str, Any]:
    """What summaries say of them."""
    return {'parameters': self.source, 'step': self.step}

  @property
  def name(self) -> str:
    """In a line for a person."""
    return 'the initial model' if self.step is None else f'step {self.step}'


def restore_for(
  session: Session, decoder_config: DecoderConfig, mesh: jax.sharding.Mesh
) -> Restored | None:
  """What the checkpoint of a session's step has, see `restore_params`; None: there is none.

  Args:
    session: of the run.
    decoder_config: of its model.
    mesh: where the parameters go.

  Raises:
    InputError: if they cannot be read.
  """
  return restore_params(
    session.workdir,
    decoder_config,
    mesh,
    progress=session.progress,
    step=session.step,
    metric=best_metric(session.config),
    lora=lora_of(session.config.train),
  )


def chosen_params(engines: Engines) -> ChosenParams:
  """Of the session's step, else of the newest checkpoint of the workdir, else the initial model's.

  Raises:
    InputError: if they cannot be read.
  """
  session, mesh = engines.session, engines.mesh
  model, workdir = session.config.model, session.workdir
  restored = restore_for(session, engines.decoder_config, mesh)
  if restored is not None:
    step = restored.step
    policy = restored_policy(session, restored, engines.tokenizer.num_ids, mesh=mesh)
    params = search_form(policy, mesh=mesh, dtype=model.compute_dtype)
    source = f'{workdir.checkpoints} (step {step})'
  else:
    folder, step = source_folder(session), None
    source = str(folder)
    params = load_decoder(
      folder,
      num_ids=engines.tokenizer.num_ids,
      mesh=mesh,
      dtype=model.compute_dtype,
      for_search=True,
      note=session.progress.note,
      **model.formats,
    )
    _check_is_the_runs(engines, params.config, folder)
  if session.model:  # other files, other prompts
    source += f', model files of {session.model}'
  session.progress.note(f'Parameters: {source}.')
  return ChosenParams(local_view(params, mesh, engines.search_mesh), source, step)


def _check_is_the_runs(engines: Engines, config: DecoderConfig, folder: Path) -> None:
  """Raises InputError for a model that is no longer the one whose files the run keeps."""
  difference = shape_difference(engines.decoder_config, config)
  if difference:
    raise InputError(
      f'{folder} holds another model than when {engines.session.workdir.root} began: {difference}; '
      'bring that one back, or choose another --workdir.'
    )
