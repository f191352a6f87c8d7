"""Countdown: problems that can be solved, splits that never overlap, files that read back."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pytest

from ds_jax.checks import InputError
from ds_jax.config import CountdownConfig, DataConfig
from ds_jax.data import countdown, sources
from ds_jax.data.countdown import generate_problems, problem_id, split_of
from ds_jax.interfaces import SilentProgress
from ds_jax.types import Verdict
from ds_jax.verify import grade_countdown

SMALL = CountdownConfig(num_train=200, num_heldout=80, num_warmstart=300)
CONFIGS = (
  SMALL,
  dataclasses.replace(SMALL, seed=7, num_train=50, num_heldout=150),
  dataclasses.replace(SMALL, num_numbers=3, max_number=9, max_value=50, seed=1),
  dataclasses.replace(SMALL, num_numbers=6, max_number=10, seed=2),
  dataclasses.replace(SMALL, num_numbers=2, max_number=40, max_value=1600, num_heldout=20),
)
OPERATIONS = {
  '+': lambda a, b: a + b,
  '-': lambda a, b: a - b,
  '*': lambda a, b: a * b,
  '/': lambda a, b: a // b if b and a % b == 0 else None,
}


def replay(problem, num_tokens, max_value):
  """Checks a solution line by line from the text alone; returns the last value."""
  target, _, numbers = problem.prompt.partition(' from ')
  remaining = [int(n) for n in numbers.split()]
  words = problem.solution.split()
  for depth in itertools.count():
    line = words[depth * num_tokens : (depth + 1) * num_tokens]
    a, op, b, equals, c = line[:5]
    result = OPERATIONS[op](int(a), int(b))
    assert equals == '=' and result == int(c) and 0 <= result <= max_value, line
    remaining.remove(int(a))
    remaining.remove(int(b))
    remaining = [result, *remaining]
    if len(remaining) == 1:
      assert line[5:] == [] and len(words) == depth * num_tokens + 5
      assert result == int(target)
      return
    stop = 6 + len(remaining)
    assert line[5] == '|' and list(map(int, line[6:stop])) == remaining, line
    assert set(line[stop:]) <= {'.'} and len(line) == num_tokens


@pytest.mark.parametrize('config', CONFIGS, ids=range(len(CONFIGS)))
def test_every_solution_replays(config):
  num_tokens = countdown.segment_length(config)
  for split in countdown.SPLITS:
    for problem in generate_problems(config, split):
      replay(problem, num_tokens, config.max_value)
      assert problem.answer == problem.prompt
      target, numbers = problem.metadata['target'], problem.metadata['numbers']
      assert target not in numbers
      assert problem.id.split('#')[0] == problem_id(numbers, target)


def test_the_verifier_agrees():
  for problem in generate_problems(SMALL, 'train'):
    assert grade_countdown.verify(problem.answer, problem.solution) is Verdict.CORRECT
    first_lines = ' '.join(problem.solution.split()[:18])
    assert grade_countdown.verify(problem.answer, first_lines) is Verdict.NO_ANSWER
    other_target = problem.answer.replace(str(problem.metadata['target']), '98', 1)
    if problem.metadata['target'] != 98:
      assert grade_countdown.verify(other_target, problem.solution) is Verdict.WRONG


def test_the_example_of_the_documentation():
  steps = [countdown.Step(*step) for step in ((3, '+', 5, 8), (7, '-', 2, 5), (5, '*', 8, 40))]
  assert countdown.write_solution([3, 5, 7, 2], steps, 9) == (
    '3 + 5 = 8 | 8 7 2 7 - 2 = 5 | 5 8 . 5 * 8 = 40'
  )
  assert countdown.write_solution([3, 5], steps[:1], 9) == '3 + 5 = 8'
  assert countdown.problem_text([3, 5, 7, 2], 24) == '24 from 3 5 7 2'
  assert problem_id([3, 5, 7, 2], 24) == 'countdown/24_from_2_3_5_7'


def test_splits_never_overlap_whatever_sizes_and_seeds():
  owners = collections.defaultdict(set)
  for config in CONFIGS:
    for split in countdown.SPLITS:
      for problem in generate_problems(config, split):
        numbers, target = problem.metadata['numbers'], problem.metadata['target']
        owners[target, tuple(sorted(numbers))].add(split)
        assert split_of(numbers[::-1], target) == split
  assert len(owners) > 1000 and all(len(splits) == 1 for splits in owners.values())
  assert set().union(*owners.values()) == set(countdown.SPLITS)


def test_train_and_heldout_are_full_and_distinct():
  for split, size in (('train', SMALL.num_train), ('heldout', SMALL.num_heldout)):
    problems = list(generate_problems(SMALL, split))
    assert len({problem.id for problem in problems}) == len(problems) == size
    assert {len(problem.metadata['numbers']) for problem in problems} == {4}


def test_warmstart_mixes_sizes_and_has_unique_ids():
  config = CountdownConfig(num_warmstart=3000, warmstart_full_share=0.7)
  problems = list(generate_problems(config, 'warmstart'))
  sizes = collections.Counter(len(p.metadata['numbers']) for p in problems)
  assert set(sizes) == {2, 3, 4}
  assert abs(sizes[4] / 3000 - 0.7) < 0.04 and abs(sizes[2] / 3000 - 0.15) < 0.04
  assert len({p.id for p in problems}) == 3000


def test_deterministic_and_a_smaller_split_begins_a_larger_one():
  larger = dataclasses.replace(SMALL, num_train=400, num_heldout=100, num_warmstart=400)
  for split in countdown.SPLITS:
    problems = list(generate_problems(SMALL, split))
    assert problems == list(generate_problems(SMALL, split))
    assert problems == list(generate_problems(larger, split))[: len(problems)]
    other = list(generate_problems(dataclasses.replace(SMALL, seed=1), split))
    assert problems != other


def test_count_equals_brute_force():
  config = CountdownConfig(num_numbers=3, max_number=4, max_value=20)

  def values(numbers):
    if len(numbers) == 1:
      return set(numbers)
    found = set()
    for i, j in itertools.permutations(range(len(numbers)), 2):
      rest = [n for k, n in enumerate(numbers) if k not in (i, j)]
      for op in OPERATIONS.values():
        c = op(numbers[i], numbers[j])
        if c is not None and 0 < c <= config.max_value:
          found |= values([c, *rest])
    return found

  problems = [
    (numbers, target)
    for numbers in itertools.combinations_with_replacement(range(1, 5), 3)
    for target in values(numbers)
    if target not in numbers
  ]
  for split in countdown.SPLITS:
    assert countdown.count_problems(config, 3, split) == sum(
      split_of(*problem) == split for problem in problems
    )


def test_too_few_problems_says_how_many_and_all_of_them_can_be_had():
  config = CountdownConfig(num_numbers=2, max_number=9, max_value=81)
  count = countdown.count_problems(config, 2, 'heldout')
  assert count > 3
  enough = dataclasses.replace(config, num_heldout=count)
  assert len(list(generate_problems(enough, 'heldout'))) == count
  with pytest.raises(InputError, match=f'only {count} distinct problems.*num_heldout'):
    list(generate_problems(dataclasses.replace(config, num_heldout=count + 1), 'heldout'))


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'num_numbers': 1}, 'num_numbers >= 2'),
    ({'max_value': 9}, 'smaller than max_number = 10'),
    ({'num_train': -1}, 'num_train >= 0'),
    ({'warmstart_full_share': 1.5}, r'warmstart_full_share in \[0, 1\]'),
    ({'seed': -1}, 'seed >= 0'),
    ({'num_numbers': 2, 'max_number': 1, 'warmstart_full_share': 1.0}, 'only . distinct'),
  ],
)
def test_bad_parameters_are_named(fields, message):
  with pytest.raises(InputError, match=message):
    for split in countdown.SPLITS:
      list(generate_problems(dataclasses.replace(SMALL, **fields), split))


def test_unknown_split_is_named():
  with pytest.raises(InputError, match="got 'held_out'. Did you mean 'heldout'"):
    generate_problems(SMALL, 'held_out')


def test_files_read_back_what_was_generated(tmp_path, capfd):
  config = DataConfig('countdown', countdown=SMALL)
  for split, name in (('train', 'train'), ('eval', 'heldout'), ('warmstart', 'warmstart')):
    loaded = sources.load_problems(config, split, str(tmp_path), progress=SilentProgress())
    assert loaded.problems == tuple(generate_problems(SMALL, name))
    assert loaded.skipped == () and loaded.num_rows == len(loaded.problems)
  assert capfd.readouterr() == ('', '')  # tfds does not talk into our progress
  first = sources.load_problems(
    dataclasses.replace(config, max_problems=7), 'train', str(tmp_path), progress=SilentProgress()
  )
  assert first.problems == tuple(itertools.islice(generate_problems(SMALL, 'train'), 7))


def test_built_once_and_each_config_in_its_own_folder(tmp_path):
  from ds_jax.data import countdown_builder

  builder = countdown_builder.prepare(SMALL, tmp_path)
  times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*array_record*')}
  assert len(times) == 3
  again = countdown_builder.prepare(SMALL, tmp_path)
  assert again.data_dir == builder.data_dir
  assert times == {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*array_record*')}
  for field in dataclasses.fields(CountdownConfig):
    value = getattr(SMALL, field.name)
    other = dataclasses.replace(SMALL, **{field.name: type(value)(value + 1)})
    assert countdown_builder.config_name(other) != countdown_builder.config_name(SMALL)


def test_an_interrupted_build_leaves_nothing_that_counts(tmp_path, monkeypatch):
  from ds_jax.data import countdown_builder

  def interrupted(config, split):
    yield from itertools.islice(generate_problems(config, split), 20)
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(countdown, 'generate_problems', interrupted)
    with pytest.raises(KeyboardInterrupt):
      countdown_builder.prepare(SMALL, tmp_path)
  builder = countdown_builder.prepare(SMALL, tmp_path)
  assert len(builder.as_data_source('train')) == SMALL.num_train


def test_a_data_dir_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match="Cannot write .* under data_dir '.*file'"):
    sources.load_problems(
      DataConfig('countdown', countdown=SMALL),
      'train',
      str(tmp_path / 'file'),
      progress=SilentProgress(),
    )


def test_a_full_disk_is_named_and_a_defect_is_not_hidden(tmp_path, monkeypatch):
  from ds_jax.data import countdown_builder

  for message, error in (
    ('Failed to finalize writing of split: No space left', InputError),
    ('something else', RuntimeError),
  ):

    def fail(self, message=message):
      raise RuntimeError(message)

    monkeypatch.setattr(countdown_builder.Countdown, 'download_and_prepare', fail)
    with pytest.raises(error, match=message) as caught:
      countdown_builder.prepare(SMALL, tmp_path)
    assert type(caught.value) is error


def test_no_tensorflow(tmp_path, root):
  program = f"""
import sys
from ds_jax.config import CountdownConfig, DataConfig
from ds_jax.data.sources import load_problems
from ds_jax.interfaces import SilentProgress
light = {{'jax', 'tensorflow_datasets', 'transformers', 'pyarrow'}} & set(sys.modules)
assert not light, light
task = CountdownConfig(num_train=5, num_heldout=5, num_warmstart=5)
config = DataConfig('countdown', countdown=task)
loaded = load_problems(config, 'train', {str(tmp_path)!r}, progress=SilentProgress())
assert len(loaded.problems) == 5
heavy = {{'tensorflow', 'torch'}} & set(sys.modules)
assert not heavy, heavy
"""
  subprocess.run([sys.executable, '-c', program], cwd=root, check=True)


def test_problems_are_not_trivial():
  """Targets are spread, and no value or operator is missing from the worked solutions."""
  problems = list(generate_problems(CountdownConfig(num_warmstart=4000), 'warmstart'))
  words = collections.Counter(word for p in problems for word in p.solution.split())
  assert all(words[op] > 300 for op in grade_countdown.OPERATORS)
  assert all(words[str(n)] > 0 for n in range(1, 100))
  targets = np.array([p.metadata['target'] for p in problems])
  assert np.bincount(targets).max() < 0.1 * len(targets)
