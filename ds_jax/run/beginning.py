"""The state that a run begins with, or goes on with, and the parameters that stay as they are."""

from __future__ import annotations

from typing import Any, NamedTuple

from ds_jax.model.decoder import Decoder
from ds_jax.model.lora import Adapters, num_trained
from ds_jax.run.adapters import abstract_params, check_base, lora_of, new_adapters
from ds_jax.run.engines import Engines
from ds_jax.run.opening import source_folder
from ds_jax.run.parameters import initial_params
from ds_jax.train.state import TrainState, abstract_state, init_state


class Begun(NamedTuple):
  """What a run learns with."""

  state: TrainState
  base: Decoder | None  # frozen parameters, whose adapters are trained; None: all are trained
  base_digest: str  # of these; '': there are none
  reference: Decoder | None  # the policy that the run started from, where the loss needs it


def abstract_state_of(engines: Engines, optimizer: Any) -> TrainState:
  """What a checkpoint of the run is restored into."""
  lora = lora_of(engines.session.config.train)
  params = abstract_params(engines.decoder_config, lora)
  return abstract_state(params, optimizer, engines.mesh)


def begin(
  engines: Engines,
  optimizer: Any,
  state: TrainState | None,
  *,
  base_digest: str = '',
) -> Begun:
  """Completes the state of a checkpoint; None: begins with the initial model.

  Args:
    engines: of the run.
    optimizer: of what is trained.
    state: of the checkpoint.
    base_digest: of the frozen parameters that it belongs to; '': there are none, or no checkpoint.

  Raises:
    InputError: if the model cannot be read, or has other weights by now.
  """
  train = engines.session.config.train
  base, digest, reference = None, '', None
  if train.lora_rank:
    base = initial_params(engines)
    digest = check_base(base, base_digest, source_folder(engines.session))
  if state is None:
    params = _first_adapters(engines) if train.lora_rank else initial_params(engines)
    state = init_state(params, optimizer, engines.mesh)
  if train.kl_coefficient:
    reference = initial_params(engines) if base is None else base  # new adapters change nothing
  return Begun(state, base, digest, reference)


def _first_adapters(engines: Engines) -> Adapters:
  """Adapters before the first update."""
  config, decoder_config = engines.session.config, engines.decoder_config
  adapters = new_adapters(
    decoder_config, lora_of(config.train), seed=config.seed, mesh=engines.mesh
  )
  count = num_trained(adapters)
  share = count / decoder_config.num_parameters()
  engines.session.progress.note(
    f"Adapters with {count:,} parameters are trained, {share:.2%} of the model's (train.lora_rank)."
  )
  return adapters
