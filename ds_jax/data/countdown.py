"""Countdown, the embedded task: reach a target with every given number exactly once.

A problem reads `24 from 3 5 7 2` (target first). A worked solution has one line per operation:
`3 + 5 = 8 | 8 7 2` names the operation and, after the bar, what is left, the new value first; the
last line is the bare operation, `8 * 3 = 24`. For the search a line is a segment: it takes
T = num_numbers + 5 tokens, so every line but the last is filled up with `.`; the last one leaves
room for the end token. All tokens are joined by single spaces.

Values are whole numbers from 0 to max_value; subtraction never goes below zero and division is
exact. Solutions written here never pass through 0, from which nothing interesting follows.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ds_jax.checks import InputError, check_choice
from ds_jax.config import CountdownConfig
from ds_jax.data import splits
from ds_jax.data.splits import SPLITS
from ds_jax.types import Problem
from ds_jax.verify.grade_countdown import FILLER, OPERATORS

# After so many draws without a new problem they are counted, to see whether there are enough.
_STALL_DRAWS = 10_000


class Step(NamedTuple):
  """One operation, `a op b = c`."""

  a: int
  op: str
  b: int
  c: int

  def __str__(self) -> str:
    return f'{self.a} {self.op} {self.b} = {self.c}'


def segment_length(config: CountdownConfig) -> int:
  """T, the tokens of one line of a solution; also that of problems with fewer numbers."""
  return config.num_numbers + 5


def words(config: CountdownConfig) -> list[str]:
  """All words of problems and solutions, for the tokenizer; one for each value."""
  values = map(str, range(config.max_value + 1))
  return ['from', ':', *OPERATORS, '=', '|', FILLER, *values]


def problem_text(numbers: Sequence[int], target: int) -> str:
  """The user message; it is the gold answer too, since it holds all the verifier needs."""
  return f'{target} from {" ".join(map(str, numbers))}'


def problem_id(numbers: Sequence[int], target: int) -> str:
  """The same for every order of the numbers: `countdown/24_from_2_3_5_7`."""
  return f'countdown/{target}_from_{"_".join(map(str, sorted(numbers)))}'


def split_of(numbers: Sequence[int], target: int) -> str:
  """The one split that may use this problem: warmstart, train or heldout."""
  return splits.split_of(problem_id(numbers, target))


def possible_steps(x: int, y: int, max_value: int) -> list[Step]:
  """The operations that combine x and y to a value from 1 to max_value.

  x stands first in sums and products, the larger one in differences and quotients.
  """
  # Differences are not negative and quotients are whole, so only one order is possible.
  large, small = max(x, y), min(x, y)
  steps = [Step(x, '+', y, x + y), Step(x, '*', y, x * y)]
  if large > small:
    steps.append(Step(large, '-', small, large - small))
  if large % small == 0:
    steps.append(Step(large, '/', small, large // small))
  return [step for step in steps if step.c <= max_value]


def write_solution(numbers: Sequence[int], steps: Sequence[Step], num_tokens: int) -> str:
  """The worked solution as one line of text.

  Args:
    numbers: the given numbers, in the order of the prompt.
    steps: len(numbers) - 1 operations that use them up.
    num_tokens: T, to which every line but the last is filled up.
  """
  remaining = list(numbers)
  tokens: list[str] = []
  *inner_steps, last_step = steps
  for step in inner_steps:
    remaining.remove(step.a)
    remaining.remove(step.b)
    remaining.insert(0, step.c)
    line = [*str(step).split(), '|', *map(str, remaining)]
    fillers = [FILLER] * (num_tokens - len(line))
    tokens += line + fillers
  return ' '.join([*tokens, str(last_step)])


def draw_problem(
  rng: np.random.Generator, num_numbers: int, config: CountdownConfig
) -> tuple[list[int], int, list[Step]] | None:
  """Draws numbers, then random operations until one value is left: the target.

  Returns:
    Numbers, target and steps; None where the operations run out (every result is larger than
    max_value) or where the target is one of the given numbers.
  """
  numbers = (1 + rng.integers(config.max_number, size=num_numbers)).tolist()
  uniforms = iter(rng.random(3 * num_numbers).tolist())  # in one call, since calls are slow
  remaining, steps = list(numbers), []
  while len(remaining) > 1:
    # A uniform number in [0, 1) times the length is an index.
    x = remaining.pop(int(next(uniforms) * len(remaining)))
    y = remaining.pop(int(next(uniforms) * len(remaining)))
    options = possible_steps(x, y, config.max_value)
    if not options:
      return None
    step = options[int(next(uniforms) * len(options))]
    steps.append(step)
    remaining.insert(0, step.c)
  (target,) = remaining
  return None if target in numbers else (numbers, target, steps)


def generate_problems(config: CountdownConfig, split: str) -> Iterator[Problem]:
  """Yields the problems of one split, in an order that depends on nothing but `config`.

  A smaller split of the same seed is the beginning of a larger one. Problems of `train` and
  `heldout` differ in their (sorted) numbers or target and all have num_numbers numbers.
  `warmstart` has 2..num_numbers numbers and may repeat small problems; ids of repeats end in #2,
  #3, ….

  Raises:
    InputError: if a field is out of range, or there are too few problems.
  """
  check_choice('split of countdown', split, SPLITS)
  _check(config)
  rng = np.random.default_rng([config.seed, SPLITS.index(split)])
  if split == 'warmstart':
    return _warmstart_problems(config, rng)
  return _distinct_problems(config, split, rng)


def count_problems(config: CountdownConfig, num_numbers: int, split: str) -> int:
  """Counts the distinct problems with `num_numbers` numbers that a split can have."""
  reachable: dict[tuple[int, ...], set[int]] = {}
  count = 0
  for numbers in _multisets(config.max_number, num_numbers):
    # A target is none of the numbers, as in `draw_problem`.
    targets = _reachable_values(numbers, config.max_value, reachable) - set(numbers)
    count += sum(split_of(numbers, target) == split for target in targets)
  return count


def _check(config: CountdownConfig) -> None:
  """Raises InputError if a field is out of range."""
  if config.num_numbers < 2 or config.max_number < 1:
    raise InputError(
      'Expected data.countdown.num_numbers >= 2 and max_number >= 1, got '
      f'{config.num_numbers} and {config.max_number}.'
    )
  if config.max_value < config.max_number:
    raise InputError(
      f'data.countdown.max_value = {config.max_value} is smaller than max_number = '
      f'{config.max_number}; the given numbers must be values too: raise max_value.'
    )
  if not 0 <= config.warmstart_full_share <= 1:
    raise InputError(
      f'Expected data.countdown.warmstart_full_share in [0, 1], got {config.warmstart_full_share}.'
    )
  for name in ('num_train', 'num_heldout', 'num_warmstart', 'seed'):
    value = getattr(config, name)
    if value < 0:
      raise InputError(f'Expected data.countdown.{name} >= 0, got {value}.')


def _distinct_problems(
  config: CountdownConfig, split: str, rng: np.random.Generator
) -> Iterator[Problem]:
  """Yields problems of `train` or `heldout`, each once."""
  num_wanted = config.num_train if split == 'train' else config.num_heldout
  seen: set[str] = set()
  num_stalled = 0  # draws since the last new problem
  is_counted = False
  while len(seen) < num_wanted:
    problem = _draw_from(split, config.num_numbers, config, rng=rng)
    if problem is not None and problem.id not in seen:
      seen.add(problem.id)
      num_stalled = 0
      yield problem
    else:
      num_stalled += 1
    if num_stalled == _STALL_DRAWS and not is_counted:
      _check_enough(config, config.num_numbers, split, num_wanted=num_wanted)
      is_counted = True  # there are enough: the rare ones turn up in time


def _warmstart_problems(config: CountdownConfig, rng: np.random.Generator) -> Iterator[Problem]:
  """Yields problems of all sizes, of which small ones may come several times."""
  counts: collections.Counter[str] = collections.Counter()
  for _ in range(config.num_warmstart):
    is_full = config.num_numbers == 2 or rng.random() < config.warmstart_full_share
    num_numbers = config.num_numbers if is_full else int(rng.integers(2, config.num_numbers))
    problem, num_draws = None, 0
    while problem is None:
      problem = _draw_from('warmstart', num_numbers, config, rng=rng)
      num_draws += 1
      if num_draws == _STALL_DRAWS:
        _check_enough(config, num_numbers, 'warmstart', num_wanted=1)
    counts[problem.id] += 1
    count = counts[problem.id]
    if count > 1:
      problem = dataclasses.replace(problem, id=f'{problem.id}#{count}')
    yield problem


def _draw_from(
  split: str, num_numbers: int, config: CountdownConfig, *, rng: np.random.Generator
) -> Problem | None:
  """Draws a problem; None where that fails or it belongs to another split."""
  drawn = draw_problem(rng, num_numbers, config)
  if drawn is None:
    return None
  numbers, target, steps = drawn
  if split_of(numbers, target) != split:
    return None
  text = problem_text(numbers, target)
  return Problem(
    id=problem_id(numbers, target),
    prompt=text,
    answer=text,
    solution=write_solution(numbers, steps, segment_length(config)),
    metadata={'numbers': tuple(numbers), 'target': target},
  )


def _check_enough(
  config: CountdownConfig, num_numbers: int, split: str, *, num_wanted: int
) -> None:
  """Raises InputError if a split can have fewer problems than are wanted."""
  count = count_problems(config, num_numbers, split)
  if count < num_wanted:
    raise InputError(
      f'Countdown has only {count} distinct problems for its {split} split with {num_numbers} '
      f'numbers in 1..{config.max_number} and values up to {config.max_value}, but '
      f'{num_wanted} are needed; lower data.countdown.num_{split}, or raise max_number, '
      'max_value or num_numbers.'
    )


def _multisets(max_number: int, size: int) -> Iterator[tuple[int, ...]]:
  """Sorted tuples of `size` numbers in 1..max_number, repeats allowed."""
  if size == 0:
    yield ()
    return
  for last in range(1, max_number + 1):
    for smaller in _multisets(last, size - 1):
      yield (*smaller, last)


def _reachable_values(
  numbers: tuple[int, ...], max_value: int, known: dict[tuple[int, ...], set[int]]
) -> set[int]:
  """All values of expressions that use the sorted `numbers` exactly once; fills `known`."""
  if len(numbers) == 1:
    return set(numbers)
  if numbers not in known:
    values: set[int] = set()
    # Bit i of the mask puts number i into the left part. The last number stays in the right one,
    # so that no pair of parts is tried twice.
    for mask in range(1, 2 ** (len(numbers) - 1)):
      left = tuple(n for i, n in enumerate(numbers) if mask >> i & 1)
      right = tuple(n for i, n in enumerate(numbers) if not mask >> i & 1)
      left_values = _reachable_values(left, max_value, known)
      right_values = _reachable_values(right, max_value, known)
      for x, y in itertools.product(left_values, right_values):
        values.update(step.c for step in possible_steps(x, y, max_value))
    known[numbers] = values
  return known[numbers]
