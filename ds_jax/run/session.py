"""The parts of a run, put together: mesh, tokenizer, prompts, verifier, engines.

Everything that can be wrong with a config, a folder or a mesh is found here, before any work.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator

import jax
import numpy as np

from ds_jax import sharding
from ds_jax.checks import InputError, check_divides
from ds_jax.config import Config, SamplingConfig, SearchConfig, context_length
from ds_jax.data import prompts as prompts_lib
from ds_jax.data.sources import load_problems
from ds_jax.decode.expand import ExpandShape, bind_sampling, compile_expand, compile_slots
from ds_jax.decode.sampling import sampling_options
from ds_jax.hub import local_folder
from ds_jax.interfaces import ALONE, ExpandFn, Progress, Team, Tokenizer
from ds_jax.model.attention.path import positions_read
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import Decoder
from ds_jax.model.huggingface.config import read_config
from ds_jax.model.huggingface.load import load_decoder
from ds_jax.run.growing import direct_config
from ds_jax.run.workdir import Workdir
from ds_jax.search.engine.engine import Engine
from ds_jax.types import Problem
from ds_jax.verify.pool import VerifierPool

Prompts = tuple[tuple[Problem, np.ndarray], ...]

# Options of glibc's malloc (malloc.h): free memory at its end, and requests, that go to the kernel.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@dataclasses.dataclass(frozen=True)
class Runtime:
  """What every command but `init` works with."""

  config: Config
  workdir: Workdir
  mesh: jax.sharding.Mesh
  tokenizer: Tokenizer
  decoder_config: DecoderConfig
  pool: VerifierPool
  progress: Progress
  should_stop: Callable[[], bool]
  team: Team = ALONE

  @functools.cached_property
  def search_mesh(self) -> jax.sharding.Mesh:
    """The part of the mesh on which this process searches."""
    return sharding.search_mesh(self.mesh)

  @property
  def search_team(self) -> Team:
    """The processes that search on that part together."""
    return self.team if sharding.is_shared(self.search_mesh) else ALONE

  @functools.cached_property
  def search_engine(self) -> Engine:
    """Grows trees as config.search says."""
    self._announce('tree search')
    search = self.config.search
    if search.policy in ('direct', 'fork'):  # one child at a time: wider slots would idle
      search = dataclasses.replace(
        search, width=1, width_decay=0, max_expansions=search.max_expansions * search.width
      )
    return self._engine(search, self.config.sampling)

  @functools.cached_property
  def direct_engine(self) -> Engine:
    """Single rollouts under the training distribution: filter, hybrid rollouts."""
    self._announce('direct rollouts')
    search = direct_config(self.config.search, self.config.evaluate.num_slots)
    return self._engine(search, self.config.sampling)

  @functools.cached_property
  def evaluation_engine(self) -> Engine:
    """The direct engine, its compiled programs included, sampling as config.evaluate says."""
    sampling = SamplingConfig(self.config.evaluate.temperature, self.config.evaluate.top_p)
    return dataclasses.replace(
      self.direct_engine, expand_fn=self._expand_fn(self.direct_engine.config, sampling)
    )

  def load_decoder(self, folder: pathlib.Path) -> Decoder:
    """The initial parameters in float32, on the mesh."""
    return load_decoder(
      folder, num_ids=self.tokenizer.num_ids, mesh=self.mesh, **self.config.model.formats
    )

  def prompts(self, split: str) -> Prompts:
    """Problems of 'train', 'eval' or 'warmstart' with their prompt tokens; long ones are dealt
    with as config.data says, and counted."""
    with first_process_first(self.team):  # it may have to build the files
      loaded = load_problems(self.config.data, split, self.data_dir, self.progress)
    prepared = prompts_lib.prepare_prompts(loaded.problems, self.tokenizer, self.config.data)
    if prepared.skipped:
      self.progress.note(
        f'{split}: skipped {len(prepared.skipped)} of {len(loaded.problems)} problems whose '
        f'prompt exceeds data.prompt_limit = {self.config.data.prompt_limit} tokens '
        '(data.overlong_prompts=truncate_left keeps them).'
      )
    if not prepared.prompts:
      raise InputError(
        f'All {len(loaded.problems)} {split} problems have prompts longer than '
        f'data.prompt_limit = {self.config.data.prompt_limit}; raise it.'
      )
    return prepared.prompts

  def _announce(self, what: str) -> None:
    self.progress.note(f'Compiling {what}; the first seconds of this phase go into it.')

  @property
  def data_dir(self) -> str:
    return self.config.data.data_dir or str(self.workdir.data)

  def _engine(self, search: SearchConfig, sampling: SamplingConfig) -> Engine:
    shape = self._shape(search)
    return Engine(
      config=search,
      mesh=self.search_mesh,
      expand_fn=self._expand_fn(search, sampling),
      make_slots=compile_slots(self.decoder_config, self.search_mesh, shape),
      verify_fn=self.pool.verify,
      decode_text=self.tokenizer.decode_response,
      count_read=functools.partial(positions_read, block=shape.path_block, capacity=shape.capacity),
      team=self.search_team,
    )

  def _expand_fn(self, search: SearchConfig, sampling: SamplingConfig) -> ExpandFn:
    program = compile_expand(self.search_mesh, self._shape(search))
    options = sampling_options(sampling.temperature, sampling.top_p, sampling.top_k)
    return bind_sampling(program, options, self.tokenizer.stop_ids)

  def _shape(self, search: SearchConfig) -> ExpandShape:
    return ExpandShape(
      num_slots=search.num_slots,
      width=search.width,
      segment_length=search.segment_length,
      context_length=context_length(self.config),
      replay_chunk=search.replay_chunk,
      replay_lanes=search.replay_lanes,
      path_block=search.path_block,
      num_kv_heads=self.decoder_config.num_kv_heads,
      head_width=self.decoder_config.head_width,
      cache_kernel=search.cache_kernel,
    )


@contextlib.contextmanager
def first_process_first(team: Team) -> Iterator[None]:
  """Lets the other processes of a job wait here until the first has been through."""
  if team.index:
    team.gather(b'')
  yield
  if not team.index:
    team.gather(b'')


def model_folder(config: Config, workdir: Workdir) -> pathlib.Path:
  """Folder of config.model.path, or what `ds-jax warmstart` leaves in the workdir."""
  return local_folder(config.model.path) if config.model.path else workdir.warmstart


@contextlib.contextmanager
def open_runtime(
  config: Config,
  workdir: Workdir,
  progress: Progress,
  should_stop: Callable[[], bool] = lambda: False,
  team: Team = ALONE,
) -> Iterator[Runtime]:
  """Checks the config against mesh, model and tokenizer, and starts the verifier.

  Raises:
    InputError: for anything that does not fit, before any work is done.
  """
  mesh = open_mesh(config)
  with first_process_first(team):  # it may have to download, into a folder that all share
    folder = model_folder(config, workdir)
  read_config(folder)  # a missing folder is named before the tokenizer that it lacks
  tokenizer = prompts_lib.load_tokenizer(str(folder))
  decoder_config = dataclasses.replace(
    read_config(folder, tokenizer.num_ids), **config.model.formats
  )
  if context_length(config) > decoder_config.context_limit:
    raise InputError(
      f'prompt_limit + max_depth * segment_length = {context_length(config)} exceeds the '
      f'{decoder_config.context_limit} positions of {folder} (max_position_embeddings); lower '
      'search.max_depth or search.segment_length.'
    )
  verify = config.verify
  if config.search.policy == 'faithful':  # the released code has no such rule
    verify = dataclasses.replace(verify, degenerate='keep')
  with VerifierPool(verify, progress.note) as pool:
    yield Runtime(
      config, workdir, mesh, tokenizer, decoder_config, pool, progress, should_stop, team
    )


def open_mesh(config: Config) -> jax.sharding.Mesh:
  """The mesh of the config on all devices; InputError if sizes do not fit it."""
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
  if mesh.devices.flat[0].platform == 'cpu':
    keep_freed_memory()
  check_divides(
    'train.micro_rows', config.train.micro_rows, 'mesh data x fsdp', sharding.num_slot_shards(mesh)
  )
  return mesh


def keep_freed_memory() -> None:
  """Lets this process keep memory that it frees, up to 1 GiB, for its next use.

  XLA's CPU programs ask malloc for their temporaries in every call. glibc gets what is larger than
  32 MiB from the kernel each time and gives it back, page by page: a third of the quickstart's warm
  start. Other C libraries are left alone, and so is who sets MALLOC_TRIM_THRESHOLD_ (bytes).
  """
  set_option = getattr(ctypes.CDLL(None), 'mallopt', None)
  if set_option is not None and 'MALLOC_TRIM_THRESHOLD_' not in os.environ:
    for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
      set_option(option, 2**30)
