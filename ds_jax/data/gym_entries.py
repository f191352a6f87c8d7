"""Generated problems of reasoning-gym, dealt to the splits by what they ask.

A task draws from a set of problems that may be small, and problem `i` of seed `s` is mostly that of
`i - 1` of seed `s + 1`: seeds keep no splits apart. So the question itself decides: a hash of it
says whether it is held out. A question is never in both splits, each comes once, and what a split
holds depends neither on the size of the other nor on its own (a smaller one is its beginning).

It runs as a program of its own, which fixes the hashes of strings: some tasks walk through sets.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from ds_jax.checks import InputError, first_line
from ds_jax.data.overlap import normal_question
from ds_jax.verify import gym_tasks

SEEDS = {'train': 0, 'eval': 1 << 30}  # of the first draw of a split; numpy takes 32 bits
_CHUNK = 500  # entries of one data set of the gym, as is its default
_HELD_OUT = 64  # of the 256 values of a byte: a quarter of the questions
# Draws in a row whose questions are known already, after which a task has no others.
_MIN_PATIENCE, _PATIENCE_SHARE = 500, 2  # of the number of questions known


@dataclasses.dataclass(frozen=True)
class Draws:
  """What generating a split came to."""

  num_problems: int  # of the split
  num_known: int  # different questions drawn, those of the other split included
  is_exhausted: bool  # no further ones came
  error: str  # the last of the task's own; '': none


def is_held_out(question: str) -> bool:
  """Whether a question belongs to the split `eval`; case and white space do not matter."""
  return hashlib.sha256(normal_question(question).encode()).digest()[0] < _HELD_OUT


def draw(task: str, split: str, count: int) -> Iterator[tuple[int, dict[str, Any]] | Draws]:
  """Yields (number of the draw, entry) of `count` different problems, then a Draws.

  Args:
    task: name and options.
    split: 'train' or 'eval'.
    count: how many; fewer come where the task has no more.

  Raises:
    InputError: if there is no such task or option.
  """
  known: set[str] = set()
  num_problems = num_fruitless = number = 0
  error = ''
  while num_problems < count and num_fruitless < _patience(len(known)):
    if number % _CHUNK == 0:
      dataset = gym_tasks.make_dataset(task, seed=SEEDS[split] + number, size=_CHUNK)
    random.seed(number)  # a few tasks draw from the generators that all share
    np.random.seed(number)
    num_fruitless += 1
    try:
      entry = dataset[number % _CHUNK]
    except Exception as e:  # a few tasks find no problem for some seeds
      entry, error = None, f'{type(e).__name__}: {first_line(e)}'
    if entry is not None and normal_question(entry['question']) not in known:
      known.add(normal_question(entry['question']))
      num_fruitless = 0
      if is_held_out(entry['question']) == (split == 'eval'):
        yield number, entry
        num_problems += 1
    number += 1
  yield Draws(num_problems, len(known), num_problems < count, error)


def _patience(num_known: int) -> int:
  return max(_MIN_PATIENCE, _PATIENCE_SHARE * num_known)


def main() -> None:
  """Writes one JSON line per problem, then one that says what it came to, or what was wrong."""
  task, split, count = json.loads(sys.argv[1])
  output = os.fdopen(os.dup(1), 'w', encoding='utf-8')
  os.dup2(2, 1)  # what a task prints is no row
  with contextlib.closing(output):
    try:
      for drawn in draw(task, split, count):
        if isinstance(drawn, Draws):
          _write(output, {'draws': dataclasses.asdict(drawn)})
          continue
        number, entry = drawn
        answer = json.dumps(entry, sort_keys=True, default=plain_value)
        _write(output, {'number': number, 'question': entry['question'], 'answer': answer})
    except InputError as e:
      _write(output, {'failed': str(e)})


def _write(output: Any, row: dict[str, Any]) -> None:
  output.write(json.dumps(row) + '\n')


def plain_value(value: Any) -> Any:
  """What JSON has no form for: numbers of numpy as numbers, sets in order, the rest as text."""
  if hasattr(value, 'tolist'):
    return value.tolist()
  if isinstance(value, set | frozenset):
    return sorted(value, key=repr)
  return str(value)


if __name__ == '__main__':
  main()
