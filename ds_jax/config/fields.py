"""Every setting of a run. The comment beside a field is what `ds-jax COMMAND --help=SECTION` shows.

Defaults are neutral (a thing is off, nothing is left out) or those of DeepSearch at 1.5B: the paper
(arXiv:2509.25454) and the released scripts and code, whose origin configs/deepsearch_1_5b.py names
one by one. The numbers of the small tasks are in configs/deepsearch.py, countdown.py and chain.py.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from ds_jax.config.annotations import (
  OR_PYTHON,
  Coming,
  Count,
  Date,
  Later,
  Machine,
  NamedValues,
  Neutral,
  NewModel,
  NotNegative,
  Pattern,
  Positive,
  Share,
  above,
  at_least,
  at_most,
  before,
  below,
)
from ds_jax.config.places import BUCKET_OR_FOLDER, FILE, MODEL, SOURCE

TopP = Annotated[float, above(0.0), at_most(1.0)]
# Sizes of the paper's model: Nemotron-Research-Reasoning-Qwen-1.5B, a Qwen 2.
Size = NewModel[Positive]


@dataclasses.dataclass(frozen=True)
class CountdownConfig:
  """The embedded task: reach a target with each number exactly once (data/countdown.py)."""

  # numbers per problem; depth of a worked solution is num_numbers - 1
  num_numbers: Annotated[int, at_least(2)] = 4
  max_number: Positive = 10  # given numbers are 1..max_number
  max_value: Positive = 99  # no intermediate result is larger (one token per value)
  num_train: Positive = 4096  # problems of the train split
  num_heldout: Positive = 512  # problems of the held-out hard split
  num_warmstart: Positive = 40_000  # worked solutions, with 2..num_numbers numbers
  warmstart_full_share: Share = 0.5  # share of worked solutions with all num_numbers numbers
  seed: int = 0  # of the problem set, apart from the run's seed


@dataclasses.dataclass(frozen=True)
class ChainConfig:
  """The embedded task of confident mistakes: apply functions one after another (data/chain.py)."""

  depth: Positive = 8  # functions per problem; each is a line of the solution
  num_values: Annotated[int, at_least(2)] = 61  # values are 0..num_values - 1
  num_functions: Positive = 6  # each a permutation of the values
  weak_share: Share = 0.5  # of facts that the warm start shows wrong more often than right
  weak_low: Share = 0.1  # of solutions that show a weak fact right, at least
  weak_high: Share = 0.5  # likewise, at most
  num_train: Positive = 20_000  # problems of the train split
  num_heldout: Positive = 512  # problems of the held-out split
  num_warmstart: Positive = 40_000  # solutions of the warm start, mistakes included
  seed: int = 0  # of the functions and problems, apart from the run's seed


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Where problems come from, and how they become prompts."""

  # 'countdown', 'chain', 'tfds:NAME', 'file:PATH.{jsonl,json,parquet,csv}', 'hf:NAME[:SUBSET]'
  # (with `datasets`), 'gym:TASK[?OPTION=VALUE&…]' (with `reasoning-gym`), or several with weights:
  # '2*gym:chain_sum + file:a.jsonl' (config/mixtures.py); must be given
  source: Annotated[str, SOURCE] = ''
  eval_source: Annotated[str, SOURCE] = ''  # '': the held-out split of `source`
  train_split: str = 'train'  # of tfds and hf sources and of 'countdown'
  eval_split: str = 'heldout'  # likewise; a benchmark has but one
  # where TFDS builders keep their files, or a bucket; '': WORKDIR/data
  data_dir: Annotated[str, BUCKET_OR_FOLDER] = ''
  # of each source; 0: all; of gym sources: how many are generated, unless the option `size` says
  max_problems: Count = 0
  prompt_field: str = ''  # of the question; 'a.b' is b within a; '': known layouts are tried
  answer_field: str = ''  # likewise, of the gold answer
  id_field: str = ''  # likewise, of the id
  # training problems that data/flaws.py finds: 'drop' (left out and counted) or 'keep'
  flaws: Literal['drop', 'keep'] = 'drop'
  instruction: str = ''  # appended to the problem text, e.g. the paper's \boxed{} suffix
  # the system message of problems whose rows have none of their own; '': none
  system_message: Later[str] = ''
  # which template of a model that has several (a name in tokenizer_config.json, or of a file in
  # additional_chat_templates); '': its default
  template_name: Later[str] = ''
  # what the chat template reads besides, by name, e.g.
  # --config.data.template_arguments.enable_thinking=False
  template_arguments: Later[NamedValues] = NamedValues()
  # the day that a chat template is told which asks for the date, e.g. 2026-11-28; '': that of the
  # run's first start
  date: Later[Date] = ''
  prompt_limit: Positive = 2048  # tokens after the chat template
  # prompts beyond the limit: 'skip' (counted) or 'truncate_left' (as released)
  overlong_prompts: Literal['skip', 'truncate_left'] = 'skip'
  countdown: CountdownConfig = CountdownConfig()
  chain: Later[ChainConfig] = ChainConfig()


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Which decoder, and in which number formats."""

  # Hugging Face folder or name on the hub; '': WORKDIR/warmstart
  path: Annotated[str, MODEL] = ''
  compute_dtype: Literal['float32', 'bfloat16'] = 'float32'  # of the search's copy and activations
  # what the backward pass computes again: 'none', 'full' (all of a layer), 'attention' (all but
  # attention), 'dots' (all but attention and the weights' products)
  remat: Literal['none', 'full', 'attention', 'dots'] = 'none'
  # attention of long rows in updates: 'auto' (by kernels on GPUs, on TPU v5p and v6e), 'on' (on
  # every TPU) or 'off' (left to XLA)
  attention_kernel: Machine[Literal['auto', 'on', 'off']] = 'auto'
  # L; the shape is that of a new model (`ds-jax init`, `ds-jax warmstart`), a loaded one has its
  # own
  num_layers: Size = 28
  width: Size = 1536  # M
  mlp_width: Size = 8960  # F
  num_heads: Size = 12  # H
  num_kv_heads: Size = 2  # C
  head_width: Size = 128  # D
  tie_embeddings: NewModel[bool] = False  # the head's matrix is the embedding's
  rope_theta: NewModel[Annotated[float, above(0.0)]] = 10_000.0  # base of the rotary wavelengths

  @property
  def formats(self) -> dict[str, Any]:
    """What a decoder takes from here, whatever its shape: fields of DecoderConfig."""
    names = ('compute_dtype', 'remat', 'attention_kernel')
    return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class WarmstartConfig:
  """Supervised training of a new tiny decoder on worked solutions of the embedded task."""

  num_steps: Count = 1600  # updates
  batch_size: Positive = 64  # worked solutions per step
  learning_rate: NotNegative = 2e-3  # peak; linear warm-up of 5 %, cosine to a tenth
  weight_decay: NotNegative = 0.01  # of matrices, decoupled


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
  """How the search and its direct rollouts draw tokens."""

  temperature: NotNegative = 1.0  # 0: greedy; see also `explore`
  top_p: TopP = 1.0  # 1: off
  top_k: Count = 0  # 0: off


@dataclasses.dataclass(frozen=True)
class SearchConfig:
  """The tree search."""

  # which rules grow a tree: 'deepsearch' (released, with their defects mended), 'faithful' (with
  # their defects), 'direct' (rollouts from the root), 'fork' (rollouts, then forks where they pay;
  # ours), 'prefix' (rollouts that start within an earlier response; the settings of `prefix`), or
  # a Policy of your own (ds_jax/examples/own_policy.py)
  policy: Annotated[Literal['deepsearch', 'faithful', 'direct', 'fork', 'prefix'], OR_PYTHON] = (
    'deepsearch'
  )
  num_slots: Machine[Positive] = 16  # decoder slots per device
  width: Positive = 8  # W, children per expansion
  width_decay: Count = 0  # children fewer per stage of floor(max_depth / W) depths; 0: off
  min_width: Positive = 2  # floor of the decaying width
  max_depth: Positive = 64  # segments on a path
  segment_length: Annotated[int, at_least(2)] = 256  # T, tokens per segment
  num_trajectories: Positive = 8  # K, ends to collect
  max_expansions: Positive = 512  # per tree; sets the node capacity 1 + max_expansions * W
  max_tokens: Count = 0  # generated tokens per tree; 0: no bound
  # after a terminal: 'global' (best of the whole frontier) or 'uct' (down from the root)
  backtrack: Literal['global', 'uct'] = 'global'
  frontier_only: bool = True  # global selection among nodes that still lack children
  lambda_uct: float = 2.0  # exploration weight
  lambda1: float = 0.4  # parent quality
  lambda2: float = 0.4  # uncertainty, where it is not off
  lambda3: float = 0.01  # depth bonus
  lambda4: float = 0.0  # own quality
  depth_bonus: Literal['sqrt', 'log', 'linear'] = 'sqrt'  # how the bonus grows with the depth
  # of a node, in its frontier score: 'off', 'sampled' (mean -logprob) or 'entropy' (exact)
  uncertainty: Literal['off', 'sampled', 'entropy'] = 'off'
  backup_threshold: float = 0.1  # floor of the backup weight
  # 'constrained' (paper's Eq. 5) or 'vanilla' (a running sum)
  backup_rule: Literal['constrained', 'vanilla'] = 'constrained'
  incomplete_score: float = -1.0  # value of a path cut off by the depth limit, see cut_ends
  # a right answer in a response that the depth limit cut off: 'incomplete' (its value is
  # incomplete_score, so that responses go on ending) or 'graded' (it pays like others; released;
  # 'faithful'). A wrong one is wrong either way
  cut_ends: Annotated[Literal['incomplete', 'graded'], before('graded')] = 'incomplete'
  count_end_token: bool = False  # in a trajectory's confidence; released: only if padding differs
  # which wrong end is backed up where none is right
  negatives: Literal['most_confident', 'random', 'least_confident'] = 'most_confident'
  # among siblings: 'best' UCT, or 'sampled' from softmax(UCT), which is ours
  local_choice: Literal['best', 'sampled'] = 'best'
  # between equal scores: 'first' in pre-order (released), 'confident' or 'random'
  ties: Literal['first', 'confident', 'random'] = 'first'
  probe_share: Share = 0.1  # of rollouts under 'fork' that get a random fork, to measure U; ours
  # where 'fork' forks: 'law' (at depths where U/x is clearly above 1), 'strata' (likewise, counted
  # apart for problems that were solved before and those that were not), 'sampling' (failed rollouts
  # of groups that are all wrong, at depths drawn by right ends per token; a new rollout is one)
  fork_rule: Later[Literal['law', 'strata', 'sampling']] = 'law'
  # draws of each failed rollout under 'sampling'
  forks_per_failure: Later[Annotated[int, at_least(1), at_most(64)]] = 4
  # continuations that a node has at least once 'fork' forks it, the first one counted: a baseline
  # at that state exists
  min_continuations: Later[Positive] = 1
  replay_chunk: Positive = 2048  # tokens a lane encodes per expansion when a slot jumps or starts
  replay_lanes: Machine[Positive] = 4  # slots per device that may replay in one expansion
  path_block: Positive = 512  # path positions that attention reads at a time
  # how one expansion draws the children of a node: 'independent' (released), or 'distinct', without
  # replacement: no two are alike (decode/distinct.py). Their log-probs stay those of the policy,
  # which samples such paths less often than the trees have them; nothing weighs that. For policies
  # that draw children together: 'deepsearch', 'faithful'
  siblings: Later[Literal['independent', 'distinct']] = 'independent'
  # whether a kernel reads the caches (TPU: in decode steps; GPU): 'on', 'off', or 'auto', where it
  # moves fewer bytes (v5p and GPUs)
  cache_kernel: Machine[Literal['auto', 'on', 'off']] = 'auto'


@dataclasses.dataclass(frozen=True)
class VerifyConfig:
  """Answer checking in killable worker processes."""

  # 'math' (only a box is an answer), 'math_bare', 'last_number' (for models that answer in prose),
  # 'released', 'exact', 'countdown', 'chain', 'gym:TASK' or 'python:MODULE.FUNCTION'. Problems of
  # gym sources and of the embedded tasks have their own, unless this is 'python:…'
  verifier: str = 'math'
  num_workers: Machine[Positive] = 2  # processes
  # deadline per answer, of the worker's CPU time
  cpu_seconds: Annotated[float, at_least(0.01)] = 3.0
  wall_seconds: Annotated[float, above(0.0)] = 30.0  # back-stop per answer
  memory_mb: Positive = 4096  # address space of one worker
  recycle_after: Positive = 10_000  # answers a worker checks before it is replaced
  # garbled or endlessly repeating wrong texts: 'drop', never learnt from (paper; rule:
  # verify/degenerate.py), or 'keep', wrong like others (released; 'faithful')
  degenerate: Literal['drop', 'keep'] = 'drop'


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """The Tree-GRPO update."""

  # 'policy': search and learn from it; 'imitation': no search but supervised updates towards worked
  # solutions of the training problems
  objective: Literal['policy', 'imitation'] = 'policy'
  batch_problems: Positive = 256  # problems searched per step
  # further batches that a step may draw until batch_problems groups have both right and wrong ends,
  # others being left out (DAPO's dynamic sampling); 0: off
  max_refills: Count = 0
  # N: nothing more is drawn once so many groups have contrast, and all of those are learnt from; 0:
  # batch_problems, and no more than that many are
  contrast_groups: Later[Count] = 0
  # of the groups with contrast beyond batch_problems: how many wait for the next step, which learns
  # from them by their ratios to the policy that sampled them
  waiting_groups: Later[Count] = 0
  minibatch_problems: Positive = 32  # problems per optimizer update
  # passes over the minibatches of a step, with an update for each; ratios stay those to the policy
  # that sampled. More passes want a lower learning_rate: at the rate of one, four collapse
  epochs: Later[Positive] = 1
  # the passes that are left are skipped once one had more than this share of its tokens clipped; 1:
  # never
  max_clip_fraction: Later[Share] = 1.0
  # likewise once the policy has moved further than this, mean |approx_kl| in nats; 0: never
  max_approx_kl: Later[NotNegative] = 0.0
  # S of a training row, tokens; short trajectories are packed into rows
  row_length: Annotated[int, at_least(2)] = 18_432
  micro_rows: Machine[Positive] = 8  # rows per forward/backward pass, over all devices
  # 'tree': each distinct token of a tree is forwarded once; 'flat': every trajectory on its own.
  # The gradients agree
  packing: Literal['tree', 'flat'] = 'tree'
  # S of a row of packed trees, tokens, in micro_rows * row_length / S rows per pass; 0: row_length,
  # at least 128
  tree_row_length: Count = 0
  # how many lengths rows may have, e.g. 4: about S/4, S/2, 3S/4, and S. An update takes the one in
  # which it has the least padding; each is compiled when first needed. 1: S alone. Another number
  # changes the last bits of sums
  row_lengths: Later[Machine[Annotated[int, at_least(1), at_most(8)]]] = 1
  # 'muon' is for matrices; the other parameters have adamw
  optimizer: Literal['adamw', 'adafactor', 'muon'] = 'adamw'
  learning_rate: NotNegative = 1e-6  # peak, after a linear warm-up
  warmup_steps: Count = 10  # optimizer updates
  # after the warm-up: 'constant' (paper), or falling until the last update of the run
  schedule: Literal['constant', 'linear', 'cosine'] = 'constant'
  final_rate_share: Share = 0.1  # of the peak, where a falling schedule ends
  weight_decay: NotNegative = 0.1  # decoupled
  beta1: Annotated[float, at_least(0.0), below(1.0)] = 0.9  # of the first moment; muon's momentum
  # of the second moment; adafactor has its own
  beta2: Annotated[float, at_least(0.0), below(1.0)] = 0.999
  max_grad_norm: Annotated[float, above(0.0)] = 1.0  # of the whole gradient
  # what this regular expression finds among parameter paths, e.g. 'embedding|layers/.*_scale', is
  # not trained and has no optimizer state. '': everything is trained
  frozen: Annotated[str, Pattern('parameter paths, e.g. embedding|layers/.*_scale')] = ''
  # LoRA: the rank of what is added to each of the kernels that lora_targets finds, all that is
  # trained then; the model's own weights stay, in compute_dtype. 0: everything is trained
  lora_rank: Later[Count] = 0
  # adapters count lora_alpha / lora_rank
  lora_alpha: Later[Annotated[float, above(0.0)]] = 32.0
  # what this regular expression finds among parameter paths has adapters: kernels of layers
  lora_targets: Later[
    Annotated[str, Pattern('parameter paths, e.g. layers/(query|value)_kernel')]
  ] = 'layers/.*_kernel'
  # updates in a row with a gradient that is not finite, then the run stops
  max_skipped: Coming[Positive] = 10
  # what bounds the ratio of new over old probability: 'ppo' (clipped per token; paper), 'gspo' (per
  # trajectory: the geometric mean over its tokens, arXiv:2507.18071, whose loss_aggregation is
  # 'sequence_mean'; needs granularity 'outcome') or 'cispo' (per token: a bounded weight of the
  # token's log-prob, so that no token is left out, arXiv:2506.13585)
  policy_loss: Later[Literal['ppo', 'gspo', 'cispo']] = 'ppo'
  clip_low: NotNegative = 0.2  # ppo: ratios below 1 - clip_low are clipped
  clip_high: NotNegative = 0.28  # ppo: ratios above 1 + clip_high are clipped
  gspo_clip_low: Later[NotNegative] = 3e-4  # gspo: likewise, of a trajectory's ratio
  gspo_clip_high: Later[NotNegative] = 4e-4  # gspo: likewise
  # ppo and gspo: bound of the ratio where the advantage is negative
  dual_clip: NotNegative = 10.0
  # cispo: largest weight of a token, its paper's 1 + eps_high; the value is arXiv:2510.13786's
  cispo_cap: Later[Annotated[float, above(0.0)]] = 5.0
  # of a KL to the policy that the run started from; 0: off (paper)
  kl_coefficient: NotNegative = 0.0
  entropy_coefficient: NotNegative = 0.0  # of an entropy bonus; 0: off (paper)
  # bound of the importance weights of stale samples, for which every batch is scored again before
  # the step; 0: off
  importance_cap: NotNegative = 0.0
  # what becomes of weights beyond it: 'truncated' to it, or 'masked' to 0 (the token teaches
  # nothing), as those below importance_floor are
  importance_outliers: Later[Literal['truncated', 'masked']] = 'truncated'
  # masked: the smallest weight that counts, e.g. 0.5 with a cap of 5 (IcePop, arXiv:2510.18855);
  # 0: none is too small
  importance_floor: Later[NotNegative] = 0.0
  # which policy learns: the one at the temperature of the sample ('sampled'), or the one at
  # temperature 1 ('plain'): then the importance weights are those of it to the sampler. The KL and
  # the entropy are of the same policy
  trained_policy: Later[Literal['sampled', 'plain']] = 'sampled'
  # mean over the tokens of a minibatch, or over its trajectories' means or sums
  loss_aggregation: Literal['token_mean', 'sequence_mean', 'sequence_sum'] = 'token_mean'
  # of a node: 'q_mean' (released; paper's Eq. 9), 'tree_mean', 'td' or 'leave_one_out'; see
  # train/advantages.py
  advantage: Literal['q_mean', 'tree_mean', 'td', 'leave_one_out'] = 'q_mean'
  # 'node': every node has its own advantage; 'outcome': all tokens of a trajectory share that of
  # its end (coarse rows of the paper's Table 4)
  granularity: Literal['node', 'outcome'] = 'node'
  # what q_mean divides by: 'mean_only' (nothing), 'standard' (the deviation); 'none': no mean
  # either. 'success_rate': whatever the advantage, its group's share of right ends, so that rare
  # successes weigh more (MaxRL's (r - mean) / mean of r in {0, 1}, arXiv:2602.02710)
  normalization: Literal['mean_only', 'standard', 'success_rate', 'none'] = 'mean_only'
  # ends whose mean q_mean and leave_one_out subtract: the K 'collected' (released) or 'all'
  # verified
  baseline_ends: Literal['collected', 'all'] = 'collected'
  # ends that are learnt from: the K 'collected' (released) or 'all' verified
  ends: Literal['collected', 'all'] = 'collected'
  # trees whose ends all have the same outcome: 'drop', 'keep' (released) or 'centre' (their node
  # values minus the mean of those, whatever the advantage)
  uniform_trees: Literal['drop', 'keep', 'centre'] = 'keep'
  # w of A + w max(A, 0) for the nodes of correct ends: rare successes weigh more, e.g. 1; 0: off
  success_weight: Later[NotNegative] = 0.0
  q_temperature: NotNegative = 1.0  # eps_q of the soft clipping q_max * tanh(q / eps_q); 0: off
  q_max: NotNegative = 1.0  # of the soft clipping, as above
  overlong_buffer: Count = 0  # tokens before the response limit where the penalty grows; 0: off
  overlong_factor: NotNegative = 1.0  # the penalty at the limit


@dataclasses.dataclass(frozen=True)
class CurriculumConfig:
  """Rounds: filter the hard set, train on it, filter again."""

  # training steps of each round. A run, also a finished one, goes on with a list that begins with
  # what it has done, e.g. 50,50,50; its last round may be longer
  round_steps: Coming[tuple[Positive, ...]] = (50, 50)
  # training ends with the step in which filter, search and rollouts have generated so many tokens
  # in all; 0: no bound
  max_tokens: Later[Count] = 0
  # direct rollouts per problem; 0: no filter, all problems are trained on
  filter_samples: Count = 4
  hard_threshold: float = 0.25  # problems with pass@1 below this are hard
  # a later round filters 'all' training problems, or 'hard': those of the round before, as in the
  # released data, whose round 1 is a subset of round 0
  filter_from: Literal['all', 'hard'] = 'hard'
  # of a batch: problems outside the hard set, with K direct rollouts; 0: none, as in the paper.
  # Hard problems alone cost pass@1 (README)
  rehearsal_share: Annotated[float, at_least(0.0), below(1.0)] = 0.0
  max_cached_per_problem: Count = 8  # solutions the replay buffer keeps of one problem; 0: none


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
  """Verified solutions that are learnt from again while their problem is still failed."""

  # 'next_round' (released: curriculum.max_cached_per_problem mixes them with later rollouts) or
  # 'at_once': besides the step's own groups, from the next update on
  when: Literal['next_round', 'at_once'] = 'next_round'
  per_update: Count = 96  # problems, one solution each, that join every minibatch
  further_updates: Count = 0  # optimizer updates on solutions alone, after those of a step
  per_further_update: Positive = 96  # problems, one solution each, of such an update
  advantage: Annotated[float, above(0.0)] = 1.0  # of every token of a solution
  max_per_problem: Positive = 4  # solutions kept of a problem, the newest
  # of a problem's solutions: the 'newest', or the 'likeliest' under the present policy
  choice: Literal['newest', 'likeliest'] = 'newest'
  # problems whose discounted rate of right ends is below this lend their solutions
  rate_bound: Annotated[float, above(0.0)] = 0.3
  decay: Share = 0.7  # of earlier counts in that rate, per visit of the problem
  # rate of right ends of all problems together from which on solutions are learnt from; 0: at once
  min_rate: Share = 0.0
  # problems with more different solutions than this are left out; 0: none is
  max_distinct: Count = 0


@dataclasses.dataclass(frozen=True)
class PrefixConfig:
  """Rollouts of training that start within an earlier response, with search.policy=prefix."""

  # of the hard problems of each batch, rounded up: those that start from the root whatever is known
  root_share: Annotated[float, above(0.0), below(1.0)] = 0.25
  # of each batch, rounded down: places for problems with a prefix, whatever their turn is. In a run
  # that is over before an epoch is no problem would come back otherwise
  revisit_share: Share = 0.5
  # share of right ends that the length of prefixes is steered to, problem by problem
  target_rate: Annotated[float, above(0.0), below(1.0)] = 0.5
  first_share: Share = 0.5  # of a solution that is given at first, of what may be (no last line)
  # by how much that share moves after a visit, times the distance of its rate from target_rate
  step: Annotated[float, above(0.0)] = 0.5
  # problems whose discounted rate of right ends from the root is not below this start from there
  withdraw_rate: Share = 0.25
  # problems whose rate is not below this start within failures instead, steered likewise; 0: none
  failure_rate: Share = 0.0
  decay: Share = 0.7  # of earlier counts in that rate, per visit from the root
  max_per_problem: Positive = 4  # solutions kept of a problem, the newest, and failures likewise
  # whether worked solutions of the data lend prefixes of problems that the run has not solved
  worked: bool = False
  # of every token of a solution's prefix from which a rollout came out right; 0: prefixes are not
  # trained on
  advantage: NotNegative = 0.0


@dataclasses.dataclass(frozen=True)
class BudgetConfig:
  """How many rollouts a problem gets in a step: more where it has shown too little so far."""

  # of a problem in a step: it begins with K, or a tree that counts as K, and direct rollouts follow
  # in waves and join its group; 0: none follow
  max_rollouts: Count = 0
  wave: Positive = 8  # rollouts that a problem gets in a further wave
  # a problem gets no more once its group has right and wrong ends ('contrast'), or a right end
  # ('success': none more where all are right)
  until: Literal['contrast', 'success'] = 'contrast'
  # direct rollouts that a problem begins with, instead of K or a tree, where few will do: if its
  # discounted rate of right ends (by memory.decay) is at least first_wave_rate; 0: K or a tree
  first_wave: Count = 0
  # discounted rate of right ends from which on a problem begins with first_wave; 0: all do
  first_wave_rate: Share = 0.9
  # tokens of a step: beyond them no further wave or batch is begun, and the last rollouts go to the
  # problems from which most can be learnt (run/budget.py); 0: no bound
  max_tokens: Count = 0

  @property
  def needs_rates(self) -> bool:
    """Whether it goes by each problem's rate of right ends."""
    return bool(self.max_rollouts or self.first_wave)


@dataclasses.dataclass(frozen=True)
class ExploreConfig:
  """Temperatures by what earlier groups brought, for where few have right and wrong ends.

  A group has contrast if it has right and wrong ends: an update can learn from it
  (train/exploration.py). The filter and evaluations do not take part.
  """

  # 'constant' (sampling.temperature), 'steered' (one for all groups of a step, the higher the fewer
  # have contrast) or 'bandit' (each group draws one of `temperatures`)
  temperature: Literal['constant', 'steered', 'bandit'] = 'constant'
  target: Share = 0.3  # steered: the share of groups with contrast that is aimed at
  # steered: times this after a step below the target, divided by it after one above
  factor: Annotated[float, above(1.0)] = 1.05
  min_temperature: Annotated[float, above(0.0)] = 0.8  # steered: never lower
  max_temperature: Annotated[float, above(0.0)] = 1.5  # steered: never higher
  # bandit: what a group draws from
  temperatures: tuple[Annotated[float, above(0.0)], ...] = (0.8, 1.0, 1.2, 1.4)
  decay: Share = 0.9  # of the counts of earlier groups, per step


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
  """How pass@1 is measured before, during and after a run."""

  num_problems: Count = 0  # of the evaluation split; 0: all
  num_samples: Coming[Positive] = 32  # direct rollouts per problem
  before_training: Neutral[bool] = True  # whether the untrained policy is evaluated
  # training steps between evaluations; 0: before and after the run only
  every_steps: Coming[Count] = 0
  temperature: NotNegative = 0.6  # 0: greedy
  top_p: TopP = 0.95  # 1: off
  # pass@1 is measured at these as well, with top_p 1, e.g. 1.0,1.2; not on benchmarks
  further_temperatures: Later[Coming[tuple[NotNegative, ...]]] = ()
  # decoder slots per device for direct rollouts (also the filter's)
  num_slots: Machine[Positive] = 8


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """How the devices are laid out."""

  # replicas; -1 (one of the three may be): the devices that the others leave
  data: Machine[int] = -1
  fsdp: Machine[int] = 1  # parameters and optimizer state are split over it, batches and slots too
  tensor: Machine[int] = 1  # heads and MLP width are split over it


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """When a run is saved, and what is kept."""

  every_steps: Positive = 10  # training steps between checkpoints; the end of a round always saves
  keep: Positive = 2  # newest checkpoints kept
  keep_best: Count = 0  # besides, those whose evaluation had the highest pass@1


@dataclasses.dataclass(frozen=True)
class LogConfig:
  """What a run says while it works."""

  every_steps: Positive = 1  # training steps between lines on the terminal
  tensorboard: bool = True  # metrics are written for TensorBoard too
  # the responses of a run's evaluations are kept, WORKDIR/evaluations/step_….jsonl
  samples: bool = True
  # file with the learning curve of other runs, which the report draws beside the run's own
  # (report/summary.py); '': none
  beside: Later[Annotated[str, FILE]] = ''


@dataclasses.dataclass(frozen=True)
class Config:
  """A whole run."""

  seed: int = 0  # all random numbers of the run follow from it
  data: DataConfig = DataConfig()
  model: ModelConfig = ModelConfig()
  warmstart: WarmstartConfig = WarmstartConfig()
  sampling: SamplingConfig = SamplingConfig()
  search: SearchConfig = SearchConfig()
  verify: VerifyConfig = VerifyConfig()
  train: TrainConfig = TrainConfig()
  curriculum: CurriculumConfig = CurriculumConfig()
  memory: Later[MemoryConfig] = MemoryConfig()
  prefix: Later[PrefixConfig] = PrefixConfig()
  budget: Later[BudgetConfig] = BudgetConfig()
  explore: Later[ExploreConfig] = ExploreConfig()
  evaluate: EvaluateConfig = EvaluateConfig()
  mesh: MeshConfig = MeshConfig()
  checkpoint: Neutral[CheckpointConfig] = CheckpointConfig()
  log: Neutral[LogConfig] = LogConfig()
