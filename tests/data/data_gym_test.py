"""The source `gym:TASK`: splits that share nothing, options, the same problems everywhere."""

from __future__ import annotations

import contextlib
import json
import sys

import pytest

from ds_jax.checks import InputError
from ds_jax.config import DataConfig, VerifyConfig
from ds_jax.data import gym_entries
from ds_jax.data.sources import load_problems
from ds_jax.testing.notes import Notes
from ds_jax.types import Gold, Verdict
from ds_jax.verify import gym_tasks
from ds_jax.verify.pool import VerifierPool

# What reasoning-gym is to ds_jax, small: problem i of seed s is problem i - 1 of seed s + 1.
FAKE_GYM = """
import dataclasses, random
from typing import Literal, Optional

@dataclasses.dataclass
class Legs:
  num_animals: int = 3
  share: float = 0.5
  is_hard: bool = False
  style: Literal['plain', 'rich'] = 'plain'
  operators: tuple = ('+', '-')
  weights: list[float] = dataclasses.field(default_factory=lambda: [0.5])
  ranges: list[tuple[float, float]] = ()
  limit: Optional[int] = None
  seed: Optional[int] = None
  size: int = 500

  def validate(self):
    assert self.num_animals > 0, 'num_animals must be positive'

class LegsDataset:
  def __init__(self, config):
    self.config = config

  def __getitem__(self, i):
    seed = self.config.seed + i
    animals = list({'ant', 'bee', 'cow', 'dog', 'eel', 'fox'})
    question = f'{seed % 10 ** self.config.num_animals} legs of {animals[seed % 6]},\\n{animals}?'
    print('noise')
    if seed % 7 == 3:
      raise RuntimeError('no problem')
    return {'question': question, 'answer': str(seed), 'metadata': {'drawn': random.random()}}

  def score_answer(self, answer, entry):
    return float(answer == entry['answer']) or 0.1

class FewDataset(LegsDataset):
  def __getitem__(self, i):
    return {'question': f'Coin {i % 2}?', 'answer': 'x' * i, 'metadata': {}}

DATASETS = {'legs': (LegsDataset, Legs), 'few': (FewDataset, Legs)}
"""


@pytest.fixture
def gym(tmp_path, monkeypatch):
  """A small package in place of reasoning-gym, for this process and those that it starts."""
  folder = tmp_path / 'site' / 'reasoning_gym'
  folder.mkdir(parents=True)
  (folder / '__init__.py').write_text('')
  (folder / 'factory.py').write_text(FAKE_GYM)
  monkeypatch.syspath_prepend(str(folder.parent))
  for name in [n for n in sys.modules if n.split('.')[0] == 'reasoning_gym']:
    monkeypatch.delitem(sys.modules, name)
  yield folder
  for name in [n for n in sys.modules if n.split('.')[0] == 'reasoning_gym']:
    del sys.modules[name]


def load(source, split='train', max_problems=40, progress=None, **fields):
  config = DataConfig(source=source, max_problems=max_problems, **fields)
  return load_problems(config, split, '', progress=progress or Notes()).problems


def test_splits_share_no_question_and_depend_on_no_size_or_hash(gym, monkeypatch):
  train, held = load('gym:legs'), load('gym:legs', 'eval')
  assert len(train) == len(held) == 40
  texts = [p.prompt for p in train + held]
  assert len({' '.join(text.split()) for text in texts}) == 80
  assert train[0].answer.verifier == 'gym:legs' and json.loads(train[0].answer)['answer'] == '1'
  assert train[0].id == 'legs/0/1' and '[' in train[0].prompt
  monkeypatch.setenv('PYTHONHASHSEED', '5')
  assert load('gym:legs', max_problems=15) == train[:15]
  assert load('gym:legs', 'eval', max_problems=15) == held[:15]
  with_suffix = load('gym:legs?num_animals=3&size=2', instruction='Box it.', prompt_field='no')
  assert [p.prompt for p in with_suffix] == [f'{p.prompt} Box it.' for p in train[:2]]


def test_a_task_with_few_problems_gives_what_it_has(gym):
  notes = Notes()
  splits = []
  for split in ('train', 'eval'):
    with contextlib.suppress(InputError):
      splits += load('gym:few', split, progress=notes)
  assert sorted(p.prompt for p in splits) == ['Coin 0?', 'Coin 1?']
  assert 'no more than 2 different questions' in notes.messages[0]
  with pytest.raises(InputError, match='no more than 2 different questions.*0 are in the split'):
    for split in ('train', 'eval'):
      load('gym:few', split)
  assert load('gym:legs?num_animals=1', progress=notes)
  assert 'RuntimeError: no problem' in notes.messages[-1]


@pytest.mark.parametrize(
  'options, expected',
  [
    ('num_animals=7', {'num_animals': 7}),
    ('share=1&is_hard=true', {'share': 1.0, 'is_hard': True}),
    ('style=rich', {'style': 'rich'}),
    ('operators=+,%26', {'operators': ('+', '&')}),
    ('weights=[1,0.25]', {'weights': [1.0, 0.25]}),
    ('weights=1,2', {'weights': [1.0, 2.0]}),
    ('ranges=[[0,1],[2,3.5]]', {'ranges': [(0.0, 1.0), (2.0, 3.5)]}),
    ('limit=3', {'limit': 3}),
    ('limit=none', {'limit': None}),
  ],
)
def test_options_are_typed_by_the_task(gym, options, expected):
  config = gym_tasks.make_dataset(f'legs?{options}', seed=1).config
  values = {name: getattr(config, name) for name in expected}
  assert values == expected and list(map(type, values.values())) == list(
    map(type, expected.values())
  )


@pytest.mark.parametrize(
  'source, words',
  [
    ('gym:leg', "no task 'leg'. Did you mean 'legs'"),
    ('gym:legs?num_animal=2', "no option 'num_animal'. Did you mean 'num_animals'.*share, style"),
    ('gym:legs?num_animals=two', "num_animals of gym:legs: expected a whole number, got 'two'"),
    ('gym:legs?num_animals=2.5', 'expected a whole number'),
    ('gym:legs?is_hard=maybe', 'expected one of true, false'),
    ('gym:legs?style=x', 'expected one of plain, rich'),
    ('gym:legs?weights=[1,', 'Option weights'),
    ('gym:legs?ranges=1,2', 'Option ranges'),
    ('gym:legs?share', 'Expected share=VALUE once'),
    ('gym:legs?share=1&share=2', 'Expected share=VALUE once'),
    ('gym:legs?seed=2', "no option 'seed'"),
    ('gym:legs?num_animals=0', 'refuses gym:legs.num_animals=0: num_animals must be positive'),
    ('gym:legs?size=x', "Expected size of gym:legs.size=x to be a number of problems, got 'x'"),
    ('gym:composite', 'Name the tasks of a mixture themselves'),
  ],
)
def test_bad_options_are_named(gym, source, words):
  with pytest.raises(InputError, match=words):
    load(source)


def test_what_is_missing_is_named(gym):
  with pytest.raises(InputError, match='data.max_problems'):
    load('gym:legs', max_problems=0)
  with pytest.raises(InputError, match='no worked solutions'):
    load('gym:legs', 'warmstart')
  (gym / 'factory.py').write_text('raise ImportError("not here")')
  with pytest.raises(InputError, match=r'ds_jax\[gym\]'):
    load('gym:legs')


def test_the_own_scorer_judges_beside_another_verifier(gym):
  (problem,) = load('gym:legs?num_animals=2', max_problems=1)
  answer = json.loads(problem.answer)['answer']
  items = [(problem.answer, answer), (problem.answer, '\\boxed{77}'), ('1/2', '\\boxed{0.5}')]
  items += [(str(problem.answer), answer)]  # the same text in a file is no gold of the gym
  with VerifierPool(VerifyConfig(verifier='math', num_workers=1)) as pool:
    verdicts = [future.result(60) for future in pool.verify(items)]
  right, wrong = Verdict.CORRECT, Verdict.WRONG
  assert verdicts == [right, wrong, right, Verdict.NO_ANSWER]


def test_golds_survive_copies():
  import copy
  import pickle

  gold = Gold('{"answer": "1"}', 'gym:legs')
  for copied in (copy.deepcopy(gold), pickle.loads(pickle.dumps(gold))):
    assert copied == gold and copied.verifier == 'gym:legs'


# The real package.

# Fast ones of every category, with small sets of problems and large ones.
TASKS = (
  'ab acre advanced_geometry aiw base_conversion basic_arithmetic bitwise_arithmetic caesar_cipher '
  'calendar_arithmetic chain_sum coin_flip count_bits count_primes cryptarithm decimal_arithmetic '
  'dice family_relationships fraction_simplification gcd graph_color group_anagrams gsm_symbolic '
  'isomorphic_strings largest_island lcm leg_counting letter_counting list_functions '
  'mini_sudoku n_queens number_sequence palindrome_generation prime_factorization products '
  'propositional_logic self_reference simple_equations spell_backward string_splitting syllogism '
  'time_intervals tower_of_hanoi word_sorting'
).split()


def split_of(task, split, count):
  drawn = list(gym_entries.draw(task, split, count))
  return [entry for _, entry in drawn[:-1]], drawn[-1]


def test_train_and_eval_problems_of_real_tasks_never_overlap():
  pytest.importorskip('reasoning_gym', reason="needs the extra 'gym': pip install reasoning-gym")
  overlaps, counts = {}, {}
  for task in TASKS:
    train, train_draws = split_of(task, 'train', 60)
    held, held_draws = split_of(task, 'eval', 30)
    texts = [' '.join(e['question'].split()).casefold() for e in train]
    held_texts = {' '.join(e['question'].split()).casefold() for e in held}
    overlaps[task] = len(held_texts & set(texts))
    counts[task] = (len(set(texts)), len(held_texts))
    assert len(texts) == len(set(texts)) == train_draws.num_problems
    assert (len(texts) == 60 or train_draws.is_exhausted) and held_texts
    assert len(held_texts) == 30 or held_draws.is_exhausted
  assert len(overlaps) >= 30 and not any(overlaps.values()), overlaps
  assert sum(count == (60, 30) for count in counts.values()) >= 30, counts


def test_problems_of_real_tasks_repeat_in_another_process():
  pytest.importorskip('reasoning_gym', reason="needs the extra 'gym': pip install reasoning-gym")
  for task in ('zebra_puzzles', 'word_sorting'):
    problems = load(f'gym:{task}', max_problems=3)
    here, _ = split_of(task, 'train', 3)
    answers = [json.dumps(e, sort_keys=True, default=gym_entries.plain_value) for e in here]
    assert [p.answer for p in problems] == answers
