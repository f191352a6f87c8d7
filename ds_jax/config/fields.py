"""Every setting of a run, as frozen dataclasses; a ConfigDict is turned into them at the door.

`config_from(ml_collections.ConfigDict)` names the bad field, its value and the remedy before
anything runs. A workdir may be continued with other values of the sections in RESULT_NEUTRAL, which
do not change results, and of MACHINE_FIELDS, which change last bits.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from ds_jax.checks import InputError, suggest
from ds_jax.config.rules import check_rows, check_values


@dataclasses.dataclass(frozen=True)
class CountdownConfig:
  """The embedded task: reach a target with each number exactly once (data/countdown.py)."""

  num_numbers: int = 4  # numbers per problem; depth of a worked solution is num_numbers - 1
  max_number: int = 10  # given numbers are 1..max_number
  max_value: int = 99  # no intermediate result is larger (one token per value)
  num_train: int = 4096  # problems of the train split
  num_heldout: int = 512  # problems of the held-out hard split
  num_warmstart: int = 40_000  # worked solutions, with 2..num_numbers numbers
  warmstart_full_share: float = 0.5  # share of worked solutions with all num_numbers numbers
  seed: int = 0  # of the problem set, apart from the run's seed


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Where problems come from, and how they become prompts."""

  source: str = 'countdown'  # 'countdown', 'tfds:NAME', 'file:PATH.{jsonl,json,parquet,csv}',
  #   'hf:NAME[:SUBSET]' (with `datasets`), 'gym:NAME' (with `reasoning-gym`)
  eval_source: str = ''  # '': the held-out split of `source`
  train_split: str = 'train'  # of tfds and hf sources and of 'countdown'
  eval_split: str = 'heldout'  # likewise; a benchmark has but one
  data_dir: str = ''  # where TFDS builders keep their files, or a bucket; '': WORKDIR/data
  max_problems: int = 0  # 0: all; of gym sources: how many are generated
  prompt_field: str = ''  # of all but countdown; 'a.b' is b within a; '': known layouts are tried
  answer_field: str = ''
  id_field: str = ''
  flaws: str = 'drop'  # of training problems that data/flaws.py finds: 'drop' (counted) or 'keep'
  instruction: str = ''  # appended to the problem text, e.g. the paper's \boxed{} suffix
  prompt_limit: int = 8  # tokens after the chat template
  overlong_prompts: str = 'skip'  # 'skip' (counted) or 'truncate_left' (as released)
  countdown: CountdownConfig = CountdownConfig()


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Which decoder, and in which number formats."""

  path: str = ''  # Hugging Face folder or name on the hub; '': WORKDIR/warmstart
  compute_dtype: str = 'float32'  # search copy and activations: float32 | bfloat16
  remat: str = 'none'  # what the backward pass computes again: 'none', 'full' (all of a layer),
  #   'attention' (all but attention), 'dots' (all but attention and the weights' products)
  attention_kernel: str = 'auto'  # attention of long rows in updates: 'auto', on GPUs by kernels;
  #   'off', left to XLA
  # Shape of a new model (`ds-jax init`, `ds-jax warmstart`); a loaded one brings its own.
  num_layers: int = 2  # L
  width: int = 96  # M
  mlp_width: int = 288  # F
  num_heads: int = 3  # H
  num_kv_heads: int = 1  # C
  head_width: int = 32  # D
  tie_embeddings: bool = True
  rope_theta: float = 10_000.0

  @property
  def formats(self) -> dict[str, str]:
    """What a decoder takes from here, whatever its shape: fields of DecoderConfig."""
    return {
      'compute_dtype': self.compute_dtype,
      'remat': self.remat,
      'attention_kernel': self.attention_kernel,
    }


@dataclasses.dataclass(frozen=True)
class WarmstartConfig:
  """Supervised training of a new tiny decoder on worked solutions."""

  num_steps: int = 1600
  batch_size: int = 64  # worked solutions per step
  learning_rate: float = 2e-3  # peak; linear warm-up of 5 %, cosine to a tenth
  weight_decay: float = 0.01


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
  """How the search and its direct rollouts draw tokens."""

  temperature: float = 1.0  # 0: greedy
  top_p: float = 1.0  # 1: off
  top_k: int = 0  # 0: off


@dataclasses.dataclass(frozen=True)
class SearchConfig:
  """The tree search. Defaults are the quickstart's; configs/deepsearch_1_5b.py has the released."""

  policy: str = 'deepsearch'  # 'deepsearch' | 'faithful' | 'direct' | 'fork'
  num_slots: int = 48  # decoder slots per device
  width: int = 4  # W, children per expansion
  width_decay: int = 1  # children fewer per stage of floor(max_depth / W) depths; 0: off
  min_width: int = 2  # floor of the decaying width
  max_depth: int = 3  # segments on a path
  segment_length: int = 9  # T, tokens per segment
  num_trajectories: int = 8  # K, ends to collect
  max_expansions: int = 32  # per tree; sets the node capacity 1 + max_expansions * W
  max_tokens: int = 0  # generated tokens per tree; 0: no bound
  backtrack: str = 'global'  # after a terminal: 'global' frontier or 'uct' from the root
  frontier_only: bool = True  # global selection among nodes that still lack children
  lambda_uct: float = 1.0  # exploration weight
  lambda1: float = 0.4  # parent quality
  lambda2: float = 0.0  # uncertainty
  lambda3: float = 0.01  # depth bonus
  lambda4: float = 0.0  # own quality
  depth_bonus: str = 'sqrt'  # 'sqrt' | 'log' | 'linear'
  uncertainty: str = 'off'  # 'off' | 'sampled' (mean -logprob) | 'entropy' (exact)
  backup_threshold: float = 0.1  # floor of the backup weight
  backup_rule: str = 'constrained'  # 'constrained' (Eq. 5) | 'vanilla' (running sum)
  incomplete_score: float = -0.5  # value of a path cut off by the depth limit without an answer
  count_end_token: bool = False  # in a trajectory's confidence; released: only if padding differs
  negatives: str = 'most_confident'  # 'most_confident' | 'random' | 'least_confident'
  local_choice: str = 'best'  # among siblings: 'best' UCT | 'sampled' from softmax(UCT); ours
  ties: str = 'first'  # 'first' in pre-order (released) | 'confident' | 'random'
  probe_share: float = 0.1  # of rollouts under 'fork' that get a random fork, to measure U; ours
  replay_chunk: int = 32  # tokens a lane encodes per expansion when a slot jumps or starts
  replay_lanes: int = 48  # slots per device that may replay in one expansion
  path_block: int = 128  # path positions that attention reads at a time
  cache_kernel: str = 'auto'  # caches are read by a kernel (TPU: in decode steps; GPU): 'on',
  #   'off', or 'auto', where it moves fewer bytes (v5p and GPUs)


@dataclasses.dataclass(frozen=True)
class VerifyConfig:
  """Answer checking in killable worker processes."""

  verifier: str = 'countdown'  # 'countdown' | 'math' | 'released' | 'exact' | 'gym:TASK' |
  #   'python:MODULE.FUNCTION'
  num_workers: int = 2  # processes
  cpu_seconds: float = 3.0  # deadline per answer, of the worker's CPU time
  wall_seconds: float = 30.0  # back-stop per answer
  memory_mb: int = 4096  # address space of one worker
  recycle_after: int = 10_000  # answers a worker checks before it is replaced
  degenerate: str = 'drop'  # garbled or endlessly repeating wrong texts: 'drop', never learnt from
  #   (paper; rule: verify/degenerate.py), or 'keep', wrong like others (released; 'faithful')


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """The Tree-GRPO update."""

  objective: str = 'policy'  # 'policy': search and learn from it | 'imitation': no search but
  #   supervised updates towards worked solutions of the training problems
  batch_problems: int = 96  # problems searched per step
  max_refills: int = 0  # further batches that a step may draw until batch_problems groups have both
  #   right and wrong ends, others being left out (DAPO's dynamic sampling); 0: off
  minibatch_problems: int = 96  # problems per optimizer update
  row_length: int = 36  # S of a training row; short trajectories are packed into rows
  micro_rows: int = 64  # rows per forward/backward pass, over all devices
  packing: str = 'tree'  # 'tree': each distinct token of a tree is forwarded once | 'flat': every
  #   trajectory on its own; the gradients agree
  tree_row_length: int = 0  # S of a row of packed trees, tokens, in micro_rows * row_length / S
  #   rows per pass; 0: row_length, at least 128
  optimizer: str = 'adamw'  # 'adamw' | 'adafactor' | 'muon' (matrices; AdamW for the rest)
  learning_rate: float = 4e-4  # peak, after a linear warm-up
  warmup_steps: int = 5  # optimizer updates
  schedule: str = 'constant'  # after the warm-up: 'constant' (paper) | 'linear' | 'cosine', falling
  #   until the last update of the run
  final_rate_share: float = 0.1  # of the peak, where a falling schedule ends
  weight_decay: float = 0.0
  beta1: float = 0.9  # of the first moment; muon's momentum
  beta2: float = 0.95  # of the second moment; adafactor has its own
  max_grad_norm: float = 1.0
  frozen: str = ''  # regular expression over parameter paths, e.g. 'embedding|layers/.*_scale';
  #   what it finds is not trained and has no optimizer state. '': everything is trained
  max_skipped: int = 10  # updates in a row with a gradient that is not finite, then the run stops
  clip_low: float = 0.2
  clip_high: float = 0.28
  dual_clip: float = 10.0
  kl_coefficient: float = 0.0  # of a KL to the policy that the run started from; 0: off (paper)
  entropy_coefficient: float = 0.0  # of an entropy bonus; 0: off (paper)
  importance_cap: float = 0.0  # bound of the truncated importance weights of stale samples, for
  #   which every batch is scored again before the step; 0: off
  loss_aggregation: str = 'token_mean'  # 'token_mean' | 'sequence_mean' | 'sequence_sum'
  advantage: str = 'tree_mean'  # 'q_mean' (released) | 'tree_mean' | 'td' | 'leave_one_out'
  granularity: str = 'node'  # 'node': every node has its own advantage | 'outcome': all tokens of a
  #   trajectory share that of its end (coarse rows of the paper's Table 4)
  normalization: str = 'mean_only'  # 'mean_only' | 'standard' | 'none', of q_mean
  baseline_ends: str = 'collected'  # ends whose mean q_mean and leave_one_out subtract: the K
  #   'collected' (released) | 'all' verified
  ends: str = 'all'  # 'collected' (the K collected ends) | 'all' (every verified end)
  uniform_trees: str = 'drop'  # trees whose ends all have the same outcome: 'drop' | 'keep' |
  #   'centre' (their node values minus the mean of those, whatever the advantage)
  q_temperature: float = 1.0  # eps_q of the soft clipping q_max * tanh(q / eps_q); 0: off
  q_max: float = 1.0
  overlong_buffer: int = 0  # tokens before the response limit where the penalty grows; 0: off
  overlong_factor: float = 1.0


@dataclasses.dataclass(frozen=True)
class CurriculumConfig:
  """Rounds: filter the hard set, train on it, filter again."""

  round_steps: tuple[int, ...] = (120, 60)  # training steps of each round
  filter_samples: int = 4  # direct rollouts per problem; 0: no filter, all problems are trained on
  hard_threshold: float = 0.25  # problems with pass@1 below this are hard
  filter_from: str = 'all'  # a later round filters 'all' training problems, or 'hard': those of
  #   the round before, as in the released data, whose round 1 is a subset of round 0
  rehearsal_share: float = 0.5  # of a batch: problems outside the hard set, with K direct
  #   rollouts; 0: none, as in the paper. Hard problems alone cost pass@1 (README)
  max_cached_per_problem: int = 2  # solutions the replay buffer keeps of one problem; 0: none


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
  num_problems: int = 256  # of the evaluation split; 0: all
  num_samples: int = 8  # direct rollouts per problem
  every_steps: int = 0  # training steps between evaluations; 0: before and after the run only
  temperature: float = 1.0  # 0: greedy
  top_p: float = 1.0  # 1: off
  num_slots: int = 256  # decoder slots per device for direct rollouts (also the filter's)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  data: int = -1  # replicas; -1 (one of the three may be): the devices that the others leave
  fsdp: int = 1  # parameters and optimizer state are split over it, batches and slots too
  tensor: int = 1  # heads and MLP width are split over it


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  every_steps: int = 10  # training steps between checkpoints; the end of a round always saves
  keep: int = 2  # newest checkpoints kept
  keep_best: int = 0  # besides, those whose evaluation had the highest pass@1


@dataclasses.dataclass(frozen=True)
class LogConfig:
  every_steps: int = 1  # training steps between lines on the terminal
  tensorboard: bool = True


@dataclasses.dataclass(frozen=True)
class Config:
  """A whole run."""

  seed: int = 0
  data: DataConfig = DataConfig()
  model: ModelConfig = ModelConfig()
  warmstart: WarmstartConfig = WarmstartConfig()
  sampling: SamplingConfig = SamplingConfig()
  search: SearchConfig = SearchConfig()
  verify: VerifyConfig = VerifyConfig()
  train: TrainConfig = TrainConfig()
  curriculum: CurriculumConfig = CurriculumConfig()
  evaluate: EvaluateConfig = EvaluateConfig()
  mesh: MeshConfig = MeshConfig()
  checkpoint: CheckpointConfig = CheckpointConfig()
  log: LogConfig = LogConfig()


RESULT_NEUTRAL = ('log', 'checkpoint')

# Fields that suit the machine: a run may go on with others. Sums of floats, so last bits, differ.
MACHINE_FIELDS = (
  'mesh.data',
  'mesh.fsdp',
  'mesh.tensor',
  'train.micro_rows',
  'search.num_slots',
  'search.replay_lanes',
  'search.cache_kernel',
  'model.attention_kernel',
  'evaluate.num_slots',
  'verify.num_workers',
)


def config_from(fields: Mapping[str, Any]) -> Config:
  """Returns the checked Config of a ConfigDict (or any nested mapping).

  Raises:
    InputError: names an unknown or ill-typed field with its valid neighbours, a value out of
      range, or fields that contradict each other.
  """
  config = _convert(Config, fields, prefix='')
  check_values(config, flatten(dataclasses.asdict(config)))
  return config


def load_config(path: str) -> Config:
  """Returns the Config of a `configs/*.py` file, without overrides.

  Raises:
    InputError: if there is no such file, it has no get_config(), or a field is bad.
  """
  import runpy

  try:
    fields = runpy.run_path(path)['get_config']()
  except FileNotFoundError as e:
    raise InputError(f'No config file {path!r}; e.g. configs/quickstart.py.') from e
  except KeyError as e:
    raise InputError(f'{path!r} defines no get_config().') from e
  return config_from(fields)


def num_updates(config: Config) -> int:
  """Optimizer updates of a whole run."""
  per_step = config.train.batch_problems // config.train.minibatch_problems
  return sum(config.curriculum.round_steps) * per_step


def response_limit(config: Config) -> int:
  """Response tokens of the longest path: max_depth * T."""
  return config.search.max_depth * config.search.segment_length


def context_length(config: Config) -> int:
  """Positions of the longest path, prompt included."""
  return config.data.prompt_limit + response_limit(config)


def check_training(config: Config) -> None:
  """Raises InputError for what only a training run cannot do with this config."""
  check_rows(config, context_length(config))


def differing_fields(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
  """{'search.width': (value in a, value in b)} of two nested mappings, RESULT_NEUTRAL left out."""
  flat_a, flat_b = flatten(a), flatten(b)
  return {
    name: (flat_a.get(name), flat_b.get(name))
    for name in sorted({*flat_a, *flat_b})
    if name.split('.')[0] not in RESULT_NEUTRAL and flat_a.get(name) != flat_b.get(name)
  }


def flatten(fields: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """{'search.width': 4, …} of nested mappings."""
  flat = {}
  for name, value in fields.items():
    if isinstance(value, Mapping):
      flat.update(flatten(value, f'{prefix}{name}.'))
    else:
      flat[prefix + name] = tuple(value) if isinstance(value, list) else value  # JSON has lists
  return flat


def _convert(cls: type, fields: Mapping[str, Any], prefix: str) -> Any:
  hints = typing.get_type_hints(cls)
  for name in fields:
    if name not in hints:
      raise InputError(
        f'Unknown config field {prefix + name!r}.{suggest(name, hints)} '
        f'Fields here: {", ".join(sorted(hints))}.'
      )
  values = {}
  for name, value in fields.items():
    kind = hints[name]
    if dataclasses.is_dataclass(kind):
      if not hasattr(value, 'items'):
        raise InputError(
          f'Expected {prefix + name} to be a section with fields '
          f'{", ".join(typing.get_type_hints(kind))}; got {value!r}.'
        )
      values[name] = _convert(kind, dict(value.items()), f'{prefix}{name}.')
    else:
      values[name] = _typed(kind, value, prefix + name)
  return cls(**values)


def _typed(kind: Any, value: Any, name: str) -> Any:
  if isinstance(kind, types.UnionType):
    kind = next(k for k in typing.get_args(kind) if k is not type(None))
  if typing.get_origin(kind) is tuple:
    if not isinstance(value, tuple | list):
      raise InputError(f'Expected {name} to list values, e.g. 100,50; got {value!r}.')
    return tuple(_typed(typing.get_args(kind)[0], item, name) for item in value)
  if kind is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
    raise InputError(
      f'Expected {name} of type {kind.__name__}, got {value!r} ({type(value).__name__}).'
    )
  return value
