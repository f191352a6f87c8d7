"""How much a step samples, and which of it is learnt from.

A step draws a batch of problems, each of which begins with a tree or with K rollouts. Then problems
that have shown too little get further waves of rollouts (Reinforce-Ada, arXiv:2510.04996), and once
no problem is left to give more to, another batch is drawn (dynamic sampling, arXiv:2503.14476,
Eq. 11). It ends when enough groups have contrast, or a bound is reached. Pure functions: what they
depend on is alike on all processes.

Stopping at the first success biases a group's share of right ends upwards: of n rollouts, the last
of which alone is right, the mean is 1 / n and the unbiased estimate (s - 1) / (n - 1) = 0 (negative
binomial sampling; Haldane, Biometrika 33, 1945). The baseline stays the plain mean. For, given s
and n, right ends are fair samples of right ends and wrong ones of wrong ends; so, whatever the
baseline b, the expected update of a problem that succeeds with probability p is
  (s (1 - b) / p + (n - s) b / (1 - p)) grad p,
never in another direction than that of its success rate. With b = 1 / n it is
  (n - 1) / n / (p (1 - p)) grad p:
rare successes weigh more, about as in the gradient of log p. With b = 0 nothing would be learnt
from wrong ends. (The released `q_mean` has b = 0 where a group has but one end: `first_wave` = 1
wants `train.uniform_trees` = 'drop'.) Rates over several steps (train/memory.py) are sums of right
ends over sums of ends, which stopping does not bias in the long run (Wald's identity).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from ds_jax.config import BudgetConfig, Config, TrainConfig

Group = TypeVar('Group')


class Standing(NamedTuple):
  """What a step has of one problem so far."""

  num_right: int  # verified ends, cached solutions included
  num_wrong: int
  num_asked: int  # rollouts, or ends that its tree was to collect
  rate: float  # estimated share of right ends of further rollouts, in [0, 1]

  @property
  def has_contrast(self) -> bool:
    """Whether it has right and wrong ends."""
    return self.num_right > 0 and self.num_wrong > 0


class Tally(NamedTuple):
  """What a step has so far."""

  standings: Sequence[Standing]  # of each problem that it drew
  num_waiting: int  # groups with contrast that the step before left
  num_batches: int
  num_tokens: int  # generated
  rollout_tokens: float  # of a rollout, on average


class Division(NamedTuple, Generic[Group]):
  """The groups with contrast of a step, by what becomes of them."""

  learnt: list[Group]
  waiting: list[Group]  # for the next step
  unused: list[Group]


def is_dynamic(config: TrainConfig) -> bool:
  """Whether a step learns from groups with contrast alone, and samples until it has enough."""
  return config.max_refills > 0 or config.contrast_groups > 0


def first_rollouts(rate: float, num_cached: int, config: Config) -> int:
  """Returns how many rollouts a problem begins with, if it begins with rollouts.

  Cached solutions take the place of some of K rollouts, but not of few ones: without any rollout
  the rate of a problem that is nearly always solved would stay what it is.

  Args:
    rate: estimated share of right ends of the problem.
    num_cached: solutions that the rollouts are mixed with.
    config: of the run.
  """
  if begins_short(rate, config.budget):
    return config.budget.first_wave
  return max(0, config.search.num_trajectories - num_cached)


def begins_short(rate: float, config: BudgetConfig) -> bool:
  """Whether a problem of that rate begins with few rollouts instead of K or a tree."""
  return config.first_wave > 0 and rate >= config.first_wave_rate


def most_rollouts(config: Config) -> int:
  """Returns how many rollouts a problem may get in a step."""
  budget = config.budget
  return max(config.search.num_trajectories, budget.first_wave, budget.max_rollouts)


def further_rollouts(tally: Tally, config: Config) -> list[int]:
  """Returns how many rollouts each problem gets in a further wave; all 0: there is none.

  If the step's bound of tokens does not allow for all, the worthiest problems come first.
  """
  if _has_enough(tally, config.train):
    return [0] * len(tally.standings)
  wanted = [_missing(standing, config.budget) for standing in tally.standings]
  left = _affordable(tally, config.budget)
  if left is None:
    return wanted
  worths = [worth(*entry) for entry in zip(tally.standings, wanted, strict=True)]
  counts = [0] * len(wanted)
  for i in sorted(range(len(wanted)), key=lambda i: -worths[i]):
    counts[i] = min(wanted[i], left)
    left -= counts[i]
  return counts


def wants_batch(tally: Tally, config: Config) -> bool:
  """Whether a step draws another batch of problems."""
  has_draws = tally.num_batches <= config.train.max_refills
  is_spent = 0 < config.budget.max_tokens <= tally.num_tokens
  return has_draws and not is_spent and not _has_enough(tally, config.train)


def worth(standing: Standing, count: int) -> float:
  """Returns what so many more rollouts of a problem are worth,
    P(they bring contrast) * p (1 - p)^2,
  the second factor being how much a step may raise its success rate p (Knapsack RL,
  arXiv:2509.25849): most for problems that fail often, nothing for hopeless and for solved ones.
  """
  p = standing.rate
  some_right, some_wrong = 1 - (1 - p) ** count, 1 - p**count
  if standing.num_right:
    chance = some_wrong
  elif standing.num_wrong:
    chance = some_right
  else:
    chance = some_right + some_wrong - (count > 0)
  return chance * p * (1 - p) ** 2


def divide(drawn: Sequence[Group], num_waiting: int, config: TrainConfig) -> Division[Group]:
  """Divides the groups with contrast that a step drew.

  Args:
    drawn: in their order.
    num_waiting: groups that the step before left, at most `batch_problems`; they are learnt from.
    config: `contrast_groups`, `batch_problems` and `waiting_groups`.
  """
  room = len(drawn) if config.contrast_groups else config.batch_problems - num_waiting
  rest = drawn[room:]
  return Division(
    learnt=list(drawn[:room]),
    waiting=list(rest[: config.waiting_groups]),
    unused=list(rest[config.waiting_groups :]),
  )


def _has_enough(tally: Tally, config: TrainConfig) -> bool:
  """Whether as many groups have contrast as a step is to learn from."""
  if not is_dynamic(config):
    return False
  num_contrasting = sum(standing.has_contrast for standing in tally.standings)
  enough = config.contrast_groups or config.batch_problems
  return num_contrasting + tally.num_waiting >= enough


def _missing(standing: Standing, config: BudgetConfig) -> int:
  """How many rollouts a problem should get in a further wave."""
  is_settled = standing.has_contrast if config.until == 'contrast' else standing.num_right > 0
  if is_settled:
    return 0
  return max(0, min(config.wave, config.max_rollouts - standing.num_asked))


def _affordable(tally: Tally, config: BudgetConfig) -> int | None:
  """How many rollouts the step's bound of tokens still allows for; None: it has no bound."""
  if not config.max_tokens:
    return None
  return max(0, int((config.max_tokens - tally.num_tokens) / max(tally.rollout_tokens, 1)))
