"""Chain, an embedded task of confident, unrecoverable errors: apply functions one after the other.

A problem reads `7 f2 f0 f5`: a value and functions, each a permutation of the values that a policy
must know by heart. The worked solution has a line per function, `7 f2 40`, `40 f0 3`, `3 f5 19`.
There is one right path; after a wrong line no later one can be right. For the search a line is a
segment of SEGMENT_LENGTH tokens, filled up with `.`; the last line leaves room for the end token.

Of the facts (a function at a value) some are weak: the solutions of the warm start show their right
value now and then, and one and the same wrong value otherwise. So a policy imitates confident
mistakes, which only verified rollouts can correct.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np

from ds_jax.checks import InputError, check_choice
from ds_jax.config import ChainConfig
from ds_jax.data.splits import SPLITS, split_of
from ds_jax.types import Problem
from ds_jax.verify.grade_chain import FILLER

SEGMENT_LENGTH = 4  # T: `a f c` and a filler, or the end token

# A split gives up after so many draws without a new problem.
_MAX_STALLED = 10_000


@dataclasses.dataclass(frozen=True)
class Facts:
  """The functions of a task, and what the warm start shows of them. F functions, V values."""

  right: np.ndarray  # [F, V] int, a permutation per function
  wrong: np.ndarray  # [F, V] int, the systematic mistake at that fact; never the right value
  share_right: np.ndarray  # [F, V] float, how often a warm-start solution has the right value


def facts_of(config: ChainConfig) -> Facts:
  """Draws the facts of a task; they depend on its sizes, its weak facts and its seed alone."""
  shape = config.num_functions, config.num_values
  rng = np.random.default_rng([config.seed, len(SPLITS)])
  right = np.stack([rng.permutation(config.num_values) for _ in range(config.num_functions)])
  # A shift by 1..V-1 never gives the right value.
  wrong = (right + 1 + rng.integers(config.num_values - 1, size=shape)) % config.num_values
  is_weak = rng.random(shape) < config.weak_share
  shown = rng.uniform(config.weak_low, config.weak_high, size=shape)
  return Facts(right, wrong, np.where(is_weak, shown, 1.0))


def generate_problems(config: ChainConfig, split: str) -> Iterator[Problem]:
  """Yields the problems of one split, in an order that depends on nothing but `config`.

  No problem is in two splits, none twice in one. A smaller split is the beginning of a larger one.
  `solution` is right in `train` and `heldout`; in `warmstart` it shows weak facts as they are
  imitated.

  Raises:
    InputError: if fields contradict each other, or there are too few problems.
  """
  check_choice('split of chain', split, SPLITS)
  _check(config)
  facts = facts_of(config)
  rng = np.random.default_rng([config.seed, SPLITS.index(split)])
  num_wanted = getattr(config, f'num_{split}')
  seen: set[str] = set()
  num_stalled = 0
  while len(seen) < num_wanted:
    text = draw_text(config, rng)
    if split_of(text) != split or text in seen:
      num_stalled += 1
      if num_stalled == _MAX_STALLED:
        raise InputError(
          f'Only {len(seen)} of {num_wanted} problems of the {split} split of chain were found; '
          f'there are {config.num_values} * {config.num_functions}^{config.depth} problems in all. '
          f'Lower data.chain.num_{split}, or raise depth, num_functions or num_values.'
        )
      continue
    num_stalled = 0
    seen.add(text)
    problem = _make_problem(text, facts)
    if split == 'warmstart':
      shown = functools.partial(_shown_value, facts, rng)
      problem = dataclasses.replace(problem, solution=write_solution(text, shown))
    yield problem


def read_problem(text: str, facts: Facts) -> Problem:
  """The problem of a text such as '7 f2 f0 f5', with its right chain as gold answer.

  Raises:
    InputError: if it is not of that form, or has a value or a function that the task lacks.
  """
  num_functions, num_values = facts.right.shape
  words = text.split()
  values = {str(value) for value in range(num_values)}
  names = {function_name(index) for index in range(num_functions)}
  if len(words) < 2 or words[0] not in values or not names.issuperset(words[1:]):
    raise InputError(
      f"Expected a problem of chain like '7 f2 f0' with a value below {num_values} and functions "
      f'f0 to f{num_functions - 1}, got {text[:80]!r}.'
    )
  return _make_problem(' '.join(words), facts)


def draw_text(config: ChainConfig, rng: np.random.Generator) -> str:
  """A random problem: a value and `depth` functions."""
  value = int(rng.integers(config.num_values))
  functions = rng.integers(config.num_functions, size=config.depth).tolist()
  return ' '.join([str(value), *map(function_name, functions)])


def write_solution(text: str, value_of: Callable[[int, int], int]) -> str:
  """The lines of a problem as one text, all but the last filled up to SEGMENT_LENGTH.

  Args:
    text: of the problem.
    value_of: value_of(function, value), the value that follows in a line.
  """
  first, *names = text.split()
  value, lines = int(first), []
  for name in names:
    following = value_of(int(name[1:]), value)
    lines.append(f'{value} {name} {following}')
    value = following
  return f' {FILLER} '.join(lines)


def function_name(index: int) -> str:
  """The word for a function."""
  return f'f{index}'


def words(config: ChainConfig) -> list[str]:
  """All words of problems and solutions, for the tokenizer."""
  functions = [function_name(index) for index in range(config.num_functions)]
  return [':', FILLER, *functions, *map(str, range(config.num_values))]


def _make_problem(text: str, facts: Facts) -> Problem:
  """The problem of a text in the form of `draw_text`, with its right chain."""
  solution = write_solution(text, lambda function, value: int(facts.right[function, value]))
  answer = ' '.join(token for token in solution.split() if token != FILLER)
  return Problem(
    id=f'chain/{text.replace(" ", "_")}', prompt=text, answer=answer, solution=solution
  )


def _shown_value(facts: Facts, rng: np.random.Generator, function: int, value: int) -> int:
  """What a warm-start solution shows for a fact: its right value, or its systematic mistake."""
  is_right = rng.random() < facts.share_right[function, value]
  return int((facts.right if is_right else facts.wrong)[function, value])


def _check(config: ChainConfig) -> None:
  if config.weak_low > config.weak_high:
    raise InputError(
      f'data.chain.weak_low = {config.weak_low} is above weak_high = {config.weak_high}; lower it.'
    )
