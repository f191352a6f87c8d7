"""The adapters of a run, and the frozen weights that they belong to.

Checkpoints hold adapters and their moments, not the weights, which never change: these are read
from the model's own folder. A digest in the checkpoint tells whether they are the same.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import jax

from ds_jax.checks import InputError
from ds_jax.config import TrainConfig
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import Decoder, abstract_decoder
from ds_jax.model.lora import Adapters, Lora, abstract_adapters, init_adapters
from ds_jax.run.leaves import examine, named_leaves
from ds_jax.sharding import parameter_shardings


def lora_of(config: TrainConfig) -> Lora | None:
  """What is adapted; None: everything is trained."""
  if not config.lora_rank:
    return None
  return Lora(config.lora_rank, config.lora_alpha, config.lora_targets)


def abstract_params(decoder_config: DecoderConfig, lora: Lora | None) -> Decoder | Adapters:
  """What is trained, as ShapeDtypeStructs.

  Raises:
    InputError: if `lora` names parameters that can have no adapter.
  """
  decoder = abstract_decoder(decoder_config)
  return decoder if lora is None else abstract_adapters(decoder, lora)


def abstract_base(decoder_config: DecoderConfig, lora: Lora | None) -> Decoder | None:
  """The frozen weights, in the compute dtype, as ShapeDtypeStructs; None: nothing is frozen."""
  if lora is None:
    return None
  describe = lambda x: jax.ShapeDtypeStruct(x.shape, decoder_config.compute_dtype)
  return jax.tree.map(describe, abstract_decoder(decoder_config))


def new_adapters(
  decoder_config: DecoderConfig, lora: Lora, *, seed: int, mesh: jax.sharding.Mesh
) -> Adapters:
  """The adapters that a run begins with, made on the devices where they belong.

  Args:
    decoder_config: of the model.
    lora: which there are.
    seed: of the run.
    mesh: the whole mesh.
  """
  decoder = abstract_decoder(decoder_config)
  make = lambda: init_adapters(decoder, lora, jax.random.key(seed))
  shardings = parameter_shardings(jax.eval_shape(make), mesh)
  return jax.jit(make, out_shardings=shardings)()


def digest_of(base: Decoder) -> str:
  """A digest of frozen weights, equal on every mesh."""
  sums = {name: int(leaf.checksum) for name, leaf in examine(named_leaves(base)).items()}
  return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def check_base(base: Decoder, expected: str, folder: Path) -> str:
  """Checks that adapters belong to these weights.

  Args:
    base: the frozen weights.
    expected: digest of those that the adapters were trained on; '': there are none yet.
    folder: where `base` comes from.

  Returns:
    The digest of `base`.

  Raises:
    InputError: if they are others.
  """
  digest = digest_of(base)
  if expected and digest != expected:
    raise InputError(
      f'The weights in {folder} are not those whose adapters the run has trained '
      f'(train.lora_rank): their digest is {digest[:12]}, not {expected[:12]}. Bring the model '
      'back as it was, or name the folder that has it with --model=FOLDER (export, evaluate, '
      'search).'
    )
  return digest
