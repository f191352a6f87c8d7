"""The engines of a run, and the parts that they share: mesh, tokenizer, decoder, verifier.

What can be wrong with a config, a folder or a mesh is found here, before any work. The planner asks
here, too, which searches a run compiles, and in which static sizes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax

from ds_jax import sharding
from ds_jax.checks import InputError
from ds_jax.config import Config, SamplingConfig, SearchConfig, context_length
from ds_jax.decode.expand import ExpandShape, bind_sampling, compile_expand, compile_slots
from ds_jax.decode.sampling import sampling_options
from ds_jax.interfaces import ALONE, ExpandFn, Team, Tokenizer
from ds_jax.model.config import DecoderConfig
from ds_jax.run.mesh import open_mesh
from ds_jax.run.opening import keep_model, model_folder, open_model
from ds_jax.run.session import Session
from ds_jax.run.team import first_process_first
from ds_jax.run.workdir import claim
from ds_jax.search.engine.engine import Engine
from ds_jax.search.policies import pays_cut_ends, policy_of
from ds_jax.verify.pool import VerifierPool


def tree_search(config: Config) -> SearchConfig:
  """The search settings of the run's trees, as its policy runs them."""
  return policy_of(config.search).as_searched(config.search)


def direct_search(config: Config) -> SearchConfig:
  """The search settings under which a tree is one rollout: filter, evaluation, hybrid rollouts."""
  num_slots = config.evaluate.num_slots
  cut_ends = 'graded' if pays_cut_ends(config.search) else 'incomplete'  # also of 'faithful'
  return dataclasses.replace(
    config.search,
    policy='direct',
    width=1,
    width_decay=0,
    num_trajectories=1,
    num_slots=num_slots,
    max_expansions=config.search.max_depth,
    replay_lanes=num_slots,
    max_tokens=0,
    cut_ends=cut_ends,
    siblings='independent',
  )


def expand_shape(config: Config, search: SearchConfig, decoder: DecoderConfig) -> ExpandShape:
  """Static sizes of an expansion.

  Args:
    config: of the run; it says how long paths are.
    search: the settings of this engine, from `tree_search` or `direct_search`.
    decoder: the model's shape.
  """
  return ExpandShape(
    num_slots=search.num_slots,
    width=search.width,
    segment_length=search.segment_length,
    context_length=context_length(config),
    replay_chunk=search.replay_chunk,
    replay_lanes=search.replay_lanes,
    path_block=search.path_block,
    num_kv_heads=decoder.num_kv_heads,
    head_width=decoder.head_width,
    cache_kernel=search.cache_kernel,
    has_distinct_siblings=search.siblings == 'distinct',
  )


@dataclasses.dataclass(frozen=True)
class Engines:
  """The engines of a session, made when they are first asked for, and what they are made of."""

  session: Session
  mesh: jax.sharding.Mesh
  tokenizer: Tokenizer
  decoder_config: DecoderConfig
  pool: VerifierPool

  @functools.cached_property
  def search_mesh(self) -> jax.sharding.Mesh:
    """The part of the mesh on which this process searches."""
    return sharding.search_mesh(self.mesh)

  @property
  def search_team(self) -> Team:
    """The processes that search on that part together."""
    return self.session.team if sharding.is_shared(self.search_mesh) else ALONE

  @functools.cached_property
  def search_engine(self) -> Engine:
    """Grows trees as config.search says."""
    return self._engine('tree search', tree_search(self.session.config))

  @functools.cached_property
  def direct_engine(self) -> Engine:
    """Single rollouts under the training distribution: filter, hybrid rollouts."""
    return self._engine('direct rollouts', direct_search(self.session.config))

  @functools.cached_property
  def evaluation_engine(self) -> Engine:
    """The direct engine, its compiled programs included, sampling as config.evaluate says."""
    evaluate = self.session.config.evaluate
    return self._direct_engine_at(SamplingConfig(evaluate.temperature, evaluate.top_p))

  @functools.cached_property
  def further_evaluation_engines(self) -> dict[float, Engine]:
    """Likewise by each of config.evaluate.further_temperatures, with top_p 1."""
    temperatures = self.session.config.evaluate.further_temperatures
    return {t: self._direct_engine_at(SamplingConfig(t)) for t in temperatures}

  def claim(self) -> None:
    """Makes the workdir this run's, once all is found good: its model's files, its config."""
    keep_model(self.session, self.tokenizer)
    claim(self.session.workdir, self.session.config)

  def announce(self) -> None:
    """Says what the work is done with."""
    count = self.decoder_config.num_parameters()
    self.session.progress.note(
      f'Decoder: {count:,} parameters, {self.session.config.model.compute_dtype}. Mesh: '
      f'{sharding.describe(self.mesh)}.'
    )

  def _direct_engine_at(self, sampling: SamplingConfig) -> Engine:
    engine = self.direct_engine
    return dataclasses.replace(
      engine,
      expand_fn=self._expand_fn(engine.config, sampling),
      temperature=self._default_temperature(sampling),
    )

  def _default_temperature(self, sampling: SamplingConfig) -> float | None:
    """That of jobs without one of their own, where a run has jobs with one."""
    is_constant = self.session.config.explore.temperature == 'constant'
    return None if is_constant else sampling.temperature

  def _engine(self, what: str, search: SearchConfig) -> Engine:
    """The engine of some search settings; `what` names it when its programs are compiled."""
    shape = expand_shape(self.session.config, search, self.decoder_config)
    make_slots = compile_slots(self.decoder_config, self.search_mesh, shape)
    return Engine(
      config=search,
      mesh=self.search_mesh,
      expand_fn=self._expand_fn(search, self.session.config.sampling),
      make_slots=_announced(make_slots, what, shape, note=self.session.progress.note),
      verify_fn=self.pool.verify,
      decode_text=self.tokenizer.decode_response,
      count_read=shape.positions_read,
      temperature=self._default_temperature(self.session.config.sampling),
      team=self.search_team,
    )

  def _expand_fn(self, search: SearchConfig, sampling: SamplingConfig) -> ExpandFn:
    shape = expand_shape(self.session.config, search, self.decoder_config)
    options = sampling_options(sampling.temperature, sampling.top_p, sampling.top_k)
    return bind_sampling(compile_expand(self.search_mesh, shape), options, self.tokenizer.stop_ids)


@contextlib.contextmanager
def open_engines(session: Session) -> Iterator[Engines]:
  """Checks the config against mesh, model and tokenizer, and starts the verifier.

  Raises:
    InputError: for anything that does not fit, before any work is done.
  """
  config = session.config
  mesh = open_mesh(config)
  with first_process_first(session.team):  # it may have to download, into a folder that all share
    model_folder(session)
  model = open_model(session)
  if context_length(config) > model.decoder_config.context_limit:
    raise InputError(
      f'prompt_limit + max_depth * segment_length = {context_length(config)} exceeds the '
      f'{model.decoder_config.context_limit} positions of {model.folder} '
      '(max_position_embeddings); lower search.max_depth or search.segment_length.'
    )
  verify = config.verify
  if policy_of(config.search).defects.keeps_degenerate:
    verify = dataclasses.replace(verify, degenerate='keep')
  with VerifierPool(verify, session.progress.note) as pool:
    yield Engines(session, mesh, model.tokenizer, model.decoder_config, pool)


def _announced(
  make_slots: Callable[[], Any], what: str, shape: ExpandShape, *, note: Callable[[str], None]
) -> Callable[[], Any]:
  """`make_slots` that notes its first call: what comes next is compilation."""
  is_announced = False

  def announce_and_make() -> Any:
    nonlocal is_announced
    if not is_announced:
      note(
        f'Compiling {what}; the first seconds of this phase go into it. An expansion draws up to '
        f'{shape.num_slots:,} x {shape.width:,} x {shape.segment_length:,} tokens on each device '
        '(slots x children x segment).'
      )
      is_announced = True
    return make_slots()

  return announce_and_make
